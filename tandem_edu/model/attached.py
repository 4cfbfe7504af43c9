"""Drafters that read a primary: what all of them have in common.

They differ in *what of the primary* they take, and in what they add of their own:

| model | of the past it sees | weights of its own |
|---|---|---|
| `Tandem` | the primary's states, projected, at every layer | a secondary, projections |
| `Eagle` | the primary's states at its input, and keys of its own | a secondary, a fusion |
| `Glide` | the primary's own keys and values | a secondary |
| `EarlyExit` | the primary's own keys and values | a norm and one map |

In all of them the primary is frozen, and token i of the block that starts at k(i) knows of the primary
only what the primary has read by then: the tokens t < k(i).

Axis names: `seq` tokens, `depth` = primary's n_layers + 1 residual states, `d_primary` its width.
"""

import abc
from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from tandem_edu.errors import at_least, require
from tandem_edu.model.cache import Cache
from tandem_edu.model.config import TransformerConfig
from tandem_edu.model.layers import Block, attend, rope_table
from tandem_edu.model.masks import cached_mask
from tandem_edu.model.transformer import Transformer


class PrimaryReader(eqx.Module):
    """A model that drafts with the help of a primary.

    `config` has the sizes of what it drafts with, `primary_config` those of the primary it is made for.
    """

    config: eqx.AbstractVar[TransformerConfig]
    primary_config: eqx.AbstractVar[TransformerConfig]

    @abc.abstractmethod
    def teacher_forced(
        self,
        primary: Transformer,
        tokens: Int[Array, "*batch seq"],
        hidden: Float[Array, "*batch depth seq d_primary"],
        block_len: int | Int[Array, ""],
        offset: int | Int[Array, ""] = 0,
    ) -> Float[Array, "*batch seq vocab"]:
        """The logits a decoder would get, at every position at once, from the primary's states `hidden`.

        Blocks start at `offset`, `offset + block_len`, ... (`masks.block_starts`); both may be traced.
        Raises `BadInput` for a `block_len` that the model cannot be taught with.
        """

    @property
    def max_block_len(self) -> int | None:
        """The longest block that `teacher_forced` gets right; `None` where there is no limit."""
        return None


def check_block_len(model: PrimaryReader, block_len: int | Int[Array, ""]) -> None:
    """Raise `BadInput` for a `block_len` below 1 or too long for `model`; a traced one is not looked at."""
    if isinstance(block_len, Tracer):
        return
    block_len = at_least(1, block_len, "block_len", "the paper trains with block_len=2")
    longest = model.max_block_len
    expected, fix = f"block_len of at most unroll = {longest}", f"build it with unroll={block_len}"
    require(longest is None or block_len <= longest, expected, block_len, fix)


def check_config(primary_config: object) -> None:
    """Raise `BadInput` for anything but the sizes of a primary, such as the primary itself."""
    right, got = isinstance(primary_config, TransformerConfig), type(primary_config).__name__
    require(right, "primary_config as a TransformerConfig", got, "pass primary.config")


def read_in_block(
    blocks: Sequence[Block],
    x: Float[Array, "q_len d_model"],
    own: Cache,
    primary_cache: Cache,
    layers: Sequence[int],
    config: TransformerConfig,
) -> tuple[Float[Array, "q_len d_model"], Cache]:
    """More tokens of the current block (`x`) through `blocks`: their residual stream, and the longer `own`.

    `own` holds the current block only. Of the past, the j-th block sees what `primary_cache` holds for
    the primary's block `layers[j]` (from 0); one softmax runs over both, and nothing is copied.
    """
    q_len, inside = x.shape[0], own.length
    position = primary_cache.length + inside + jnp.arange(q_len)
    rope = rope_table(position, config.head_dim, config.rope_theta)
    past = jnp.arange(primary_cache.capacity)[None, :] < primary_cache.length
    masks = [
        cached_mask(inside, q_len, own.capacity),
        jnp.broadcast_to(past, (q_len, primary_cache.capacity)),
    ]
    for layer, (block, theirs) in enumerate(zip(blocks, layers, strict=True)):
        own = own.write(layer, inside, block.write(x, rope))
        sides = [(own.k[layer], own.v[layer]), (primary_cache.k[theirs], primary_cache.v[theirs])]
        x = block.read(x, rope, partial(attend, sides=sides, masks=masks))
    return x, own.with_length(inside + q_len)
