"""The slow and obvious decoder: no cache, no loop on the device, NumPy in float64, one token at a time."""

import itertools

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from tandem_edu.drafters import PrimaryReader, Tandem
from tandem_edu.model import Transformer
from tandem_edu.model.masks import block_starts

_forward = eqx.filter_jit(lambda model, tokens: model(tokens))


def next_logits(model: Transformer, text) -> np.ndarray:
    """The logits after `text`: one full forward pass. Attention is causal, so padding changes nothing."""
    padded = np.pad(np.asarray(text, np.int32), (0, model.config.max_len - len(text)))
    return np.asarray(_forward(model, jnp.asarray(padded)), np.float64)[len(text) - 1]


def greedy_text(model: Transformer, prompt, new: int) -> list[int]:
    """The `new` tokens that greedy decoding appends."""
    text = [int(token) for token in prompt]
    for _ in range(new):
        text.append(int(np.argmax(next_logits(model, text))))
    return text[len(prompt) :]


def distribution(logits, temperature: float, top_k=None, top_p=None) -> np.ndarray:
    """What a token is drawn from, by the definitions and with loops."""
    scores = [float(score) / temperature for score in logits]
    kept = sorted(range(len(scores)), key=lambda token: (-scores[token], token))[:top_k]
    if top_p is not None and top_p < 1:
        before = np.cumsum([0.0, *softmax(scores, kept)[kept]])
        kept = [token for token, total in zip(kept, before, strict=False) if total < top_p]
    return softmax(scores, kept)


def softmax(scores: list[float], kept: list[int]) -> np.ndarray:
    """Softmax over the tokens `kept`, 0 elsewhere."""
    highest = max(scores[token] for token in kept)
    p = np.array([np.exp(score - highest) if i in kept else 0.0 for i, score in enumerate(scores)])
    return p / p.sum()


def joint(model: Transformer, prompt, new: int, **sampling) -> np.ndarray:
    """P(text) of every text of `new` tokens, one axis per token. `sampling` goes to `distribution`."""
    vocab = model.config.vocab_size
    table = np.zeros((vocab,) * new)
    after = {
        prefix: distribution(next_logits(model, [*prompt, *prefix]), **sampling)
        for length in range(new)
        for prefix in itertools.product(range(vocab), repeat=length)
    }
    for text in itertools.product(range(vocab), repeat=new):
        table[text] = np.prod([after[text[:i]][token] for i, token in enumerate(text)])
    return table


@eqx.filter_jit
@eqx.filter_vmap(in_axes=(None, None, 0, 0, None))
def both_models(primary: Transformer, drafter, tokens, starts, block_len: int):
    """Logits of primary and drafter over whole texts; token i is in the block that starts at `starts[i]`."""
    p, hidden = primary(tokens, return_hidden=True)
    if isinstance(drafter, Tandem):
        return p, drafter._read_text(tokens, hidden, starts)[0]
    if isinstance(drafter, PrimaryReader):  # it does not depend on where the earlier blocks started
        return p, drafter.teacher_forced(primary, tokens, hidden, block_len, offset=starts[-1])
    return p, drafter(tokens)


def first_block(primary: Transformer, drafter, prompt, drafts: int, block_len: int, sampling: dict):
    """p and q of the first cycle: after the prompt and each run of up to `drafts` drafts, by the run."""
    vocab, size, pending = primary.config.vocab_size, primary.config.max_len, len(prompt) - 1
    runs = [run for n in range(drafts + 1) for run in itertools.product(range(vocab), repeat=n)]
    texts = np.zeros((len(runs), size), np.int32)
    for text, run in zip(texts, runs, strict=True):
        text[: len(prompt) + len(run)] = [*prompt, *run]
    starts = np.where(np.arange(size) < pending, block_starts(size, block_len, pending), pending)
    starts = np.broadcast_to(starts, texts.shape)
    both = both_models(primary, drafter, jnp.asarray(texts), jnp.asarray(starts), drafts)
    after = lambda run, row: distribution(row[pending + len(run)], **sampling)
    return [{run: after(run, row) for run, row in zip(runs, np.asarray(x), strict=True)} for x in both]
