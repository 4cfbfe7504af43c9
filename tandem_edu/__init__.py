"""Tandem Transformers (arXiv:2402.08644), to train, decode with and take apart.

The names used most are here. Everything else is in its room: `te.model`, `te.data`, `te.decode`,
`te.train`, `te.measure`, `te.zoo`; and, imported by name, `tandem_edu.show` and `tandem_edu.demo`, which
draw, and `tandem_edu.classroom`.
"""

from typing import TYPE_CHECKING

from tandem_edu.data import load_text as load_text
from tandem_edu.decode import ConfidenceRule as ConfidenceRule
from tandem_edu.decode import Drafter as Drafter
from tandem_edu.decode import EntropyRule as EntropyRule
from tandem_edu.decode import PromptLookup as PromptLookup
from tandem_edu.decode import Sampling as Sampling
from tandem_edu.decode import Trace as Trace
from tandem_edu.decode import block_generate as block_generate
from tandem_edu.decode import generate as generate
from tandem_edu.decode import speculate as speculate
from tandem_edu.decode import stream as stream
from tandem_edu.errors import BadInput as BadInput
from tandem_edu.model import Eagle as Eagle
from tandem_edu.model import EarlyExit as EarlyExit
from tandem_edu.model import Glide as Glide
from tandem_edu.model import Tandem as Tandem
from tandem_edu.model import Transformer as Transformer
from tandem_edu.model import TransformerConfig as TransformerConfig
from tandem_edu.zoo import from_hf as from_hf
from tandem_edu.zoo import load_pair as load_pair
from tandem_edu.zoo import to_hf as to_hf

if TYPE_CHECKING:
    from tandem_edu import measure as measure
    from tandem_edu import train as train


def __getattr__(name: str):
    """`te.measure` and `te.train`, imported when first asked for: who decodes need not wait for them."""
    if name in ("measure", "train"):
        from importlib import import_module

        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
