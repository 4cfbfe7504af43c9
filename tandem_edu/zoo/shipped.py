"""The trained pair that comes with the package.

tandem_edu/zoo/pair/tokenizer.json
tandem_edu/zoo/pair/NAME.safetensors   weights as float16
tandem_edu/zoo/pair/NAME.json          a card: data, recipe, held-out figures, versions

All models share the primary's embedding and output layer. `python -m studies zoo` trains them again.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tandem_edu.data import load_tokenizer, save_tokenizer
from tandem_edu.data.files import read_json, write_json
from tandem_edu.decode import LearnedRouter
from tandem_edu.drafters import Tandem, load_model, save_model
from tandem_edu.errors import BadInput, require
from tandem_edu.model import Transformer
from tandem_edu.model.weights import FilePath
from tandem_edu.zoo.folders import TOKENIZER
from tandem_edu.zoo.routers import load_router, save_router

FOLDER = Path(__file__).parent / "pair"
MODELS = ("primary", "secondary", "distilled", "tandem_ce", "tandem", "mid_size")


@dataclass(frozen=True)
class Pair:
    """Models that belong together, and their tokenizer."""

    tokenizer: Tokenizer
    primary: Transformer
    secondary: Transformer
    """Trained on the text alone."""
    distilled: Transformer
    """The same, distilled from the primary: the control of `tandem`, with equal data, steps and losses."""
    tandem_ce: Tandem
    """The same as a tandem, trained on the text alone."""
    tandem: Tandem
    """The same as a tandem, distilled from the primary. Both tandems read its states 1, 4 and 8 and keep
    their own history."""
    mid_size: Transformer
    """Between secondary and primary (the paper's Otter)."""
    router: LearnedRouter
    """For `tandem` with block_len=8."""
    card: dict[str, dict[str, Any]]
    """Where each of them comes from, by its name here: data, recipe, held-out figures, versions."""


def load_pair(folder: FilePath | None = None) -> Pair:
    """The shipped pair, or one that `save_pair` wrote to `folder`.

    Raises `BadInput` if something of it is missing or damaged.
    """
    folder = FOLDER if folder is None else Path(folder)
    fix = "install the package again"
    require((folder / TOKENIZER).is_file(), f"a pair in {folder}", "none, or an incomplete one", fix)
    primary = load_model(folder / "primary.safetensors")
    if not isinstance(primary, Transformer):
        raise BadInput(f"a primary in {folder}", type(primary).__name__, fix)
    load = lambda name: load_model(folder / f"{name}.safetensors", primary.embedding)
    others: dict[str, Any] = {name: load(name) for name in MODELS if name != "primary"}
    return Pair(
        tokenizer=load_tokenizer(folder / TOKENIZER),
        primary=primary,
        router=load_router(folder / "router.safetensors"),
        card={name: read_json(folder / f"{name}.json", "card", fix) for name in (*MODELS, "router")},
        **others,
    )


def save_pair(pair: Pair, folder: FilePath) -> None:
    """Write the pair, weights as float16; the tokenizer last, so that a folder with one is complete.

    Raises `BadInput` if the folder cannot be written.
    """
    folder = Path(folder)
    with suppress(OSError):  # if the folder cannot be written, save_model says so
        (folder / TOKENIZER).unlink()
    for name in MODELS:
        save_model(getattr(pair, name), folder / f"{name}.safetensors", half=True)
    save_router(pair.router, folder / "router.safetensors")
    for name, card in pair.card.items():
        write_json(folder / f"{name}.json", card)
    save_tokenizer(pair.tokenizer, folder / TOKENIZER)
