"""The trained pair that comes with the package, and its text: what comes with Python, in three parts.

The folder `pair` has tokenizer.json, and for each model NAME.safetensors (float16) and NAME.json, its card.
All share the primary's embedding and output layer. `python -m studies zoo` trains them again.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from tandem_edu.data import Corpus, load_text, load_tokenizer, save_tokenizer
from tandem_edu.decode import LearnedRouter
from tandem_edu.drafters import Tandem, load_model, save_model
from tandem_edu.errors import require
from tandem_edu.files import FilePath, read_json, write_json
from tandem_edu.model import Transformer
from tandem_edu.zoo.folders import TOKENIZER, load_router, save_router

FOLDER = Path(__file__).parent / "pair"
MODELS = ("primary", "secondary", "distilled", "tandem_ce", "tandem", "mid_size")


@dataclass(frozen=True)
class Pair:
    """Models that belong together. Both tandems read the primary's states 1, 4, 8, and their own history."""

    tokenizer: Tokenizer
    primary: Transformer
    secondary: Transformer  # trained on the text alone
    distilled: Transformer  # the same, distilled from the primary: the control of `tandem`
    tandem_ce: Tandem  # the same as a tandem, trained on the text alone
    tandem: Tandem  # the same as a tandem, distilled from the primary
    mid_size: Transformer  # between secondary and primary (the paper's Otter)
    router: LearnedRouter  # for `tandem` with block_len=8
    card: dict[str, dict[str, Any]]  # by name: data, recipe, held-out figures, versions


def load_pair(folder: FilePath | None = None) -> Pair:
    """The shipped pair, or one that `save_pair` wrote. Raises `BadInput` if a part is missing or damaged."""
    folder = FOLDER if folder is None else Path(folder)
    fix = "install the package again"
    require((folder / TOKENIZER).is_file(), f"a pair in {folder}", "none, or an incomplete one", fix)
    models: dict[str, Any] = {"primary": load_model(folder / "primary.safetensors")}
    for name in MODELS[1:]:
        models[name] = load_model(folder / f"{name}.safetensors", models["primary"].embedding)
    return Pair(
        tokenizer=load_tokenizer(folder / TOKENIZER),
        router=load_router(folder / "router.safetensors"),
        card={name: read_json(folder / f"{name}.json", "card", fix) for name in (*MODELS, "router")},
        **models,
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


class Texts(NamedTuple):
    """One corpus in three parts."""

    train: Corpus  # about nine tenths of the files; the models were trained on these
    dev: Corpus  # for choices
    test: Corpus  # for reports; no choice has used it


def texts() -> Texts:
    """The standard library's topics and source files (`load_text("stdlib")`) in three parts.

    A file is in the same part whichever Python reads it, because the split is by name. Raises `BadInput`
    where Python was installed without its source files.
    """
    train, held_out = load_text("stdlib").train_valid(0.1, seed=0)
    test, dev = held_out.train_valid(0.5, seed=1)
    return Texts(train, dev, test)


def held_out_text() -> Corpus:
    """Text that no model of the shipped pair was trained on: the development part."""
    return texts().dev
