"""Glide: a drafter that attends to its primary's own cache (arXiv:2402.02082).

Token i, in the block that starts at k(i), attends in layer j of the secondary to the keys and values

- of t < k(i) in the primary's layer ℓ(j), as they are in *its* cache;
- of k(i) ≤ t ≤ i in its own residual stream.

It computes and stores nothing of the past, but needs the primary's `head_dim`, `n_kv_heads` and `rope_theta`.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tandem_edu.drafters.projection import resolve_layer_map
from tandem_edu.drafters.protocol import Draft, PrimaryOutput, PrimaryReader, check_same_vocabulary
from tandem_edu.errors import require
from tandem_edu.model import Cache, Transformer, TransformerConfig
from tandem_edu.model.masks import block_starts, positions, tandem_masks, visible


class Glide(PrimaryReader):
    """A secondary that attends to the primary's cache.

    `layer_map` says whose cache each layer attends to, see `resolve_cache_map`. Nothing here is random, so
    `key` is not used. Raises `BadInput` where the two models do not fit together, heads included.

    >>> import jax
    >>> cfg = TransformerConfig(8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=16, max_len=16)
    >>> Glide(Transformer(cfg, key=jax.random.key(1)), cfg).settings()
    {'layer_map': [1, 2]}
    """

    kind: ClassVar[str] = "glide"
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
        for name in ("head_dim", "n_kv_heads", "rope_theta"):
            wanted, got = getattr(primary_config, name), getattr(config, name)
            expected = f"a secondary with the primary's {name} = {wanted}"
            require(got == wanted, expected, got, "give it the same (head_dim is d_model / n_heads)")
        self.secondary = secondary
        self.primary_config = primary_config
        self.layers = resolve_cache_map(layer_map, primary_config.n_layers, config.n_layers)

    def settings(self) -> dict[str, Any]:
        return {"layer_map": list(self.layers)}

    def teacher_forced(self, primary, tokens, hidden, block_len, offset=0):
        """See `PrimaryReader`. The primary's keys and values are computed again from its states."""
        self.check_block_len(block_len)
        seq = tokens.shape[-1]
        rope = self.secondary.rope(positions(seq))

        def both(layer, kv, carry):
            below = self.layers[layer] - 1
            return [kv, primary.blocks[below].keys_values(hidden[..., below, :, :], rope)], carry

        masks = tandem_masks(block_starts(seq, block_len, offset))
        states, _ = self.secondary.run_layers(self.secondary.embed(tokens), rope, masks, both)
        return self.secondary.logits(states[-1])

    def start(self, output: PrimaryOutput, max_draft_len: int, block_len: Int[Array, ""]) -> Cache:
        return Cache.empty(self.config, max_draft_len + 1)

    def step(self, token: Int[Array, ""], state: Cache, primary: Transformer, cache: Cache) -> Draft:
        layers = [layer - 1 for layer in self.layers]
        states, state = read_in_block(self.secondary, self.secondary.embed(token[None]), state, cache, layers)
        return Draft(self.secondary.logits(states[-1])[0], state, states[-1][0])

    def commit(self, state: Cache, output: PrimaryOutput) -> Cache:
        return state.with_length(0)


def read_in_block(
    model: Transformer,
    x: Float[Array, "q_len d_model"],
    own: Cache,
    primary_cache: Cache,
    layers: Sequence[int],
) -> tuple[list[Float[Array, "q_len d_model"]], Cache]:
    """More tokens of the current block (`x`) through the first `len(layers)` layers of `model`.

    `own` holds the current block, `primary_cache` the past, of which layer j sees layer `layers[j]` (from 0).
    Returns the residual states and the longer `own`.
    """
    start = primary_cache.length
    position = positions(x.shape[0], start=start + own.length)
    masks = [
        visible(positions(own.capacity, start=start), last=position),
        visible(positions(primary_cache.capacity), last=0 * position + start - 1),
    ]

    def both(layer, kv, own):
        own = own.append(layer, kv)
        return [own[layer], primary_cache[layers[layer]]], own

    states, longer = model.run_layers(x, model.rope(position), masks, both, own, depth=len(layers))
    return states, longer.with_length(own.length + x.shape[0])


def resolve_cache_map(layer_map: str | Sequence[int], n_primary: int, n_secondary: int) -> tuple[int, ...]:
    """Whose cache each secondary layer attends to: ℓ(j) in 1 .. n_primary, j = 0 .. n_secondary - 1.

    Layer ℓ computes its keys and values, entry ℓ - 1 of the cache, from residual state ℓ - 1. `"last"` is
    ℓ(j) = n_primary - n_secondary + j + 1, `"uniform"` as in `resolve_layer_map`; or pass a list of layers.

    >>> resolve_cache_map("last", 6, 2), resolve_cache_map("uniform", 6, 2)
    ((5, 6), (3, 6))
    """
    if isinstance(layer_map, str) and layer_map in ("last", "uniform"):
        states = [state for (state,) in resolve_layer_map(layer_map, n_primary, n_secondary)]
        return tuple(state + 1 if layer_map == "last" else max(state, 1) for state in states)
    listed = isinstance(layer_map, list | tuple) and len(layer_map) == n_secondary
    fits = listed and all(layer in range(1, n_primary + 1) for layer in layer_map)
    expected = f'layer_map "last", "uniform" or {n_secondary} of the primary\'s layers 1..{n_primary}'
    require(fits, expected, repr(layer_map), "give one for each layer of the secondary")
    return tuple(layer_map)  # pyright: ignore
