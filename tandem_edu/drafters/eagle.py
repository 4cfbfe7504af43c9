"""Eagle: a drafter fed with the primary's features (EAGLE, arXiv:2401.15077; EAGLE-3, arXiv:2503.01840).

The tandem reads the primary at every layer; Eagle reads it once, at its input. The input of token i is

    u_i = fc([embed(x_i); f_{i-1}])

with a *feature* f_{i-1} of the token before it:

- at the start of a block (i = k(i)) the primary has read that token, and f_{i-1} is a linear projection of
  the primary's states (one state, or several *fused* as in EAGLE-3);
- inside a block the primary has not read it yet, and f_{i-1} is the drafter's *own* top residual state.

Above its input it is an ordinary transformer. The keys and values of past blocks come from the primary's
features: as in the tandem, they are overwritten each time the primary has read a block.

Training all positions at once takes several passes (EAGLE-3's *training-time test*). Pass 0 treats every
token as the first of its block; each further one, fed with the last one's top states, is exact for one more.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tandem_edu.drafters.projection import Projection, resolve_layer_map
from tandem_edu.drafters.protocol import Draft, PrimaryOutput, PrimaryReader, check_same_vocabulary
from tandem_edu.errors import at_least, require
from tandem_edu.model import Cache, Transformer, TransformerConfig
from tandem_edu.model.layers import linear, normalise
from tandem_edu.model.masks import block_starts, positions, tandem_masks, visible


class EagleState(eqx.Module):
    """What a drafting Eagle remembers: keys and values, and two features."""

    cache: Cache
    feature: Float[Array, " d_model"]
    """The feature that goes in with the next token; the drafter's own once it has drafted."""
    primary_feature: Float[Array, " d_model"]
    """The primary's feature of the last token that the primary has read."""


class Eagle(PrimaryReader):
    """A secondary (in the paper of one layer) whose input is a token and the feature of the token before.

    - `layer_map`: the states that make the feature: `"top"` (EAGLE), `"fused"` (EAGLE-3) or a list of states.
    - `unroll`: passes in training, so the longest block to train with. Decoding has no limit.

    Features have unit RMS before they enter fc, so that the primary's and the drafter's own have one
    scale. fc starts as [identity; 0]: at first the drafter is the plain secondary.

    >>> import jax
    >>> cfg = TransformerConfig(8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=16, max_len=16)
    >>> Eagle(Transformer(cfg, key=jax.random.key(1)), cfg, "fused", key=jax.random.key(2)).settings()
    {'layer_map': [1, 2], 'unroll': 4}
    """

    kind: ClassVar[str] = "eagle"
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
        config, width = secondary.config, secondary.config.d_model
        check_same_vocabulary(primary_config, config)
        states = feature_states(layer_map, primary_config.n_layers)
        self.secondary = secondary
        self.projection = Projection(states, primary_config.d_model, width, config.norm_eps, key=key)
        self.fc = jnp.eye(2 * width, width, dtype=jnp.float32)
        self.primary_config = primary_config
        self.unroll = at_least(1, unroll, "unroll", "take the longest block_len to train with")

    def settings(self) -> dict[str, Any]:
        return {"layer_map": list(self.projection.states), "unroll": self.unroll}

    @property
    def max_train_block_len(self) -> int:
        """`unroll`: a token deeper in its block would need more passes."""
        return self.unroll

    def teacher_forced(self, primary, tokens, hidden, block_len, offset=0):
        """`block_len` passes. A traced one above `unroll` is not noticed, and gets `unroll` passes."""
        self.check_block_len(block_len)
        position = positions(tokens.shape[-1])
        rope = self.secondary.rope(position)
        starts = block_starts(tokens.shape[-1], block_len, offset)
        primary_feature = _shift(self.projection(hidden))
        is_first = jnp.broadcast_to((position == starts)[:, None], primary_feature.shape)

        # Pass 0. Its keys and values are those of the past for all further passes.
        own_keys_values = lambda layer, kv, past: ([kv], (*past, kv))
        x = self._inputs(tokens, primary_feature)
        causal = [visible(position, last=position)]
        states, past = self.secondary.run_layers(x, rope, causal, own_keys_values, ())
        masks = tandem_masks(starts)

        def next_pass(top):
            feature = jnp.where(is_first, primary_feature, _shift(top))
            both = lambda layer, kv, carry: ([kv, past[layer]], carry)
            return self.secondary.run_layers(self._inputs(tokens, feature), rope, masks, both)[0][-1]

        top = states[-1]
        for number in range(1, self.unroll):
            top = lax.cond(number < block_len, next_pass, lambda top: top, top)
        return self.secondary.logits(top)

    def start(self, output: PrimaryOutput, max_draft_len: int, block_len: Int[Array, ""]) -> EagleState:
        no_feature = jnp.zeros(self.config.d_model, output.hidden.dtype)
        empty = Cache.empty(self.config, output.cache.capacity)
        return self.commit(EagleState(empty, no_feature, no_feature), output)

    def step(self, token: Int[Array, ""], state: EagleState, primary: Transformer, cache: Cache) -> Draft:
        x = self._inputs(token[None], state.feature[None])
        states, cache = self.secondary.extend_states(x, state.cache)
        own_feature = states[-1][0]
        state = EagleState(cache, own_feature, state.primary_feature)
        return Draft(self.secondary.logits(states[-1])[0], state, own_feature)

    def commit(self, state: EagleState, output: PrimaryOutput) -> EagleState:
        """Keys and values from the primary's features replace those from the drafter's own."""
        # Row t is the feature of token start + t - 1.
        features = jnp.concatenate([state.primary_feature[None], self.projection(output.hidden)])
        x = self._inputs(output.tokens, features[:-1])
        _, cache = self.secondary.extend_states(x, state.cache.with_length(output.start))
        last = features[output.length - output.start]
        return EagleState(cache.with_length(output.length), last, last)

    def _inputs(
        self, tokens: Int[Array, "*batch seq"], feature: Float[Array, "*batch seq d_model"]
    ) -> Float[Array, "*batch seq d_model"]:
        """u = fc([embed(x); f]), where row i of `feature` belongs to the token before token i."""
        feature = normalise(feature, self.config.norm_eps)
        return linear(jnp.concatenate([self.secondary.embed(tokens), feature], axis=-1), self.fc)


def feature_states(layer_map: str | Sequence[int], n_primary: int) -> tuple[int, ...]:
    """The primary's states that make the feature.

    >>> feature_states("top", 6), feature_states("fused", 6), feature_states([2, 6], 6)
    ((6,), (1, 3, 6), (2, 6))
    """
    if not isinstance(layer_map, str):
        return resolve_layer_map([layer_map], n_primary, 1)[0]
    expected = 'layer_map "top", "fused" or a list of states'
    require(layer_map in ("top", "fused"), expected, repr(layer_map), "pick one")
    return (n_primary,) if layer_map == "top" else resolve_layer_map("fused", n_primary, 1)[0]


def _shift(x: Float[Array, "*batch seq d_model"]) -> Float[Array, "*batch seq d_model"]:
    """Row i becomes row i - 1; row 0 becomes 0."""
    return jnp.concatenate([jnp.zeros_like(x[..., :1, :]), x[..., :-1, :]], axis=-2)
