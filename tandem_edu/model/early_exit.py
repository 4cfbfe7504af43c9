"""Early exit: the primary's own first layers draft (LayerSkip, arXiv:2404.16710; Kangaroo, 2404.18911).

Token i goes through the first e of the primary's layers, then through a small *exit* and the primary's
head:

    logits = head(norm(x^(e) M))

Only the norm and the map M are trained, and only they are stored: everything else is the primary's, its
cache of the past included. That makes it the cheapest drafter to have, and a slow one to run.

Axis names: `seq` tokens, `depth` = primary's n_layers + 1 residual states, `d_primary` its width.
"""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tandem_edu.errors import require
from tandem_edu.model.attached import PrimaryReader, check_block_len, check_config, read_in_block
from tandem_edu.model.cache import Cache
from tandem_edu.model.config import TransformerConfig
from tandem_edu.model.layers import RMSNorm, linear
from tandem_edu.model.transformer import Transformer


class EarlyExit(PrimaryReader):
    """A way out of the primary after its first `exit_layer` layers.

    **Arguments:**

    - `primary_config`: the primary's sizes.
    - `exit_layer`: e, how many of its layers are run; at least 1, and fewer than it has.
    - `key`: not used, since the map starts as the identity; all attached models are made alike.

    Raises `BadInput` for an `exit_layer` out of range.

    >>> import jax
    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=3, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=16)
    >>> primary, model = Transformer(cfg, key=jax.random.key(0)), EarlyExit(cfg, exit_layer=2)
    >>> tokens = jnp.array([1, 5, 2, 7])
    >>> _, hidden = primary(tokens, return_hidden=True)
    >>> forced = model.teacher_forced(primary, tokens, hidden, block_len=2)
    >>> _, cache = primary.prefill(tokens, length=2, capacity=20)
    >>> logits, _, own = model.step(primary, tokens[2], model.init_block(capacity=8), cache)
    >>> bool(jnp.allclose(logits, forced[2], atol=1e-5)), int(own.length)
    (True, 1)
    """

    exit_map: Float[Array, "d_primary d_primary"]
    norm: RMSNorm
    primary_config: TransformerConfig = eqx.field(static=True)
    exit_layer: int = eqx.field(static=True)

    def __init__(
        self, primary_config: TransformerConfig, exit_layer: int, *, key: PRNGKeyArray | None = None
    ):
        check_config(primary_config)
        deepest = primary_config.n_layers - 1
        fix = "leave it at least one layer to save" if deepest else "use a deeper primary"
        fits = hasattr(exit_layer, "__index__") and 1 <= exit_layer <= deepest
        require(fits, f"exit_layer in 1..{deepest}", exit_layer, fix)
        self.exit_map = jnp.eye(primary_config.d_model)
        self.norm = RMSNorm(primary_config.d_model, primary_config.norm_eps)
        self.primary_config = primary_config
        self.exit_layer = int(exit_layer)

    @property
    def config(self) -> TransformerConfig:
        """The primary's config, with the layers that are run."""
        return dataclasses.replace(self.primary_config, n_layers=self.exit_layer)

    def teacher_forced(
        self,
        primary: Transformer,
        tokens: Int[Array, "*batch seq"],
        hidden: Float[Array, "*batch depth seq d_primary"],
        block_len: int | Int[Array, ""],
        offset: int | Int[Array, ""] = 0,
    ) -> Float[Array, "*batch seq vocab"]:
        """See `PrimaryReader`. Blocks make no difference: the layers it runs are the primary's everywhere."""
        check_block_len(self, block_len)
        return self._logits(primary, self._exit(hidden[..., self.exit_layer, :, :]))

    def init_block(self, capacity: int) -> Cache:
        """An empty cache for one block of at most `capacity` tokens; `with_length(0)` starts the next one."""
        return Cache.empty(self.config, capacity)

    def step(
        self, primary: Transformer, token: Int[Array, ""], own: Cache, primary_cache: Cache
    ) -> tuple[Float[Array, " vocab"], Float[Array, " d_primary"], Cache]:
        """Read one token of the current block: logits, input of the norm, and the longer `own`.

        `primary_cache` holds what is before the block; the token's position is the sum of both lengths.
        """
        x, blocks = primary.embed(token[None]), primary.blocks[: self.exit_layer]
        x, own = read_in_block(blocks, x, own, primary_cache, range(self.exit_layer), self.config)
        x = self._exit(x)
        return self._logits(primary, x)[0], x[0], own

    def _exit(self, x: Float[Array, "*batch seq d_primary"]) -> Float[Array, "*batch seq d_primary"]:
        return linear(x, self.exit_map)

    def _logits(
        self, primary: Transformer, x: Float[Array, "*batch seq d_primary"]
    ) -> Float[Array, "*batch seq vocab"]:
        x = self.norm(x)
        return primary.vocabulary.logits(x if primary.embed_out is None else linear(x, primary.embed_out))
