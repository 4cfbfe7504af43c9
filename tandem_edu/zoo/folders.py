"""A trained model in a folder of its own: weights, tokenizer, and a card that says where it comes from.

folder/model.safetensors   the weights and the config
folder/tokenizer.json      what turns text into its token ids
folder/card.json           recipe, data, figures, versions; and where its primary lies, if it has one
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from tandem_edu.data import load_tokenizer, save_tokenizer
from tandem_edu.errors import BadInput, require
from tandem_edu.files import written_whole
from tandem_edu.model import Transformer
from tandem_edu.model.weights import Model, describe, load_model, save_model

MODEL, TOKENIZER, CARD = "model.safetensors", "tokenizer.json", "card.json"


@dataclass(frozen=True)
class Saved:
    """What a folder holds; where the card names a primary's folder, that model too."""

    model: Model
    tokenizer: Tokenizer
    card: dict[str, Any]
    primary: Transformer | None = None


class SavedPrimary(NamedTuple):
    """A primary and its tokenizer."""

    model: Transformer
    tokenizer: Tokenizer


def save_folder(
    folder: str | os.PathLike[str],
    model: Model,
    tokenizer: Tokenizer,
    card: dict[str, Any],
    primary: str | os.PathLike[str] | None = None,
) -> None:
    """Write the folder; the card last, so that a folder with a card is complete.

    `primary` is the folder of the primary, remembered relative to this one. Raises `BadInput` if the
    disk is full or may not be written, and for a model with a borrowed vocabulary but no primary.
    """
    folder = Path(folder)
    lent = primary is not None or not model.config.shared_vocab
    require(lent, "the folder of the primary whose vocabulary the model borrows", None, "pass primary=")
    with suppress(OSError):  # no such folder, or none that may be written: save_model says so
        (folder / CARD).unlink()
    save_model(model, folder / MODEL)
    save_tokenizer(tokenizer, folder / TOKENIZER)
    where = None if primary is None else os.path.relpath(Path(primary).resolve(), folder.resolve())
    text = json.dumps({**card, "primary": where}, indent=2, ensure_ascii=False)
    with written_whole(folder / CARD) as part:
        part.write_text(text + "\n", "utf-8")


def load_folder(folder: str | os.PathLike[str], primary: str | os.PathLike[str] | None = None) -> Saved:
    """Read a folder that `save_folder` wrote, its primary too; `primary` says where that is now.

    Raises `BadInput` for a folder that is not there, incomplete or damaged, and for a primary whose tokens
    mean something else.
    """
    folder = Path(folder)
    card = _read_card(folder)
    if primary is None and card.get("primary"):
        primary = folder / card["primary"]
    tokenizer = load_tokenizer(folder / TOKENIZER)
    if primary is None:
        return Saved(load_model(folder / MODEL), tokenizer, card)
    owner = load_primary(primary)
    same = owner.tokenizer.to_str() == tokenizer.to_str()
    fix = "name the primary that it was trained with"
    require(same, f"a primary with the tokenizer of {folder}", f"{primary} with another", fix)
    model = load_model(folder / MODEL, vocabulary=owner.model.vocabulary)
    return Saved(model, tokenizer, card, owner.model)


def load_primary(folder: str | os.PathLike[str]) -> "SavedPrimary":
    """`load_folder` of a model that can be a primary. Raises `BadInput` for one that reads another."""
    saved = load_folder(folder)
    if not isinstance(saved.model, Transformer):
        kind, fix = describe(saved.model)["kind"], "name the folder of the primary itself"
        raise BadInput(f"a primary in {folder}", f"a model of kind {kind}", fix)
    return SavedPrimary(saved.model, saved.tokenizer)


def _read_card(folder: Path) -> dict[str, Any]:
    expected = f"a model saved in the folder {folder}"
    require(folder.is_dir(), expected, "no such folder", "train one: tandem-edu train primary --out FOLDER")
    path = folder / CARD
    require(path.is_file(), expected, f"no {CARD} in it", "its training has not ended: run that again")
    try:
        card = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise BadInput(
            f"JSON in {path}", error, "the file is damaged: train or copy the model again"
        ) from error
    require(isinstance(card, dict), f"a JSON object in {path}", type(card).__name__, "copy the model again")
    return card
