"""The slow and obvious models: NumPy, float64, one token, one head, one key at a time.

Written from the papers' formulas, not from the package, which gives the weights only.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tandem_edu.model.weights import trainable


def lively(model, seed: int, noise: float = 0.1):
    """`model` with noise on each of its own weights: no norm stays at 1, no projection at the identity."""
    arrays, rest = eqx.partition(model, trainable(model))
    leaves, tree = jax.tree.flatten(arrays)
    # NumPy's noise, because JAX's would be compiled again for every shape.
    normal = np.random.default_rng(seed).standard_normal
    noisy = [w + jnp.float32(noise * normal(w.shape)) for w in leaves]
    return eqx.combine(jax.tree.unflatten(tree, noisy), rest)


def f64(array) -> np.ndarray:
    return np.asarray(array, dtype=np.float64)


def rms_norm(x, scale, eps):
    return x / np.sqrt(np.sum(x * x) / len(x) + eps) * scale


def silu(x):
    return x / (1 + np.exp(-x))


def rotated(head, position, theta):
    """Rotary embedding of one head of a token: pair (i, i + half) turns by position · theta^(-i/half)."""
    half = len(head) // 2
    out = np.zeros_like(head)
    for i in range(half):
        angle = position * theta ** (-i / half)
        a, b = head[i], head[i + half]
        out[i] = a * np.cos(angle) - b * np.sin(angle)
        out[i + half] = a * np.sin(angle) + b * np.cos(angle)
    return out


def key_and_value(x, position, block, config, kv=None):
    """One token's keys and values, a list over the key/value heads."""
    kv = block.kv if kv is None else kv
    x = rms_norm(x, f64(block.attention_norm.scale), config.norm_eps)
    k = (x @ f64(kv.wk)).reshape(config.n_kv_heads, config.head_dim)
    v = (x @ f64(kv.wv)).reshape(config.n_kv_heads, config.head_dim)
    return [rotated(head, position, config.rope_theta) for head in k], list(v)


def layer(x, position, visible, block, config):
    """One token through one layer; `visible` lists the (keys, values) that it attends to."""
    normed = rms_norm(x, f64(block.attention_norm.scale), config.norm_eps)
    queries = (normed @ f64(block.wq)).reshape(config.n_heads, config.head_dim)
    mixed = []
    for head, query in enumerate(queries):
        query = rotated(query, position, config.rope_theta)
        group = head * config.n_kv_heads // config.n_heads
        scores = [np.sum(query * keys[group]) / np.sqrt(config.head_dim) for keys, _ in visible]
        weights = np.exp(scores) / np.sum(np.exp(scores))
        mixed.append(sum(w * values[group] for w, (_, values) in zip(weights, visible, strict=True)))
    x = x + np.concatenate(mixed) @ f64(block.wo)
    normed = rms_norm(x, f64(block.mlp_norm.scale), config.norm_eps)
    inner = silu(normed @ f64(block.mlp.w_gate)) * (normed @ f64(block.mlp.w_up))
    return x + inner @ f64(block.mlp.w_down)


def embed(model, token):
    x = f64(model.embedding.table)[int(token)]
    return x if model.embed_in is None else x @ f64(model.embed_in)


def logits(model, x):
    x = rms_norm(x, f64(model.final_norm.scale), model.config.norm_eps)
    if model.embed_out is not None:
        x = x @ f64(model.embed_out)
    head = model.embedding.head
    return x @ (f64(model.embedding.table).T if head is None else f64(head))


def transformer(model, tokens):
    """Logits [seq, vocab] and the residual stream [n_layers + 1, seq, d_model]."""
    config = model.config
    states = [[embed(model, token) for token in tokens]]
    for block in model.blocks:
        kv = [key_and_value(x, t, block, config) for t, x in enumerate(states[-1])]
        states.append([layer(x, i, kv[: i + 1], block, config) for i, x in enumerate(states[-1])])
    return np.stack([logits(model, x) for x in states[-1]]), np.array(states)


# The drafters that read a primary: logits of every token, whose block starts at starts[i]


def block_starts(seq, block_len, offset):
    """k(i): walk the grid of block starts, in both directions from the offset."""
    grid = {offset + block_len * n for n in range(-seq - offset, seq + 1)} | {0}
    return [max(start for start in grid if 0 <= start <= i) for i in range(seq)]


def tandem(model, primary, tokens, hidden, starts):
    """The primary's keys and values before the block, its own from there on."""
    secondary, config = model.secondary, model.config
    own, out = [[] for _ in secondary.blocks], []
    for i, token in enumerate(tokens):
        x = embed(secondary, token)
        for j, block in enumerate(secondary.blocks):
            projected = [project(model.projections[j], f64(hidden)[:, t], config) for t in range(starts[i])]
            kv = model.primary_kv[j]
            past = [key_and_value(y, t, block, config, kv) for t, y in enumerate(projected)]
            own[j].append(key_and_value(x, i, block, config))
            first_own = 0 if model.own_history else starts[i]
            x = layer(x, i, past + own[j][first_own:], block, config)
        out.append(logits(secondary, x))
    return np.stack(out)


def project(projection, states, config):
    """The states that are read, each at unit RMS, concatenated, times W."""
    parts = [rms_norm(states[state], 1.0, config.norm_eps) for state in projection.states]
    return np.concatenate(parts) @ f64(projection.weight)


def eagle(model, primary, tokens, hidden, starts):
    """One token after the other, with the features that its block allows."""
    config, secondary = model.config, model.secondary
    features = [project(model.projection, f64(hidden)[:, t], config) for t in range(len(tokens))]

    def read(i, feature, past):
        """Token i's top state, and its keys and values layer by layer."""
        feature = rms_norm(feature, 1.0, config.norm_eps)
        x = np.concatenate([embed(secondary, tokens[i]), feature]) @ f64(model.fc)
        own = []
        for j, block in enumerate(secondary.blocks):
            own.append(key_and_value(x, i, block, config))
            x = layer(x, i, [kv[j] for kv in past] + [own[j]], block, config)
        return x, own

    none, past, out = np.zeros(config.d_model), [], []
    for i in range(len(tokens)):
        past.append(read(i, features[i - 1] if i else none, past)[1])
    for i in range(len(tokens)):
        own, top = [], features[starts[i] - 1] if starts[i] else none
        for t in range(starts[i], i + 1):
            top, kv = read(t, top, past[: starts[i]] + own)
            own.append(kv)
        out.append(logits(secondary, top))
    return np.stack(out)


def glide(model, primary, tokens, hidden, starts):
    """The primary's own keys and values before the block."""
    own, out = [[] for _ in model.layers], []
    for i, token in enumerate(tokens):
        x = embed(model.secondary, token)
        for j, block in enumerate(model.secondary.blocks):
            below = model.layers[j] - 1
            states, read = f64(hidden)[below], primary.blocks[below]
            past = [key_and_value(states[t], t, read, primary.config) for t in range(starts[i])]
            own[j].append(key_and_value(x, i, block, model.config))
            x = layer(x, i, past + own[j][starts[i] :], block, model.config)
        out.append(logits(model.secondary, x))
    return np.stack(out)


def early_exit(model, primary, tokens, hidden, starts):
    """The exit and its norm take the position of the primary's final norm."""
    parts = (primary.blocks[: model.exit_layer], model.norm)
    shallow = eqx.tree_at(lambda p: (p.blocks, p.final_norm), primary, parts)
    _, states = transformer(shallow, tokens)
    return np.stack([logits(shallow, x @ f64(model.exit_map)) for x in states[-1]])


def deep_tandem(model, tokens):
    """Logits and sketches [seq, ...]: block by block in the large half, then token by token in the small."""
    config, gamma, sketch = model.config, model.block_len, {}
    past = [[] for _ in model.large.blocks]
    for start in range(0, len(tokens) - gamma + 1, gamma):
        block_tokens = range(start, start + gamma)
        xs = [embed(model.large, tokens[t]) for t in block_tokens]
        for j, block in enumerate(model.large.blocks):
            past[j] += [key_and_value(x, t, block, config) for t, x in zip(block_tokens, xs, strict=True)]
            xs = [layer(x, t, past[j], block, config) for t, x in zip(block_tokens, xs, strict=True)]
        sketch |= {t + gamma: x for t, x in zip(block_tokens, xs, strict=True)}
    sketches = [sketch.get(i + 1, np.zeros(config.d_model)) for i in range(len(tokens))]
    own, out = [[] for _ in model.small.blocks], []
    for i, token in enumerate(tokens):
        normed = rms_norm(sketches[i], f64(model.large.final_norm.scale), config.norm_eps)
        x = embed(model.small, token) + normed @ f64(model.projection)
        for j, block in enumerate(model.small.blocks):
            own[j].append(key_and_value(x, i, block, config))
            x = layer(x, i, own[j], block, config)
        out.append(logits(model.small, x))
    return np.stack(out), np.stack(sketches)


READERS = {"tandem": tandem, "eagle": eagle, "glide": glide, "early-exit": early_exit}
