"""Early exit: the primary's own first layers draft (LayerSkip, arXiv:2404.16710; Kangaroo, 2404.18911).

Token i goes through the primary's first e layers, a small *exit* and the primary's output layer:

    logits = head(norm(x^(e) M))

All but the norm and the matrix M is the primary's, its cache too: little to store, and slow to run.
"""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tandem_edu.drafters.glide import read_in_block
from tandem_edu.drafters.protocol import Draft, PrimaryOutput, PrimaryReader
from tandem_edu.errors import require
from tandem_edu.model import Cache, Transformer, TransformerConfig
from tandem_edu.model.layers import RMSNorm, linear


class EarlyExit(PrimaryReader):
    """An exit from the primary after its first `exit_layer` (e) layers: at least 1, by default half of them.

    The matrix starts as the identity, without `key`. Raises `BadInput` if no layer is left to save.

    >>> cfg = TransformerConfig(8, d_model=8, n_layers=3, n_heads=2, n_kv_heads=1, d_ff=16, max_len=16)
    >>> EarlyExit(cfg, exit_layer=2).config.n_layers
    2
    """

    kind: ClassVar[str] = "early-exit"
    needs_secondary: ClassVar[bool] = False
    exit_map: Float[Array, "d_primary d_primary"]
    norm: RMSNorm
    primary_config: TransformerConfig = eqx.field(static=True)
    exit_layer: int = eqx.field(static=True)

    def __init__(
        self,
        primary_config: TransformerConfig,
        exit_layer: int | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ):
        is_config, got = isinstance(primary_config, TransformerConfig), type(primary_config).__name__
        require(is_config, "primary_config as a TransformerConfig", got, "pass primary.config")
        deepest = primary_config.n_layers - 1
        exit_layer = max(1, primary_config.n_layers // 2) if exit_layer is None else exit_layer
        fix = "leave it at least one layer to save" if deepest else "use a deeper primary"
        require(exit_layer in range(1, deepest + 1), f"exit_layer in 1..{deepest}", exit_layer, fix)
        self.exit_map = jnp.eye(primary_config.d_model, dtype=jnp.float32)
        self.norm = RMSNorm(primary_config.d_model, primary_config.norm_eps)
        self.primary_config = primary_config
        self.exit_layer = int(exit_layer)

    @property
    def config(self) -> TransformerConfig:
        """The primary's config, with the layers that run."""
        return dataclasses.replace(self.primary_config, n_layers=self.exit_layer)

    def settings(self) -> dict[str, Any]:
        return {"exit_layer": self.exit_layer}

    def teacher_forced(self, primary, tokens, hidden, block_len, offset=0):
        """See `PrimaryReader`. Blocks make no difference: all layers that run are the primary's."""
        self.check_block_len(block_len)
        x = linear(hidden[..., self.exit_layer, :, :], self.exit_map)
        return primary.output_layer(self.norm(x))

    def start(self, output: PrimaryOutput, max_draft_len: int, block_len: Int[Array, ""]) -> Cache:
        return Cache.empty(self.config, max_draft_len + 1)

    def step(self, token: Int[Array, ""], state: Cache, primary: Transformer, cache: Cache) -> Draft:
        layers = range(self.exit_layer)
        states, state = read_in_block(primary, primary.embed(token[None]), state, cache, layers)
        x = linear(states[-1], self.exit_map)
        return Draft(primary.output_layer(self.norm(x))[0], state, x[0])

    def commit(self, state: Cache, output: PrimaryOutput) -> Cache:
        return state.with_length(0)
