"""The deep tandem: one language model whose large half sketches the next block (paper, section 5, Eqs 3, 4).

Blocks of γ tokens start at multiples of γ. The *large* half reads the text block by block. Within a block all
tokens see each other, because all are known. Its output for token i - γ is the *sketch* of token i:

    x_i^(0) = Emb_L(token i - γ),   x_i^(j+1) from x_t^(j) for all t up to the end of i's block    (Eq. 3)

The *small* half writes the block token by token. It is an ordinary causal transformer over its own whole
history, and each input is the token before plus the sketch of the token to come:

    y_i^(0) = Emb_S(token i - 1) + FF(x_i^(L)),   y_i^(j+1) from y_t^(j) for t ≤ i                (Eq. 4)

Its output predicts token i. The large half runs once for each block, the small one once for each token. With
halves of the same depth, and where a block is read in the time of a token, a token costs 1/2 + 1/(2γ) of the
whole model, but for embedding and head. The first γ tokens have no token one block before; their sketch is 0.

In arrays, row p belongs to token p of the text and thus to the *predicted* token i = p + 1.
"""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tandem_edu.errors import at_least, require
from tandem_edu.model import Cache, LanguageModel, Transformer, TransformerConfig
from tandem_edu.model.cache import KV
from tandem_edu.model.layers import CHUNK, init_weight, linear
from tandem_edu.model.masks import positions, visible
from tandem_edu.model.transformer import append_to_cache


class DeepCache(eqx.Module):
    """What the two halves remember. A rollback sets a shorter length, as in `Cache`."""

    tokens: Int[Array, " capacity"]
    sketch: Float[Array, "sketches d_model"]
    """Row p is the sketch of token p + 1."""
    large: Cache
    small: Cache

    @property
    def length(self) -> Int[Array, ""]:
        """How many tokens have been read."""
        return self.small.length

    def with_length(self, length: Int[Array, ""] | int) -> "DeepCache":
        """The same entries with another length."""
        return eqx.tree_at(lambda cache: cache.small, self, self.small.with_length(length))


class DeepTandem(LanguageModel):
    """A large and a small half, trained together end to end; both have the sizes of `config`.

    - `block_len` (γ): tokens that the large half sketches at a time.
    - `n_large`: how many of `config.n_layers` are the large half's; by default half of them.

    The output layer is never tied to the embedding, which starts as large as a projected sketch. With usual
    small embeddings the sketch hides the token before, and the model does not learn to read it.

    It is a language model like `Transformer`: `te.generate` continues a text with it, and `te.speculate` and
    `te.block_generate` take it as the drafter. Raises `BadInput` for layers that cannot be divided so.

    >>> cfg = TransformerConfig(8, d_model=8, n_layers=4, n_heads=2, n_kv_heads=1, d_ff=16, max_len=16)
    >>> deep = DeepTandem(cfg, block_len=2, key=jax.random.key(0))
    >>> tokens = jnp.array([1, 5, 2, 7, 3])
    >>> deep(tokens).shape, deep.sketch(tokens).shape
    ((5, 8), (5, 8))
    """

    kind: ClassVar[str] = "deep-tandem"
    large: Transformer
    small: Transformer
    projection: Float[Array, "d_model d_model"]
    config: TransformerConfig = eqx.field(static=True)
    block_len: int = eqx.field(static=True)

    def __init__(
        self, config: TransformerConfig, block_len: int = 2, n_large: int | None = None, *, key: PRNGKeyArray
    ):
        n_layers, large_key, small_key, key = config.n_layers, *jax.random.split(key, 3)
        fix = f"pass n_large={(n_layers + 1) // 2} for {(n_layers + 1) // 2} and {n_layers // 2} layers"
        require(n_large is not None or n_layers % 2 == 0, "an even number of layers to halve", n_layers, fix)
        n_large = n_layers // 2 if n_large is None else at_least(1, n_large, "n_large", "leave it out")
        expected = "a config with layers for both halves"
        require(n_large < n_layers, expected, f"{n_large} of {n_layers} in the large one", "take fewer")
        self.config = dataclasses.replace(config, tie_embeddings=False)
        of_large = dataclasses.replace(config, n_layers=n_large, tie_embeddings=True)  # it needs no head
        of_small = dataclasses.replace(self.config, n_layers=n_layers - n_large)
        self.large = with_unit_embeddings(Transformer(of_large, key=large_key))
        self.small = with_unit_embeddings(Transformer(of_small, key=small_key))
        self.projection = init_weight(key, config.d_model, config.d_model)
        self.block_len = at_least(1, block_len, "block_len", "the paper has 2")

    def settings(self) -> dict[str, Any]:
        return {"block_len": self.block_len, "n_large": self.large.config.n_layers}

    def __call__(self, tokens: Int[Array, "*batch seq"]) -> Float[Array, "*batch seq vocab"]:
        """The next token's logits at each position, teacher-forced, in one pass of each half."""
        return self.small.logits(self._read_text(tokens)[2][-1])

    def embed(self, tokens: Int[Array, "*batch seq"]) -> Float[Array, "*batch seq d_model"]:
        """The small half's embeddings."""
        return self.small.embed(tokens)

    def sketch(self, tokens: Int[Array, "*batch seq"]) -> Float[Array, "*batch seq d_model"]:
        """x_i^(L), the large half's output for the token i that is predicted at each position."""
        return sketch_blocks(self.large, tokens, self.block_len)[0]

    def prefill(
        self, tokens: Int[Array, " seq"], length: int | Int[Array, ""], capacity: int
    ) -> tuple[Float[Array, "depth seq d_model"], DeepCache]:
        """Read the first `length` of `tokens` (the rest is padding) into a new cache.

        Returns the small half's residual stream of every position and the cache.
        """
        sketch, large_kv, states, small_kv = self._read_text(tokens)
        room = jnp.zeros((capacity + self.block_len, self.config.d_model), sketch.dtype)
        cache = DeepCache(
            jnp.zeros(capacity, jnp.int32).at[: tokens.shape[0]].set(tokens),
            room.at[: tokens.shape[0]].set(sketch),
            _filled(Cache.empty(self.large.config, capacity + self.block_len), large_kv),
            _filled(Cache.empty(self.small.config, capacity), small_kv),
        )
        return jnp.stack(states), cache.with_length(length)

    def extend(
        self, tokens: Int[Array, " q_len"], cache: DeepCache
    ) -> tuple[Float[Array, "q_len vocab"], Float[Array, "depth q_len d_model"], DeepCache]:
        """Read more tokens in turn: their logits, the small half's residual stream, the cache."""
        cache, states = lax.scan(lambda cache, token: self._read_token(cache, token), cache, tokens)
        return self.small.logits(states[:, -1]), jnp.swapaxes(states, 0, 1), cache

    def _read_token(self, cache: DeepCache, token: Int[Array, ""]) -> tuple[DeepCache, Array]:
        at = cache.length
        cache = eqx.tree_at(lambda c: c.tokens, cache, cache.tokens.at[at].set(token))
        # The large half reads a block as soon as its last token is known.
        is_full = (at + 1) % self.block_len == 0
        cache = lax.cond(is_full, lambda cache: self._read_block(cache), lambda cache: cache, cache)
        x = self._inputs(token[None], cache.sketch[at][None])
        states, small = self.small.extend_states(x, cache.small)
        return eqx.tree_at(lambda c: c.small, cache, small), jnp.stack(states)[:, 0]

    def _read_block(self, cache: DeepCache) -> DeepCache:
        """The large half's pass over the last block; the next block's sketches."""
        start = cache.length + 1 - self.block_len
        position = positions(self.block_len, start)
        block = lax.dynamic_slice(cache.tokens, (start,), (self.block_len,))
        mask = visible(positions(cache.large.capacity), last=0 * position + cache.length)
        large = cache.large.with_length(start)
        states, large = self.large.run_layers(
            self.large.embed(block), self.large.rope(position), [mask], append_to_cache, large
        )
        sketch = lax.dynamic_update_slice(cache.sketch, states[-1], (cache.length, jnp.int32(0)))
        return DeepCache(cache.tokens, sketch, large, cache.small)

    def _read_text(self, tokens: Int[Array, "*batch seq"]):
        """The parallel pass: sketches, the large half's keys and values, the small half's states, and its."""
        sketch, large_kv = sketch_blocks(self.large, tokens, self.block_len)
        position = positions(tokens.shape[-1])
        keep = lambda layer, kv, kept: ([kv], (*kept, kv))
        states, small_kv = self.small.run_layers(
            self._inputs(tokens, sketch), self.small.rope(position), [visible(position, position)], keep, ()
        )
        return sketch, large_kv, states, small_kv

    def _inputs(
        self, tokens: Int[Array, "*batch seq"], sketch: Float[Array, "*batch seq d_model"]
    ) -> Float[Array, "*batch seq d_model"]:
        """y^(0): the embedding plus the projected sketch."""
        return self.small.embed(tokens) + linear(self.large.final_norm(sketch), self.projection)


def with_unit_embeddings(model: Transformer) -> Transformer:
    """The same model, its embedding vectors scaled to a root mean square of 1 over the table."""
    table = model.embedding.table
    return eqx.tree_at(lambda m: m.embedding.table, model, table / jnp.sqrt(jnp.mean(table * table)))


def sketch_blocks(
    large: Transformer, tokens: Int[Array, "*batch seq"], block_len: int
) -> tuple[Float[Array, "*batch seq d_model"], tuple[KV, ...]]:
    """The sketch of the token that is predicted at each position, and each layer's keys and values."""
    *batch, seq = tokens.shape
    if seq < block_len:  # what follows a text changes nothing before
        tokens = jnp.concatenate([tokens, jnp.zeros((*batch, block_len - seq), tokens.dtype)], axis=-1)
    position = positions(tokens.shape[-1] // block_len * block_len)  # whole blocks only
    block_end = (position // block_len + 1) * block_len - 1
    keep = lambda layer, kv, kept: ([kv], (*kept, kv))
    x, rope = large.embed(tokens[..., : position.shape[0]]), large.rope(position)
    # Long texts are read in chunks, of which none may end inside a block.
    chunk = max(1, CHUNK // block_len) * block_len
    states, kv = large.run_layers(x, rope, [visible(position, block_end)], keep, (), chunk=chunk)
    # Row t of the states is the sketch of token t + γ, which is predicted at position t + γ - 1.
    first = jnp.zeros((*batch, block_len - 1, x.shape[-1]), x.dtype)
    return jnp.concatenate([first, states[-1]], axis=-2)[..., :seq, :], kv


def _filled(cache: Cache, kv: tuple[KV, ...]) -> Cache:
    for layer, one in enumerate(kv):
        cache = cache.append(layer, one)
    return cache
