"""An ordinary Llama: config, masks, cache, layers, `Transformer`."""

from tandem_edu.model.cache import Cache
from tandem_edu.model.config import TransformerConfig
from tandem_edu.model.transformer import Embedding, LanguageModel, Transformer
