"""Who may look at whom: boolean masks, `True` where a query (row) sees a key (column).

Axis names: `q_len` queries, `kv_len` keys, `seq` both at once. Positions count from the text's start.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def causal_mask(seq: int) -> Bool[Array, "seq seq"]:
    """Token i sees the tokens t ≤ i.

    >>> causal_mask(3).astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    return cached_mask(jnp.int32(0), seq, seq)


def cached_mask(length: Int[Array, ""], q_len: int, capacity: int) -> Bool[Array, "q_len capacity"]:
    """The mask of `q_len` new tokens after `length` cached ones, over all slots of the cache.

    >>> cached_mask(jnp.int32(2), q_len=2, capacity=5).astype(int).tolist()
    [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    """
    query = length + jnp.arange(q_len)
    return jnp.arange(capacity)[None, :] <= query[:, None]


def block_starts(
    seq: int, block_len: int | Int[Array, ""], offset: int | Int[Array, ""] = 0
) -> Int[Array, " seq"]:
    """k(i), the position at which token i's block starts (paper, section 3).

        k(i) = max(0, offset + floor((i - offset) / γ) · γ)

    Blocks start at `offset`, `offset + γ`, ...; what is before `offset` is cut on the same grid, so the
    first block may be shorter. `block_len` (γ) and `offset` may be traced values.

    >>> block_starts(7, block_len=3).tolist()
    [0, 0, 0, 3, 3, 3, 6]
    >>> block_starts(7, block_len=3, offset=1).tolist()
    [0, 1, 1, 1, 4, 4, 4]
    """
    position = jnp.arange(seq)
    return jnp.maximum(0, offset + (position - offset) // block_len * block_len)


def tandem_masks(
    starts: Int[Array, " seq"], own_history: bool = False
) -> tuple[Bool[Array, "seq seq"], Bool[Array, "seq seq"]]:
    """The secondary's two masks: over its own keys, and over the primary's.

    Token i sees its own representations of k(i) ≤ t ≤ i (with `own_history`, of every t ≤ i), and
    the primary's of t < k(i). `starts` is k(i) for each token, see `block_starts`.

    >>> own, primary = tandem_masks(block_starts(4, block_len=2))
    >>> own.astype(int).tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    >>> primary.astype(int).tolist()
    [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    """
    seq = starts.shape[0]
    before_block = jnp.arange(seq)[None, :] < starts[:, None]
    own = causal_mask(seq) if own_history else causal_mask(seq) & ~before_block
    return own, before_block
