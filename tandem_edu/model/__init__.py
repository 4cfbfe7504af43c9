"""Floor 1: the models. Configs, masks, the cache, layers, `Transformer`, and what drafts with its help."""

from tandem_edu.model.attached import PrimaryReader as PrimaryReader
from tandem_edu.model.cache import Cache as Cache
from tandem_edu.model.config import TransformerConfig as TransformerConfig
from tandem_edu.model.cross_attending import Glide as Glide
from tandem_edu.model.eagle import Eagle as Eagle
from tandem_edu.model.eagle import EagleState as EagleState
from tandem_edu.model.early_exit import EarlyExit as EarlyExit
from tandem_edu.model.tandem import Tandem as Tandem
from tandem_edu.model.tandem import TandemCache as TandemCache
from tandem_edu.model.transformer import Embedding as Embedding
from tandem_edu.model.transformer import Transformer as Transformer
from tandem_edu.model.variants import BlockPrediction as BlockPrediction
from tandem_edu.model.variants import Joint as Joint
