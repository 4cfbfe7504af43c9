"""The parts of a Llama-style layer: RMSNorm, rotary embedding, grouped-query attention, SwiGLU.

Axis names: `*batch seq d_model` for the residual stream, `n_heads` and `n_kv_heads` heads of `head_dim`,
`q_len` queries over `kv_len` keys, `d_ff` the inner width of the SwiGLU.

Every function takes one sequence, or any number of leading batch axes: `jax.vmap` over one sequence
gives the same values. A linear map first flattens those axes into one; XLA's CPU backend contracts
one axis faster than two, which is what the gradient of a weight would otherwise do.
"""

from collections.abc import Callable, Sequence
from functools import reduce

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from tandem_edu.model import narrow
from tandem_edu.model.cache import KV
from tandem_edu.model.config import TransformerConfig

Rope = tuple[Float[Array, "seq half_dim"], Float[Array, "seq half_dim"]]
# Keys and values as `KV` has them, but each side of its own length.
Side = tuple[Float[Array, "*batch n_kv_heads _ head_dim"], Float[Array, "*batch n_kv_heads _ head_dim"]]


def init_weight(key: PRNGKeyArray, d_in: int, d_out: int, gain: float = 1.0) -> Float[Array, "d_in d_out"]:
    """A random map with entries N(0, gain² / d_in): it keeps the scale of its input where gain is 1."""
    return jax.random.normal(key, (d_in, d_out)) * (gain / d_in**0.5)


def linear(
    x: Float[Array, "*batch d_in"], weight: Float[Array, "d_in d_out"]
) -> Float[Array, "*batch d_out"]:
    """x W over the last axis."""
    return narrow.product(x.reshape(-1, x.shape[-1]), weight).reshape(*x.shape[:-1], weight.shape[-1])


def normalise(x: Float[Array, "*batch d_model"], eps: float) -> Float[Array, "*batch d_model"]:
    """x / sqrt(mean(x²) + eps) over the last axis."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)


class RMSNorm(eqx.Module):
    """y = x / sqrt(mean(x²) + eps) · scale (arXiv:1910.07467)."""

    scale: Float[Array, " d_model"]
    eps: float = eqx.field(static=True)

    def __init__(self, d_model: int, eps: float):
        self.scale = jnp.ones(d_model)
        self.eps = eps

    def __call__(self, x: Float[Array, "*batch d_model"]) -> Float[Array, "*batch d_model"]:
        return normalise(x, self.eps) * jnp.broadcast_to(self.scale, x.shape)


def rope_table(position: Int[Array, " seq"], head_dim: int, theta: float) -> Rope:
    """cos and sin of position · theta^(-2i / head_dim), i = 0 .. head_dim/2 - 1 (arXiv:2104.09864)."""
    frequency = theta ** (-jnp.arange(0, head_dim, 2) / head_dim)
    angle = position.astype(jnp.float32)[:, None] * frequency[None, :]
    turned = lambda: (jnp.cos(angle), jnp.sin(angle))
    still = lambda: (jnp.ones_like(angle), jnp.zeros_like(angle))
    # In a branch, though it is always taken: else XLA computes them again in each layer, for each head.
    return jax.lax.cond(position[0] >= 0, turned, still)


def rotate(
    x: Float[Array, "*batch heads seq head_dim"], rope: Rope
) -> Float[Array, "*batch heads seq head_dim"]:
    """Turn each pair (x_i, x_{i + head_dim/2}) by its position's angle: the Llama checkpoints' pairing."""
    first, second = jnp.split(x, 2, axis=-1)
    cos, sin = (jnp.broadcast_to(table, first.shape) for table in rope)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attend(
    q: Float[Array, "*batch n_heads q_len head_dim"],
    sides: Sequence[Side],
    masks: Sequence[Bool[Array, "q_len _"]],
) -> Float[Array, "*batch n_heads q_len head_dim"]:
    """softmax(q kᵀ / √head_dim) v over the keys that the masks allow; a query must see one at least.

    Keys and values may lie in several places (`sides`, a mask each): one softmax runs over them all, and
    none of them is moved. Grouped-query: `n_heads / n_kv_heads` neighbouring query heads read one
    key/value head, so their queries are stacked as rows of one matrix product. The division by the
    softmax's sum comes last, where there are `head_dim` numbers a query to divide and not `kv_len`.
    """
    return narrow.attention(_attend, q, sides, masks)


def _attend(q, sides, masks):
    """`attend` in XLA's own words."""
    *batch, n_heads, q_len, head_dim = q.shape
    n_kv_heads = sides[0][0].shape[-3]
    group_rows = n_heads // n_kv_heads * q_len
    rows = (q * head_dim**-0.5).reshape(*batch, n_kv_heads, group_rows, head_dim)
    scores = []
    for (k, _), mask in zip(sides, masks, strict=True):
        score = (rows @ jnp.swapaxes(k, -1, -2)).reshape(*batch, n_heads, q_len, -1)
        scores.append(jnp.where(jnp.broadcast_to(mask, score.shape), score, -jnp.inf))
    tops = [jnp.max(score, axis=-1, keepdims=True) for score in scores]
    highest = jax.lax.stop_gradient(reduce(jnp.maximum, tops))
    weights = [jnp.exp(score - highest) for score in scores]
    mixed = [
        w.reshape(*batch, n_kv_heads, group_rows, -1) @ v for w, (_, v) in zip(weights, sides, strict=True)
    ]
    total = reduce(jnp.add, [jnp.sum(w, axis=-1, keepdims=True) for w in weights])
    return reduce(jnp.add, mixed).reshape(q.shape) / total


def attend_causal(
    q: Float[Array, "*batch n_heads seq head_dim"],
    sides: Sequence[KV],
    masks: Sequence[Bool[Array, "seq seq"]],
    chunk: int = 64,
) -> Float[Array, "*batch n_heads seq head_dim"]:
    """`attend` where no query looks ahead, over one or more sides of keys and values side by side.

    Queries go in chunks that are shown the keys up to their own end only: nearly half of the products
    of a long text are never formed. `masks` has one mask a side.
    """
    seq = q.shape[-2]
    chunks = []
    for start in range(0, seq, chunk):
        end = min(start + chunk, seq)
        seen = [(k[..., :end, :], v[..., :end, :]) for k, v in sides]
        chunks.append(attend(q[..., start:end, :], seen, [mask[start:end, :end] for mask in masks]))
    return jnp.concatenate(chunks, axis=-2)


class KeyValueProjection(eqx.Module):
    """The maps from a (normalised) residual stream to keys and values."""

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
        """Keys (turned to their positions) and values, heads first."""
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
        return linear(_gated(linear(x, self.w_gate), linear(x, self.w_up)), self.w_down)


# Computed again for the gradient instead of kept: reading memory takes longer than two products.
_gated = jax.checkpoint(lambda gate, up: jax.nn.silu(gate) * up)


class Block(eqx.Module):
    """One layer, in two strokes: it *writes* keys and values, then it *reads* some.

    Whose keys and values it reads is the caller's affair: this token's past (a plain transformer), a
    cache, or the primary's representations beside its own (the tandem).
    """

    attention_norm: RMSNorm
    wq: Float[Array, "d_model d_model"]
    keys_values: KeyValueProjection
    wo: Float[Array, "d_model d_model"]
    mlp_norm: RMSNorm
    mlp: SwiGLU

    def __init__(self, config: TransformerConfig, *, key: PRNGKeyArray):
        q_key, kv_key, o_key, mlp_key = jax.random.split(key, 4)
        width = config.d_model
        self.attention_norm = RMSNorm(width, config.norm_eps)
        self.wq = init_weight(q_key, width, width)
        self.keys_values = KeyValueProjection(config, key=kv_key)
        self.wo = init_weight(o_key, width, width, gain=(2 * config.n_layers) ** -0.5)
        self.mlp_norm = RMSNorm(width, config.norm_eps)
        self.mlp = SwiGLU(config, key=mlp_key)

    def write(
        self, x: Float[Array, "*batch seq d_model"], rope: Rope, maps: KeyValueProjection | None = None
    ) -> KV:
        """The keys and values of `x`, through this layer's norm and its (or the given) maps."""
        return (maps or self.keys_values)(self.attention_norm(x), rope)

    def read(
        self,
        x: Float[Array, "*batch seq d_model"],
        rope: Rope,
        attention: Callable[[Float[Array, "*batch n_heads seq head_dim"]], Float[Array, "..."]],
    ) -> Float[Array, "*batch seq d_model"]:
        """x + attention(queries of x), then + SwiGLU of that."""
        q = rotate(split_heads(linear(self.attention_norm(x), self.wq), self.keys_values.head_dim), rope)
        heads = jnp.swapaxes(attention(q), -2, -3)
        x = x + linear(heads.reshape(x.shape), self.wo)
        return x + self.mlp(self.mlp_norm(x))
