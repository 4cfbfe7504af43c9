"""Eagle: a drafter fed with the primary's features (EAGLE, arXiv:2401.15077; EAGLE-3, arXiv:2503.01840).

Where the tandem reads the primary at every layer, Eagle reads it once, at its input. Token i goes in as

    u_i = fc([embed(x_i); f_{i-1}])

with a *feature* f_{i-1} of the token before it:

- at the start of a block (i = k(i)) the primary has read that token, and f_{i-1} = g_{i-1}, a linear
  projection of the primary's states (one state, or several *fused* as EAGLE-3 does);
- inside a block it has not, and the drafter puts its *own* top residual state in that place.

Above its input it is an ordinary transformer. Keys and values of past blocks are those that the true
features give: as in the tandem, they are written over each time the primary has read a block.

Teaching all positions at once takes a few passes (EAGLE-3's *training-time test*): pass 0 takes every
token for the first of its block; each further pass feeds back the top states of the pass before, and
so is right one token deeper into the blocks.

Axis names: `seq` tokens, `depth` = primary's n_layers + 1 residual states, `d_primary` its width.
"""

from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from tandem_edu.errors import at_least, require
from tandem_edu.model.attached import PrimaryReader, check_block_len
from tandem_edu.model.cache import KV, Cache
from tandem_edu.model.config import TransformerConfig
from tandem_edu.model.layers import Rope, attend, attend_causal, linear, normalise, rope_table
from tandem_edu.model.masks import block_starts, cached_mask, causal_mask, tandem_masks
from tandem_edu.model.tandem import Projection, check_same_vocabulary, resolve_layer_map
from tandem_edu.model.transformer import Transformer


class EagleState(eqx.Module):
    """What the cached drafter remembers: keys and values, and two features.

    `feature` goes in with the next token: the drafter's own once it has drafted. `known` is the
    primary's, of the last token that the primary has read.
    """

    cache: Cache
    feature: Float[Array, " d_model"]
    known: Float[Array, " d_model"]

    @property
    def length(self) -> Int[Array, ""]:
        """Tokens the drafter has read."""
        return self.cache.length


class Eagle(PrimaryReader):
    """A secondary whose input is a token and the feature of the token before.

    **Arguments:**

    - `secondary`: the small `Transformer`; the paper's has one layer.
    - `primary_config`: the primary's sizes; its vocabulary must be the secondary's.
    - `layer_map`: the primary's states behind the feature g: `"top"` (EAGLE), `"fused"` (a low, a middle
      and the top one, EAGLE-3), or a list of states.
    - `unroll`: passes when teaching, so the longest block that can be taught. Decoding has no limit.

    Features are brought to unit RMS before they enter fc, so that the primary's and the drafter's own
    are of one size. fc starts as [identity; 0]: at first the drafter is the plain secondary.

    >>> import jax
    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=16)
    >>> primary = Transformer(cfg, key=jax.random.key(0))
    >>> eagle = Eagle(Transformer(cfg, key=jax.random.key(1)), cfg, "fused", key=jax.random.key(2))
    >>> tokens = jnp.array([1, 5, 2, 7])
    >>> _, hidden = primary(tokens, return_hidden=True)
    >>> forced = eagle.teacher_forced(primary, tokens, hidden, block_len=2)
    >>> state = eagle.prefill(tokens, hidden, length=2, capacity=20)
    >>> logits, _, state = eagle.step(tokens[2], state)
    >>> bool(jnp.allclose(logits, forced[2], atol=1e-5)), int(state.length)
    (True, 3)
    """

    secondary: Transformer
    projection: Projection
    fc: Float[Array, "two_d d_model"]
    primary_config: TransformerConfig = eqx.field(static=True)
    unroll: int = eqx.field(static=True)

    def __init__(
        self,
        secondary: Transformer,
        primary_config: TransformerConfig,
        layer_map: str | Sequence[int] = "top",
        unroll: int = 4,
        *,
        key: PRNGKeyArray,
    ):
        config = secondary.config
        check_same_vocabulary(primary_config, config)
        unroll = at_least(1, unroll, "unroll", "take the longest block_len to train with")
        states = _feature_states(layer_map, primary_config.n_layers)
        width = config.d_model
        self.secondary = secondary
        self.projection = Projection(states, primary_config.d_model, width, config.norm_eps, key=key)
        self.fc = jnp.concatenate([jnp.eye(width), jnp.zeros((width, width))])
        self.primary_config = primary_config
        self.unroll = unroll

    @property
    def config(self) -> TransformerConfig:
        """The secondary's config."""
        return self.secondary.config

    @property
    def max_block_len(self) -> int:
        """`unroll`: a token deeper in its block would have come out of too few passes."""
        return self.unroll

    def teacher_forced(
        self,
        primary: Transformer,
        tokens: Int[Array, "*batch seq"],
        hidden: Float[Array, "*batch depth seq d_primary"],
        block_len: int | Int[Array, ""],
        offset: int | Int[Array, ""] = 0,
    ) -> Float[Array, "*batch seq vocab"]:
        """See `PrimaryReader`; all it needs of the primary is in `hidden`. Costs `block_len` passes.

        Raises `BadInput` for a `block_len` above `unroll`. A traced one is not checked: then tokens
        `unroll` or more after the start of their block get features that are not quite right.
        """
        check_block_len(self, block_len)
        seq = tokens.shape[-1]
        rope = self._rope(jnp.arange(seq))
        starts = block_starts(seq, block_len, offset)
        first = jnp.arange(seq) == starts
        known = self.projection(hidden)
        top, past = self._pass(self._inputs(tokens, _shifted(known)), rope, [causal_mask(seq)])

        def again(top):
            feature = jnp.where(_column(first, known), _shifted(known), _shifted(top))
            return self._pass(self._inputs(tokens, feature), rope, tandem_masks(starts), past)[0]

        for depth in range(1, self.unroll):
            top = lax.cond(depth < block_len, again, lambda top: top, top)
        return self.secondary.logits(top)

    def prefill(
        self,
        tokens: Int[Array, " seq"],
        hidden: Float[Array, "depth seq d_primary"],
        length: int | Int[Array, ""],
        capacity: int,
    ) -> EagleState:
        """The state after a prompt that the primary has read (`hidden`): its first `length` tokens."""
        nothing = jnp.zeros(self.config.d_model)
        empty = EagleState(Cache.empty(self.config, capacity), nothing, nothing)
        return self.commit(tokens, hidden, empty, 0, length)

    def step(
        self, token: Int[Array, ""], state: EagleState
    ) -> tuple[Float[Array, " vocab"], Float[Array, " d_model"], EagleState]:
        """Read one token of the current block: logits, top residual state (the next feature), new state."""
        x = self._inputs(token[None], state.feature[None])
        x, cache = self._extend(x, state.cache, state.length)
        cache = cache.with_length(state.length + 1)
        return self.secondary.logits(x)[0], x[0], EagleState(cache, x[0], state.known)

    def commit(
        self,
        tokens: Int[Array, " q_len"],
        hidden: Float[Array, "depth q_len d_primary"],
        state: EagleState,
        start: int | Int[Array, ""],
        length: int | Int[Array, ""],
    ) -> EagleState:
        """The primary has read `tokens` from position `start` on (`hidden`); the text is now `length` long.

        Keys and values made from the primary's features replace those made from the drafter's own. What
        lies past `length` belongs to rejected drafts or padding and is never looked at.
        """
        # Row t is the feature of token start + t - 1.
        known = jnp.concatenate([state.known[None], self.projection(hidden)])
        x = self._inputs(tokens, known[:-1])
        _, cache = self._extend(x, state.cache, jnp.asarray(start, jnp.int32))
        last = known[length - start]
        return EagleState(cache.with_length(length), last, last)

    def _inputs(
        self, tokens: Int[Array, "*batch seq"], feature: Float[Array, "*batch seq d_model"]
    ) -> Float[Array, "*batch seq d_model"]:
        """fc([embed(x_i); f_{i-1}]) for features already moved one place on."""
        feature = normalise(feature, self.config.norm_eps)
        return linear(jnp.concatenate([self.secondary.embed(tokens), feature], axis=-1), self.fc)

    def _pass(
        self,
        x: Float[Array, "*batch seq d_model"],
        rope: Rope,
        masks: Sequence[Bool[Array, "seq seq"]],
        past: Sequence[KV] | None = None,
    ) -> tuple[Float[Array, "*batch seq d_model"], list[KV]]:
        """The top state and each layer's keys and values; `masks` over those, and over the `past` ones."""
        written = []
        for layer, block in enumerate(self.secondary.blocks):
            written.append(block.write(x, rope))
            sides = [written[layer]] if past is None else [written[layer], past[layer]]
            x = block.read(x, rope, partial(attend_causal, sides=sides, masks=masks))
        return x, written

    def _extend(
        self, x: Float[Array, "q_len d_model"], cache: Cache, start: Int[Array, ""]
    ) -> tuple[Float[Array, "q_len d_model"], Cache]:
        """The top state of inputs at `start`, `start + 1`, ..., and the cache with their keys and values."""
        q_len = x.shape[0]
        rope = self._rope(start + jnp.arange(q_len))
        mask = cached_mask(start, q_len, cache.capacity)
        for layer, block in enumerate(self.secondary.blocks):
            cache = cache.write(layer, start, block.write(x, rope))
            sides = [(cache.k[layer], cache.v[layer])]
            x = block.read(x, rope, partial(attend, sides=sides, masks=[mask]))
        return x, cache

    def _rope(self, position: Int[Array, " seq"]) -> Rope:
        return rope_table(position, self.config.head_dim, self.config.rope_theta)


def _feature_states(layer_map: str | Sequence[int], n_primary: int) -> tuple[int, ...]:
    """The primary's states that make the feature.

    >>> _feature_states("top", 6), _feature_states("fused", 6), _feature_states([2, 6], 6)
    ((6,), (1, 3, 6), (2, 6))
    """
    if not isinstance(layer_map, str):
        return resolve_layer_map([layer_map], n_primary, 1)[0]
    expected, fix = 'layer_map "top", "fused" or a list of states', "pick one"
    require(layer_map in ("top", "fused"), expected, repr(layer_map), fix)
    return (n_primary,) if layer_map == "top" else resolve_layer_map("fused", n_primary, 1)[0]


def _shifted(x: Float[Array, "*batch seq d_model"]) -> Float[Array, "*batch seq d_model"]:
    """Row i becomes row i - 1; row 0 becomes 0."""
    return jnp.concatenate([jnp.zeros_like(x[..., :1, :]), x[..., :-1, :]], axis=-2)


def _column(flags: Bool[Array, " seq"], like: Float[Array, "*batch seq d_model"]) -> Bool[Array, "..."]:
    """One flag a token, as wide as `like`."""
    return jnp.broadcast_to(flags[:, None], like.shape)
