"""The tandem without verification, against a plain loop of uncached passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow_decoder
from noisy_models import slow, writer, writer_drafters

from tandem_edu.decode import Sampling, block_generate, generate
from tandem_edu.drafters import Draft, Plain
from tandem_edu.model import Transformer
from tandem_edu.model.masks import block_starts

PROMPT, NEW = [3, 11, 40], 28


class Silent(Plain):
    """A drafter that proposes nothing."""

    def step(self, token, state, primary, cache):
        draft = super().step(token, state, primary, cache)
        return Draft(draft.logits, draft.state, has_draft=False)


def secondary_logits(tandem, text: list[int], pending: int) -> np.ndarray:
    """The logits after `text` where the last block starts at `pending`: full passes of both models."""
    # Attention is causal, so what lies behind the text changes nothing.
    tokens = jnp.asarray([*text, *[0] * (32 - len(text))], jnp.int32)
    # These tandems have no history of their own, so it does not matter where earlier blocks started.
    starts = jnp.where(jnp.arange(32) < pending, block_starts(32, 2), pending)
    _, logits = slow_decoder.both_models(writer(32), tandem, tokens[None], starts[None], 2)
    return np.asarray(logits)[0, len(text) - 1]


def slow_text(tandem, block_len: int, free_token: bool, new: int = NEW) -> list[int]:
    text = list(PROMPT)
    while len(text) < len(PROMPT) + new:
        pending = len(text) - 1
        for _ in range(block_len):
            text.append(int(np.argmax(secondary_logits(tandem, text, pending))))
        if free_token:
            text.append(int(np.argmax(slow_decoder.next_logits(writer(32), text))))
    return text[len(PROMPT) :][:new]


@pytest.mark.parametrize("free_token", [True, False])
@pytest.mark.parametrize("name, block_len", [("last-paper", 3), *slow(("fused-paper", 2))])
def test_blocks_are_those_of_the_slow_loop(name, block_len, free_token):
    tandem = writer_drafters(32)[name]
    out = block_generate(writer(32), tandem, PROMPT, NEW, block_len, free_token)
    assert np.asarray(out.tokens).tolist() == slow_text(tandem, block_len, free_token)
    summary = out.trace.summary()
    assert summary["accepted"] == summary["drafted"]
    per_pass = block_len + free_token
    assert summary["cycles"] == -(-NEW // per_pass) and summary["emitted"] == NEW
    assert summary["drafted"] == NEW - free_token * (NEW // per_pass)


@pytest.mark.parametrize("free_token", [True, False])
def test_a_shorter_text_is_the_beginning_of_a_longer_one(free_token):
    """Where the end cuts a block short, its last token is the secondary's, as in the longer text."""
    tandem = writer_drafters(32)["last-paper"]
    decode = lambda new: np.asarray(block_generate(writer(32), tandem, PROMPT, new, 4, free_token).tokens)
    longest = decode(12).tolist()
    assert longest == slow_text(tandem, 4, free_token, new=12)
    for new in (1, 3, 5, 6, 7, 8, 11):
        assert decode(new).tolist() == longest[:new]


@pytest.mark.parametrize("new", [7, *slow(8)])
def test_one_block_is_the_secondary_with_an_encoded_prompt(new):
    """γ → ∞: the primary reads the prompt and nothing else."""
    tandem, text = writer_drafters(32)["last-paper"], list(PROMPT)
    for _ in range(new):
        text.append(int(np.argmax(secondary_logits(tandem, text, len(PROMPT) - 1))))
    for block_len, free_token in ((new, False), (10_000, False), (new, True)):
        out = block_generate(writer(32), tandem, PROMPT, new, block_len, free_token)
        assert np.asarray(out.tokens).tolist() == text[len(PROMPT) :]
        assert out.trace.summary()["cycles"] == 1


@pytest.mark.parametrize("free_token", [True, False])
def test_the_primary_reads_each_token_once(free_token, monkeypatch):
    """After the prompt (padded to 32), γ a pass, with the free token γ + 1: its keys and values stay."""
    widths, extend = set(), Transformer.extend

    def counted(self, tokens, *args, **how):
        if self.config == writer(32).config:
            widths.add(tokens.shape[0])
        return extend(self, tokens, *args, **how)

    monkeypatch.setattr(Transformer, "extend", counted)
    tandem = writer_drafters(32)["last-paper"]  # the shapes are known without compiling
    decode = lambda: block_generate(writer(32), tandem, PROMPT, 20, 3, free_token, max_draft_len=3).tokens
    jax.eval_shape(decode)
    assert widths == {32, 3 + free_token}


def test_a_stop_token_ends_a_block():
    tandem = writer_drafters(32)["last-paper"]
    free = np.asarray(block_generate(writer(32), tandem, PROMPT, NEW, 4).tokens).tolist()
    stop = free[9]
    out = block_generate(writer(32), tandem, PROMPT, NEW, 4, stop_token=stop)
    first = free.index(stop)
    assert int(out.length) == first + 1
    assert np.asarray(out.tokens).tolist() == free[: first + 1] + [stop] * (NEW - first - 1)


@pytest.mark.slow
@pytest.mark.parametrize("name, block_len, free_token", [("last-own", 0, True), ("silent", 4, False)])
def test_where_nothing_is_drafted_the_primary_goes_on(name, block_len, free_token):
    """The free token alone, and a drafter without a proposal: else the text would never end."""
    drafter = Silent(writer(32)) if name == "silent" else writer_drafters(32)[name]
    out = block_generate(writer(32), drafter, PROMPT, NEW, block_len, free_token)
    np.testing.assert_array_equal(out.tokens, generate(writer(32), PROMPT, NEW).tokens)
    assert out.trace.summary()["drafted"] == 0


@pytest.mark.slow
def test_sampled_blocks_differ_by_key():
    given = (writer(32), writer_drafters(32)["last-paper"], PROMPT, NEW)
    decode = lambda key: block_generate(*given, sampling=Sampling(temperature=1.0), key=key).tokens.tolist()
    texts = [decode(jax.random.key(seed)) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
