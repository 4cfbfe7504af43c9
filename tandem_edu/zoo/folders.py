"""A trained model in its own folder, and a trained router in a file.

folder/model.safetensors   the weights and the config
folder/tokenizer.json      turns text into the model's token ids
folder/card.json           recipe, data, figures; and the path of its primary, if it has one
router.safetensors         the weights, and the drafter and block length that the router was trained for
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
from tokenizers import Tokenizer

from tandem_edu.data import load_tokenizer, save_tokenizer
from tandem_edu.decode import LearnedRouter
from tandem_edu.drafters import Model, load_model, save_model
from tandem_edu.errors import BadInput, require
from tandem_edu.files import FilePath, read_json, write_json
from tandem_edu.model import Transformer
from tandem_edu.model.weights import fill, named_arrays, read_arrays, write_arrays

Card = dict[str, Any]
ROUTER_FIELDS = {"drafter", "block_len", "n_features", "d_router", "top_k", "inputs", "target"}
MODEL, TOKENIZER, CARD = "model.safetensors", "tokenizer.json", "card.json"


class Saved(NamedTuple):
    """The contents of a folder, and the primary that its card names."""

    model: Model
    tokenizer: Tokenizer
    card: Card
    primary: Transformer | None


def save_folder(
    folder: FilePath, model: Model, tokenizer: Tokenizer, card: Card, primary: FilePath | None = None
) -> None:
    """Write the folder; the card last, so that a folder with a card is complete.

    `primary` is the primary's folder, stored relative to this one. Raises `BadInput` if the folder cannot be
    written, and without it for a model that shares its primary's embedding.
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

    Raises `BadInput` for a missing, incomplete or damaged folder, and for a primary with another tokenizer.
    """
    folder = Path(folder)
    expected, fix = f"a model saved in the folder {folder}", "train one: tandem-edu train primary"
    require(folder.is_dir(), expected, "no such folder", f"{fix} --out FOLDER")
    fix = "its training has not ended: run the command again"
    require((folder / CARD).is_file(), expected, f"no {CARD} in it", fix)
    card = read_json(folder / CARD, "card", "train or copy the model again")
    if primary is None and card.get("primary"):
        primary = folder / card["primary"]
    tokenizer = load_tokenizer(folder / TOKENIZER)
    if primary is None:
        return Saved(load_model(folder / MODEL), tokenizer, card, None)
    primary_model, primary_tokenizer = load_primary(primary)
    same, fix = primary_tokenizer.to_str() == tokenizer.to_str(), "pass the primary it was trained with"
    require(same, f"a primary with the tokenizer of {folder}", f"{primary} with another", fix)
    model = load_model(folder / MODEL, embedding=primary_model.embedding)
    return Saved(model, tokenizer, card, primary_model)


def load_primary(folder: FilePath) -> tuple[Transformer, Tokenizer]:
    """A primary and its tokenizer. Raises `BadInput` for a model that is no primary but reads one."""
    model, tokenizer, *_ = load_folder(folder)
    if not isinstance(model, Transformer):
        raise BadInput(f"a primary in {folder}", f"a {model.kind}", "pass the folder of the primary itself")
    return model, tokenizer


def save_router(router: LearnedRouter, path: FilePath) -> None:
    """Write `router` to `path`, whole or not at all. Raises `BadInput` if it cannot be written."""
    made_for = dict(zip(("drafter", "block_len"), router.made_for, strict=True))
    sizes = {"n_features": len(router.mean), "d_router": len(router.b_in), "top_k": router.top_k}
    kind = {"inputs": router.inputs, "target": router.target}
    write_arrays(named_arrays(router), {"router": made_for | sizes | kind}, path)


def load_router(path: FilePath) -> LearnedRouter:
    """The router that `save_router` wrote. Raises `BadInput` if there is none at `path`, or a damaged one."""
    arrays, metadata = read_arrays(path)
    saved, fix = metadata.get("router", {}), "train one: tandem-edu train router"
    missing = ", ".join(sorted(ROUTER_FIELDS - {*saved}))
    got = f"one without its {missing}" if saved else "another kind of file"
    require({*saved} == ROUTER_FIELDS, f"a router at {path}", got, fix)
    made_for = saved.pop("drafter"), saved.pop("block_len")
    build = lambda key: LearnedRouter(made_for=made_for, **saved, key=key)
    return fill(eqx.filter_eval_shape(build, jax.random.key(0)), arrays, path)
