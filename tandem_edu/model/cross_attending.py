"""A drafter that looks into its primary's cache (GLIDE, arXiv:2402.02082; so do Gemma 4's assistants).

For token i in the block that starts at k(i), layer j of the secondary takes its queries from its own
residual stream, and its keys and values

- for t < k(i) from the primary: those of its layer ℓ(j), just as they lie in *its* cache;
- for k(i) ≤ t ≤ i from its own residual stream.

Of the past the drafter computes nothing and stores nothing. In return its heads must fit the primary's:
the same `head_dim`, `n_kv_heads` and `rope_theta`.

Axis names: `seq` tokens, `depth` = primary's n_layers + 1 residual states, `d_primary` its width.
"""

from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tandem_edu.errors import BadInput, require
from tandem_edu.model.attached import PrimaryReader, check_block_len, read_in_block
from tandem_edu.model.cache import Cache
from tandem_edu.model.config import TransformerConfig
from tandem_edu.model.layers import attend_causal, rope_table
from tandem_edu.model.masks import block_starts, tandem_masks
from tandem_edu.model.tandem import check_same_vocabulary, resolve_layer_map
from tandem_edu.model.transformer import Transformer


def resolve_cache_map(layer_map: str | Sequence[int], n_primary: int, n_secondary: int) -> tuple[int, ...]:
    """Whose cache each secondary layer looks into: ℓ(j) in 1 .. n_primary, j = 0 .. n_secondary - 1.

    Layer ℓ computes its keys and values from residual state ℓ - 1; they are entry ℓ - 1 of the cache.

    - `"last"`: the primary's last layers, ℓ(j) = n_primary - n_secondary + j + 1;
    - `"uniform"`: ℓ(j) = round((j + 1) · n_primary / n_secondary), evenly spaced, ending at the last;
    - or the layers themselves, one for each secondary layer.

    >>> resolve_cache_map("last", 6, 2), resolve_cache_map("uniform", 6, 2)
    ((5, 6), (3, 6))
    """
    if not isinstance(layer_map, str):
        expected = f"{n_secondary} of the primary's layers 1..{n_primary}"
        fix = "give one for each layer of the secondary"
        try:
            layers = tuple(int(layer) for layer in layer_map)
        except (TypeError, ValueError):
            raise BadInput(expected, repr(layer_map), fix) from None
        fits = len(layers) == n_secondary and all(1 <= layer <= n_primary for layer in layers)
        require(fits, expected, layers, fix)
        return layers
    expected = 'layer_map "last", "uniform" or one layer of the primary for each of the secondary'
    require(layer_map in ("last", "uniform"), expected, repr(layer_map), "pick one")
    states = [state for (state,) in resolve_layer_map(layer_map, n_primary, n_secondary)]
    return tuple(state + 1 if layer_map == "last" else max(state, 1) for state in states)


class Glide(PrimaryReader):
    """A secondary whose past is the primary's cache.

    **Arguments:**

    - `secondary`: the small `Transformer`; of its config, `head_dim`, `n_kv_heads` and `rope_theta`
      must be the primary's.
    - `primary_config`: the primary's sizes; its vocabulary must be the secondary's.
    - `layer_map`: whose cache each layer looks into, see `resolve_cache_map`.
    - `key`: not used, since nothing in it is random; all attached models are made alike.

    Raises `BadInput` where the two do not fit together.

    >>> import jax
    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=16)
    >>> primary, secondary = (Transformer(cfg, key=jax.random.key(n)) for n in (0, 1))
    >>> model = Glide(secondary, cfg)
    >>> tokens = jnp.array([1, 5, 2, 7])
    >>> _, hidden = primary(tokens, return_hidden=True)
    >>> forced = model.teacher_forced(primary, tokens, hidden, block_len=2)
    >>> _, cache = primary.prefill(tokens, length=2, capacity=20)
    >>> logits, _, own = model.step(tokens[2], model.init_block(capacity=8), cache)
    >>> bool(jnp.allclose(logits, forced[2], atol=1e-5)), int(own.length)
    (True, 1)
    """

    secondary: Transformer
    primary_config: TransformerConfig = eqx.field(static=True)
    layers: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        secondary: Transformer,
        primary_config: TransformerConfig,
        layer_map: str | Sequence[int] = "last",
        *,
        key: PRNGKeyArray | None = None,
    ):
        config = secondary.config
        check_same_vocabulary(primary_config, config)
        _check_heads(primary_config, config)
        self.secondary = secondary
        self.primary_config = primary_config
        self.layers = resolve_cache_map(layer_map, primary_config.n_layers, config.n_layers)

    @property
    def config(self) -> TransformerConfig:
        """The secondary's config."""
        return self.secondary.config

    def teacher_forced(
        self,
        primary: Transformer,
        tokens: Int[Array, "*batch seq"],
        hidden: Float[Array, "*batch depth seq d_primary"],
        block_len: int | Int[Array, ""],
        offset: int | Int[Array, ""] = 0,
    ) -> Float[Array, "*batch seq vocab"]:
        """See `PrimaryReader`. The primary's keys and values are computed again from its states."""
        check_block_len(self, block_len)
        seq = tokens.shape[-1]
        rope = rope_table(jnp.arange(seq), self.config.head_dim, self.config.rope_theta)
        masks = tandem_masks(block_starts(seq, block_len, offset))
        x = self.secondary.embed(tokens)
        for layer, block in zip(self.layers, self.secondary.blocks, strict=True):
            theirs = primary.blocks[layer - 1].write(hidden[..., layer - 1, :, :], rope)
            sides = [block.write(x, rope), theirs]
            x = block.read(x, rope, partial(attend_causal, sides=sides, masks=masks))
        return self.secondary.logits(x)

    def init_block(self, capacity: int) -> Cache:
        """An empty cache for one block of at most `capacity` tokens; `with_length(0)` starts the next one."""
        return Cache.empty(self.config, capacity)

    def step(
        self, token: Int[Array, ""], own: Cache, primary_cache: Cache
    ) -> tuple[Float[Array, " vocab"], Float[Array, " d_model"], Cache]:
        """Read one token of the current block: logits, top residual state, and the longer `own`.

        `primary_cache` holds what is before the block; the token's position is the sum of both lengths.
        """
        x, layers = self.secondary.embed(token[None]), [layer - 1 for layer in self.layers]
        x, own = read_in_block(self.secondary.blocks, x, own, primary_cache, layers, self.config)
        return self.secondary.logits(x)[0], x[0], own


def _check_heads(primary: TransformerConfig, secondary: TransformerConfig) -> None:
    """Raise `BadInput` unless the secondary's queries fit the primary's keys."""
    for name in ("head_dim", "n_kv_heads", "rope_theta"):
        theirs, mine = getattr(primary, name), getattr(secondary, name)
        fix = f"give the secondary a head_dim = d_model / n_heads of {theirs}"
        fix = fix if name == "head_dim" else f"give the secondary {name}={theirs}"
        require(mine == theirs, f"a secondary with the primary's {name} = {theirs}", mine, fix)
