"""Tandem Transformers (arXiv:2402.08644): the whole idea in one file.

A language model *understands* the text so far and *writes* the next token, with one network. It can read
many tokens in one pass, but it writes one token a pass. A tandem splits the two jobs:

- the large **primary** reads: the prompt, then each finished block of γ tokens, one pass a block;
- the small **secondary** writes the next block, token by token. It attends to the primary's states
  before the block and to its own states inside it.

            t = 0  1  2  3  4  5         Whose state of token t does token i attend to? (γ = 2)
    i = 0       s                          s  the secondary's own
        1       s  s                       P  the primary's, through one linear map
        2       P  P  s
        3       P  P  s  s               The secondary is an ordinary transformer. Each time the
        4       P  P  P  P  s            primary has read a block, its states replace the
        5       P  P  P  P  s  s         secondary's in the memory.

The block is only a draft. The pass that reads it also gives the primary's own prediction of each of its
tokens. So the primary keeps the drafts up to the first wrong one, and corrects that one. This is speculative
decoding: exactly the primary's text, in fewer passes of the primary.

    python -m tandem_edu.nano      # trains a primary and two drafters, counts passes; about a minute
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

random_matrix = jax.nn.initializers.lecun_normal()  # (key, (rows, columns)): entries around 0, ± rows^-½


def rms_norm(x, scale):
    return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5) * scale


def rotate(x):
    """Rotary embedding: turn token t's pair (x_a, x_{a + head_dim/2}) by t · 10000^(-2a / head_dim)."""
    _, seq, head_dim = x.shape  # the first axis is n_heads
    angle = jnp.outer(jnp.arange(seq), 10_000.0 ** (-jnp.arange(0, head_dim, 2) / head_dim))
    cos, sin = jnp.cos(angle), jnp.sin(angle)  # [seq, head_dim / 2]
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Layer(eqx.Module):
    """A Llama layer: attention, then a SwiGLU. Each reads a normalised x and adds to x.

    Queries come from x. Keys and values come from one or more `sources` of states, [seq, d] like x;
    masks[s][i, t] says whether token i attends to token t of sources[s].
    """

    matrices: list  # wq, wk, wv, wo [d, d]; w_gate, w_up [d, d_ff]; w_down [d_ff, d]
    norms: list  # the scales of the two norms, [d]
    n_heads: int = eqx.field(static=True)

    def __init__(self, d, n_heads, d_ff, *, key):
        shapes = [(d, d)] * 4 + [(d, d_ff)] * 2 + [(d_ff, d)]
        self.matrices = list(map(random_matrix, jax.random.split(key, 7), shapes))
        self.norms, self.n_heads = [jnp.ones(d), jnp.ones(d)], n_heads

    def __call__(self, x, sources, masks):
        wq, wk, wv, wo, w_gate, w_up, w_down = self.matrices
        seq, d = x.shape
        heads = lambda y: y.reshape(seq, self.n_heads, -1).swapaxes(0, 1)  # -> [n_heads, seq, head_dim]
        sources = [rms_norm(source, self.norms[0]) for source in sources]
        q = rotate(heads(rms_norm(x, self.norms[0]) @ wq))
        k = jnp.concatenate([rotate(heads(source @ wk)) for source in sources], axis=1)
        v = jnp.concatenate([heads(source @ wv) for source in sources], axis=1)
        scores = q @ k.swapaxes(1, 2) / q.shape[-1] ** 0.5  # [n_heads, seq, len(sources) · seq]
        weights = jax.nn.softmax(jnp.where(jnp.concatenate(masks, axis=1), scores, -jnp.inf))
        x = x + (weights @ v).swapaxes(0, 1).reshape(seq, d) @ wo
        y = rms_norm(x, self.norms[1])
        return x + (jax.nn.silu(y @ w_gate) * (y @ w_up)) @ w_down


class Transformer(eqx.Module):
    """A language model: embedding, layers, final norm, and the embedding once more as the output head."""

    embedding: jax.Array  # [vocab, d]
    layers: list
    norm: jax.Array  # [d]

    def __init__(self, vocab, d, n_layers, n_heads, d_ff, *, key):
        embedding_key, *keys = jax.random.split(key, n_layers + 1)
        self.embedding = 0.02 * jax.random.normal(embedding_key, (vocab, d))
        self.layers = [Layer(d, n_heads, d_ff, key=k) for k in keys]
        self.norm = jnp.ones(d)

    def __call__(self, tokens, return_hidden=False):
        """tokens [seq] -> logits [seq, vocab] and, if asked for, all states [n_layers + 1, seq, d]."""
        hidden = [self.embedding[tokens]]
        causal = jnp.tril(jnp.ones((len(tokens), len(tokens)), bool))  # token i attends to t ≤ i
        for layer in self.layers:
            hidden.append(layer(hidden[-1], [hidden[-1]], [causal]))
        logits = rms_norm(hidden[-1], self.norm) @ self.embedding.T
        return (logits, jnp.stack(hidden)) if return_hidden else logits


class Tandem(eqx.Module):
    """A secondary that attends to a primary's states before its block (the paper's equation 2).

    Token i is in the block that starts at k(i). Its layer j = 0, 1, ... attends to
        W_j x_t    for t < k(i)        x_t: the primary's state ℓ(j) of token t
        y_t        for k(i) ≤ t ≤ i    y_t: the secondary's own state
    through its own norm, keys and values. The paper leaves ℓ open; here ℓ(j) = n_primary - n_secondary + j.
    """

    secondary: Transformer
    projections: list  # W_j, each [d_primary, d_secondary]

    def __init__(self, secondary, primary):
        self.secondary = secondary
        identity = jnp.eye(primary.embedding.shape[1], secondary.embedding.shape[1])
        self.projections = [identity for _ in secondary.layers]  # random in the paper, which learns slower

    def __call__(self, tokens, hidden, block_len, offset=0):  # hidden: [n_primary + 1, seq, d_primary]
        """Logits [seq, vocab] at all positions at once. Blocks start at offset, offset ± γ, ..."""
        t = jnp.arange(len(tokens))
        start = jnp.maximum(0, offset + (t - offset) // block_len * block_len)  # k(i)
        before_block = t[None, :] < start[:, None]  # [seq, seq], the P of the picture above
        in_block = ~before_block & (t[None, :] <= t[:, None])  # its s
        y = self.secondary.embedding[tokens]
        for j, layer in enumerate(self.secondary.layers):
            x = hidden[len(hidden) - 1 - len(self.projections) + j] @ self.projections[j]  # ℓ(j)
            y = layer(y, [x, y], [before_block, in_block])
        return rms_norm(y, self.secondary.norm) @ self.secondary.embedding.T


def draft_logits(drafter, tokens, hidden, block_len, offset):
    """A drafter is a Tandem, or a plain Transformer, which needs nothing of the primary."""
    return drafter(tokens, hidden, block_len, offset) if isinstance(drafter, Tandem) else drafter(tokens)


def loss(model, primary, text, block_len, offset, lam):
    """CE + λ · KL on text [seq + 1], or CE alone. p: the primary, frozen; q: the model."""
    tokens, targets = text[:-1], text[1:]
    p_logits, hidden = primary(tokens, return_hidden=True) if primary else (None, None)
    log_q = jax.nn.log_softmax(draft_logits(model, tokens, hidden, block_len, offset))
    ce = -jnp.mean(log_q[jnp.arange(len(targets)), targets])  # CE = -log q(next token)
    if primary is None:
        return ce
    log_p = jax.nn.log_softmax(p_logits)
    kl = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)  # KL = Σ_v p(v) log(p(v) / q(v))
    return ce + lam * jnp.mean(kl)


@eqx.filter_jit
def train_step(model, state, optimizer, primary, texts, *settings):
    mean_loss = lambda model: jnp.mean(jax.vmap(lambda text: loss(model, primary, text, *settings))(texts))
    value, gradient = eqx.filter_value_and_grad(mean_loss)(model)
    updates, state = optimizer.update(gradient, state, model)
    return eqx.apply_updates(model, updates), state, value


def train(name, model, data, steps, primary=None, block_len=4, lam=0.5, seq=128, batch=8):
    """Train on random pieces of data [n]. Returns the model and the loss of each step."""
    optimizer = optax.adamw(optax.warmup_cosine_decay_schedule(0, 8e-3, steps // 10, steps), b2=0.95)
    state, losses, rng = optimizer.init(model), [], np.random.default_rng(0)
    for step in range(steps):
        texts = jnp.asarray(data[rng.integers(len(data) - seq, size=(batch, 1)) + np.arange(seq + 1)])
        offset = jnp.asarray(rng.integers(block_len))  # so that a token comes to stand anywhere in a block
        model, state, value = train_step(model, state, optimizer, primary, texts, block_len, offset, lam)
        losses.append(float(value))
        progress = f"{step + 1}/{steps}, loss {losses[0]:.2f} -> {losses[-1]:.2f}"
        print(f"\r{name}: step {progress}", end="", flush=True)
    print()
    return model, losses


def probabilities(logits, temperature):
    """The distribution a token is drawn from. At temperature 0 the largest logit has all of it: greedy."""
    greedy = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
    return greedy if temperature == 0 else jax.nn.softmax(logits / temperature)


def generate(model, prompt, n, temperature, key):
    """Continue `prompt` by n tokens, one pass a token."""
    text = jnp.pad(jnp.asarray(prompt), (0, n))  # attention is causal: it never sees the padding
    for i in range(len(prompt), len(prompt) + n):
        p = probabilities(eqx.filter_jit(model)(text)[i - 1], temperature)
        text = text.at[i].set(jax.random.categorical(jax.random.fold_in(key, i), jnp.log(p)))
    return text[len(prompt) :]


def verify(p, q, drafts, key):
    """How many drafts stay, and the token that follows them (Leviathan et al., arXiv:2211.17192).

    drafts [γ] were drawn from q [γ, vocab]; p [γ + 1, vocab] is what the primary says in their place.
    Draft x stays with probability min(1, p(x) / q(x)). After the last that stays comes a draw from
    max(0, p - q), normalised, or from p if all stay. So v has probability min(p, q) + max(0, p - q) = p.
    """
    keep_key, draw_key = jax.random.split(key)
    i = jnp.arange(len(drafts))
    keep = jax.random.uniform(keep_key, drafts.shape) * q[i, drafts] < p[i, drafts]
    kept = jnp.sum(jnp.cumprod(keep))  # the drafts before the first rejection
    residual = jnp.maximum(0, p - jnp.pad(q, ((0, 1), (0, 0))))  # in the last row p itself
    return kept, jax.random.categorical(draw_key, jnp.log(residual[kept]))


@eqx.filter_jit
def cycle(primary, drafter, text, n, hidden, block_len, temperature, key):
    """Draft γ tokens after the first n of `text` and check them. `hidden` is from the primary's last pass."""
    keys = jax.random.split(jax.random.fold_in(key, n), block_len + 1)
    q = []
    for i in range(block_len):
        logits = draft_logits(drafter, text, hidden, block_len, n - 1)  # the block starts at the last token
        q.append(probabilities(logits[n - 1 + i], temperature))
        text = text.at[n + i].set(jax.random.categorical(keys[i], jnp.log(q[i])))
    logits, hidden = primary(text, return_hidden=True)  # one pass checks the block and reads it
    p = probabilities(logits[n - 1 + jnp.arange(block_len + 1)], temperature)
    kept, token = verify(p, jnp.stack(q), text[n + jnp.arange(block_len)], keys[-1])
    return text.at[n + kept].set(token), n + kept + 1, hidden


def speculate(primary, drafter, prompt, n, block_len, temperature, key):
    """`generate(primary, ...)` in fewer passes: the text, and how many passes, drafts and drafts accepted."""
    text = jnp.pad(jnp.asarray(prompt), (0, n + block_len))
    _, hidden = eqx.filter_jit(primary)(text, return_hidden=True)  # reads the prompt
    length, passes = jnp.asarray(len(prompt)), 0
    while length < len(prompt) + n:
        text, length, hidden = cycle(primary, drafter, text, length, hidden, block_len, temperature, key)
        passes += 1
    accepted = int(length) - len(prompt) - passes  # a pass adds the drafts that stay and one token
    return text[len(prompt) :][:n], passes, passes * block_len, accepted


def main(steps=400, n=64, block_len=4):
    """On Python's help pages, one token a byte: a primary, a plain secondary as the control, a tandem."""
    from pydoc_data.topics import topics

    data = np.frombuffer("\n".join(topics.values()).encode(), np.uint8).astype(np.int32)
    data, prompts = data[:-2048], data[-2048:].reshape(32, 64)
    primary = Transformer(256, 64, n_layers=4, n_heads=4, d_ff=192, key=(key := jax.random.key(0)))
    primary, _ = train("primary", primary, data, steps)
    plain = eqx.tree_at(lambda m: m.layers, primary, primary.layers[-1:])  # trained already, as in the paper
    text = generate(primary, prompts[0], n, 0, key)
    for name, drafter in {"plain secondary": plain, "tandem": Tandem(plain, primary)}.items():
        drafter, _ = train(name, drafter, data, steps // 2, primary, block_len)
        same = jnp.array_equal(text, speculate(primary, drafter, prompts[0], n, block_len, 0, key)[0])
        counts = [speculate(primary, drafter, prompt, n, block_len, 1, key)[1:] for prompt in prompts]
        passes, drafted, accepted = np.sum(counts, axis=0)
        print(f"  greedy: the primary's own text: {'yes' if same else 'NO'}")
        print(f"  sampled: {1 + accepted / passes:.2f} tokens a pass, drafts kept: {accepted / drafted:.0%}")


if __name__ == "__main__":
    with jax.default_matmul_precision("highest"):  # on a GPU, less may change which logit is largest
        main()
