"""Verification: which drafts to accept so that the output has exactly the primary's distribution.

The rule of Leviathan et al. (arXiv:2211.17192) and Chen et al. (arXiv:2302.01318): a draft x ~ q is
accepted with probability min(1, p(x) / q(x)). At the first rejection a token is drawn from the residual

    r(v) = max(0, p(v) - q(v)) / Σ_w max(0, p(w) - q(w)),

and if all drafts are accepted, from p at the next position (the *bonus* token). A token v then has
probability min(p, q)(v) + (1 - Σ min(p, q)) · r(v) = p(v). Under greedy decoding p and q are one-hot, and
the same rule says "accept while the argmax agrees".

Axis names: `block` = γ_max drafts, `width` = γ_max + 1 verified positions, `vocab`.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tandem_edu.decode.sampling import ACCEPT, EMIT, Sampling
from tandem_edu.model.masks import positions


class Verification(eqx.Module):
    """The outcome for one block."""

    accepted: Int[Array, ""]
    """Number of drafts accepted."""
    token: Int[Array, ""]
    """The token that follows them, drawn by the primary."""
    acceptance_prob: Float[Array, " block"]
    """β = Σ_v min(p, q) at each draft's position: the probability that such a draft is accepted."""


def verify(
    drafts: Int[Array, " block"],
    drafted: Int[Array, ""],
    q: Float[Array, "block vocab"],
    p: Float[Array, "width vocab"],
    sampling: Sampling,
    u: Float[Array, "width role two"],
) -> Verification:
    """Token-by-token rejection of the first `drafted` drafts.

    `q[i]` is the distribution that draft i was drawn from, `p[i]` the primary's at the same position, `u`
    the cycle's random numbers (`sampling.cycle_uniforms`).
    """
    index = positions(drafts.shape[0])
    is_accepted = (u[:-1, ACCEPT, 0] * q[index, drafts] < p[index, drafts]) & (index < drafted)
    accepted = jnp.argmin(jnp.append(is_accepted, False)).astype(jnp.int32)
    token = sampling.draw(next_distribution(p, q, accepted, drafted), u[accepted, EMIT])
    return Verification(accepted, token, acceptance_prob(p, q))


def acceptance_prob(p: Float[Array, "_ vocab"], q: Float[Array, "block vocab"]) -> Float[Array, " block"]:
    """β = Σ_v min(p(v), q(v)) = 1 - TV(p, q) at each draft's position."""
    return jnp.sum(jnp.minimum(p[: q.shape[0]], q), axis=-1)


def next_distribution(p, q, accepted, drafted) -> Float[Array, " vocab"]:
    """The residual at the first rejected position, or p itself after the last accepted draft."""
    row = p[accepted]
    rejected_q = jnp.where(accepted < drafted, q[jnp.minimum(accepted, q.shape[0] - 1)], 0.0)
    residual = jnp.maximum(row - rejected_q, 0.0)
    total = jnp.sum(residual)
    # Where p and q differ by rounding alone, a rejection may leave no residual at all.
    return jnp.where(total > 0, residual / jnp.where(total > 0, total, 1.0), row)
