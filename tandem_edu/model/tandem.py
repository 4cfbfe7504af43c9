"""The tandem: a secondary that sees the past through the primary's representations (paper, section 3).

For token i in the block that starts at k(i), layer j + 1 of the secondary takes its query from its own
residual stream y_i^(j), and its keys and values from

- W^(j) x_t^(ℓ(j)) for t < k(i): the *primary's* residual stream after layer ℓ(j), linearly projected;
- y_t^(j) for k(i) ≤ t ≤ i: its own, within the current block.

Both go through the secondary layer's own norm and key/value maps. A useful way to see it: **the
secondary is an ordinary transformer whose cache the primary overwrites each time it has read a block.**

Axis names: `seq` tokens, `depth` = primary's n_layers + 1 residual states, `d_primary` its width.
"""

from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tandem_edu.errors import BadInput, require
from tandem_edu.model.attached import PrimaryReader, check_block_len, check_config
from tandem_edu.model.cache import KV, Cache
from tandem_edu.model.config import TransformerConfig
from tandem_edu.model.layers import (
    KeyValueProjection,
    attend,
    attend_causal,
    init_weight,
    linear,
    normalise,
    rope_table,
)
from tandem_edu.model.masks import block_starts, cached_mask, tandem_masks
from tandem_edu.model.transformer import Transformer

LayerMap = str | Sequence[Sequence[int]]


def resolve_layer_map(layer_map: LayerMap, n_primary: int, n_secondary: int) -> tuple[tuple[int, ...], ...]:
    """Which of the primary's residual states each secondary layer reads: ℓ(j), j = 0 .. n_secondary - 1.

    - `"last"`: ℓ(j) = n_primary - n_secondary + j, the same distance from the end;
    - `"uniform"`: ℓ(j) = round((j + 1) · n_primary / n_secondary), evenly spaced, ending at the top;
    - `"middle"`: every layer reads the state half-way up (of an odd number, the upper one), of which a
      short training makes most (`tandem-edu reproduce --stage states`);
    - `"fused"`: every layer reads a low, a middle and the top state, concatenated (as EAGLE-3 does), which
      gains more from a longer one (`--stage states-longer`);
    - or the states themselves, a sequence for each secondary layer.

    >>> resolve_layer_map("last", 6, 2), resolve_layer_map("uniform", 6, 2)
    (((4,), (5,)), ((3,), (6,)))
    >>> resolve_layer_map("middle", 6, 1), resolve_layer_map("fused", 6, 1)
    (((3,),), ((1, 3, 6),))
    """
    if isinstance(layer_map, str):
        return _named_layer_map(layer_map, n_primary, n_secondary)
    try:
        states = tuple(tuple(int(state) for state in layer) for layer in layer_map)
    except (TypeError, ValueError):
        expected, fix = "layer_map as a list of states per layer", "write [(2, 5)] for one layer"
        raise BadInput(expected, repr(layer_map), fix) from None
    fits = len(states) == n_secondary and all(s and min(s) >= 0 and max(s) <= n_primary for s in states)
    require(
        fits,
        f"{n_secondary} non-empty lists of states in 0..{n_primary}",
        states,
        "give one list per layer",
    )
    return states


def _named_layer_map(name: str, n_primary: int, n_secondary: int) -> tuple[tuple[int, ...], ...]:
    if name == "last":
        require(
            n_secondary <= n_primary,
            'n_layers of the secondary at most the primary\'s for layer_map="last"',
            f"{n_secondary} and {n_primary}",
            'make the secondary shallower or use layer_map="uniform"',
        )
        return tuple((n_primary - n_secondary + j,) for j in range(n_secondary))
    if name == "uniform":
        return tuple((round((j + 1) * n_primary / n_secondary),) for j in range(n_secondary))
    middle = (n_primary + 1) // 2
    if name == "middle":
        return ((middle,),) * n_secondary
    if name == "fused":
        return (tuple(sorted({1, middle, n_primary})),) * n_secondary
    raise BadInput(
        'layer_map "last", "uniform", "middle", "fused" or a list of states per layer', repr(name), "pick one"
    )


class Projection(eqx.Module):
    """W^(j): the states this secondary layer reads, each brought to unit RMS, concatenated and mapped.

    The secondary's norm follows, which undoes any scale, so with a single state bringing it to unit
    RMS changes nothing (but for ε, in states near 0); with several it keeps the largest from drowning
    the others.
    """

    weight: Float[Array, "states_width d_model"]
    states: tuple[int, ...] = eqx.field(static=True)
    eps: float = eqx.field(static=True)

    def __init__(
        self,
        states: tuple[int, ...],
        d_primary: int,
        d_model: int,
        eps: float,
        *,
        key: PRNGKeyArray,
    ):
        """The averaging identity where the widths agree, else a random map."""
        if d_primary == d_model:
            self.weight = jnp.tile(jnp.eye(d_model), (len(states), 1)) / len(states)
        else:
            self.weight = init_weight(key, len(states) * d_primary, d_model)
        self.states, self.eps = states, eps

    def __call__(
        self, hidden: Float[Array, "*batch depth seq d_primary"]
    ) -> Float[Array, "*batch seq d_model"]:
        parts = [normalise(hidden[..., state, :, :], self.eps) for state in self.states]
        return linear(jnp.concatenate(parts, axis=-1), self.weight)


class TandemCache(eqx.Module):
    """What the cached tandem remembers.

    `own` is the secondary's cache. In the paper's form the primary overwrites it, block by block, and
    `primary` is `None`; with `own_history` it is kept, and the primary's side stands beside it.
    """

    own: Cache
    primary: Cache | None

    @property
    def length(self) -> Int[Array, ""]:
        """Tokens the secondary has read."""
        return self.own.length


class Tandem(PrimaryReader):
    """A secondary tied to a primary.

    **Arguments:**

    - `secondary`: the small `Transformer`.
    - `primary_config`: the primary's sizes; its vocabulary must be the secondary's.
    - `layer_map`: which of the primary's states each secondary layer reads, see `resolve_layer_map`.
    - `own_history`: beyond the paper. `True` keeps the secondary's own keys and values of past blocks
      *beside* the primary's, and gives the primary's side key and value maps of its own.

    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=16)
    >>> primary = Transformer(cfg, key=jax.random.key(0))
    >>> tandem = Tandem(Transformer(cfg, key=jax.random.key(1)), cfg, key=jax.random.key(2))
    >>> tokens = jnp.array([1, 5, 2, 7])
    >>> _, hidden = primary(tokens, return_hidden=True)
    >>> tandem(tokens, hidden, block_len=2).shape
    (4, 8)
    """

    secondary: Transformer
    projections: tuple[Projection, ...]
    primary_maps: tuple[KeyValueProjection | None, ...]
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
        # They start as copies of the secondary's own maps, so that at first both sides speak alike.
        self.primary_maps = tuple(b.keys_values if own_history else None for b in secondary.blocks)
        self.primary_config = primary_config
        self.own_history = own_history

    @property
    def config(self) -> TransformerConfig:
        """The secondary's config."""
        return self.secondary.config

    def __call__(
        self,
        tokens: Int[Array, "*batch seq"],
        hidden: Float[Array, "*batch depth seq d_primary"],
        block_len: int | Int[Array, ""] = 2,
        offset: int | Int[Array, ""] = 0,
    ) -> Float[Array, "*batch seq vocab"]:
        """Teacher-forced logits: blocks start at `offset`, `offset + block_len`, ...; both may be traced.

        The paper trains with blocks of 2. Raises `BadInput` for a `block_len` below 1.
        """
        check_block_len(self, block_len)
        return self.read_blocks(tokens, hidden, block_starts(tokens.shape[-1], block_len, offset))[0]

    def teacher_forced(self, primary, tokens, hidden, block_len, offset=0):
        """`self(tokens, hidden, block_len, offset)`: all it needs of the primary is in `hidden`."""
        return self(tokens, hidden, block_len, offset)

    def read_blocks(
        self,
        tokens: Int[Array, "*batch seq"],
        hidden: Float[Array, "*batch depth seq d_primary"],
        starts: Int[Array, " seq"],
    ) -> tuple[Float[Array, "*batch seq vocab"], list[KV], list[KV]]:
        """Teacher-forced logits for any division into blocks: `starts` is k(i) for each token.

        Also returns, per layer, the secondary's own and the primary's keys and values.
        """
        rope = self._rope(jnp.arange(tokens.shape[-1]))
        masks = tandem_masks(starts, self.own_history)
        x = self.secondary.embed(tokens)
        own, primary = [], self._project(hidden, rope)
        for layer, block in enumerate(self.secondary.blocks):
            own.append(block.write(x, rope))
            sides = [own[layer], primary[layer]]
            x = block.read(x, rope, partial(attend_causal, sides=sides, masks=masks))
        return self.secondary.logits(x), own, primary

    def init_cache(self, capacity: int) -> TandemCache:
        """An empty cache with room for `capacity` tokens."""
        empty = Cache.empty(self.config, capacity)
        return TandemCache(empty, empty if self.own_history else None)

    def prefill(
        self,
        tokens: Int[Array, " seq"],
        hidden: Float[Array, "depth seq d_primary"],
        length: int | Int[Array, ""],
        capacity: int,
        block_len: int | Int[Array, ""] = 2,
    ) -> TandemCache:
        """The cache after a prompt that the primary has read (`hidden`): its first `length` tokens.

        Only with `own_history` does the secondary itself read the prompt, in blocks of `block_len`
        that end where the prompt ends.
        """
        cache = self.commit(hidden, self.init_cache(capacity), 0, length)
        if cache.primary is None:
            return cache
        starts = block_starts(tokens.shape[0], block_len, length)
        _, own, _ = self.read_blocks(tokens, hidden, starts)
        for layer, kv in enumerate(own):
            cache = TandemCache(cache.own.write(layer, jnp.int32(0), kv), cache.primary)
        return cache

    def extend(
        self, tokens: Int[Array, " q_len"], cache: TandemCache, *, return_hidden: bool = False
    ) -> tuple:
        """Read `q_len` more tokens of the current block, causally, after what the cache holds.

        Returns their logits and the cache; with `return_hidden` the residual stream between the two.
        """
        q_len, length = tokens.shape[0], cache.length
        rope = self._rope(length + jnp.arange(q_len))
        masks = self._cached_masks(cache, q_len)
        states, own = [self.secondary.embed(tokens)], cache.own
        for layer, block in enumerate(self.secondary.blocks):
            x = states[-1]
            own = own.write(layer, length, block.write(x, rope))
            sides = [own] if cache.primary is None else [own, cache.primary]
            attention = partial(attend, sides=[(s.k[layer], s.v[layer]) for s in sides], masks=masks)
            states.append(block.read(x, rope, attention))
        logits, cache = (
            self.secondary.logits(states[-1]),
            TandemCache(own.with_length(length + q_len), cache.primary),
        )
        return (logits, jnp.stack(states), cache) if return_hidden else (logits, cache)

    def commit(
        self,
        hidden: Float[Array, "depth q_len d_primary"],
        cache: TandemCache,
        start: int | Int[Array, ""],
        length: int | Int[Array, ""],
    ) -> TandemCache:
        """The primary has read tokens from position `start` on (`hidden`); the text is now `length` long.

        Their keys and values from the primary's representations replace the secondary's own (with
        `own_history`: stand beside them). Entries past `length` belong to rejected drafts and are
        never attended to.
        """
        start = jnp.asarray(start, jnp.int32)
        target = cache.own if cache.primary is None else cache.primary
        for layer, kv in enumerate(self._project(hidden, self._rope(start + jnp.arange(hidden.shape[-2])))):
            target = target.write(layer, start, kv)
        target = target.with_length(length)
        if cache.primary is None:
            return TandemCache(target, None)
        return TandemCache(cache.own.with_length(length), target)

    def _project(self, hidden: Float[Array, "*batch depth seq d_primary"], rope) -> list[KV]:
        """The primary's keys and values for every secondary layer."""
        layers = zip(self.secondary.blocks, self.projections, self.primary_maps, strict=True)
        return [block.write(project(hidden), rope, maps) for block, project, maps in layers]

    def _rope(self, position: Int[Array, " seq"]):
        return rope_table(position, self.config.head_dim, self.config.rope_theta)

    def _cached_masks(self, cache: TandemCache, q_len: int):
        own = cached_mask(cache.length, q_len, cache.own.capacity)
        if cache.primary is None:
            return [own]
        committed = jnp.arange(cache.primary.capacity)[None, :] < cache.primary.length
        return [own, jnp.broadcast_to(committed, own.shape)]


def check_same_vocabulary(primary: TransformerConfig, drafter: TransformerConfig) -> None:
    """Raise `BadInput` unless both models speak the same token ids."""
    check_config(primary)
    require(
        primary.vocab_size == drafter.vocab_size,
        "primary and drafter with the same vocabulary",
        f"vocab_size {primary.vocab_size} and {drafter.vocab_size}",
        "train both with one tokenizer",
    )
