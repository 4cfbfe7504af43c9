"""Tandem Transformers (arXiv:2402.08644), to train, decode with and take apart."""

from tandem_edu.model import Tandem as Tandem
from tandem_edu.model import Transformer as Transformer
from tandem_edu.model import TransformerConfig as TransformerConfig
