"""The tandem: a secondary that sees the past through the primary's representations (paper, section 3).

For token i in the block that starts at k(i), layer j + 1 of the secondary takes its query from its own
residual stream y_i^(j), and its keys and values from

- W^(j) x_t^(ℓ(j)) for t < k(i): the *primary's* residual stream after layer ℓ(j), linearly projected;
- y_t^(j) for k(i) ≤ t ≤ i: its own, within the current block.

Both go through the secondary layer's own norm and key/value projection. In other words: **the secondary is
an ordinary transformer whose cache the primary overwrites each time it has read a block.**
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tandem_edu.drafters.plain import catch_up
from tandem_edu.drafters.projection import LayerMap, Projection, resolve_layer_map
from tandem_edu.drafters.protocol import Draft, PrimaryOutput, PrimaryReader, check_same_vocabulary
from tandem_edu.model import Cache, Transformer, TransformerConfig
from tandem_edu.model.cache import KV
from tandem_edu.model.layers import KeyValueProjection, Rope
from tandem_edu.model.masks import block_starts, positions, tandem_masks, visible


class TandemCache(eqx.Module):
    """A drafting tandem's keys and values; with `own_history` the primary's have a cache of their own."""

    own: Cache
    primary: Cache | None


class Tandem(PrimaryReader):
    """A secondary tied to a primary. Raises `BadInput` where the two models do not fit together.

    - `layer_map` (ℓ): which of the primary's states each secondary layer reads, see `resolve_layer_map`.
    - `own_history`: beyond the paper. `True` keeps the secondary's own keys and values of past blocks
      *beside* the primary's, which then have a key/value projection of their own.

    >>> cfg = TransformerConfig(8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=16, max_len=16)
    >>> primary = Transformer(cfg, key=jax.random.key(0))
    >>> tandem = Tandem(Transformer(cfg, key=jax.random.key(1)), cfg, key=jax.random.key(2))
    >>> tokens = jax.numpy.array([1, 5, 2, 7])
    >>> _, hidden = primary(tokens, return_hidden=True)
    >>> tandem(tokens, hidden, block_len=2).shape
    (4, 8)
    """

    kind: ClassVar[str] = "tandem"
    secondary: Transformer
    projections: tuple[Projection, ...]
    primary_kv: tuple[KeyValueProjection | None, ...]
    primary_config: TransformerConfig = eqx.field(static=True)
    own_history: bool = eqx.field(static=True)

    def __init__(
        self,
        secondary: Transformer,
        primary_config: TransformerConfig,
        layer_map: LayerMap = "last",
        own_history: bool = False,
        *,
        key: PRNGKeyArray,
    ):
        config = secondary.config
        check_same_vocabulary(primary_config, config)
        states = resolve_layer_map(layer_map, primary_config.n_layers, config.n_layers)
        keys = jax.random.split(key, config.n_layers)
        self.secondary = secondary
        self.projections = tuple(
            Projection(s, primary_config.d_model, config.d_model, config.norm_eps, key=k)
            for s, k in zip(states, keys, strict=True)
        )
        # They start as copies of the secondary's own, so that at first both sources are alike.
        self.primary_kv = tuple(block.kv if own_history else None for block in secondary.blocks)
        self.primary_config = primary_config
        self.own_history = own_history

    def settings(self) -> dict[str, Any]:
        states = [list(projection.states) for projection in self.projections]
        return {"layer_map": states, "own_history": self.own_history}

    def __call__(
        self,
        tokens: Int[Array, "*batch seq"],
        hidden: Float[Array, "*batch depth seq d_primary"],
        block_len: int | Int[Array, ""] = 2,
        offset: int | Int[Array, ""] = 0,
    ) -> Float[Array, "*batch seq vocab"]:
        """Teacher-forced logits, in blocks from `offset` on; both may be traced. `BadInput` for γ below 1."""
        self.check_block_len(block_len)
        return self._read_text(tokens, hidden, block_starts(tokens.shape[-1], block_len, offset))[0]

    def teacher_forced(self, primary, tokens, hidden, block_len, offset=0):
        """`self(tokens, hidden, block_len, offset)`."""
        return self(tokens, hidden, block_len, offset)

    def start(self, output: PrimaryOutput, max_draft_len: int, block_len: Int[Array, ""]) -> TandemCache:
        """The primary's keys and values of the prompt; with `own_history` also the secondary's, in blocks."""
        own = empty = Cache.empty(self.config, output.cache.capacity)
        if not self.own_history:
            return self._overwrite(TandemCache(empty, None), output)
        starts = block_starts(output.tokens.shape[0], block_len, output.length)
        _, own_kv = self._read_text(output.tokens, output.hidden, starts)
        for layer, kv in enumerate(own_kv):
            own = own.append(layer, kv)
        return self._overwrite(TandemCache(own, empty), output)

    def step(self, token: Int[Array, ""], state: TandemCache, primary: Transformer, cache: Cache) -> Draft:
        return self._read_token(token, state)

    def commit(self, state: TandemCache, output: PrimaryOutput) -> TandemCache:
        """The primary's keys and values of the block replace the secondary's (or join them)."""
        if self.own_history:
            read = lambda token, state: self._read_token(token, state).state
            state = catch_up(read, state, state.own.length, output)
        return self._overwrite(state, output)

    def _read_text(
        self,
        tokens: Int[Array, "*batch seq"],
        hidden: Float[Array, "*batch depth seq d_primary"],
        starts: Int[Array, " seq"],
    ) -> tuple[Float[Array, "*batch seq vocab"], tuple[KV, ...]]:
        """The parallel pass: logits, and the secondary's own keys and values of each layer."""
        rope = self.secondary.rope(positions(tokens.shape[-1]))
        primary = self._primary_keys_values(hidden, rope)
        both = lambda layer, kv, own: ([kv, primary[layer]], (*own, kv))
        masks = tandem_masks(starts, self.own_history)
        x = self.secondary.embed(tokens)
        states, own = self.secondary.run_layers(x, rope, masks, both, ())
        return self.secondary.logits(states[-1]), own

    def _read_token(self, token: Int[Array, ""], state: TandemCache) -> Draft:
        """The cached pass: one more token of the current block."""
        position = positions(1, start=state.own.length)
        # In the paper's form, one causal cache holds the primary's entries and then the block's own.
        masks = [visible(positions(state.own.capacity), last=position)]
        if state.primary is not None:
            masks.append(visible(positions(state.primary.capacity), last=state.primary.length[None] - 1))

        def cached(layer, kv, own):
            own = own.append(layer, kv)
            return [own[layer]] if state.primary is None else [own[layer], state.primary[layer]], own

        x = self.secondary.embed(token[None])
        states, own = self.secondary.run_layers(x, self.secondary.rope(position), masks, cached, state.own)
        own = own.with_length(state.own.length + 1)
        return Draft(self.secondary.logits(states[-1])[0], TandemCache(own, state.primary), states[-1][0])

    def _overwrite(self, state: TandemCache, output: PrimaryOutput) -> TandemCache:
        """Write the primary's keys and values of what it has just read, `output.length` tokens in all."""
        rope = self.secondary.rope(positions(output.tokens.shape[0], start=output.start))
        cache = (state.own if state.primary is None else state.primary).with_length(output.start)
        for layer, kv in enumerate(self._primary_keys_values(output.hidden, rope)):
            cache = cache.append(layer, kv)
        cache = cache.with_length(output.length)
        if state.primary is None:
            return TandemCache(cache, None)
        return TandemCache(state.own.with_length(output.length), cache)

    def _primary_keys_values(
        self, hidden: Float[Array, "*batch depth seq d_primary"], rope: Rope
    ) -> list[KV]:
        """What each secondary layer attends to of the primary."""
        layers = zip(self.secondary.blocks, self.projections, self.primary_kv, strict=True)
        return [block.keys_values(project(hidden), rope, kv) for block, project, kv in layers]
