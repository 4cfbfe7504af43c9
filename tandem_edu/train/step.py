"""One training step, compiled: the primary reads once, each model predicts, AdamW moves what is its own.

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
from tandem_edu.model import Joint, Transformer
from tandem_edu.model.layers import Block
from tandem_edu.model.weights import Model, trainable
from tandem_edu.train.losses import Objective
from tandem_edu.train.recipes import Recipe


class State(eqx.Module):
    """All that changes from one step to the next: the trained arrays, AdamW's opt_state, the count."""

    trained: PyTree
    opt_state: PyTree
    step: Int[Array, ""]


def split(model: Model) -> tuple[PyTree, PyTree]:
    """The model's trained arrays, and the rest; `eqx.combine` puts them together."""
    return eqx.partition(model, trainable(model))


@eqx.filter_jit
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
    """Logits of every kind of model.

    One that reads a primary needs it, its states `hidden` of these tokens, and (block_len, offset); one that
    has a primary of its own needs the last only.
    """
    if isinstance(model, Transformer):
        return model(tokens)
    name, fix = type(model).__name__, "pass the primary and block_lens"
    if block is None:
        raise BadInput(f"block for the {name}", "None", fix)
    if isinstance(model, Joint):
        return model(tokens, *block)
    if primary is None or hidden is None:
        raise BadInput(f"primary and hidden for the {name}", "None", fix)
    return model.teacher_forced(primary, tokens, hidden, *block)


class _Recomputed(eqx.Module):
    """A layer of which only what goes in is kept for the gradient; the rest is computed a second time."""

    block: Block

    def write(self, x, rope, maps=None):
        return _recomputed(Block.write, self.block, x, rope, maps)

    def read(self, x, rope, attention):
        seen = jax.tree_util.Partial(attention.func, *attention.args, **attention.keywords)
        return _recomputed(Block.read, self.block, x, rope, seen)


def _recomputed(method: Callable, block: Block, x: Array, *others):
    """`method(block, x, *others)`, computed a second time for the gradient.

    `jax.checkpoint` would say so more briefly. But XLA's CPU backend sees that the second time gives what
    the first one gave, and keeps that instead; so here the second `x` has the gradient in it, times 0.
    """
    arrays, fixed = eqx.partition((block, others), eqx.is_array)

    def run(x, arrays):
        block, others = eqx.combine(arrays, fixed)
        return method(block, x, *others)

    def backward(kept, gradient):
        x, arrays = kept
        nothing = 0.0 * jax.tree.leaves(gradient)[0].ravel()[0]
        return jax.vjp(run, x + nothing, arrays)[1](gradient)

    once_more = jax.custom_vjp(run)
    once_more.defvjp(lambda *given: (run(*given), given), backward)
    return once_more(x, arrays)


def rematerialised(model: Model) -> Model:
    """`model` with the same values and gradients, in less memory and more time (arXiv:1604.06174).

    Of each layer its input, its keys and its values are kept for the gradient; attention weights and
    the inner activations of the SwiGLU are computed again.
    """
    is_block = lambda part: isinstance(part, Block)
    return jax.tree.map(lambda part: _Recomputed(part) if is_block(part) else part, model, is_leaf=is_block)


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
    given: tuple[tuple[PyTree, ...], Transformer | None, Int[Array, "batch window"]],
    states: tuple[State, ...],
    recipes: tuple[Recipe, ...],
    objectives: tuple[Objective, ...],
) -> tuple[tuple[State, ...], tuple[Float[Array, ""], ...]]:
    """The next state of each model, and its loss before the step; the primary reads once for all.

    `given` is what stays: the untrained part of each model, the primary (or `None`), the batch. The
    memory of `states` is given away. Recipes and objectives are part of the program, which is therefore
    compiled once a phase; what a phase has no use for, such as the primary's head in a phase without
    distillation, is left out by the compiler.
    """
    frozen, primary, batch = given
    blocks = [
        draw_block(recipe, state.step) if recipe.block_lens else None
        for recipe, state in zip(recipes, states, strict=True)
    ]

    def losses_of(trained, part):
        tokens, targets = part[:, :-1], part[:, 1:]
        # Nothing here depends on `trained`: no gradient ever enters the primary.
        teacher, hidden = (None, None) if primary is None else primary(tokens, return_hidden=True)
        losses = []
        for mine, rest, recipe, objective, block in zip(
            trained, frozen, recipes, objectives, blocks, strict=True
        ):
            model = eqx.combine(mine, rest)
            model = rematerialised(model) if recipe.remat else model
            losses.append(objective(predict(model, primary, tokens, hidden, block), targets, teacher))
        # The models share no trained array, so the gradient of the sum is each one's own.
        return sum(losses[1:], losses[0]), tuple(losses)

    parts = batch.reshape(recipes[0].micro_batches, -1, batch.shape[-1])
    differentiated = jax.value_and_grad(losses_of, has_aux=True)
    (_, losses), gradients = mean_over(differentiated, tuple(state.trained for state in states), parts)
    moved = []
    for state, recipe, gradient in zip(states, recipes, gradients, strict=True):
        updates, opt_state = optimizer(recipe).update(gradient, state.opt_state, state.trained)
        moved.append(State(optax.apply_updates(state.trained, updates), opt_state, state.step + 1))
    return tuple(moved), losses
