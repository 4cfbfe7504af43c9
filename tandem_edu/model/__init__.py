"""Floor 1: the models. Configs, masks, the cache, layers, `Transformer` and `Tandem`."""

from tandem_edu.model.cache import Cache as Cache
from tandem_edu.model.config import TransformerConfig as TransformerConfig
from tandem_edu.model.tandem import Tandem as Tandem
from tandem_edu.model.tandem import TandemCache as TandemCache
from tandem_edu.model.transformer import Transformer as Transformer
from tandem_edu.model.transformer import Vocabulary as Vocabulary
