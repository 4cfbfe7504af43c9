"""From logits to the distribution a token is drawn from, and the draw.

Primary and drafter go through the same `Sampling`: speculative decoding is exact with respect to the
distributions *after* temperature, top-k and top-p. Greedy decoding is the one-hot distribution on the
best token, so one rule serves both.

Axis names: `vocab` token ids; `width` positions of a cycle; `role`; `two`, as many numbers as a draw takes.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from tandem_edu.errors import at_least, require

DRAFT, ACCEPT, EMIT = range(3)
"""Roles of random numbers: drawing a draft, accepting it, drawing what the primary emits."""


class Sampling(eqx.Module):
    """How a token is drawn.

    **Arguments:**

    - `temperature`: logits are divided by it; 0 is greedy, always the token of the highest logit.
    - `top_k`: only the k likeliest tokens (of equals, the lower id).
    - `top_p`: only the smallest set of likeliest tokens whose probability reaches p, after top-k.

    Raises `BadInput` for a negative temperature, `top_k` below 1 or `top_p` outside (0, 1].

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
        fix = "0 is greedy, 1 is the model itself"
        require(temperature >= 0, "temperature of at least 0", temperature, fix)
        if top_k is not None:
            at_least(1, top_k, "top_k", "leave it out to keep all tokens")
        require(top_p is None or 0 < top_p <= 1, "top_p in (0, 1]", top_p, "leave it out to keep all tokens")
        smallest = float(jnp.finfo(jnp.float32).tiny)  # what float32 flushes to zero would divide by zero
        self.greedy = bool(temperature < smallest)
        self.temperature = jnp.float32(temperature)
        self.top_k = None if top_k is None or self.greedy else jnp.int32(min(top_k, 2**31 - 1))
        self.top_p = None if top_p is None or self.greedy else jnp.float32(max(top_p, smallest))

    def probabilities(self, logits: Float[Array, "*batch vocab"]) -> Float[Array, "*batch vocab"]:
        """The distribution that tokens are drawn from."""
        if self.greedy:
            return jax.nn.one_hot(argmax(logits), logits.shape[-1])
        # The best logit at 0, so that a low temperature sends the others to -inf and none to +inf.
        logits = (logits - jnp.max(logits, axis=-1, keepdims=True)) / self.temperature
        if self.top_k is None and self.top_p is None:
            return jax.nn.softmax(logits, axis=-1)
        return jax.nn.softmax(jnp.where(self._kept(logits), logits, -jnp.inf), axis=-1)

    def _kept(self, logits: Float[Array, "*batch vocab"]):
        order = jnp.argsort(-logits, axis=-1, stable=True)
        rank = jnp.argsort(order, axis=-1)
        kept = jnp.full(logits.shape, True) if self.top_k is None else rank < self.top_k
        if self.top_p is not None:
            p = jax.nn.softmax(jnp.where(kept, logits, -jnp.inf), axis=-1)
            descending = jnp.take_along_axis(p, order, axis=-1)
            likelier = jnp.cumsum(descending, axis=-1) - descending
            # The sum may round to 1 before the last token; p = 1 still keeps them all.
            kept = kept & ((jnp.take_along_axis(likelier, rank, axis=-1) < self.top_p) | (self.top_p >= 1))
        return kept

    def draw(self, p: Float[Array, " vocab"], u: Float[Array, " two"]) -> Int[Array, ""]:
        """The token id that `u`, uniform in [0, 1), picks from `p`. Greedy distributions need none."""
        return argmax(p) if self.greedy else sample_categorical(p, u)

    def numbers(
        self, key: PRNGKeyArray, capacity: int, width: int
    ) -> Float[Array, "capacity width role two"]:
        """`uniforms` for every position of a text that a cycle may start at; greedy, which needs none, zeros.

        All at once, outside the decoding loop: on a CPU, XLA runs the generator as a loop of its own.
        """
        if self.greedy:
            return jnp.zeros((capacity, width, 3, 2))
        return jax.vmap(lambda start: uniforms(key, start, width))(jnp.arange(capacity))


def uniforms(key: PRNGKeyArray, start: Int[Array, ""], width: int) -> Float[Array, "width role two"]:
    """The random numbers of the cycle that starts at position `start` of a text.

    `u[i, role]` serves one role at the position `start + i`. Positions are drafted again after a rejection;
    the cycle's start keeps that draw independent of the rejected one.
    """
    return jax.random.uniform(jax.random.fold_in(key, start), (width, 3, 2))


def sample_categorical(p: Float[Array, " vocab"], u: Float[Array, " two"]) -> Int[Array, ""]:
    """A token drawn from `p`: first a group of about √vocab tokens, then one of its own.

    Each by the inverse of the cumulative distribution, with a number of its own: one for both would have too
    few bits for a large vocabulary.

    >>> p = jnp.array([0.0, 0.5, 0.0, 0.25, 0.25])  # in groups of 3, the second one filled up with a 0
    >>> several = [(0.0, 0.99), (0.49, 0.0), (0.5, 0.49), (0.99, 0.5)]
    >>> [int(sample_categorical(p, jnp.array(u))) for u in several]
    [1, 1, 3, 4]
    """
    side = math.isqrt(p.size - 1) + 1
    groups = jnp.pad(p, (0, side * side - p.size)).reshape(side, side)
    group = _passed(jnp.sum(groups, axis=-1), u[0])
    return group * side + _passed(groups[group], u[1])


def _passed(weights: Float[Array, " n"], u: Float[Array, ""]) -> Int[Array, ""]:
    """Where the running sum passes the share `u` of the whole: at a positive weight, if there is one."""
    index, positive = jnp.arange(weights.size), weights > 0
    running = jnp.cumsum(weights)
    last = jnp.max(jnp.where(positive, index, 0))
    return jnp.min(jnp.where(positive & (running > u * running[-1]), index, last))


def argmax(scores: Shaped[Array, "*batch vocab"]) -> Int[Array, "*batch"]:
    """`argmax`: the first of the highest. On a CPU XLA takes several times as long for its own.

    >>> argmax(jnp.array([0.1, 0.4, 0.4])).tolist()
    1
    """
    vocab = scores.shape[-1]
    highest = scores == jnp.max(scores, axis=-1, keepdims=True)
    ids = jax.lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1)
    place = jnp.min(jnp.where(highest, ids, vocab), axis=-1)
    return jnp.minimum(place, vocab - 1)  # of numbers that are none, no token beyond the last
