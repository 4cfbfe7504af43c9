"""One training step, compiled: the primary reads, the model predicts, AdamW moves what is its own.

Axis names: `batch` windows of `window` = seq + 1 tokens; inputs and targets are the same tokens, one
apart. What is trained is every array the model owns; a vocabulary borrowed from the primary
(`config.shared_vocab`) and the primary itself stay as they are.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from tandem_edu.errors import BadInput
from tandem_edu.model import Transformer
from tandem_edu.model.weights import Model, owned
from tandem_edu.train.losses import Objective
from tandem_edu.train.recipes import Recipe


class State(eqx.Module):
    """All that changes from one step to the next: the trained arrays, AdamW's moments, the count."""

    trained: PyTree
    moments: PyTree
    step: Int[Array, ""]


def split(model: Model) -> tuple[PyTree, PyTree]:
    """The model's trained arrays, and the rest; `eqx.combine` puts them together."""
    return eqx.partition(model, owned(model))


def init_state(model: Model, recipe: Recipe) -> State:
    """The state before the first step.

    The arrays are copies, because a step gives its state's memory away (and a tandem with
    `own_history` may begin with one array in two places).
    """
    trained = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), split(model)[0])
    return State(trained, optimizer(recipe).init(trained), jnp.int32(0))


def learning_rate(recipe: Recipe) -> optax.Schedule:
    """The rate of step 0 .. steps - 1: up linearly, then down a cosine to a tenth.

    Shifted by one against optax's, whose first step has the rate 0 and so would do nothing.

    >>> rate = learning_rate(Recipe("", steps=100, learning_rate=1.0, warmup_steps=10))
    >>> [round(float(rate(step)), 3) for step in (0, 4, 9, 99)]
    [0.1, 0.5, 1.0, 0.1]
    """
    peak = recipe.learning_rate
    rate = optax.warmup_cosine_decay_schedule(0.0, peak, recipe.warmup_steps, recipe.steps, peak / 10)
    return lambda count: rate(count + 1)


def optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """AdamW (arXiv:1711.05101) with β = (0.9, 0.95) after clipping the gradient's global norm."""
    rate, decay = learning_rate(recipe), recipe.weight_decay
    chain = optax.chain(
        optax.clip_by_global_norm(recipe.clip_norm),
        optax.adamw(rate, b1=0.9, b2=0.95, weight_decay=decay, mask=decayed),
    )

    def update(updates, state, params=None):
        # optax raises a float to its whole-number count, which a strict dtype promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            return chain.update(updates, state, params)

    return optax.GradientTransformation(chain.init, update)


def decayed(trained: PyTree) -> PyTree[bool]:
    """Which arrays decay: the linear maps.

    Not a norm's scale, which would be pulled from 1 to 0, and not the vocabulary, where the rows of
    rare tokens would shrink for want of a gradient.
    """
    in_vocabulary = lambda path: any(getattr(key, "name", None) == "vocabulary" for key in path)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.ndim >= 2 and not in_vocabulary(path), trained
    )


def draw_block(recipe: Recipe, step: Int[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """`block_len` and `offset` of a step, a pure function of (seed, step).

    `block_len` is uniform over `recipe.block_lens`, `offset` over 0 .. block_len - 1 (0 without
    `random_offsets`). Both are traced values, so all block lengths share one compiled step.
    """
    key = jax.random.fold_in(jax.random.key(recipe.seed), step)
    which_key, offset_key = jax.random.split(key)
    block_len = jax.random.choice(which_key, jnp.array(recipe.block_lens, jnp.int32))
    if not recipe.random_offsets:
        return block_len, jnp.zeros_like(block_len)
    return block_len, jax.random.randint(offset_key, (), 0, block_len)


def predict(
    model: Model,
    primary: Transformer | None,
    tokens: Int[Array, "batch seq"],
    hidden: Float[Array, "batch depth seq d_primary"] | None,
    block: tuple[Int[Array, ""], Int[Array, ""]] | None,
) -> Float[Array, "batch seq vocab"]:
    """Logits of either kind of model.

    One that reads a primary needs it, its states `hidden` of these tokens, and (block_len, offset).
    """
    if isinstance(model, Transformer):
        return model(tokens)
    if primary is None or hidden is None or block is None:
        expected = f"primary, hidden and block for the {type(model).__name__}"
        raise BadInput(expected, "None", "pass the primary and block_lens")
    return model.teacher_forced(primary, tokens, hidden, *block)


def mean_over(
    function: Callable[..., PyTree], trained: PyTree, parts: Int[Array, "parts batch window"]
) -> PyTree:
    """The mean of `function(trained, part)` over the parts, one after the other.

    Only one part's activations are in memory at a time. On a CPU that is faster too, since memory that
    is used again need not be asked for again, page by page.
    """
    if parts.shape[0] == 1:
        return function(trained, parts[0])
    add = lambda total, part: (jax.tree.map(jnp.add, total, function(trained, part)), None)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, trained, parts[0])
    )
    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda leaf: leaf / parts.shape[0], total)


@eqx.filter_jit(donate="all-except-first")
def train_step(
    given: tuple[PyTree, Transformer | None, Int[Array, "batch window"]],
    state: State,
    recipe: Recipe,
    objective: Objective,
) -> tuple[State, Float[Array, ""]]:
    """The next state, and the loss before the step.

    `given` is what stays: the untrained part of the model, the primary (or `None`), the batch. The
    memory of `state` is given away. Recipe and objective are part of the program, which is therefore
    compiled once a phase; what a phase has no use for, such as the primary's head in a phase without
    distillation, is left out by the compiler.
    """
    rest, primary, batch = given
    block = draw_block(recipe, state.step) if recipe.block_lens else None

    def loss_of(trained, part):
        tokens, targets = part[:, :-1], part[:, 1:]
        # Nothing here depends on `trained`: no gradient ever enters the primary.
        teacher, hidden = (None, None) if primary is None else primary(tokens, return_hidden=True)
        logits = predict(eqx.combine(trained, rest), primary, tokens, hidden, block)
        return objective(logits, targets, teacher)

    parts = batch.reshape(recipe.micro_batches, -1, batch.shape[-1])
    loss, gradient = mean_over(jax.value_and_grad(loss_of), state.trained, parts)
    updates, moments = optimizer(recipe).update(gradient, state.moments, state.trained)
    return State(optax.apply_updates(state.trained, updates), moments, state.step + 1), loss
