"""The pretrained pair that comes with the package, for a class to begin with.

tandem_edu/zoo/pair/tokenizer.json
tandem_edu/zoo/pair/NAME.safetensors   the weights as float16
tandem_edu/zoo/pair/NAME.json          a card: data, recipe, held-out figures, versions

All models speak through the primary's embedding and head. How they were made is in
`tandem_edu.reproduce`; `tandem-edu reproduce --stage zoo` makes them again.
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tandem_edu.data import load_tokenizer, save_tokenizer
from tandem_edu.decode import LearnedRouter
from tandem_edu.errors import BadInput, require
from tandem_edu.files import written_whole
from tandem_edu.model import Tandem, Transformer
from tandem_edu.model.weights import load_model, save_model
from tandem_edu.zoo.folders import TOKENIZER
from tandem_edu.zoo.routers import load_router, save_router

FOLDER = Path(__file__).parent / "pair"


@dataclass(frozen=True)
class Pair:
    """Models that belong together, and the tokenizer they speak."""

    tokenizer: Tokenizer
    primary: Transformer
    secondary: Transformer
    """Trained on the text alone."""
    distilled: Transformer
    """The same, trained to be like the primary: the control of `tandem`, with equal data, steps, losses."""
    tandem_ce: Tandem
    """The same as a tandem, trained on the text alone."""
    tandem: Tandem
    """The same as a tandem, trained to be like the primary. Both read its states 1, 4 and 8 and keep their
    own history."""
    mid_size: Transformer
    """Between secondary and primary (the paper's Otter)."""
    router: LearnedRouter
    """For `tandem` with block_len=8."""
    card: dict[str, dict[str, Any]]
    """Where each of them comes from, by its name here."""


MODELS = ("primary", "secondary", "distilled", "tandem_ce", "tandem", "mid_size")


def load_pair(folder: str | os.PathLike[str] | None = None) -> Pair:
    """The shipped pair, or one that `save_pair` wrote to `folder`.

    Raises `BadInput` if something of it is missing or damaged.
    """
    folder = FOLDER if folder is None else Path(folder)
    fix = "install the package again, or make it: tandem-edu reproduce --stage zoo"
    require((folder / TOKENIZER).is_file(), f"a pair in {folder}", "none, or an unfinished one", fix)
    card = {name: _card(folder / f"{name}.json") for name in (*MODELS, "router")}
    primary = load_model(folder / "primary.safetensors")
    if not isinstance(primary, Transformer):
        raise BadInput(f"a primary in {folder}", type(primary).__name__, fix)
    others: dict[str, Any] = {
        name: load_model(folder / f"{name}.safetensors", primary.vocabulary)
        for name in MODELS
        if name != "primary"
    }
    router = load_router(folder / "router.safetensors")
    tokenizer = load_tokenizer(folder / TOKENIZER)
    return Pair(tokenizer=tokenizer, primary=primary, router=router, card=card, **others)


def save_pair(pair: Pair, folder: str | os.PathLike[str]) -> None:
    """Write the pair, weights as float16; the tokenizer last, so that a folder with one is whole.

    Raises `BadInput` if the disk is full or may not be written.
    """
    folder = Path(folder)
    with suppress(OSError):  # no such folder, or none that may be written: save_model says so
        (folder / TOKENIZER).unlink()
    for field in fields(pair):
        if field.name in MODELS:
            save_model(getattr(pair, field.name), folder / f"{field.name}.safetensors", half=True)
    save_router(pair.router, folder / "router.safetensors")
    for name, card in pair.card.items():
        with written_whole(folder / f"{name}.json") as part:
            part.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")
    save_tokenizer(pair.tokenizer, folder / TOKENIZER)


def _card(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"a card at {path}", error, "install the package again") from error
