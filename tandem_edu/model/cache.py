"""The key/value cache: an immutable value with a length.

Axis names: `n_kv_heads`, `capacity` (slots), `head_dim`. One pair of arrays per layer, heads first,
so that attention reads each head's keys as one contiguous block.

*Rollback is not advancing the length*: what lies beyond `length` is never attended to, and the next
write goes over it. That is all speculative decoding needs to forget rejected drafts.
"""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from tandem_edu.model.config import TransformerConfig

KV = tuple[Float[Array, "*batch n_kv_heads len head_dim"], Float[Array, "*batch n_kv_heads len head_dim"]]


class Cache(eqx.Module):
    """Keys and values of the first `length` tokens, for every layer.

    `lax.dynamic_update_slice` clamps a write that would run over the end, and so would overwrite valid
    entries: make `capacity` at least the longest text plus the widest write (γ_max + 1).

    >>> cfg = TransformerConfig(vocab_size=8, d_model=4, n_layers=2, n_heads=2, n_kv_heads=1,
    ...                         d_ff=8, max_len=16)
    >>> cache = Cache.empty(cfg, capacity=20)
    >>> len(cache.k), cache.k[0].shape, int(cache.length)
    (2, (1, 20, 2), 0)
    """

    k: tuple[Float[Array, "n_kv_heads capacity head_dim"], ...]
    v: tuple[Float[Array, "n_kv_heads capacity head_dim"], ...]
    length: Int[Array, ""]

    @classmethod
    def empty(cls, config: TransformerConfig, capacity: int) -> "Cache":
        """A cache with room for `capacity` tokens and none in it."""
        zeros = jnp.zeros((config.n_kv_heads, capacity, config.head_dim))
        return cls((zeros,) * config.n_layers, (zeros,) * config.n_layers, jnp.int32(0))

    @property
    def capacity(self) -> int:
        """Number of slots."""
        return self.k[0].shape[-2]

    def write(self, layer: int, start: Int[Array, ""], kv: KV) -> "Cache":
        """Put a run of keys and values into `layer` from slot `start` on; the length stays."""
        k, v = kv
        at = (jnp.int32(0), start, jnp.int32(0))
        return eqx.tree_at(
            lambda cache: (cache.k[layer], cache.v[layer]),
            self,
            (
                lax.dynamic_update_slice(self.k[layer], k, at),
                lax.dynamic_update_slice(self.v[layer], v, at),
            ),
        )

    def with_length(self, length: Int[Array, ""] | int) -> "Cache":
        """The same entries with another length: shorter is a rollback."""
        return eqx.tree_at(lambda cache: cache.length, self, jnp.asarray(length, jnp.int32))
