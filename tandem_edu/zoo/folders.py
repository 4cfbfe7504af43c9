"""A trained model in its own folder: weights, tokenizer, and a card that says where it comes from.

folder/model.safetensors   the weights and the config
folder/tokenizer.json      turns text into the model's token ids
folder/card.json           recipe, data, figures; and the path of its primary, if it has one
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from tandem_edu.data import load_tokenizer, save_tokenizer
from tandem_edu.data.files import read_json, write_json
from tandem_edu.drafters import Model, load_model, save_model
from tandem_edu.errors import BadInput, require
from tandem_edu.model import Transformer
from tandem_edu.model.weights import FilePath

MODEL, TOKENIZER, CARD = "model.safetensors", "tokenizer.json", "card.json"


class Saved(NamedTuple):
    """The contents of a folder, and the primary that its card names."""

    model: Model
    tokenizer: Tokenizer
    card: dict[str, Any]
    primary: Transformer | None


def save_folder(
    folder: FilePath,
    model: Model,
    tokenizer: Tokenizer,
    card: dict[str, Any],
    primary: FilePath | None = None,
) -> None:
    """Write the folder; the card last, so that a folder with a card is complete.

    `primary` is the primary's folder, stored relative to this one. Raises `BadInput` if the folder cannot be
    written, and for a model that shares its primary's embedding if no primary is given.
    """
    folder = Path(folder)
    complete = primary is not None or not model.config.shared_vocab
    require(complete, "the folder of the primary whose embedding the model shares", None, "pass primary=")
    with suppress(OSError):  # if the folder cannot be written, save_model says so
        (folder / CARD).unlink()
    save_model(model, folder / MODEL)
    save_tokenizer(tokenizer, folder / TOKENIZER)
    where = None if primary is None else os.path.relpath(Path(primary).resolve(), folder.resolve())
    write_json(folder / CARD, {**card, "primary": where})


def load_folder(folder: FilePath, primary: FilePath | None = None) -> Saved:
    """Read a folder that `save_folder` wrote, and its primary; `primary` is that one's folder, if it moved.

    Raises `BadInput` for a folder that is missing, incomplete or damaged, and for a primary with another
    tokenizer.
    """
    folder = Path(folder)
    expected, fix = (
        f"a model saved in the folder {folder}",
        "train one: tandem-edu train primary --out FOLDER",
    )
    require(folder.is_dir(), expected, "no such folder", fix)
    complete, fix = (folder / CARD).is_file(), "its training has not ended: run the command again"
    require(complete, expected, f"no {CARD} in it", fix)
    card = read_json(folder / CARD, "card", "train or copy the model again")
    if primary is None and card.get("primary"):
        primary = folder / card["primary"]
    tokenizer = load_tokenizer(folder / TOKENIZER)
    if primary is None:
        return Saved(load_model(folder / MODEL), tokenizer, card, None)
    primary_model, primary_tokenizer = load_primary(primary)
    same = primary_tokenizer.to_str() == tokenizer.to_str()
    fix = "pass the primary it was trained with"
    require(same, f"a primary with the tokenizer of {folder}", f"{primary} with another", fix)
    model = load_model(folder / MODEL, embedding=primary_model.embedding)
    return Saved(model, tokenizer, card, primary_model)


def load_primary(folder: FilePath) -> tuple[Transformer, Tokenizer]:
    """A primary and its tokenizer. Raises `BadInput` for a model that is no primary but reads one."""
    model, tokenizer, *_ = load_folder(folder)
    if not isinstance(model, Transformer):
        kind, fix = getattr(model, "kind", ""), "pass the folder of the primary itself"
        raise BadInput(f"a primary in {folder}", f"a model of kind {kind}", fix)
    return model, tokenizer
