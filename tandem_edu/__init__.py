"""Tandem Transformers (arXiv:2402.08644) to train, decode with and take apart.

The whole idea in one file is `tandem_edu/nano.py`. The names used most are here. Everything else is in a
subpackage: `te.model`, `te.data`, `te.drafters`, `te.decode`, `te.train`, `te.measure`, `te.zoo`, `te.show`,
`te.classroom`. Each is imported when it is first used.
"""

from importlib import import_module

TYPE_CHECKING = False  # type checkers know this name
if TYPE_CHECKING:
    from tandem_edu.data import load_text
    from tandem_edu.decode import ConfidenceRule, Sampling, Trace, block_generate, generate, speculate, stream
    from tandem_edu.drafters import (
        DeepTandem,
        Draft,
        Drafter,
        Eagle,
        EarlyExit,
        Glide,
        PrimaryReader,
        PromptLookup,
        Tandem,
    )
    from tandem_edu.errors import BadInput
    from tandem_edu.model import Transformer, TransformerConfig
    from tandem_edu.zoo import from_hf, load_pair, to_hf

__all__ = [
    "BadInput", "ConfidenceRule", "DeepTandem", "Draft", "Drafter", "Eagle", "EarlyExit", "Glide",
    "PrimaryReader", "PromptLookup", "Sampling", "Tandem", "Trace", "Transformer", "TransformerConfig",
    "block_generate", "from_hf", "generate", "load_pair", "load_text", "speculate", "stream", "to_hf",
]  # fmt: skip
_NAMES = {
    "data": "load_text",
    "decode": "ConfidenceRule Sampling Trace block_generate generate speculate stream",
    "drafters": "DeepTandem Draft Drafter Eagle EarlyExit Glide PrimaryReader PromptLookup Tandem",
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
