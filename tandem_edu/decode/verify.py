"""Verification: which drafts to accept so that the output has exactly the primary's distribution.

**Token by token** (Leviathan et al., arXiv:2211.17192; Chen et al., arXiv:2302.01318): a draft x ~ q is
accepted with probability min(1, p(x) / q(x)). At the first rejection a token is drawn from the residual

    r(v) = max(0, p(v) - q(v)) / Σ_w max(0, p(w) - q(w)),

and if all drafts are accepted, from p at the next position (the *bonus* token). A token v then has
probability min(p, q)(v) + (1 - Σ min(p, q)) · r(v) = p(v). Under greedy decoding p and q are one-hot, and
the same rule says "accept while the argmax agrees".

**As a block** (Sun et al., arXiv:2403.10444, Algorithm 2): a draft that the drafter likes too much may be
followed by one that it likes too little, so that the primary writes the two *together* often enough. With
drafts x_1 .. x_γ, and p and q each given the drafts before,

    p_0 = 1,   p_i = min(1, p_{i-1} · p(x_i) / q(x_i))       the share of x_1 .. x_i that may be accepted,
    r_i(v) = max(0, p_i · p(v) - q(v)),   S_i = Σ_v r_i(v)   what draft i + 1 leaves to the primary,
    h_i = S_i / (S_i + 1 - p_i) for i < γ,   h_γ = p_γ.

Each length i has its own random number u_i. The *longest* i with u_i < h_i is accepted (i = 0 if there is no
other, since h_0 = 1), and the next token is drawn from r_i / S_i, or from p if i = γ.

Why it is exact: the probability to accept i drafts or more, given x_1 .. x_i, is p_i. This is true of h_γ. If
it is true of i + 1, draft i + 1 is accepted with probability Σ_v min(q(v), p_i · p(v)) = p_i - S_i, and
otherwise h_i adds (1 - p_i + S_i) · h_i = S_i. So after x_1 .. x_i token v comes with probability
min(q(v), p_i · p(v)) as a draft and S_i · r_i(v) / S_i from the primary: together p_i · p(v).

Why it accepts at least as many: token by token, i drafts are accepted with probability
Π_j min(1, p(x_j) / q(x_j)). p_i caps only the product so far, not each factor, and so is at least as large.

Axis names: `block` = γ_max drafts, `width` = γ_max + 1 verified positions, `vocab`.
"""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from tandem_edu.decode.sampling import ACCEPT, EMIT, Sampling
from tandem_edu.model.masks import positions


class Verification(eqx.Module):
    """The outcome for one block: how many drafts are accepted, and the primary's token after them."""

    accepted: Int[Array, ""]
    token: Int[Array, ""]
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


def verify_block(drafts, drafted, q, p, sampling: Sampling, u) -> Verification:
    """Joint verification of the first `drafted` drafts, with the arguments and the result of `verify`.

    A router may stop drafting after any draft, but may not remove that draft from the block: this would
    change the distribution of the drafts before it.

    Token by token, this first draft would be rejected half of the time. The second compensates for it:

    >>> q, p = jnp.array([[2.0, 1.0]] * 2) / 3, jnp.array([[1.0, 2.0]] * 3) / 3
    >>> import jax
    >>> u = jax.random.uniform(jax.random.key(0), (1000, 3, 3, 2))
    >>> block = (jnp.array([0, 1]), jnp.int32(2), q, p, Sampling(temperature=1.0))
    >>> int(jnp.min(jax.jit(jax.vmap(lambda u: verify_block(*block, u)))(u).accepted))
    2
    """
    index = positions(drafts.shape[0] + 1)  # row i of an array with `width` rows is about accepting i drafts
    share = shares(drafts, q, p)
    # After the last draft q = 0; the same formula then gives h = p_i and r ∝ p.
    q_next = jnp.where((index < drafted)[:, None], jnp.pad(q, ((0, 1), (0, 0))), 0.0)
    residual = jnp.maximum(share[:, None] * p - q_next, 0.0)
    total = jnp.sum(residual, axis=-1)
    # h_i. 0 / 0 is 1: a run whose share is 1 is accepted.
    denominator = total + (1 - share)
    keep = jnp.where(denominator == 0, 1.0, total / jnp.where(denominator == 0, 1.0, denominator))
    is_accepted = (u[:, ACCEPT, 0] < keep) & (index <= drafted)
    accepted = jnp.max(jnp.where(is_accepted, index, 0)).astype(jnp.int32)
    # Where p and q differ by rounding alone, there may be no residual at all.
    row = jnp.where(total[accepted] > 0, residual[accepted], p[accepted])
    token = sampling.draw(row, u[accepted, EMIT])
    return Verification(accepted, token, acceptance_prob(p, q))


def shares(
    drafts: Int[Array, " block"], q: Float[Array, "block vocab"], p: Float[Array, "width vocab"]
) -> Float[Array, " width"]:
    """p_0 .. p_γ: the share of each run of drafts that may be accepted."""

    def next_share(share, pair):
        primary, drafter = share * pair[0], pair[1]
        larger = jnp.maximum(primary, drafter)
        # min(1, a / b) = a / max(a, b); 0 where neither model gives the token a probability.
        return primary / jnp.where(larger > 0, larger, 1.0), share

    index = positions(drafts.shape[0])
    last, before = lax.scan(next_share, jnp.ones_like(p[0, 0]), (p[index, drafts], q[index, drafts]))
    return jnp.append(before, last)
