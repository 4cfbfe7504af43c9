"""Who sees whom: boolean masks, `True` where a query (row) may attend to a key (column).

Positions count from the start of the text. Axis names: `q_len` queries, `kv_len` keys, `seq` tokens.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def positions(count: int, start: int | Int[Array, ""] = 0) -> Int[Array, " count"]:
    """start, start + 1, ..., start + count - 1.

    >>> positions(3, start=5).tolist()
    [5, 6, 7]
    """
    return jnp.arange(count, dtype=jnp.int32) + jnp.asarray(start, jnp.int32)


def visible(
    key: Int[Array, " kv_len"], last: Int[Array, " q_len"], first: Int[Array, " q_len"] | None = None
) -> Bool[Array, "q_len kv_len"]:
    """Query i sees the keys at positions first_i ≤ t ≤ last_i; without `first`, all t ≤ last_i.

    Every mask is such a window, in a parallel pass as with a cache:

    - causal: last = the query's own position;
    - a tandem's own keys: from the start of the query's block, k(i), to the query;
    - the primary's keys: last = k(i) - 1.

    >>> visible(positions(4), last=positions(2, start=1)).astype(int).tolist()
    [[1, 1, 0, 0], [1, 1, 1, 0]]
    """
    mask = key[None, :] <= last[:, None]
    return mask if first is None else mask & (key[None, :] >= first[:, None])


def block_starts(
    seq: int, block_len: int | Int[Array, ""], offset: int | Int[Array, ""] = 0
) -> Int[Array, " seq"]:
    """k(i), the position at which token i's block starts (paper, section 3).

        k(i) = max(0, offset + floor((i - offset) / γ) · γ)

    Blocks start at `offset`, `offset + γ`, ... Tokens before the offset are divided in the same way,
    counting backwards, so the first block may be shorter. `block_len` (γ) and `offset` may be traced.

    >>> block_starts(7, block_len=3).tolist()
    [0, 0, 0, 3, 3, 3, 6]
    >>> block_starts(7, block_len=3, offset=1).tolist()
    [0, 1, 1, 1, 4, 4, 4]
    """
    block_len, offset = (jnp.asarray(number, jnp.int32) for number in (block_len, offset))
    return jnp.maximum(0, offset + (positions(seq) - offset) // block_len * block_len)


def tandem_masks(
    starts: Int[Array, " seq"], own_history: bool = False
) -> tuple[Bool[Array, "seq seq"], Bool[Array, "seq seq"]]:
    """The two masks of a secondary that reads a whole text: over its own keys, and over the primary's.

    Token i sees its own representations of k(i) ≤ t ≤ i (with `own_history`, of every t ≤ i), and the
    primary's of t < k(i). `starts` holds k(i), see `block_starts`. (Equation 2 of the paper, as printed,
    is off by one from its figures 1 and 4; this follows the figures.)

    >>> own, primary = tandem_masks(block_starts(4, block_len=2))
    >>> own.astype(int).tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    >>> primary.astype(int).tolist()
    [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    """
    position = positions(starts.shape[0])
    own = visible(position, last=position, first=None if own_history else starts)
    return own, visible(position, last=starts - 1)
