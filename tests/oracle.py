"""The slow and obvious models: NumPy, float64, one token, one head, one key at a time.

Written from the papers' formulas, not from the package; only the weights are taken from it. `lively`
makes a random model whose every weight matters.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def lively(model, seed: int):
    """`model` with noise on every weight: no norm stays at 1, no projection at the identity."""
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)
    leaves, tree = jax.tree.flatten(arrays)
    # NumPy's noise, because a JAX one would be compiled anew for every shape.
    noise = np.random.default_rng(seed)
    noisy = [w + jnp.float32(0.1 * noise.standard_normal(w.shape)) for w in leaves]
    return eqx.combine(jax.tree.unflatten(tree, noisy), rest)


def f64(array) -> np.ndarray:
    return np.asarray(array, dtype=np.float64)


def rms_norm(x, scale, eps):
    return x / np.sqrt(np.sum(x * x) / len(x) + eps) * scale


def silu(x):
    return x / (1 + np.exp(-x))


def turned(head, position, theta):
    """Rotary embedding of one head of a token: pair (i, i + half) turns by position · theta^(-i/half)."""
    half = len(head) // 2
    out = np.zeros_like(head)
    for i in range(half):
        angle = position * theta ** (-i / half)
        a, b = head[i], head[i + half]
        out[i] = a * np.cos(angle) - b * np.sin(angle)
        out[i + half] = a * np.sin(angle) + b * np.cos(angle)
    return out


def key_and_value(x, position, block, config, maps=None):
    """One token's keys and values, a list over the key/value heads."""
    maps = block.keys_values if maps is None else maps
    x = rms_norm(x, f64(block.attention_norm.scale), config.norm_eps)
    k = (x @ f64(maps.wk)).reshape(config.n_kv_heads, config.head_dim)
    v = (x @ f64(maps.wv)).reshape(config.n_kv_heads, config.head_dim)
    return [turned(head, position, config.rope_theta) for head in k], list(v)


def layer(x, position, seen, block, config):
    """One token through one layer; `seen` is the list of (keys, values) it may look at."""
    normed = rms_norm(x, f64(block.attention_norm.scale), config.norm_eps)
    queries = (normed @ f64(block.wq)).reshape(config.n_heads, config.head_dim)
    mixed = []
    for head, query in enumerate(queries):
        query = turned(query, position, config.rope_theta)
        group = head * config.n_kv_heads // config.n_heads
        scores = [np.sum(query * keys[group]) / np.sqrt(config.head_dim) for keys, _ in seen]
        weights = np.exp(scores) / np.sum(np.exp(scores))
        mixed.append(sum(w * values[group] for w, (_, values) in zip(weights, seen, strict=True)))
    x = x + np.concatenate(mixed) @ f64(block.wo)
    normed = rms_norm(x, f64(block.mlp_norm.scale), config.norm_eps)
    inner = silu(normed @ f64(block.mlp.w_gate)) * (normed @ f64(block.mlp.w_up))
    return x + inner @ f64(block.mlp.w_down)


def embedded(model, token):
    x = f64(model.vocabulary.embedding)[int(token)]
    return x if model.embed_in is None else x @ f64(model.embed_in)


def scored(model, x):
    x = rms_norm(x, f64(model.final_norm.scale), model.config.norm_eps)
    if model.embed_out is not None:
        x = x @ f64(model.embed_out)
    head = model.vocabulary.head
    return x @ (f64(model.vocabulary.embedding).T if head is None else f64(head))


def transformer(model, tokens):
    """Logits [seq, vocab] and the residual stream [n_layers + 1, seq, d_model]."""
    config = model.config
    states = [[embedded(model, token) for token in tokens]]
    for block in model.blocks:
        written = [key_and_value(x, t, block, config) for t, x in enumerate(states[-1])]
        states.append([layer(x, i, written[: i + 1], block, config) for i, x in enumerate(states[-1])])
    return np.stack([scored(model, x) for x in states[-1]]), np.array(states)


def tandem(tandem, tokens, hidden, starts):
    """Logits of the tandem, token by token: the primary's side before `starts[i]`, its own from there on."""
    secondary, config = tandem.secondary, tandem.config
    own = [[] for _ in secondary.blocks]
    logits = []
    for i, token in enumerate(tokens):
        x = embedded(secondary, token)
        for j, block in enumerate(secondary.blocks):
            own[j].append(key_and_value(x, i, block, config))
            first_own = 0 if tandem.own_history else starts[i]
            seen = [_primary_side(tandem, j, f64(hidden), t) for t in range(starts[i])]
            x = layer(x, i, seen + own[j][first_own:], block, config)
        logits.append(scored(secondary, x))
    return np.stack(logits)


def _primary_side(tandem, j, hidden, t):
    """Layer j's key and value of token t, out of the primary's states."""
    projection = tandem.projections[j]
    parts = [rms_norm(hidden[state, t], 1.0, tandem.config.norm_eps) for state in projection.states]
    x = np.concatenate(parts) @ f64(projection.weight)
    return key_and_value(x, t, tandem.secondary.blocks[j], tandem.config, tandem.primary_maps[j])
