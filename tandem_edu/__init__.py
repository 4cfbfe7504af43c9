"""Tandem Transformers (arXiv:2402.08644) to train, decode with and take apart.

The whole idea in one file is `tandem_edu/nano.py`. The names used most are here. Everything else is in a
subpackage: `te.model`, `te.data`, `te.drafters`, `te.decode`, `te.train`, `te.measure`, `te.zoo`, `te.show`,
`te.classroom`. Each is imported when it is first used.
"""

from importlib import import_module

TYPE_CHECKING = False  # type checkers know this name
if TYPE_CHECKING:
    from tandem_edu.data import load_text as load_text
    from tandem_edu.decode import ConfidenceRule as ConfidenceRule
    from tandem_edu.decode import EntropyRule as EntropyRule
    from tandem_edu.decode import Sampling as Sampling
    from tandem_edu.decode import Trace as Trace
    from tandem_edu.decode import block_generate as block_generate
    from tandem_edu.decode import generate as generate
    from tandem_edu.decode import speculate as speculate
    from tandem_edu.decode import stream as stream
    from tandem_edu.drafters import Draft as Draft
    from tandem_edu.drafters import Drafter as Drafter
    from tandem_edu.drafters import Eagle as Eagle
    from tandem_edu.drafters import EarlyExit as EarlyExit
    from tandem_edu.drafters import Glide as Glide
    from tandem_edu.drafters import PrimaryReader as PrimaryReader
    from tandem_edu.drafters import PromptLookup as PromptLookup
    from tandem_edu.drafters import Tandem as Tandem
    from tandem_edu.errors import BadInput as BadInput
    from tandem_edu.model import Transformer as Transformer
    from tandem_edu.model import TransformerConfig as TransformerConfig
    from tandem_edu.zoo import from_hf as from_hf
    from tandem_edu.zoo import load_pair as load_pair
    from tandem_edu.zoo import to_hf as to_hf

_NAMES = {
    "data": "load_text",
    "decode": "ConfidenceRule EntropyRule Sampling Trace block_generate generate speculate stream",
    "drafters": "Draft Drafter Eagle EarlyExit Glide PrimaryReader PromptLookup Tandem",
    "errors": "BadInput",
    "model": "Transformer TransformerConfig",
    "zoo": "from_hf load_pair to_hf",
}
_SUBPACKAGES = (*_NAMES, "classroom", "measure", "show", "train")
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str):
    if name in _SUBPACKAGES:
        return import_module(f"{__name__}.{name}")
    if name in _MODULE_OF:
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value  # asked for only once
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBPACKAGES, *_MODULE_OF])
