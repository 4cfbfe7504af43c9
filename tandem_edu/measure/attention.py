"""Where a tandem looks: the attention weights of each of its heads, on its own side and the primary's.

For token i, a_i(s, t) is the softmax weight of the key of token t on side s (its own, or computed from the
primary's representations); over both sides together it adds up to 1. The *primary's share* of token i is
Σ_t a_i(primary, t): how much of what the head mixes comes from the primary.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tandem_edu.errors import require
from tandem_edu.model import Tandem, Transformer
from tandem_edu.model.attached import check_block_len
from tandem_edu.model.layers import rope_table
from tandem_edu.model.masks import block_starts, tandem_masks

OWN, PRIMARY = 0, 1
"""The sides, on a map's last axis but one."""


def attention_maps(
    primary: Transformer,
    tandem: Tandem,
    tokens: Int[np.ndarray, " seq"],
    block_len: int,
    offset: int = 0,
) -> Float[np.ndarray, "n_layers n_heads seq sides seq"]:
    """The weights a of every head of every secondary layer; `sides` are `OWN` and `PRIMARY`.

    The plain slow softmax, beside the one that decoding uses. Raises `BadInput` for a text longer than
    the model's context or a `block_len` below 1.
    """
    check_block_len(tandem, block_len)
    seq, longest = len(tokens), tandem.config.max_len
    require(1 <= seq <= longest, f"1 to {longest} tokens", seq, "take a part of the text")
    text, secondary = jnp.asarray(tokens, jnp.int32), tandem.secondary
    _, hidden = primary(text, return_hidden=True)
    starts = block_starts(seq, block_len, offset)
    masks = tandem_masks(starts, tandem.own_history)
    _, own, theirs = tandem.read_blocks(text, hidden, starts)
    rope = rope_table(jnp.arange(seq), tandem.config.head_dim, tandem.config.rope_theta)
    x, maps = secondary.embed(text), []
    for block, *sides in zip(secondary.blocks, own, theirs, strict=True):
        x = block.read(x, rope, partial(_watched, sides=sides, masks=masks, seen=maps))
    return np.asarray(jnp.stack(maps))


def primary_share(
    maps: Float[np.ndarray, "n_layers n_heads seq sides seq"],
) -> Float[np.ndarray, "n_layers n_heads seq"]:
    """How much of each head's attention goes to the primary, token by token.

    >>> maps = np.zeros((1, 1, 2, 2, 2))
    >>> maps[0, 0, 1, PRIMARY, 0], maps[0, 0, 1, OWN, 1] = 0.75, 0.25
    >>> primary_share(maps)[0, 0].tolist()
    [0.0, 0.75]
    """
    return maps[..., PRIMARY, :].sum(-1)


def _watched(
    q: Float[Array, "n_heads seq head_dim"], sides, masks, seen: list[Array]
) -> Float[Array, "n_heads seq head_dim"]:
    """Attention written down as in the textbook; its weights go into `seen`."""
    n_heads, _, head_dim = q.shape
    group = n_heads // sides[0][0].shape[0]
    keys, values = (
        jnp.concatenate([jnp.repeat(side[i], group, axis=0) for side in sides], axis=1) for i in (0, 1)
    )
    mask = jnp.concatenate([jnp.asarray(mask) for mask in masks], axis=-1)
    scores = jnp.where(mask[None], q @ jnp.swapaxes(keys, -1, -2) / head_dim**0.5, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1)
    seen.append(weights.reshape(n_heads, q.shape[1], 2, -1))
    return weights @ values
