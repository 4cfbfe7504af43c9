"""A training run: from a recipe, a model and a text to the trained model and its history.

Killed at any moment and started again with the same folder, a run ends with the same weights, bit for
bit, as if it had never stopped.
"""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

# Not tqdm.auto: in a notebook without ipywidgets that warns, and this one works everywhere.
from tqdm import tqdm

from tandem_edu.data import Batches, windows
from tandem_edu.errors import BadInput, require
from tandem_edu.model import Tandem, Transformer
from tandem_edu.model.tandem import check_same_vocabulary
from tandem_edu.model.weights import Model
from tandem_edu.train.checkpoint import NAME, History, fingerprint, load_checkpoint, save_checkpoint
from tandem_edu.train.evaluation import evaluate
from tandem_edu.train.recipes import Recipe
from tandem_edu.train.step import State, init_state, split, train_step


class TrainResult(NamedTuple):
    """The trained model and its history, a JSON-able list with one dict per evaluation."""

    model: Model
    history: History


class Diverged(BadInput):
    """The loss is no longer a number."""


def train(
    model: Model,
    recipe: Recipe,
    tokens: np.ndarray,
    valid_tokens: np.ndarray,
    *,
    primary: Transformer | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
    on_eval: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult:
    """Train `model` by `recipe`; neither it nor `primary` is changed.

    **Arguments:**

    - `tokens`, `valid_tokens`: rows of ids from `tandem_edu.data.encode`, to train on and held out.
    - `primary`: frozen. Needed by a tandem, and where the recipe distils.
    - `folder`: keeps a checkpoint of each evaluation; a run that was broken off goes on from there.
    - `progress`: show a bar. `on_eval`: called with each new entry of the history.

    An entry of the history has `step` (steps done), `tokens` (read so far), `seconds`, `train_loss`
    (the objective's mean since the entry before) and what `evaluate` gives: `valid_loss`,
    `valid_accuracy` and, with a primary, `valid_agreement`; a tandem at the recipe's first
    `block_len`, offset 0.

    Raises `BadInput` if model, recipe, primary and texts do not fit together, or if the folder has
    another run's checkpoint; `Diverged` if the loss is not finite.

    >>> from tandem_edu.model import TransformerConfig
    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=1, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=16)
    >>> tiny = Recipe("tiny", steps=4, learning_rate=0.01, warmup_steps=1, seq_len=16, eval_every=2)
    >>> text = np.arange(200) % 8
    >>> trained, history = train(Transformer(cfg, key=jax.random.key(0)), tiny, text, text, progress=False)
    >>> [entry["step"] for entry in history], history[-1]["tokens"]
    ([2, 4], 512)
    """
    _check_models(model, recipe, primary)
    batches, held_out = _texts(model, recipe, tokens, valid_tokens)
    state, history = init_state(model, recipe), []
    place, run = _made(folder), {}
    if place:
        run = fingerprint(model, recipe, tokens, valid_tokens, primary)
        state, history = load_checkpoint(place, state, run)
    rest = split(model)[1]
    began = time.perf_counter() - (history[-1]["seconds"] if history else 0.0)
    with _bar(recipe, int(state.step), progress) as bar:
        for trained, losses in _stretches(recipe, (rest, primary), batches, state, history, place, bar):
            state = trained
            scores = _scores(recipe, eqx.combine(state.trained, rest), primary, held_out)
            # A gradient that overflowed in the last step shows here, before anything is kept.
            _check_finite(scores["valid_loss"], int(state.step), history, place)
            entry = {
                "step": int(state.step),
                "tokens": int(state.step) * recipe.batch_size * recipe.seq_len,
                "seconds": time.perf_counter() - began,
                "train_loss": math.fsum(losses) / len(losses),
            }
            history.append(entry | scores)
            if place:
                save_checkpoint(place, state, history, run)
            if on_eval is not None:
                on_eval(dict(history[-1]))
    return TrainResult(eqx.combine(state.trained, rest), history)


def _finite(loss, step: int) -> float:
    """The loss of a step, counted from 1, as a number."""
    loss = float(loss)
    if not math.isfinite(loss):
        raise FloatingPointError(f"{loss} at step {step}")
    return loss


def _diverged(error: FloatingPointError, history: History, folder) -> Diverged:
    kept = "no checkpoint was kept"
    if folder is not None and history:
        kept = f"the last good checkpoint is {Path(folder, NAME)} (step {history[-1]['step']})"
    mend = f"{kept}; try a smaller learning_rate, more warmup_steps or a smaller clip_norm"
    return Diverged("a finite loss", error, mend)


def _made(folder: str | os.PathLike[str]) -> Path:
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"a folder at {place}", error.strerror, "choose another place") from error
    return place


def _check_models(model: Model, recipe: Recipe, primary: Transformer | None) -> None:
    tandem = isinstance(model, Tandem)
    mend = 'recipe("tandem-distil") is for a Tandem, recipe("secondary") for a Transformer'
    if tandem:
        require(bool(recipe.block_lens), "a recipe with block_lens for a Tandem", "one without", mend)
    else:
        got = f"block_lens={recipe.block_lens}"
        require(not recipe.block_lens, "a recipe without block_lens for a Transformer", got, mend)
    needed = "for a Tandem" if tandem else "for a recipe that distils (kl above 0)"
    mend = "pass primary="
    require(primary is not None or not (tandem or recipe.uses_teacher), f"a primary {needed}", None, mend)
    for each in filter(None, (model, primary)):
        expected = f"seq_len of at most max_len = {each.config.max_len}"
        fits = recipe.seq_len <= each.config.max_len
        require(fits, expected, recipe.seq_len, "shorten seq_len in the recipe")
    if primary is None:
        return
    check_same_vocabulary(primary.config, model.config)
    if isinstance(model, Tandem):
        mend = "build the Tandem with primary.config, or pass the primary it was built for"
        got = f"{primary.config} where the tandem has {model.primary_config}"
        require(primary.config == model.primary_config, "the tandem's own primary", got, mend)


def _texts(
    model: Model, recipe: Recipe, tokens: np.ndarray, valid_tokens: np.ndarray
) -> tuple[Batches, np.ndarray]:
    batches = Batches(tokens, recipe.batch_size, recipe.seq_len, recipe.seed)
    try:
        held_out = windows(valid_tokens, recipe.seq_len, recipe.eval_windows)
    except BadInput as error:
        raise BadInput(
            "valid_tokens to evaluate on", f"a text that is too small ({error})", "use more held-out text"
        ) from None
    # JAX would clamp an id that is too large, and train on the wrong token.
    highest = max(int(np.max(row)) for row in (tokens, valid_tokens))
    least = min(int(np.min(row)) for row in (tokens, valid_tokens))
    vocab_size, mend = model.config.vocab_size, "use the tokenizer the model is sized for"
    got = f"ids {least}..{highest}"
    require(least >= 0 and highest < vocab_size, f"ids of a vocabulary of {vocab_size}", got, mend)
    return batches, held_out
