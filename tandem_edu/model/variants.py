"""Two variants of the tandem that the paper's appendix measures, and one that its section 4 rejects.

- `Joint`: the primary learns too. From nothing, end to end, the two are the halves of one *deep tandem*;
  from a trained primary, they show what freezing it costs.
- `BlockPrediction`: the block's tokens are predicted at once; the secondary sees none but the first.
"""

import equinox as eqx
from jaxtyping import Array, Float, Int

from tandem_edu.model.attached import PrimaryReader, check_block_len
from tandem_edu.model.config import TransformerConfig
from tandem_edu.model.masks import block_starts
from tandem_edu.model.tandem import Tandem
from tandem_edu.model.transformer import Transformer


class Joint(PrimaryReader):
    """A tandem together with a primary of its own, both trained, on the secondary's loss alone.

    The `primary` that `teacher_forced` is given is not read: in training it is the frozen teacher, where
    the recipe has one. Where the secondary shares the primary's vocabulary, it is this one's.

    >>> import jax, jax.numpy as jnp
    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=16)
    >>> primary = Transformer(cfg, key=jax.random.key(0))
    >>> tandem = Tandem(Transformer(cfg, key=jax.random.key(1)), cfg, key=jax.random.key(2))
    >>> Joint(primary, tandem)(jnp.array([1, 5, 2]), block_len=2).shape
    (3, 8)
    """

    primary: Transformer
    tandem: Tandem
    primary_config: TransformerConfig = eqx.field(static=True)

    def __init__(self, primary: Transformer, tandem: Tandem):
        self.primary, self.tandem, self.primary_config = primary, tandem, tandem.primary_config

    @property
    def config(self) -> TransformerConfig:
        """The secondary's config."""
        return self.tandem.config

    @property
    def tied(self) -> Tandem:
        """The tandem, speaking this primary's vocabulary if it shares one."""
        if not self.config.shared_vocab:
            return self.tandem
        return eqx.tree_at(lambda tandem: tandem.secondary.vocabulary, self.tandem, self.primary.vocabulary)

    def __call__(
        self,
        tokens: Int[Array, "*batch seq"],
        block_len: int | Int[Array, ""],
        offset: int | Int[Array, ""] = 0,
    ) -> Float[Array, "*batch seq vocab"]:
        """Teacher-forced logits of the secondary. Raises `BadInput` for a `block_len` below 1."""
        _, hidden = self.primary(tokens, return_hidden=True)
        return self.tied(tokens, hidden, block_len, offset)

    def teacher_forced(self, primary, tokens, hidden, block_len, offset=0):
        """`self(tokens, block_len, offset)`."""
        return self(tokens, block_len, offset)


class BlockPrediction(PrimaryReader):
    """The tandem without its autoregressive part: all γ tokens of a block from what stands before it.

    In the place of every token of a block the secondary reads the block's first one, the pending token
    that the text ends with; where in the block it is, the rotary positions tell.

    >>> import jax, jax.numpy as jnp
    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=16)
    >>> primary = Transformer(cfg, key=jax.random.key(0))
    >>> tandem = Tandem(Transformer(cfg, key=jax.random.key(1)), cfg, key=jax.random.key(2))
    >>> predict = BlockPrediction(tandem).teacher_forced
    >>> one, other = jnp.array([1, 5, 2, 7]), jnp.array([1, 5, 2, 3])  # the last differs within its block
    >>> _, hidden = primary(one, return_hidden=True)
    >>> bool(jnp.array_equal(predict(primary, one, hidden, 4), predict(primary, other, hidden, 4)))
    True
    """

    tandem: Tandem
    primary_config: TransformerConfig = eqx.field(static=True)

    def __init__(self, tandem: Tandem):
        self.tandem, self.primary_config = tandem, tandem.primary_config

    @property
    def config(self) -> TransformerConfig:
        """The secondary's config."""
        return self.tandem.config

    def teacher_forced(self, primary, tokens, hidden, block_len, offset=0):
        """The tandem's logits for tokens replaced by the first of their block."""
        check_block_len(self, block_len)
        starts = block_starts(tokens.shape[-1], block_len, offset)
        return self.tandem(tokens[..., starts], hidden, block_len, offset)
