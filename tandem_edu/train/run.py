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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from tandem_edu.data import Batches
from tandem_edu.errors import BadInput, at_least, require
from tandem_edu.model import Transformer
from tandem_edu.model.weights import Model
from tandem_edu.progress import progress_bar
from tandem_edu.train.checkpoint import NAME, History, fingerprints, load_checkpoint, save_checkpoint
from tandem_edu.train.checks import check_models, checked_texts, made_folder
from tandem_edu.train.evaluation import evaluate_all
from tandem_edu.train.recipes import Recipe
from tandem_edu.train.step import init_state, split, train_step

SAME_BATCHES = ("steps", "batch_size", "seq_len", "seed", "micro_batches")
"""What the recipes of models that are trained together must agree in."""
SAME_EVALUATIONS = ("eval_every", "eval_windows")
"""And this too, where they are evaluated."""


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
    `checkpoint_every` steps instead. An entry's `seconds` are those of all models together, and one that
    diverges ends the run of all.

    Raises `BadInput` where `train` does, for no model, and for recipes that differ in what decides the text
    they see; `Diverged` as `train` does.
    """
    shared = _agreed(models, evaluated=valid_tokens is not None)
    at_least(1, checkpoint_every, "checkpoint_every", "leave it out")
    for model, recipe in models.values():
        check_models(model, recipe, primary)
    batches, held_out = checked_texts([model for model, _ in models.values()], shared, tokens, valid_tokens)
    every = checkpoint_every if held_out is None else shared.eval_every
    run = _Run(models, shared, primary, batches, held_out, every)
    if folder is not None:
        run.keep_in(made_folder(folder), fingerprints(models, tokens, valid_tokens, primary))
    run.go(progress, on_eval)
    return {name: TrainResult(model, run.histories[name]) for name, model in run.models().items()}


def _agreed(models: Mapping[str, tuple[Model, Recipe]], evaluated: bool) -> Recipe:
    """One of the recipes, for what all of them agree in."""
    require(len(models) > 0, "at least one model", "none", "pass name: (model, recipe)")
    named = all(isinstance(name, str) for name in models)
    require(named, "names that are strings", list(models), "a checkpoint knows the models by them")
    for field in (*SAME_BATCHES, *(SAME_EVALUATIONS if evaluated else ())):
        values = {name: getattr(recipe, field) for name, (_, recipe) in models.items()}
        require(len(set(values.values())) == 1, f"one {field} for all", values, "change the recipes")
    return next(iter(models.values()))[1]


class _Run:
    """The states of all models, and what is done with them."""

    def __init__(
        self,
        models: Mapping[str, tuple[Model, Recipe]],
        shared: Recipe,
        primary: Transformer | None,
        batches: Batches,
        held_out: np.ndarray | None,
        every: int,
    ):
        self.shared, self.primary, self.batches = shared, primary, batches
        self.held_out, self.every = held_out, every
        self.recipes = {name: recipe for name, (_, recipe) in models.items()}
        self.frozen = {name: split(model)[1] for name, (model, _) in models.items()}
        self.states = {name: init_state(*one) for name, one in models.items()}
        self.histories: dict[str, History] = {name: [] for name in models}
        self.place: Path | None = None
        self.identity: dict[str, Any] = {}
        self.kept = 0  # the step of the last checkpoint

    def keep_in(self, place: Path, identity: dict[str, Any]) -> None:
        """Keep checkpoints in `place`, and begin where the last one is."""
        self.place, self.identity = place, identity
        self.states, histories = load_checkpoint(place, self.states, identity)
        self.histories = histories or self.histories
        self.kept = self.done

    def models(self) -> dict[str, Model]:
        """The models as they are now."""
        return {name: eqx.combine(self.states[name].trained, rest) for name, rest in self.frozen.items()}

    @property
    def done(self) -> int:
        """Steps that all of them have done."""
        return int(next(iter(self.states.values())).step)

    def go(self, progress: bool, on_eval: Callable[[str, dict[str, Any]], None] | None) -> None:
        """Train to the end; evaluate and keep a checkpoint after each stretch of `every` steps."""
        tokens = self.shared.batch_size * self.shared.seq_len
        seconds = max((history[-1]["seconds"] for history in self.histories.values() if history), default=0.0)
        began = time.perf_counter() - seconds
        with progress_bar(
            show=progress,
            total=self.shared.tokens,
            initial=self.done * tokens,
            desc=self.shared.name if len(self.recipes) == 1 else f"{len(self.recipes)} models",
            unit=" tokens",
            unit_scale=True,
        ) as bar:
            for losses in self._stretches(bar):
                self._check_weights()
                scores = self._scores()
                seconds = time.perf_counter() - began
                done = {"step": self.done, "tokens": self.done * tokens, "seconds": seconds}
                for name, found in scores.items():
                    mean = {"train_loss": math.fsum(losses[name]) / len(losses[name])}
                    self.histories[name].append(done | mean | found)
                if self.place is not None:
                    save_checkpoint(self.place, self.states, self.histories, self.identity)
                    self.kept = self.done
                if on_eval is not None:
                    for name in scores:
                        on_eval(name, dict(self.histories[name][-1]))

    def _stretches(self, bar: tqdm) -> Iterator[dict[str, list[float]]]:
        """Step by step; after each stretch the states are those after it, and this gives its losses."""
        # Tuples, because a tree of a dict comes back in another order (so do states from a checkpoint).
        frozen, recipes = tuple(self.frozen.values()), tuple(self.recipes.values())
        current = tuple(self.states[name] for name in self.recipes)
        losses: list[Any] = []
        for step in range(self.done, self.shared.steps):
            given = (frozen, self.primary, jnp.asarray(self.batches(step)))
            objectives = tuple(recipe.objective_at(step) for recipe in recipes)
            current, latest = train_step(given, current, recipes, objectives)
            losses.append(latest)
            # Only now are the losses before asked for: meanwhile the processor is busy with this step.
            if len(losses) > 1:
                losses[-2] = self._finite(losses[-2], step)
                bar.set_postfix(loss=", ".join(f"{loss:.3f}" for loss in losses[-2]), refresh=False)
            bar.update(self.shared.batch_size * self.shared.seq_len)
            if (step + 1) % self.every == 0 or step + 1 == self.shared.steps:
                losses[-1] = self._finite(losses[-1], step + 1)
                self.states = dict(zip(self.recipes, current, strict=True))
                yield dict(zip(self.recipes, map(list, zip(*losses, strict=True)), strict=True))
                losses = []

    def _scores(self) -> dict[str, dict[str, float]]:
        """Of each model, if there is a text to evaluate on."""
        if self.held_out is None:
            return {}
        block_lens = {name: (recipe.block_lens or (1,))[0] for name, recipe in self.recipes.items()}
        how = (self.held_out, self.primary, block_lens, self.shared.batch_size)
        scores = evaluate_all(self.models(), *how)
        for name, found in scores.items():
            # Weights may be finite, and so large that what they make is not.
            if not math.isfinite(found["valid_loss"]):
                self._refuse(name, f"a held-out loss of {found['valid_loss']}", self.done)
        return scores

    def _finite(self, losses: Sequence[Any], step: int) -> list[float]:
        """The losses as numbers. `Diverged` if one is not finite; steps count from 1."""
        numbers = [float(loss) for loss in losses]
        for name, loss in zip(self.recipes, numbers, strict=True):
            if not math.isfinite(loss):
                self._refuse(name, f"a loss of {loss}", step)
        return numbers

    def _check_weights(self) -> None:
        """`Diverged` if a weight is not finite: a gradient overflows behind a fine loss."""
        for name, state in self.states.items():
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.trained)):
                self._refuse(name, "a weight that is not finite", self.done)

    def _refuse(self, name: str, got: str, step: int) -> NoReturn:
        kept = "no checkpoint was kept"
        if self.place is not None and self.kept > 0:
            kept = f"the last good checkpoint is {self.place / NAME} (step {self.kept})"
        fix = "try a smaller learning_rate, more warmup_steps or a smaller clip_norm"
        raise Diverged(f"finite loss and weights of {name}", f"{got} at step {step}", f"{fix}; {kept}")
