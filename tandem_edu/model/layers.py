"""The parts of a Llama layer: RMSNorm, rotary embedding, grouped-query attention, SwiGLU.

Axis names: `*batch seq d_model` for the residual stream, with any number of batch axes, `n_heads` query and
`n_kv_heads` key/value heads of `head_dim`, `q_len` queries, `d_ff` the inner width of the SwiGLU.
"""

from collections.abc import Sequence
from functools import reduce

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from tandem_edu import kernels
from tandem_edu.model.cache import KV
from tandem_edu.model.config import TransformerConfig

Rope = tuple[Float[Array, "seq half_dim"], Float[Array, "seq half_dim"]]
CHUNK = 64
"""Queries that a whole text's attention handles together."""


def init_weight(key: PRNGKeyArray, d_in: int, d_out: int, gain: float = 1.0) -> Float[Array, "d_in d_out"]:
    """A random matrix with entries N(0, gain² / d_in). With gain 1 it keeps the scale of its input."""
    return jax.random.normal(key, (d_in, d_out), jnp.float32) * (gain / d_in**0.5)


def linear(
    x: Float[Array, "*batch d_in"], weight: Float[Array, "d_in d_out"]
) -> Float[Array, "*batch d_out"]:
    """x W over the last axis."""
    # One batch axis: XLA's CPU backend contracts one axis faster than two, as in a weight's gradient.
    return kernels.matmul(x.reshape(-1, x.shape[-1]), weight).reshape(*x.shape[:-1], weight.shape[-1])


def normalise(x: Float[Array, "*batch d_model"], eps: float) -> Float[Array, "*batch d_model"]:
    """x / sqrt(mean(x²) + eps) over the last axis."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)


class RMSNorm(eqx.Module):
    """y = x / sqrt(mean(x²) + eps) · scale (arXiv:1910.07467)."""

    scale: Float[Array, " d_model"]
    eps: float = eqx.field(static=True)

    def __init__(self, d_model: int, eps: float):
        self.scale = jnp.ones(d_model, jnp.float32)
        self.eps = eps

    def __call__(self, x: Float[Array, "*batch d_model"]) -> Float[Array, "*batch d_model"]:
        return normalise(x, self.eps) * jnp.broadcast_to(self.scale, x.shape)


def rope_table(position: Int[Array, " seq"], head_dim: int, theta: float) -> Rope:
    """cos and sin of position · theta^(-2i / head_dim), i = 0 .. head_dim/2 - 1 (arXiv:2104.09864)."""
    frequency = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)

    def cos_and_sin(position):
        angle = position.astype(jnp.float32)[:, None] * frequency[None, :]
        return jnp.cos(angle), jnp.sin(angle)

    return kernels.compute_once(cos_and_sin, position)


def rotate(
    x: Float[Array, "*batch heads seq head_dim"], rope: Rope
) -> Float[Array, "*batch heads seq head_dim"]:
    """Rotate each pair (x_i, x_{i + head_dim/2}) by its position's angle, as Llama's checkpoints do."""
    first, second = jnp.split(x, 2, axis=-1)
    cos, sin = (jnp.broadcast_to(table, first.shape) for table in rope)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attend(
    q: Float[Array, "*batch n_heads q_len head_dim"],
    kv_sources: Sequence[KV],
    masks: Sequence[Bool[Array, "q_len _"]],
    chunk: int = CHUNK,
) -> Float[Array, "*batch n_heads q_len head_dim"]:
    """softmax(q kᵀ / √head_dim) v over the keys that the masks allow. Each query must see one key at least.

    Keys and values may come from several sources, with one mask each, such as a secondary's own and its
    primary's. One softmax runs over all of them, and none is copied.

    Square masks are those of a whole text, where no query sees a key beyond its chunk. Each chunk of queries
    reads the keys up to its own end: nearly half of the products are never formed.
    """
    q_len = q.shape[-2]
    if q_len <= chunk or any(mask.shape[-1] != q_len for mask in masks):
        return kernels.attention(softmax_attention, q, kv_sources, masks)
    chunks = []
    for start in range(0, q_len, chunk):
        end = min(start + chunk, q_len)
        sources = [(k[..., :end, :], v[..., :end, :]) for k, v in kv_sources]
        seen = [mask[start:end, :end] for mask in masks]
        chunks.append(kernels.attention(softmax_attention, q[..., start:end, :], sources, seen))
    return jnp.concatenate(chunks, axis=-2)


def softmax_attention(q: Array, kv_sources: Sequence, masks: Sequence) -> Array:
    """`attend` as formulas.

    Grouped queries: `n_heads / n_kv_heads` neighbouring query heads read one key/value head, as the rows of
    one matrix product. The division comes last, where a query has `head_dim` numbers and not `kv_len`.
    """
    *batch, n_heads, q_len, head_dim = q.shape
    n_kv_heads = kv_sources[0][0].shape[-3]
    rows = n_heads // n_kv_heads * q_len
    grouped_q = (q * head_dim**-0.5).reshape(*batch, n_kv_heads, rows, head_dim)
    scores = []
    for (k, _), mask in zip(kv_sources, masks, strict=True):
        score = (grouped_q @ jnp.swapaxes(k, -1, -2)).reshape(*batch, n_heads, q_len, -1)
        scores.append(jnp.where(jnp.broadcast_to(mask, score.shape), score, -jnp.inf))
    highest = reduce(jnp.maximum, [jnp.max(score, axis=-1, keepdims=True) for score in scores])
    weights = [jnp.exp(score - jax.lax.stop_gradient(highest)) for score in scores]
    total = reduce(jnp.add, [jnp.sum(weight, axis=-1, keepdims=True) for weight in weights])
    mixed = [
        weight.reshape(*batch, n_kv_heads, rows, -1) @ v
        for weight, (_, v) in zip(weights, kv_sources, strict=True)
    ]
    return reduce(jnp.add, mixed).reshape(q.shape) / total


class KeyValueProjection(eqx.Module):
    """The matrices from a normalised residual stream to keys and values."""

    wk: Float[Array, "d_model kv_dim"]
    wv: Float[Array, "d_model kv_dim"]
    head_dim: int = eqx.field(static=True)

    def __init__(self, config: TransformerConfig, *, key: PRNGKeyArray):
        k_key, v_key = jax.random.split(key)
        kv_dim = config.n_kv_heads * config.head_dim
        self.wk = init_weight(k_key, config.d_model, kv_dim)
        self.wv = init_weight(v_key, config.d_model, kv_dim)
        self.head_dim = config.head_dim

    def __call__(self, x: Float[Array, "*batch seq d_model"], rope: Rope) -> KV:
        """Keys (rotated to their positions) and values, heads first."""
        k, v = (split_heads(linear(x, weight), self.head_dim) for weight in (self.wk, self.wv))
        return rotate(k, rope), v


def split_heads(
    x: Float[Array, "*batch seq dim"], head_dim: int
) -> Float[Array, "*batch heads seq head_dim"]:
    """[.., seq, heads · head_dim] → [.., heads, seq, head_dim]."""
    return jnp.swapaxes(x.reshape(*x.shape[:-1], -1, head_dim), -2, -3)


class SwiGLU(eqx.Module):
    """y = (silu(x W_gate) ⊙ x W_up) W_down (arXiv:2002.05202)."""

    w_gate: Float[Array, "d_model d_ff"]
    w_up: Float[Array, "d_model d_ff"]
    w_down: Float[Array, "d_ff d_model"]

    def __init__(self, config: TransformerConfig, *, key: PRNGKeyArray):
        gate, up, down = jax.random.split(key, 3)
        self.w_gate = init_weight(gate, config.d_model, config.d_ff)
        self.w_up = init_weight(up, config.d_model, config.d_ff)
        self.w_down = init_weight(down, config.d_ff, config.d_model, gain=(2 * config.n_layers) ** -0.5)

    def __call__(self, x: Float[Array, "*batch d_model"]) -> Float[Array, "*batch d_model"]:
        return linear(kernels.silu_product(linear(x, self.w_gate), linear(x, self.w_up)), self.w_down)


class Block(eqx.Module):
    """One layer. It says what keys and values its input has; the caller says which ones it attends to."""

    attention_norm: RMSNorm
    wq: Float[Array, "d_model d_model"]
    kv: KeyValueProjection
    wo: Float[Array, "d_model d_model"]
    mlp_norm: RMSNorm
    mlp: SwiGLU

    def __init__(self, config: TransformerConfig, *, key: PRNGKeyArray):
        q_key, kv_key, o_key, mlp_key = jax.random.split(key, 4)
        width = config.d_model
        self.attention_norm = RMSNorm(width, config.norm_eps)
        self.wq = init_weight(q_key, width, width)
        self.kv = KeyValueProjection(config, key=kv_key)
        self.wo = init_weight(o_key, width, width, gain=(2 * config.n_layers) ** -0.5)
        self.mlp_norm = RMSNorm(width, config.norm_eps)
        self.mlp = SwiGLU(config, key=mlp_key)

    def keys_values(
        self, x: Float[Array, "*batch seq d_model"], rope: Rope, kv: KeyValueProjection | None = None
    ) -> KV:
        """Keys and values of `x`, through this layer's norm and its own (or the given) projection."""
        return (kv or self.kv)(self.attention_norm(x), rope)

    def __call__(
        self,
        x: Float[Array, "*batch seq d_model"],
        rope: Rope,
        kv_sources: Sequence[KV],
        masks: Sequence[Bool[Array, "seq _"]],
        chunk: int = CHUNK,
    ) -> Float[Array, "*batch seq d_model"]:
        """x + attention to `kv_sources`, then + the SwiGLU of that."""
        q = rotate(split_heads(linear(self.attention_norm(x), self.wq), self.kv.head_dim), rope)
        heads = jnp.swapaxes(attend(q, kv_sources, masks, chunk), -2, -3)
        x = x + linear(heads.reshape(x.shape), self.wo)
        return x + self.mlp(self.mlp_norm(x))
