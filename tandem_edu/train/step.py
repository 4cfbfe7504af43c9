"""One training step, compiled: the primary reads the batch once, each model predicts, AdamW updates it.

Axis names: `batch` windows of `window` = seq + 1 tokens; inputs and targets are the same tokens, shifted by
one. The primary is frozen, and so is an embedding shared with it (`config.shared_vocab`).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from tandem_edu.drafters import Model, PrimaryReader
from tandem_edu.model import Embedding, Transformer
from tandem_edu.model.weights import trainable
from tandem_edu.train.losses import Objective
from tandem_edu.train.recipes import Recipe


class TrainState(eqx.Module):
    """What changes from step to step: the trained arrays, AdamW's moments, the number of steps done."""

    trained: PyTree
    opt_state: PyTree
    step: Int[Array, ""]


def partition(model: Model) -> tuple[PyTree, PyTree]:
    """The model's trained arrays, and its frozen rest; `eqx.combine` joins them."""
    return eqx.partition(model, trainable(model))


@eqx.filter_jit
def init_state(model: Model, recipe: Recipe) -> TrainState:
    """The state before the first step. Its arrays are copies, because a step reuses its state's memory."""
    trained = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), partition(model)[0])
    return TrainState(trained, optimizer(recipe).init(trained), jnp.int32(0))


def learning_rate(recipe: Recipe) -> optax.Schedule:
    """The rate of step 0 .. steps - 1: a linear rise, then a cosine fall to a tenth of the peak."""
    peak = recipe.learning_rate
    rate = optax.warmup_cosine_decay_schedule(0.0, peak, recipe.warmup_steps, recipe.steps, peak / 10)
    return lambda count: rate(count + 1)  # the first step of optax's schedule has the rate 0


def optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """AdamW (arXiv:1711.05101) with β = (0.9, 0.95), after clipping the gradient's global norm."""
    return optax.chain(
        optax.clip_by_global_norm(recipe.clip_norm),
        optax.adamw(learning_rate(recipe), b1=0.9, b2=0.95, weight_decay=recipe.weight_decay, mask=decayed),
    )


def decayed(trained: PyTree) -> PyTree[bool]:
    """Which arrays have weight decay: the matrices of the linear maps.

    Decay would pull a norm's scale from 1 to 0, and would shrink the embeddings of rare tokens.
    """
    is_embedding = lambda part: isinstance(part, Embedding)
    mark = lambda part: jax.tree.map(lambda leaf: leaf.ndim >= 2 and not is_embedding(part), part)
    return jax.tree.map(mark, trained, is_leaf=is_embedding)


def draw_block(recipe: Recipe, step: Int[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """A step's `block_len`, uniform over `recipe.block_lens`, and `offset`, over 0 .. block_len - 1."""
    which_key, offset_key = jax.random.split(jax.random.fold_in(jax.random.key(recipe.seed), step))
    block_len = jax.random.choice(which_key, jnp.array(recipe.block_lens, jnp.int32))
    return block_len, jax.random.randint(offset_key, (), 0, block_len)


def predict(model: Model, primary, tokens, hidden, block) -> Float[Array, "batch seq vocab"]:
    """Teacher-forced logits; only a `PrimaryReader` uses the primary, its states and (block_len, offset)."""
    if isinstance(model, PrimaryReader):
        return model.teacher_forced(primary, tokens, hidden, *block)  # pyright: ignore
    return model(tokens)


def mean_over(function: Callable, trained: PyTree, parts: Int[Array, "parts batch window"]) -> PyTree:
    """The mean of `function(trained, part)` over the parts, in turn: only one part's activations are kept."""
    if parts.shape[0] == 1:
        return function(trained, parts[0])
    add = lambda total, part: (jax.tree.map(jnp.add, total, function(trained, part)), None)
    start = jax.tree.map(jnp.zeros_like, jax.eval_shape(function, trained, parts[0]))
    return jax.tree.map(lambda leaf: leaf / parts.shape[0], jax.lax.scan(add, start, parts)[0])


@eqx.filter_jit(donate="all-except-first")
def train_step(
    inputs: tuple[dict[str, PyTree], Transformer | None, Int[Array, "batch window"]],
    states: dict[str, TrainState],
    recipes: dict[str, Recipe],
    objectives: dict[str, Objective],
) -> tuple[dict[str, TrainState], dict[str, Float[Array, ""]]]:
    """The next state of each model by its name, and its loss before the step.

    `inputs` are the frozen part of each model, the primary (or `None`) and the batch; the memory of `states`
    is reused. A new objective compiles a new program, without what it does not need.
    """
    frozen, primary, batch = inputs
    blocks = {name: draw_block(r, states[name].step) if r.block_lens else None for name, r in recipes.items()}

    def losses_of(trained, part):
        tokens, targets = part[:, :-1], part[:, 1:]
        # The primary does not depend on `trained`, so no gradient enters it.
        teacher, hidden = (None, None) if primary is None else primary(tokens, return_hidden=True)
        losses = {}
        for name, objective in objectives.items():
            model = eqx.combine(trained[name], frozen[name])
            logits = predict(model, primary, tokens, hidden, blocks[name])
            losses[name] = objective(logits, targets, teacher)
        # The models share no trained array, so the gradient of the sum is each one's own.
        return sum(losses.values()), losses

    parts = batch.reshape(next(iter(recipes.values())).micro_batches, -1, batch.shape[-1])
    trained = {name: state.trained for name, state in states.items()}
    (_, losses), gradients = mean_over(jax.value_and_grad(losses_of, has_aux=True), trained, parts)
    new_states = {}
    for name, state in states.items():
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to its integer count
            adamw = optimizer(recipes[name])
            updates, opt_state = adamw.update(gradients[name], state.opt_state, state.trained)
        new_states[name] = TrainState(optax.apply_updates(state.trained, updates), opt_state, state.step + 1)
    return new_states, losses
