"""Formulations that XLA's CPU backend compiles to faster code. The values are those of the plain ones."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, Shaped

FEW_ROWS = 16


def argmax(scores: Shaped[Array, "*batch vocab"]) -> Int[Array, "*batch"]:
    """The index of the first highest score, as `jnp.argmax`; XLA's own takes several times as long."""
    vocab = scores.shape[-1]
    is_highest = scores == jnp.max(scores, axis=-1, keepdims=True)
    ids = jax.lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1)
    first = jnp.min(jnp.where(is_highest, ids, vocab), axis=-1)
    return jnp.minimum(first, vocab - 1)  # NaN equals nothing; the result is a valid id all the same


def take_rows(table: Float[Array, "rows width"], ids: Int[Array, "*batch"]) -> Float[Array, "*batch width"]:
    """`table[ids]`. XLA would share a gather of a few rows among the cores, which takes longer."""
    if ids.ndim == 1 and 0 < ids.size <= FEW_ROWS:
        return jnp.stack([table[i] for i in ids])
    return table[ids]


def compute_once(function: Callable[[Array], PyTree], x: Shaped[Array, " n"]) -> PyTree:
    """`function(x)` for an x ≥ 0. XLA would inline it into each of its uses and compute it again there."""
    shapes = jax.eval_shape(function, x)
    zeros = lambda _: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    # The branch is always taken; XLA cannot know that, and does not move code across a branch.
    return jax.lax.cond(x[0] >= 0, function, zeros, x)


@jax.checkpoint
def silu_product(gate: Float[Array, "*batch d_ff"], up: Float[Array, "*batch d_ff"]) -> Array:
    """silu(gate) · up. The gradient computes it again, which takes less time than reading it from memory."""
    return jax.nn.silu(gate) * up
