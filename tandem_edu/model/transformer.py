"""The transformer: one set of weights, one loop over the layers, three ways to call it.

- *full*: `model(tokens)`, every position at once, for training and reading;
- *prefill*: a prompt into an empty cache;
- *extend*: a few tokens after the cached ones. One token is a decoding step, γ + 1 a verification.

Axis names: `seq` tokens of a text, `q_len` new tokens after the cached ones, `d_model` the residual
stream, `depth` = n_layers + 1 residual states (0 = embeddings, last = input of the final norm).
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, overload

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from tandem_edu import kernels
from tandem_edu.errors import require
from tandem_edu.model.cache import KV, Cache
from tandem_edu.model.config import TransformerConfig
from tandem_edu.model.layers import CHUNK, Block, RMSNorm, Rope, init_weight, linear, rope_table
from tandem_edu.model.masks import positions, visible

KVSources = Callable[[int, KV, Any], tuple[Sequence[KV], Any]]
"""(layer, the layer's own keys and values, carry) → what the layer attends to, and the next carry."""


class Embedding(eqx.Module):
    """Token ids to vectors (`table`) and vectors to scores (`head`; `None`: the table again)."""

    table: Float[Array, "vocab d_embed"]
    head: Float[Array, "d_embed vocab"] | None

    def __init__(self, config: TransformerConfig, *, key: PRNGKeyArray):
        table_key, head_key = jax.random.split(key)
        shape = (config.vocab_size, config.embed_dim)
        self.table = 0.02 * jax.random.normal(table_key, shape, jnp.float32)
        tied = config.tie_embeddings
        self.head = None if tied else 0.02 * jax.random.normal(head_key, shape[::-1], jnp.float32)

    def embed(self, tokens: Int[Array, "*batch seq"]) -> Float[Array, "*batch seq d_embed"]:
        """The vector of each token."""
        return kernels.take_rows(self.table, tokens)

    def logits(self, x: Float[Array, "*batch seq d_embed"]) -> Float[Array, "*batch seq vocab"]:
        """One score per token id."""
        if self.head is not None:
            return linear(x, self.head)
        scores = kernels.matmul(x.reshape(-1, x.shape[-1]), self.table, transposed=True)
        return scores.reshape(*x.shape[:-1], -1)


class LanguageModel(eqx.Module):
    """What predicts a text's next token by itself; `kind` is its name in files."""

    kind: ClassVar[str]
    config: eqx.AbstractVar[TransformerConfig]

    @abc.abstractmethod
    def __call__(self, tokens: Int[Array, "*batch seq"]) -> Float[Array, "*batch seq vocab"]:
        """The next token's logits at every position."""

    @abc.abstractmethod
    def prefill(self, tokens, length, capacity: int) -> tuple[Array, Any]:
        """Read a prompt into a new cache, see `Transformer.prefill`."""

    @abc.abstractmethod
    def extend(self, tokens, cache) -> tuple[Array, Array, Any]:
        """Read more tokens after the cached ones, see `Transformer.extend`."""

    @abc.abstractmethod
    def embed(self, tokens: Int[Array, "*batch seq"]) -> Float[Array, "*batch seq d_model"]:
        """The vector of each token."""

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments beside `config`, JSON-able."""
        return {}


class Transformer(LanguageModel):
    """A Llama-style decoder.

    >>> cfg = TransformerConfig(8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=16, max_len=16)
    >>> model = Transformer(cfg, key=jax.random.key(0))
    >>> tokens = jnp.array([1, 5, 2])
    >>> logits, hidden = model(tokens, return_hidden=True)
    >>> logits.shape, hidden.shape
    ((3, 8), (3, 3, 8))
    >>> prompt, cache = model.prefill(tokens, length=2, capacity=20)
    >>> step, _, cache = model.extend(tokens[2:], cache)
    >>> bool(jnp.allclose(step[0], logits[2], atol=1e-5)), int(cache.length)
    (True, 3)
    """

    kind: ClassVar[str] = "transformer"
    embedding: Embedding
    embed_in: Float[Array, "d_embed d_model"] | None
    embed_out: Float[Array, "d_model d_embed"] | None
    blocks: tuple[Block, ...]
    final_norm: RMSNorm
    config: TransformerConfig = eqx.field(static=True)

    def __init__(self, config: TransformerConfig, *, key: PRNGKeyArray, embedding: Embedding | None = None):
        """Random weights. With `config.shared_vocab`, and only then, pass the primary's `embedding`.

        Raises `BadInput` for an embedding that does not fit `config`.
        """
        embed_key, in_key, out_key, *block_keys = jax.random.split(key, config.n_layers + 3)
        _check_embedding(config, embedding)
        resize = config.embed_dim != config.d_model
        self.embedding = Embedding(config, key=embed_key) if embedding is None else embedding
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
        """Next-token logits `float[*batch, seq, vocab]` at every position.

        With `return_hidden` also the residual stream, `float[*batch, depth, seq, d_model]`.
        Raises `BadInput` unless `tokens` is an array of integers.
        """
        got = getattr(tokens, "dtype", type(tokens).__name__)
        integers = hasattr(tokens, "dtype") and jnp.issubdtype(tokens.dtype, jnp.integer)
        require(integers, "tokens as an array of integers", got, "pass jnp.array(tokens)")
        position = positions(tokens.shape[-1])
        causal, own_keys_values = [visible(position, last=position)], lambda layer, kv, carry: ([kv], carry)
        states, _ = self.run_layers(self.embed(tokens), self.rope(position), causal, own_keys_values)
        logits = self.logits(states[-1])
        return (logits, jnp.stack(states, axis=-3)) if return_hidden else logits

    def prefill(
        self, tokens: Int[Array, " seq"], length: int | Int[Array, ""], capacity: int
    ) -> tuple[Float[Array, "depth seq d_model"], Cache]:
        """Read the first `length` tokens (the rest is padding): all residual streams, and a new cache."""
        _, hidden, cache = self.extend(tokens, Cache.empty(self.config, capacity))
        return hidden, cache.with_length(length)

    def extend(
        self, tokens: Int[Array, " q_len"], cache: Cache
    ) -> tuple[Float[Array, "q_len vocab"], Float[Array, "depth q_len d_model"], Cache]:
        """Read more tokens, within the cache's capacity: logits, residual stream, the longer cache."""
        states, cache = self.extend_states(self.embed(tokens), cache)
        return self.logits(states[-1]), jnp.stack(states), cache

    def extend_states(
        self, x: Float[Array, "q_len d_model"], cache: Cache
    ) -> tuple[list[Float[Array, "q_len d_model"]], Cache]:
        """`extend` from residual state 0 to the last: all residual states, and the longer cache."""
        position = positions(x.shape[0], start=cache.length)
        mask = visible(positions(cache.capacity), last=position)
        states, cache = self.run_layers(x, self.rope(position), [mask], append_to_cache, cache)
        return states, cache.with_length(cache.length + x.shape[0])

    def run_layers(
        self,
        x: Float[Array, "*batch seq d_model"],
        rope: Rope,
        masks: Sequence[Bool[Array, "seq _"]],
        kv_sources: KVSources,
        carry: Any = None,
        depth: int | None = None,
        chunk: int = CHUNK,
    ) -> tuple[list[Float[Array, "*batch seq d_model"]], Any]:
        """The loop over the layers (or the first `depth` of them): all residual states, the last carry.

        `kv_sources` says which keys and values each layer attends to, one `mask` for each. Nothing else tells
        a full pass, a cached one, and a secondary that attends to its primary apart. `chunk` is `attend`'s.
        """
        states = [x]
        for layer, block in enumerate(self.blocks[:depth]):
            kv = block.keys_values(states[-1], rope)
            sources, carry = kv_sources(layer, kv, carry)
            states.append(block(states[-1], rope, sources, masks, chunk))
        return states, carry

    def rope(self, position: Int[Array, " seq"]) -> Rope:
        """The rotary embedding's cos and sin at these positions."""
        return rope_table(position, self.config.head_dim, self.config.rope_theta)

    def embed(self, tokens: Int[Array, "*batch seq"]) -> Float[Array, "*batch seq d_model"]:
        """Residual state 0."""
        x = self.embedding.embed(tokens)
        return x if self.embed_in is None else linear(x, self.embed_in)

    def logits(self, x: Float[Array, "*batch seq d_model"]) -> Float[Array, "*batch seq vocab"]:
        """Final norm and output layer."""
        return self.output_layer(self.final_norm(x))

    def output_layer(self, x: Float[Array, "*batch seq d_model"]) -> Float[Array, "*batch seq vocab"]:
        """Scores of a residual state that has been normalised."""
        return self.embedding.logits(x if self.embed_out is None else linear(x, self.embed_out))


def append_to_cache(layer: int, kv: KV, cache: Cache) -> tuple[Sequence[KV], Cache]:
    """`kv_sources` of a cached pass: write the new keys and values, attend to all that the cache holds."""
    cache = cache.append(layer, kv)
    return [cache[layer]], cache


def _check_embedding(config: TransformerConfig, embedding: Embedding | None) -> None:
    if embedding is None:
        fix = "pass embedding=primary.embedding, or set shared_vocab=False"
        require(not config.shared_vocab, "an embedding to share", None, fix)
        return
    (rows, width), shares = embedding.table.shape, config.shared_vocab
    fits = shares and (rows, width) == (config.vocab_size, config.embed_dim)
    expected = f"shared_vocab=True and an embedding of {config.vocab_size} tokens x {config.embed_dim}"
    fix = f"set vocab_size={rows}, shared_vocab=True and d_embed={width}, or pass none"
    require(fits, expected, f"shared_vocab={shares} and {rows} x {width}", fix)
