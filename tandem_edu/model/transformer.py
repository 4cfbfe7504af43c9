"""The transformer: one set of weights, three ways through them.

- *full*: `model(tokens)`, every position at once, for training and for reading;
- *prefill*: the prompt into an empty cache;
- *extend*: a few more tokens after the cached ones; one token is a decoding step, γ + 1 a verification.

Axis names: `seq` tokens of a text, `q_len` new tokens after the cached ones, `d_model` the residual
stream, `depth` = n_layers + 1 residual states (0 = embeddings, last = input of the final norm).
"""

from functools import partial
from typing import Literal, overload

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tandem_edu.errors import require
from tandem_edu.model import narrow
from tandem_edu.model.cache import Cache
from tandem_edu.model.config import TransformerConfig
from tandem_edu.model.layers import (
    Block,
    RMSNorm,
    attend,
    attend_causal,
    init_weight,
    linear,
    rope_table,
)
from tandem_edu.model.masks import cached_mask, causal_mask


class Embedding(eqx.Module):
    """The way in (embedding) and the way out (head). A secondary may borrow its primary's, frozen."""

    embedding: Float[Array, "vocab d_embed"]
    head: Float[Array, "d_embed vocab"] | None

    def __init__(self, config: TransformerConfig, *, key: PRNGKeyArray):
        embed_key, head_key = jax.random.split(key)
        self.embedding = 0.02 * jax.random.normal(embed_key, (config.vocab_size, config.embed_dim))
        self.head = None
        if not config.tie_embeddings:
            self.head = 0.02 * jax.random.normal(head_key, (config.embed_dim, config.vocab_size))

    def embed(self, tokens: Int[Array, "*batch seq"]) -> Float[Array, "*batch seq d_embed"]:
        """The embedding of each token."""
        if tokens.ndim == 1 and 0 < tokens.size <= 16:
            # One by one: XLA would share out a gather of a few rows among the cores, which takes longer.
            return jnp.stack([self.embedding[token] for token in tokens])
        return self.embedding[tokens]

    def logits(self, x: Float[Array, "*batch seq d_embed"]) -> Float[Array, "*batch seq vocab"]:
        """One score per token id."""
        if self.head is not None:
            return linear(x, self.head)
        scores = narrow.product(x.reshape(-1, x.shape[-1]), self.embedding, transposed=True)
        return scores.reshape(*x.shape[:-1], -1)


class Transformer(eqx.Module):
    """A Llama-style decoder.

    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=16)
    >>> model = Transformer(cfg, key=jax.random.key(0))
    >>> tokens = jnp.array([1, 5, 2])
    >>> logits, hidden = model(tokens, return_hidden=True)
    >>> logits.shape, hidden.shape
    ((3, 8), (3, 3, 8))
    >>> prompt, cache = model.prefill(tokens, length=2, capacity=20)
    >>> step, cache = model.extend(tokens[2:], cache)
    >>> bool(jnp.allclose(step[0], logits[2], atol=1e-5)), int(cache.length)
    (True, 3)
    """

    vocabulary: Embedding
    embed_in: Float[Array, "d_embed d_model"] | None
    embed_out: Float[Array, "d_model d_embed"] | None
    blocks: tuple[Block, ...]
    final_norm: RMSNorm
    config: TransformerConfig = eqx.field(static=True)

    def __init__(self, config: TransformerConfig, *, key: PRNGKeyArray, vocabulary: Embedding | None = None):
        """Random weights. With `config.shared_vocab`, and only then, pass the primary's `vocabulary`.

        Raises `BadInput` for a vocabulary that does not fit `config`.
        """
        vocab_key, in_key, out_key, *block_keys = jax.random.split(key, config.n_layers + 3)
        _check_vocabulary(config, vocabulary)
        if vocabulary is None:
            vocabulary = Embedding(config, key=vocab_key)
        resize = config.embed_dim != config.d_model
        self.vocabulary = vocabulary
        self.embed_in = init_weight(in_key, config.embed_dim, config.d_model) if resize else None
        self.embed_out = init_weight(out_key, config.d_model, config.embed_dim) if resize else None
        self.blocks = tuple(Block(config, key=block_key) for block_key in block_keys)
        self.final_norm = RMSNorm(config.d_model, config.norm_eps)
        self.config = config

    @overload
    def __call__(self, tokens, *, return_hidden: Literal[False] = False) -> Array: ...
    @overload
    def __call__(self, tokens, *, return_hidden: Literal[True]) -> tuple[Array, Array]: ...
    def __call__(self, tokens: Int[Array, "*batch seq"], *, return_hidden: bool = False):
        """Next-token logits `float32[*batch, seq, vocab]` at every position.

        With `return_hidden` also the residual stream, `float32[*batch, n_layers + 1, seq, d_model]`:
        0 = embeddings, l = after layer l, the last one is the input of the final norm. Raises `BadInput` for
        tokens that are no array of integers.
        """
        got = getattr(tokens, "dtype", type(tokens).__name__)
        whole = hasattr(tokens, "dtype") and jnp.issubdtype(tokens.dtype, jnp.integer)
        require(whole, "tokens as an array of integers", got, "pass jnp.array(tokens)")
        seq = tokens.shape[-1]
        rope = rope_table(jnp.arange(seq), self.config.head_dim, self.config.rope_theta)
        mask = causal_mask(seq)
        states = [self.embed(tokens)]
        for block in self.blocks:
            x = states[-1]
            kv = block.write(x, rope)
            states.append(block.read(x, rope, partial(attend_causal, sides=[kv], masks=[mask])))
        logits = self.logits(states[-1])
        return (logits, jnp.stack(states, axis=-3)) if return_hidden else logits

    def init_cache(self, capacity: int) -> Cache:
        """An empty cache with room for `capacity` tokens."""
        return Cache.empty(self.config, capacity)

    def prefill(
        self, tokens: Int[Array, " seq"], length: int | Int[Array, ""], capacity: int
    ) -> tuple[Float[Array, "depth seq d_model"], Cache]:
        """Read the first `length` of `tokens` (the rest is padding) into a new cache.

        Returns the residual stream of every position and the cache.
        """
        _, hidden, cache = self.extend(tokens, self.init_cache(capacity), return_hidden=True)
        return hidden, cache.with_length(length)

    @overload
    def extend(self, tokens, cache, *, return_hidden: Literal[False] = False) -> tuple[Array, Cache]: ...
    @overload
    def extend(self, tokens, cache, *, return_hidden: Literal[True]) -> tuple[Array, Array, Cache]: ...
    def extend(self, tokens: Int[Array, " q_len"], cache: Cache, *, return_hidden: bool = False):
        """Read `q_len` more tokens after the cached ones.

        Returns their logits `float32[q_len, vocab]`, with `return_hidden` their residual stream
        `float32[n_layers + 1, q_len, d_model]`, and the longer cache. The caller sees to it that
        `cache.length + q_len` is at most the capacity.
        """
        q_len = tokens.shape[0]
        position = cache.length + jnp.arange(q_len)
        rope = rope_table(position, self.config.head_dim, self.config.rope_theta)
        mask = cached_mask(cache.length, q_len, cache.capacity)
        states = [self.embed(tokens)]
        for layer, block in enumerate(self.blocks):
            x = states[-1]
            cache = cache.write(layer, cache.length, block.write(x, rope))
            attention = partial(attend, sides=[(cache.k[layer], cache.v[layer])], masks=[mask])
            states.append(block.read(x, rope, attention))
        cache = cache.with_length(cache.length + q_len)
        logits = self.logits(states[-1])
        return (logits, jnp.stack(states), cache) if return_hidden else (logits, cache)

    def embed(self, tokens: Int[Array, "*batch seq"]) -> Float[Array, "*batch seq d_model"]:
        """Residual state 0."""
        x = self.vocabulary.embed(tokens)
        return x if self.embed_in is None else linear(x, self.embed_in)

    def logits(self, x: Float[Array, "*batch seq d_model"]) -> Float[Array, "*batch seq vocab"]:
        """Final norm and head."""
        x = self.final_norm(x)
        return self.vocabulary.logits(x if self.embed_out is None else linear(x, self.embed_out))


def _check_vocabulary(config: TransformerConfig, vocabulary: Embedding | None) -> None:
    if vocabulary is None:
        fix = "pass vocabulary=primary.vocabulary, or set shared_vocab=False"
        require(not config.shared_vocab, "a vocabulary to share", None, fix)
        return
    rows, width = vocabulary.embedding.shape
    require(
        (rows, width) == (config.vocab_size, config.embed_dim),
        f"a vocabulary of {config.vocab_size} tokens x {config.embed_dim}",
        f"{rows} x {width}",
        f"set vocab_size={rows}, shared_vocab=True and d_embed={width}",
    )
    got = f"shared_vocab={config.shared_vocab} with a vocabulary"
    require(config.shared_vocab, "shared_vocab=True where one is lent", got, "set it, or lend none")
