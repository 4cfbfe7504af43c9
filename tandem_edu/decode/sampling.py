"""From logits to the distribution that a token is drawn from, and the draw.

Speculative decoding is exact for the distributions *after* temperature, top-k and top-p. Greedy is the
one-hot distribution on the best token: one rule accepts both.

Axis names: `vocab` token ids; `width` positions of a cycle; `role`; `two`, the random numbers of one draw.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tandem_edu import kernels
from tandem_edu.errors import at_least, require
from tandem_edu.model.masks import positions

DRAFT, ACCEPT, EMIT = range(3)
"""Roles of random numbers: drawing a draft, accepting it, drawing what the primary emits."""


class Sampling(eqx.Module):
    """How a token is drawn. `BadInput` for a temperature below 0, `top_k` below 1 or `top_p` outside (0, 1].

    - `temperature`: logits are divided by it. 0 is greedy: always the token of the highest logit.
    - `top_k`: only the k most probable tokens (of equals, the lower id).
    - `top_p`: only the smallest set of most probable tokens whose probability reaches p, after top-k.

    >>> logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    >>> [round(float(p), 3) for p in Sampling(temperature=1.0, top_k=2).probabilities(logits)]
    [0.625, 0.375, 0.0]
    >>> Sampling().probabilities(logits).tolist()
    [1.0, 0.0, 0.0]
    """

    temperature: Float[Array, ""]
    top_k: Int[Array, ""] | None
    top_p: Float[Array, ""] | None
    greedy: bool = eqx.field(static=True)

    def __init__(self, temperature: float = 0.0, top_k: int | None = None, top_p: float | None = None):
        number, share = _number(temperature), 1.0 if top_p is None else _number(top_p)
        fix = "0 is greedy, 1 is the model's own distribution"
        require(number >= 0, "temperature of at least 0", repr(temperature), fix)
        fix = "leave it out to keep all tokens"
        top_k = None if top_k is None else at_least(1, top_k, "top_k", fix)
        require(0 < share <= 1, "top_p in (0, 1]", repr(top_p), fix)
        smallest = float(jnp.finfo(jnp.float32).tiny)  # float32 rounds what is smaller to zero
        self.greedy = number < smallest
        self.temperature = jnp.float32(number)
        self.top_k = None if top_k is None or self.greedy else jnp.int32(min(top_k, 2**31 - 1))
        self.top_p = None if top_p is None or self.greedy else jnp.float32(max(share, smallest))

    def probabilities(self, logits: Float[Array, "*batch vocab"]) -> Float[Array, "*batch vocab"]:
        """The distribution that tokens are drawn from."""
        if self.greedy:
            return jax.nn.one_hot(kernels.argmax(logits), logits.shape[-1], dtype=logits.dtype)
        # With the best logit at 0, a low temperature sends the others to -inf and none to +inf.
        logits = (logits - jnp.max(logits, axis=-1, keepdims=True)) / self.temperature
        if self.top_k is None and self.top_p is None:
            return jax.nn.softmax(logits, axis=-1)
        return jax.nn.softmax(jnp.where(self._is_kept(logits), logits, -jnp.inf), axis=-1)

    def _is_kept(self, logits: Float[Array, "*batch vocab"]):
        order = jnp.argsort(-logits, axis=-1, stable=True)
        rank = jnp.argsort(order, axis=-1).astype(jnp.int32)
        kept = jnp.full(logits.shape, True) if self.top_k is None else rank < self.top_k
        if self.top_p is not None:
            p = jax.nn.softmax(jnp.where(kept, logits, -jnp.inf), axis=-1)
            descending = jnp.take_along_axis(p, order, axis=-1)
            before = jnp.take_along_axis(jnp.cumsum(descending, axis=-1) - descending, rank, axis=-1)
            # The sum may round to 1 before the last token; p = 1 still keeps them all.
            kept = kept & ((before < self.top_p) | (self.top_p >= 1))
        return kept

    def draw(self, p: Float[Array, " vocab"], u: Float[Array, " two"]) -> Int[Array, ""]:
        """The token id that `u`, uniform in [0, 1), selects from `p`. A greedy distribution needs no `u`."""
        return kernels.argmax(p) if self.greedy else sample_categorical(p, u)

    def uniforms(
        self, key: PRNGKeyArray, capacity: int, width: int
    ) -> Float[Array, "capacity width role two"]:
        """`cycle_uniforms` of every position, before the loop: on a CPU, the generator is itself a loop."""
        if self.greedy:
            return jnp.zeros((capacity, width, 3, 2), jnp.float32)
        return jax.vmap(lambda start: cycle_uniforms(key, start, width))(positions(capacity))


def _number(value: object) -> float:
    """`value` as a float; NaN, which no range contains, if it is not a number."""
    try:
        return math.nan if isinstance(value, str | bytes | bool) else float(value)  # pyright: ignore
    except (TypeError, ValueError):
        return math.nan


def cycle_uniforms(key: PRNGKeyArray, start: Int[Array, ""], width: int) -> Float[Array, "width role two"]:
    """The random numbers of the cycle that starts at position `start` of a text.

    `u[i, role]` serves one role at position `start + i`. A position is drafted again after a rejection; the
    cycle's start makes the new draw independent of the rejected one.
    """
    return jax.random.uniform(jax.random.fold_in(key, start), (width, 3, 2), jnp.float32)


def sample_categorical(p: Float[Array, " vocab"], u: Float[Array, " two"]) -> Int[Array, ""]:
    """A token drawn from `p`: first a group of about √vocab tokens, then a token of that group.

    Each draw has a number of its own, because one for both has too few bits for a large vocabulary.

    >>> p = jnp.array([0.0, 0.5, 0.0, 0.25, 0.25])  # groups of 3; a 0 fills the second
    >>> several = [(0.0, 0.99), (0.49, 0.0), (0.5, 0.49), (0.99, 0.5)]
    >>> [int(sample_categorical(p, jnp.array(u))) for u in several]
    [1, 1, 3, 4]
    """
    size = math.isqrt(p.size - 1) + 1
    groups = jnp.pad(p, (0, size * size - p.size)).reshape(size, size)
    group = _invert_cumulative(jnp.sum(groups, axis=-1), u[0])
    return group * size + _invert_cumulative(groups[group], u[1])


def _invert_cumulative(weights: Float[Array, " n"], u: Float[Array, ""]) -> Int[Array, ""]:
    """The first index whose cumulative share exceeds `u`; its weight is positive if any is."""
    index, positive = positions(weights.size), weights > 0
    cumulative = jnp.cumsum(weights)
    last = jnp.max(jnp.where(positive, index, 0))
    return jnp.min(jnp.where(positive & (cumulative > u * cumulative[-1]), index, last))
