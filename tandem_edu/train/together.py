"""Several models trained side by side on the same batches, which the frozen primary reads once for all.

A drafter and its control, or the variants of a study: what reads the primary's states or learns from its
distributions needs them anyway, and for a small drafter they cost more than the drafter itself.
"""

import math
import os
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tandem_edu.errors import at_least, require
from tandem_edu.model import Transformer
from tandem_edu.model.weights import Model
from tandem_edu.progress import progress_bar
from tandem_edu.train.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from tandem_edu.train.checks import check_models, checked_texts, made_folder
from tandem_edu.train.recipes import Recipe
from tandem_edu.train.run import Diverged
from tandem_edu.train.step import init_state, split, train_steps

SAME = ("steps", "batch_size", "seq_len", "seed", "micro_batches")
"""What the recipes must agree in, so that all see the same batches."""


def train_together(
    models: Mapping[str, tuple[Model, Recipe]],
    tokens: np.ndarray,
    *,
    primary: Transformer | None = None,
    folder: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 250,
    progress: bool = True,
) -> dict[str, Model]:
    """Each model trained by its recipe as `train` would, up to rounding; none is changed.

    There are no evaluations in between. With `folder` a checkpoint is kept every so many steps, and a
    run that was broken off goes on from there. Raises `BadInput` where `train` does, for no model, and
    for recipes that differ in what decides the batches (`SAME`); `Diverged` if a model to be kept has a
    loss or a weight that is not finite.
    """
    require(bool(models), "at least one model", "none", "pass name: (model, recipe)")
    at_least(1, checkpoint_every, "checkpoint_every", "leave it out")
    recipes = {name: recipe for name, (_, recipe) in models.items()}
    for field in SAME:
        values = {name: getattr(recipe, field) for name, recipe in recipes.items()}
        require(len(set(values.values())) == 1, f"one {field} for all", values, "change the recipes")
    for model, recipe in models.values():
        check_models(model, recipe, primary)
        batches, _ = checked_texts(model, recipe, tokens, tokens)
    states = {name: init_state(*one) for name, one in models.items()}
    identity: dict[str, Any] = {}
    if folder is not None:
        folder = made_folder(folder)
        identity = {
            name: fingerprint(model, recipe, tokens, tokens[:0], primary)
            for name, (model, recipe) in models.items()
        }
        states, _ = load_checkpoint(folder, states, identity)
    rests = tuple(split(model)[1] for model, _ in models.values())
    steps = next(iter(recipes.values())).steps
    current = tuple(states[name] for name in models)  # a tree of a dict comes back in another order
    done = int(current[0].step)
    with progress_bar(show=progress, total=steps, initial=done, unit=" steps") as bar:
        for step in range(done, steps):
            given = (rests, primary, jnp.asarray(batches(step)))
            objectives = tuple(recipe.objective_at(step) for recipe in recipes.values())
            current, losses = train_steps(given, current, tuple(recipes.values()), objectives)
            bar.update()
            if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
                for name, state, loss in zip(models, current, losses, strict=True):
                    _check_finite(name, state.trained, float(loss), step + 1)
                if folder is not None:
                    save_checkpoint(folder, dict(zip(models, current, strict=True)), [], identity)
    return {
        name: eqx.combine(state.trained, rest)
        for name, state, rest in zip(models, current, rests, strict=True)
    }


def _check_finite(name: str, trained: Any, loss: float, step: int) -> None:
    """`Diverged` if the loss is not finite, or a weight: a gradient overflows behind a fine loss."""
    if not math.isfinite(loss):
        got = f"a loss of {loss}"
    elif not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(trained)):
        got = "a weight that is not finite"
    else:
        return
    mend = "try a smaller learning_rate, more warmup_steps or a smaller clip_norm"
    raise Diverged(f"finite loss and weights of {name}", f"{got} at step {step}", mend)
