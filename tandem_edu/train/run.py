"""A training run: from recipes, models and a text to the trained models and their histories.

Several models may train side by side, so that the frozen primary reads each batch once for all of them. A run
that is killed at any moment and started again with its folder ends with the same weights, to the last bit.
"""

import math
import time
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from tandem_edu.data import Batches, windows
from tandem_edu.drafters import Model, PrimaryReader
from tandem_edu.errors import BadInput, require
from tandem_edu.files import FilePath
from tandem_edu.model import Transformer
from tandem_edu.progress import progress_bar
from tandem_edu.train.checkpoint import Checkpoint, History, Models, fingerprints
from tandem_edu.train.evaluation import check_ids, check_model, qualities
from tandem_edu.train.recipes import Recipe
from tandem_edu.train.step import init_state, partition, train_step

# What the recipes of models that train together must share.
SHARED = ("steps", "batch_size", "seq_len", "seed", "micro_batches", "eval_every", "eval_windows")


class TrainResult(NamedTuple):
    """The trained model, of the class of the one given, and its history: a JSON-able dict per evaluation."""

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
    folder: FilePath | None = None,
    progress: bool = True,
    on_eval: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult:
    """Train a copy of `model` by `recipe`.

    - `tokens`, `valid_tokens`: rows of ids from `tandem_edu.data.encode`, to train on and held out.
    - `primary`: frozen. Needed by a model that reads it, and by a recipe that distils.
    - `folder`: keeps a checkpoint of each evaluation; an interrupted run goes on from there.
    - `progress`: show a bar. `on_eval`: called with each new entry of the history.

    An entry of the history has `step` (steps done), `tokens` (read so far), `seconds`, `train_loss` (the mean
    since the last entry) and the held-out `valid_loss` (cross-entropy in nats), `valid_accuracy` and, with a
    primary, `valid_agreement` (see `Quality`), for a model that reads it at the recipe's first `block_len`.
    Raises `BadInput` if model, recipe, primary and texts do not fit together, or if the folder has
    another run's checkpoint; `Diverged` if the loss or a weight is not finite.

    >>> from tandem_edu.model import TransformerConfig
    >>> cfg = TransformerConfig(8, d_model=8, n_layers=1, n_heads=2, n_kv_heads=1, d_ff=16, max_len=16)
    >>> tiny = Recipe("tiny", steps=4, learning_rate=0.01, warmup_steps=1, seq_len=16, eval_every=2)
    >>> text = np.arange(200) % 8
    >>> trained, history = train(Transformer(cfg, key=jax.random.key(0)), tiny, text, text, progress=False)
    >>> [entry["step"] for entry in history], history[-1]["tokens"]
    ([2, 4], 512)
    """
    listener = None if on_eval is None else lambda _, entry: on_eval(entry)
    options = {"primary": primary, "folder": folder, "progress": progress, "on_eval": listener}
    return train_together({recipe.name: (model, recipe)}, tokens, valid_tokens, **options)[recipe.name]


def train_together(
    models: Models,
    tokens: np.ndarray,
    valid_tokens: np.ndarray | None = None,
    *,
    primary: Transformer | None = None,
    folder: FilePath | None = None,
    progress: bool = True,
    on_eval: Callable[[str, dict[str, Any]], None] | None = None,
) -> dict[str, TrainResult]:
    """Train several models on the same batches; each result equals that of `train`, up to rounding.

    As `train`, but `models` is name -> (model, recipe), and `on_eval` is called with a model's name and its
    entry. Without `valid_tokens` the histories stay empty. `seconds` are those of all models together; if one
    diverges, the run ends. Raises `BadInput` also for no model, and for recipes that differ in their batches.
    """
    run = _Run(models, primary, tokens, valid_tokens, folder)
    run.go(progress, on_eval)
    return {name: TrainResult(model, run.histories[name]) for name, model in run.models().items()}


def _check_recipe(model: Model, recipe: Recipe, primary: Transformer | None) -> None:
    reads = isinstance(model, PrimaryReader)
    expected = f"a recipe {'with' if reads else 'without'} block_lens for the {type(model).__name__}"
    fix = 'take recipe("tandem-distil") for a model that reads a primary, recipe("secondary") for others'
    require(reads == bool(recipe.block_lens), expected, f"block_lens={recipe.block_lens}", fix)
    check_model(model, primary, recipe.seq_len, recipe.block_lens)
    taught = primary is not None or not any(objective.distils for _, objective in recipe.objectives)
    require(taught, "a primary for a recipe that distils", None, "pass primary=")


class _Run:
    """The states of all models, by their names, and the loop over the steps."""

    def __init__(self, models: Models, primary: Transformer | None, tokens, valid_tokens, folder):
        require(len(models) > 0, "at least one model", "none", "pass name: (model, recipe)")
        for field in SHARED:
            values = {name: getattr(recipe, field) for name, (_, recipe) in models.items()}
            require(len(set(values.values())) == 1, f"one {field} for all", values, "change the recipes")
        for one in models.values():
            _check_recipe(*one, primary)
        self.primary, self.recipes = primary, {name: recipe for name, (_, recipe) in models.items()}
        self.shared = shared = next(iter(self.recipes.values()))
        self.batches, self.held_out = Batches(tokens, shared.batch_size, shared.seq_len, shared.seed), None
        check_ids([model for model, _ in models.values()], tokens)
        if valid_tokens is not None:
            self.held_out = windows(valid_tokens, shared.seq_len, shared.eval_windows)
            check_ids([model for model, _ in models.values()], valid_tokens)
        self.frozen = {name: partition(model)[1] for name, (model, _) in models.items()}
        self.states = {name: init_state(*one) for name, one in models.items()}
        self.histories: dict[str, History] = {name: [] for name in models}
        self.checkpoint = None
        if folder is not None:
            self.checkpoint = Checkpoint(folder, fingerprints(models, tokens, valid_tokens, primary))
            self.states, self.histories = self.checkpoint.load(self.states, self.histories)
        self.done = int(next(iter(self.states.values())).step)

    def models(self) -> dict[str, Model]:
        """The models as they are now."""
        return {name: eqx.combine(self.states[name].trained, rest) for name, rest in self.frozen.items()}

    def go(self, progress: bool, on_eval: Callable[[str, dict[str, Any]], None] | None) -> None:
        """Train to the end; evaluate and save a checkpoint after each interval of `eval_every` steps."""
        shared, history = self.shared, next(iter(self.histories.values()))
        start = time.perf_counter() - (history[-1]["seconds"] if history else 0.0)
        per_step = shared.batch_size * shared.seq_len
        settings = {"total": shared.steps * per_step, "initial": self.done * per_step, "unit": " tokens"}
        with progress_bar(show=progress, desc=", ".join(self.recipes), unit_scale=True, **settings) as bar:
            while self.done < shared.steps:
                stop = min(self.done + shared.eval_every, shared.steps)
                losses, figures = self._advance(stop, bar), self._evaluate(stop)
                entry = {"step": stop, "tokens": stop * per_step, "seconds": time.perf_counter() - start}
                for name in figures:
                    train_loss = fmean(float(each[name]) for each in losses)
                    self.histories[name].append(entry | {"train_loss": train_loss} | figures[name])
                if self.checkpoint is not None:
                    self.checkpoint.save(self.states, self.histories)
                self.done = stop
                if on_eval is not None:
                    for name in figures:
                        on_eval(name, dict(self.histories[name][-1]))

    def _advance(self, stop: int, bar: tqdm) -> list[dict[str, Any]]:
        """Train until `stop` steps are done; the losses of each step."""
        losses = []
        for step in range(self.done, stop):
            inputs = (self.frozen, self.primary, jnp.asarray(self.batches(step)))
            objectives = {name: recipe.objective_at(step) for name, recipe in self.recipes.items()}
            self.states, latest = train_step(inputs, self.states, self.recipes, objectives)
            losses.append(latest)
            # To read a loss is to wait for its step: read the step before, while this one is computed.
            if len(losses) > 1:
                self._check_finite(losses[-2], "a loss", step)
                shown = ", ".join(f"{losses[-2][name]:.3f}" for name in self.recipes)
                bar.set_postfix(loss=shown, refresh=False)
            bar.update(self.shared.batch_size * self.shared.seq_len)
        self._check_finite(losses[-1], "a loss", stop)
        # The gradient may overflow where the loss does not.
        largest = lambda state: np.max([np.abs(leaf).max() for leaf in jax.tree.leaves(state.trained)])
        self._check_finite({n: largest(state) for n, state in self.states.items()}, "a largest weight", stop)
        return losses

    def _evaluate(self, step: int) -> dict[str, dict[str, Any]]:
        """The figures of each model; none without a held-out text."""
        if self.held_out is None:
            return {}
        block_lens = {name: (recipe.block_lens or (1,))[0] for name, recipe in self.recipes.items()}
        batch_size = self.shared.batch_size
        measured = qualities(self.models(), self.held_out, self.primary, block_lens, batch_size)
        losses = {name: one.cross_entropy for name, one in measured.items()}
        # Weights may be finite and so large that the logits overflow.
        self._check_finite(losses, "a held-out loss", step)
        names = ("valid_loss", "valid_accuracy", "valid_agreement")[: 2 if self.primary is None else 3]
        return {name: dict(zip(names, one[1:], strict=False)) for name, one in measured.items()}

    def _check_finite(self, numbers: Mapping[str, Any], what: str, step: int) -> None:
        """Raise `Diverged` for infinity and NaN."""
        kept = "no checkpoint was kept"
        if self.checkpoint is not None and self.done > 0:
            kept = f"the last good checkpoint is {self.checkpoint.path} (step {self.done})"
        fix = f"try a smaller learning_rate, more warmup_steps or a smaller clip_norm; {kept}"
        for name, number in numbers.items():
            if not math.isfinite(number):
                got = f"{what} of {number} at step {step}"
                raise Diverged(f"finite loss and weights of {name}", got, fix)
