"""The key/value cache: an immutable value with a length.

*A rollback sets a shorter length.* Entries beyond the length are never attended to, and the next write
replaces them. Speculative decoding needs nothing else to forget rejected drafts.

Axis names: `n_kv_heads`, `capacity` (slots), `head_dim`. Heads come first: the keys of one lie together.
"""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from tandem_edu.model.config import TransformerConfig

KV = tuple[Float[Array, "*batch n_kv_heads _ head_dim"], Float[Array, "*batch n_kv_heads _ head_dim"]]


class Cache(eqx.Module):
    """Keys and values of the first `length` tokens, for every layer.

    Choose `capacity` at least as large as the longest text plus the widest write (γ_max + 1):
    `lax.dynamic_update_slice` moves a write that would run over the end, and so would destroy entries.

    >>> cfg = TransformerConfig(8, d_model=4, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=8, max_len=16)
    >>> cache = Cache.empty(cfg, capacity=20)
    >>> len(cache.k), cache.k[0].shape, int(cache.length)
    (2, (1, 20, 2), 0)
    """

    k: tuple[Float[Array, "n_kv_heads capacity head_dim"], ...]
    v: tuple[Float[Array, "n_kv_heads capacity head_dim"], ...]
    length: Int[Array, ""]

    @classmethod
    def empty(cls, config: TransformerConfig, capacity: int) -> "Cache":
        """A cache for `capacity` tokens that holds none."""
        zeros = jnp.zeros((config.n_kv_heads, capacity, config.head_dim), jnp.float32)
        return cls((zeros,) * config.n_layers, (zeros,) * config.n_layers, jnp.int32(0))

    @property
    def capacity(self) -> int:
        """Number of slots."""
        return self.k[0].shape[-2]

    def __getitem__(self, layer: int) -> KV:
        """The keys and values of one layer, all slots."""
        return self.k[layer], self.v[layer]

    def append(self, layer: int, kv: KV) -> "Cache":
        """Write `kv` into `layer` from slot `length` on. The length stays until `with_length`."""
        at = (jnp.int32(0), self.length, jnp.int32(0))
        k, v = (lax.dynamic_update_slice(old, new, at) for old, new in zip(self[layer], kv, strict=True))
        return eqx.tree_at(lambda cache: (cache.k[layer], cache.v[layer]), self, (k, v))

    def with_length(self, length: Int[Array, ""] | int) -> "Cache":
        """The same entries with another length; a shorter one is a rollback."""
        return eqx.tree_at(lambda cache: cache.length, self, jnp.asarray(length, jnp.int32))
