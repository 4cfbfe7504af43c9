"""Block verification: judge the drafts together, and keep at least as many of them.

`verify` asks of one draft after the other "would the primary have said this?" and gives up at the first no.
What it cannot see is that a draft the drafter likes too much may be followed by one that it likes too
little, so that the two *together* are a text the primary writes often enough. Sun et al.
(arXiv:2403.10444, Algorithm 2) keep count over the whole block. With drafts x_1 .. x_γ, the drafter's q
and the primary's p, each given the drafts before,

    p_0 = 1,   p_i = min(1, p_{i-1} · p(x_i) / q(x_i))       the share of x_1 .. x_i that may stay,
    r_i(v) = max(0, p_i · p(v) - q(v)),   S_i = Σ_v r_i(v)   what draft i + 1 leaves unsaid,
    h_i = S_i / (S_i + 1 - p_i) for i < γ,   h_γ = p_γ.

Each length i has a random number u_i of its own; the *longest* i with u_i < h_i is kept (i = 0 if no other,
h_0 being 1), and the next token is drawn from r_i / S_i, or from p if i = γ.

Why it is exact. The chance to keep i drafts or more, given x_1 .. x_i, is p_i: true of h_γ; and if it is
true of i + 1, draft i + 1 stays with probability Σ_v min(q(v), p_i · p(v)) = p_i - S_i, and else h_i adds
(1 - p_i + S_i) · h_i = S_i. So after x_1 .. x_i token v comes with probability min(q(v), p_i · p(v)) as a
draft and S_i · r_i(v) / S_i by the primary: together p_i · p(v), in the primary's own proportions.

Why it keeps as many. Token by token, i drafts stay with probability Π_j min(1, p(x_j) / q(x_j)); p_i cuts
at 1 only the product so far, never a factor that makes up for an earlier one, and is at least as large.
It is also the most: if the text is to go on from p wherever a block ends, x_1 .. x_i can stay neither more
often than always nor more often than p_{i-1} · p(x_i) / q(x_i).

Axis names: as in `verify`; row i of what has `width` rows is about keeping i drafts.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from tandem_edu.decode.sampling import ACCEPT, EMIT, Sampling
from tandem_edu.decode.verify import Verification


def verify_block(
    drafts: Int[Array, " block"],
    drafted: Int[Array, ""],
    q: Float[Array, "block vocab"],
    p: Float[Array, "width vocab"],
    sampling: Sampling,
    u: Float[Array, "width role two"],
) -> Verification:
    """Joint verification of the first `drafted` drafts; arguments and verdict as `verify` has them.

    Where drafting stops may depend on the drafts so far, as long as the last one stays in the block:
    leaving it out because of what it is would change what the drafts before it mean.

    Token by token, this first draft would be lost half of the time. The second makes up for it:

    >>> q, p = jnp.array([[2.0, 1.0]] * 2) / 3, jnp.array([[1.0, 2.0]] * 3) / 3
    >>> import jax
    >>> u = jax.random.uniform(jax.random.key(0), (1000, 3, 3, 2))
    >>> of = (jnp.array([0, 1]), jnp.int32(2), q, p, Sampling(temperature=1.0))
    >>> int(jnp.min(jax.jit(jax.vmap(lambda u: verify_block(*of, u)))(u).accepted))
    2
    """
    index = jnp.arange(drafts.shape[0] + 1)
    share = shares(drafts, q, p)
    # After the last draft nothing was drafted, q = 0: the one rule then gives h = p_i and r ∝ p.
    against = jnp.where((index < drafted)[:, None], jnp.pad(q, ((0, 1), (0, 0))), 0.0)
    residual = jnp.maximum(share[:, None] * p - against, 0.0)
    total = jnp.sum(residual, axis=-1)
    may_stay = (u[:, ACCEPT, 0] < keep_probability(share, total)) & (index <= drafted)
    accepted = jnp.max(jnp.where(may_stay, index, 0)).astype(jnp.int32)
    # Where p and q differ by rounding alone, there may be no residual at all.
    row = jnp.where(total[accepted] > 0, residual[accepted], p[accepted])
    token = sampling.draw(row, u[accepted, EMIT])
    return Verification(accepted, token, jnp.sum(jnp.minimum(p[:-1], q), axis=-1))


def shares(
    drafts: Int[Array, " block"], q: Float[Array, "block vocab"], p: Float[Array, "width vocab"]
) -> Float[Array, " width"]:
    """p_0 .. p_γ: the share of each run of drafts that may stay.

    >>> q, p = jnp.array([[0.5, 0.5]] * 2), jnp.array([[0.25, 0.75]] * 3)
    >>> shares(jnp.array([0, 1]), q, p).tolist()
    [1.0, 0.5, 0.75]
    """

    def longer(share, pair):
        said, drafted = share * pair[0], pair[1]
        most = jnp.maximum(said, drafted)
        # min(1, a / b) = a / max(a, b); 0 where neither model can have said it.
        return said / jnp.where(most > 0, most, 1.0), share

    index = jnp.arange(drafts.shape[0])
    last, before = lax.scan(longer, jnp.ones_like(p[0, 0]), (p[index, drafts], q[index, drafts]))
    return jnp.append(before, last)


def keep_probability(share: Float[Array, " width"], total: Float[Array, " width"]) -> Float[Array, " width"]:
    """h_i = S_i / (S_i + 1 - p_i). 0 / 0 is 1: nothing speaks against a run whose share is 1."""
    below = total + (1 - share)
    # Of numbers that are none, a run that never stays.
    return jnp.where(below == 0, 1.0, total / jnp.where(below == 0, 1.0, below))
