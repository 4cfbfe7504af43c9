"""A training run: from a recipe, a model and a text to the trained model and its history.

Killed at any moment and started again with the same folder, a run ends with the same weights, bit for
bit, as if it had never stopped.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from tqdm import tqdm

from tandem_edu.data import Batches
from tandem_edu.errors import BadInput
from tandem_edu.model import Transformer
from tandem_edu.model.weights import Model
from tandem_edu.progress import progress_bar
from tandem_edu.train.checkpoint import NAME, History, fingerprint, load_checkpoint, save_checkpoint
from tandem_edu.train.checks import check_models, checked_texts, made_folder
from tandem_edu.train.evaluation import evaluate
from tandem_edu.train.recipes import Recipe
from tandem_edu.train.step import State, init_state, split, train_step


class TrainResult(NamedTuple):
    """The trained model, of the class given, and its history: JSON-able, a dict an evaluation."""

    model: Any
    history: History


class Diverged(BadInput):
    """The loss is no longer a finite number."""


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
    - `primary`: frozen. Needed by a model that reads it, and where the recipe distils.
    - `folder`: keeps a checkpoint of each evaluation; a run that was broken off goes on from there.
    - `progress`: show a bar. `on_eval`: called with each new entry of the history.

    An entry of the history has `step` (steps done), `tokens` (read so far), `seconds`, `train_loss`
    (the objective's mean since the entry before) and what `evaluate` gives: `valid_loss`,
    `valid_accuracy` and, with a primary, `valid_agreement`; a model that reads the primary does so at
    the recipe's first `block_len`, offset 0.

    Raises `BadInput` if model, recipe, primary and texts do not fit together, or if the folder has
    another run's checkpoint; `Diverged` if the loss is not finite.

    >>> import jax
    >>> from tandem_edu.model import TransformerConfig
    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=1, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=16)
    >>> tiny = Recipe("tiny", steps=4, learning_rate=0.01, warmup_steps=1, seq_len=16, eval_every=2)
    >>> text = np.arange(200) % 8
    >>> trained, history = train(Transformer(cfg, key=jax.random.key(0)), tiny, text, text, progress=False)
    >>> [entry["step"] for entry in history], history[-1]["tokens"]
    ([2, 4], 512)
    """
    check_models(model, recipe, primary)
    batches, held_out = checked_texts(model, recipe, tokens, valid_tokens)
    start, history = init_state(model, recipe), []
    place = None if folder is None else made_folder(folder)
    identity = {}
    if place is not None:
        identity = fingerprint(model, recipe, tokens, valid_tokens, primary)
        start, history = load_checkpoint(place, start, identity)
    run = _Run(recipe, split(model)[1], primary, batches, held_out, place, history)
    state = start
    for state, entry in run.evaluations(start, progress):
        history.append(entry)
        if place is not None:
            save_checkpoint(place, state, history, identity)
        if on_eval is not None:
            on_eval(dict(entry))
    return TrainResult(run.model(state), history)


@dataclass(frozen=True)
class _Run:
    """What stays the same while the state goes on, and the history, which grows."""

    recipe: Recipe
    rest: PyTree
    primary: Transformer | None
    batches: Batches
    held_out: np.ndarray
    place: Path | None
    history: History

    def model(self, state: State) -> Model:
        """The model with the arrays of `state`."""
        return eqx.combine(state.trained, self.rest)

    def evaluations(self, state: State, progress: bool) -> Iterator[tuple[State, dict[str, Any]]]:
        """Train on from `state`; at each evaluation give the state and an entry for the history."""
        began = time.perf_counter() - (self.history[-1]["seconds"] if self.history else 0.0)
        tokens = self.recipe.batch_size * self.recipe.seq_len
        with progress_bar(
            show=progress,
            total=self.recipe.tokens,
            initial=int(state.step) * tokens,
            desc=self.recipe.name,
            unit=" tokens",
            unit_scale=True,
        ) as bar:
            for now, losses in self._stretches(state, bar):
                step, scores = int(now.step), self._scores(now)
                yield (
                    now,
                    {
                        "step": step,
                        "tokens": step * tokens,
                        "seconds": time.perf_counter() - began,
                        "train_loss": math.fsum(losses) / len(losses),
                        **scores,
                    },
                )

    def _stretches(self, state: State, bar: tqdm) -> Iterator[tuple[State, list[float]]]:
        """The steps from one evaluation to the next: the state after them, and their losses."""
        losses: list[Any] = []
        for step in range(int(state.step), self.recipe.steps):
            given = (self.rest, self.primary, jnp.asarray(self.batches(step)))
            state, loss = train_step(given, state, self.recipe, self.recipe.objective_at(step))
            losses.append(loss)
            # Only now is the loss before asked for: meanwhile the processor is busy with this step.
            if len(losses) > 1:
                losses[-2] = self._finite(losses[-2], step)
                bar.set_postfix(loss=f"{losses[-2]:.3f}", refresh=False)
            bar.update(self.recipe.batch_size * self.recipe.seq_len)
            done = step + 1
            if done % self.recipe.eval_every == 0 or done == self.recipe.steps:
                losses[-1] = self._finite(losses[-1], done)
                yield state, losses
                losses = []

    def _scores(self, state: State) -> dict[str, float]:
        block_len = self.recipe.block_lens[0] if self.recipe.block_lens else 1
        model, batch_size = self.model(state), self.recipe.batch_size
        scores = evaluate(model, self.held_out, self.primary, block_len, batch_size)
        # A gradient that overflowed in the very last step shows here, before anything is kept.
        self._finite(scores["valid_loss"], int(state.step))
        return scores

    def _finite(self, loss: Any, step: int) -> float:
        """The loss as a number. `Diverged` if it is not finite; steps count from 1."""
        if math.isfinite(loss := float(loss)):
            return loss
        kept = "no checkpoint was kept"
        if self.place is not None and self.history:
            kept = f"the last good checkpoint is {self.place / NAME} (step {self.history[-1]['step']})"
        mend = "try a smaller learning_rate, more warmup_steps or a smaller clip_norm"
        raise Diverged("a finite loss", f"{loss} at step {step}", f"{mend}; {kept}")
