"""A training run: from recipes, models and a text to the trained models and their histories.

Several models may be trained side by side on the same batches, which the frozen primary reads once for all
of them. A drafter and its control, or the variants of a study, need its states or its distributions anyway,
and for a small drafter those cost more than the drafter itself.

Killed at any moment and started again with the same folder, a run ends with the same weights, bit for
bit, as if it had never stopped.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from tqdm import tqdm

from tandem_edu.data import Batches
from tandem_edu.errors import BadInput, at_least, require
from tandem_edu.model import Transformer
from tandem_edu.model.weights import Model
from tandem_edu.progress import progress_bar
from tandem_edu.train.checkpoint import NAME, History, fingerprint, load_checkpoint, save_checkpoint
from tandem_edu.train.checks import check_models, checked_texts, made_folder
from tandem_edu.train.evaluation import evaluate_all
from tandem_edu.train.recipes import Recipe
from tandem_edu.train.step import State, init_state, split, train_step

SAME_BATCHES = ("steps", "batch_size", "seq_len", "seed", "micro_batches")
SAME_EVALUATIONS = ("eval_every", "eval_windows")
"""What the recipes of models that are trained together must agree in."""


class TrainResult(NamedTuple):
    """The trained model, of the class given, and its history: JSON-able, a dict an evaluation."""

    model: Any
    history: History


class Diverged(BadInput):
    """The loss, or a weight, is no longer a finite number."""


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
    another run's checkpoint; `Diverged` if the loss or a weight is not finite.

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
    hear = None if on_eval is None else lambda _, entry: on_eval(entry)
    how = {"primary": primary, "folder": folder, "progress": progress, "on_eval": hear}
    return train_together({recipe.name: (model, recipe)}, tokens, valid_tokens, **how)[recipe.name]


def train_together(
    models: Mapping[str, tuple[Model, Recipe]],
    tokens: np.ndarray,
    valid_tokens: np.ndarray | None = None,
    *,
    primary: Transformer | None = None,
    folder: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 250,
    progress: bool = True,
    on_eval: Callable[[str, dict[str, Any]], None] | None = None,
) -> dict[str, TrainResult]:
    """Each model trained by its recipe as `train` would, up to rounding, on batches that are read once.

    Arguments as of `train`, but that `on_eval` is called with a model's name and its entry. Without
    `valid_tokens` there are no evaluations, the histories stay empty, and a checkpoint is kept after every
    `checkpoint_every` steps instead. Raises `BadInput` where `train` does, for no model, and for recipes
    that differ in what decides the text they see; `Diverged` as `train` does.
    """
    require(bool(models), "at least one model", "none", "pass name: (model, recipe)")
    at_least(1, checkpoint_every, "checkpoint_every", "leave it out")
    recipes = {name: recipe for name, (_, recipe) in models.items()}
    for field in SAME_BATCHES if valid_tokens is None else SAME_BATCHES + SAME_EVALUATIONS:
        values = {name: getattr(recipe, field) for name, recipe in recipes.items()}
        require(len(set(values.values())) == 1, f"one {field} for all", values, "change the recipes")
    for model, recipe in models.values():
        check_models(model, recipe, primary)
        batches, held_out = checked_texts(model, recipe, tokens, valid_tokens)
    start = {name: init_state(*one) for name, one in models.items()}
    place, identity, kept = None, {}, {}
    if folder is not None:
        place = made_folder(folder)
        identity = {name: fingerprint(*one, tokens, valid_tokens, primary) for name, one in models.items()}
        start, kept = load_checkpoint(place, start, identity)
    histories: dict[str, History] = kept or {name: [] for name in models}
    every = checkpoint_every if held_out is None else recipe.eval_every
    rests = {name: split(model)[1] for name, (model, _) in models.items()}
    run = _Run(recipes, rests, primary, batches, held_out, every, place)
    last = next(iter(histories.values()))[-1:]
    states = start
    for states, entries in run.stretches(start, last[0]["seconds"] if last else 0.0, progress):
        for name, entry in entries.items():
            histories[name].append(entry)
        if place is not None:
            save_checkpoint(place, states, histories, identity)
        if on_eval is not None:
            for name, entry in entries.items():
                on_eval(name, dict(entry))
    return {name: TrainResult(model, histories[name]) for name, model in run.models(states).items()}


@dataclass(frozen=True)
class _Run:
    """What stays the same while the states go on."""

    recipes: dict[str, Recipe]
    rests: dict[str, PyTree]
    primary: Transformer | None
    batches: Batches
    held_out: np.ndarray | None
    every: int
    place: Path | None

    def models(self, states: dict[str, State]) -> dict[str, Model]:
        """The models with the arrays of `states`."""
        return {name: eqx.combine(states[name].trained, rest) for name, rest in self.rests.items()}

    def stretches(
        self, states: dict[str, State], seconds: float, progress: bool
    ) -> Iterator[tuple[dict[str, State], dict[str, dict[str, Any]]]]:
        """Train on from `states`, which took `seconds`; after each stretch give the states.

        Beside them an entry for each model's history, if there is a text to evaluate on.
        """
        began = time.perf_counter() - seconds
        some = next(iter(self.recipes.values()))
        tokens = some.batch_size * some.seq_len
        with progress_bar(
            show=progress,
            total=some.tokens,
            initial=tokens * _steps_done(states),
            desc=some.name if len(self.recipes) == 1 else f"{len(self.recipes)} models",
            unit=" tokens",
            unit_scale=True,
        ) as bar:
            for now, losses in self._steps(states, some.steps, bar, tokens):
                step, scores = _steps_done(now), self._scores(now)
                done = {"step": step, "tokens": step * tokens, "seconds": time.perf_counter() - began}
                means = {name: {"train_loss": math.fsum(of) / len(of)} for name, of in losses.items()}
                yield now, {name: done | means[name] | found for name, found in scores.items()}

    def _steps(
        self, states: dict[str, State], steps: int, bar: tqdm, tokens: int
    ) -> Iterator[tuple[dict[str, State], dict[str, list[float]]]]:
        """Stretch by stretch the states and the losses of its steps."""
        # Tuples, because a tree of a dict comes back in another order (so do states from a checkpoint).
        rests, recipes = tuple(self.rests.values()), tuple(self.recipes.values())
        current = tuple(states[name] for name in self.recipes)
        pending: tuple[Any, ...] | None = None
        stretch: list[list[float]] = []
        for step in range(_steps_done(states), steps):
            given = (rests, self.primary, jnp.asarray(self.batches(step)))
            objectives = tuple(recipe.objective_at(step) for recipe in recipes)
            current, losses = train_step(given, current, recipes, objectives)
            # Only now are the losses before asked for: meanwhile the processor is busy with this step.
            if pending is not None:
                stretch.append(self._finite(pending, step))
                bar.set_postfix(loss=", ".join(f"{loss:.3f}" for loss in stretch[-1]), refresh=False)
            pending = losses
            bar.update(tokens)
            done = step + 1
            if done % self.every == 0 or done == steps:
                stretch.append(self._finite(pending, done))
                now = dict(zip(self.recipes, current, strict=True))
                self._check_weights(now, done)
                yield now, dict(zip(self.recipes, map(list, zip(*stretch, strict=True)), strict=True))
                pending, stretch = None, []

    def _scores(self, states: dict[str, State]) -> dict[str, dict[str, float]]:
        """Of each model, if there is a text to evaluate on."""
        if self.held_out is None:
            return {}
        some = next(iter(self.recipes.values()))
        block_lens = {name: (recipe.block_lens or (1,))[0] for name, recipe in self.recipes.items()}
        return evaluate_all(self.models(states), self.held_out, self.primary, block_lens, some.batch_size)

    def _finite(self, losses: tuple[Any, ...], step: int) -> list[float]:
        """The losses as numbers. `Diverged` if one is not finite; steps count from 1."""
        numbers = [float(loss) for loss in losses]
        for name, loss in zip(self.recipes, numbers, strict=True):
            if not math.isfinite(loss):
                self._refuse(name, f"a loss of {loss}", step)
        return numbers

    def _check_weights(self, states: dict[str, State], step: int) -> None:
        """`Diverged` if a weight is not finite: a gradient overflows behind a fine loss."""
        for name, state in states.items():
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.trained)):
                self._refuse(name, "a weight that is not finite", step)

    def _refuse(self, name: str, got: str, step: int) -> NoReturn:
        kept, last = "no checkpoint was kept", (step - 1) // self.every * self.every
        if self.place is not None and last > 0:
            kept = f"the last good checkpoint is {self.place / NAME} (step {last})"
        mend = "try a smaller learning_rate, more warmup_steps or a smaller clip_norm"
        raise Diverged(f"finite loss and weights of {name}", f"{got} at step {step}", f"{mend}; {kept}")


def _steps_done(states: dict[str, State]) -> int:
    return int(next(iter(states.values())).step)
