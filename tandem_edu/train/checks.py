"""What a person may get wrong before a run starts: one clear error each, and no step is wasted."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeGuard

import numpy as np

from tandem_edu.data import Batches, windows
from tandem_edu.errors import BadInput, require
from tandem_edu.model import Joint, PrimaryReader, Transformer
from tandem_edu.model.attached import check_block_len
from tandem_edu.model.tandem import check_same_vocabulary
from tandem_edu.model.weights import Model
from tandem_edu.train.recipes import Recipe


def check_models(model: Model, recipe: Recipe, primary: Transformer | None) -> None:
    """Raise `BadInput` unless model, recipe and primary fit together."""
    _check_kind(model, recipe)
    reads, name = reads_primary(model), type(model).__name__
    needed = f"for the {name}" if reads else "for a recipe that distils"
    needless = not (reads or recipe.uses_teacher)
    require(primary is not None or needless, f"a primary {needed}", None, "pass primary=")
    check_length(recipe.seq_len, model, primary)
    check_primary(model, primary)


def reads_primary(model: Model) -> TypeGuard[PrimaryReader]:
    """Whether it reads the primary given. A joint model has one of its own; the one given only teaches."""
    return isinstance(model, PrimaryReader) and not isinstance(model, Joint)


def check_primary(model: Model, primary: Transformer | None) -> None:
    """Raise `BadInput` unless it is what `model` reads, or of one vocabulary with a model that reads none."""
    name = type(model).__name__
    if primary is None:
        require(not reads_primary(model), f"the {name} with its primary", None, "pass primary=...")
        return
    check_same_vocabulary(primary.config, model.config)
    if reads_primary(model):
        got = f"{primary.config} where it has {model.primary_config}"
        fix = f"pass the primary it was built for, or build the {name} with primary.config"
        require(primary.config == model.primary_config, f"the {name}'s own primary", got, fix)


def check_length(seq_len: int, model: Model, primary: Transformer | None) -> None:
    """Raise `BadInput` for a sequence longer than a context."""
    own = model.primary if isinstance(model, Joint) else None
    for each in filter(None, (model, primary, own)):
        expected = f"seq_len of at most max_len = {each.config.max_len}"
        require(seq_len <= each.config.max_len, expected, seq_len, "take a smaller seq_len")


def check_ids(models: Iterable[Model], *rows: np.ndarray) -> None:
    """Raise `BadInput` for ids outside a model's vocabulary, which JAX would clamp or give as nan."""
    lowest, highest = (int(pick([pick(row) for row in rows])) for pick in (np.min, np.max))
    smallest = min(model.config.vocab_size for model in models)
    expected = f"ids of a vocabulary of {smallest}"
    fits = lowest >= 0 and highest < smallest
    require(fits, expected, f"{lowest}..{highest}", "use the tokenizer the model is sized for")


def checked_texts(
    models: Iterable[Model], recipe: Recipe, tokens: np.ndarray, valid_tokens: np.ndarray | None
) -> tuple[Batches, np.ndarray | None]:
    """The training batches and the held-out windows, if there is a held-out text.

    Raises `BadInput` if a text is shorter than a window or has ids outside a model's vocabulary.
    """
    batches = Batches(tokens, recipe.batch_size, recipe.seq_len, recipe.seed)
    if valid_tokens is None:
        check_ids(models, tokens)
        return batches, None
    try:
        held_out = windows(valid_tokens, recipe.seq_len, recipe.eval_windows)
    except BadInput as error:
        fix = "hold out more text or take a smaller seq_len"
        raise BadInput("valid_tokens to evaluate on", f"none that will do ({error})", fix) from None
    check_ids(models, tokens, valid_tokens)
    return batches, held_out


def made_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder, made if there is none. Raises `BadInput` if that cannot be done."""
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"a folder at {place}", error.strerror, "choose another place") from error
    return place


def _check_kind(model: Model, recipe: Recipe) -> None:
    fix = 'recipe("tandem-distil") is for what reads a primary, recipe("secondary") for a Transformer'
    if isinstance(model, PrimaryReader):
        expected = f"a recipe with block_lens for the {type(model).__name__}"
        require(bool(recipe.block_lens), expected, "one without", fix)
        check_block_len(model, max(recipe.block_lens))
    else:
        got = f"block_lens={recipe.block_lens}"
        require(not recipe.block_lens, "a recipe without block_lens for a Transformer", got, fix)
