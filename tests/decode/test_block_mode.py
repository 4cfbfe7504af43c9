"""The tandem without verification, against a plain loop of uncached passes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow
from lively_models import writer, writer_drafters

from tandem_edu.decode import PromptLookup, Sampling, block_generate, generate
from tandem_edu.model import Transformer
from tandem_edu.model.masks import block_starts

PROMPT, NEW = [3, 11, 40], 30


@eqx.filter_jit
def both_models(tandem, tokens, starts):
    _, hidden = writer(64)(tokens, return_hidden=True)
    return tandem.read_blocks(tokens, hidden, starts)[0]


def secondary_logits(tandem, text: list[int], pending: int) -> np.ndarray:
    """The logits after `text` where the last block starts at `pending`: full passes of both models."""
    # Attention is causal, so what lies behind the text changes nothing.
    tokens = jnp.zeros(64, jnp.int32).at[: len(text)].set(jnp.asarray(text, jnp.int32))
    # The own history of a secondary depends on where earlier blocks lay; here it has none.
    starts = jnp.where(jnp.arange(64) < pending, block_starts(64, 2), pending)
    return np.asarray(both_models(tandem, tokens, starts))[len(text) - 1]


def slow_text(tandem, block_len: int, free_token: bool) -> list[int]:
    text = list(PROMPT)
    while len(text) < len(PROMPT) + NEW:
        pending = len(text) - 1
        for _ in range(block_len - free_token):
            text.append(int(np.argmax(secondary_logits(tandem, text, pending))))
        if free_token:
            text.append(int(np.argmax(slow.next_logits(writer(64), text))))
    return text[len(PROMPT) :][:NEW]


@pytest.mark.parametrize("free_token", [True, False])
@pytest.mark.parametrize(
    "name, block_len", [("last-paper", 3), pytest.param("fused-paper", 2, marks=pytest.mark.slow)]
)
def test_blocks_are_those_of_the_slow_loop(name, block_len, free_token):
    tandem = writer_drafters(64)[name]
    out = block_generate(writer(64), tandem, PROMPT, NEW, block_len, free_token)
    assert np.asarray(out.tokens).tolist() == slow_text(tandem, block_len, free_token)
    summary = out.trace.summary()
    assert summary["accepted"] == summary["drafted"]
    assert summary["cycles"] == -(-NEW // block_len) and summary["emitted"] == NEW
    assert summary["drafted"] == NEW - free_token * (NEW // block_len)


@pytest.mark.parametrize("free_token", [True, False])
def test_a_shorter_text_is_the_beginning_of_a_longer_one(free_token):
    """Where a block is cut short, its last token is the secondary's as it would have been."""
    tandem = writer_drafters(64)["last-paper"]
    write = lambda new: np.asarray(block_generate(writer(64), tandem, PROMPT, new, 4, free_token).tokens)
    longest = write(12).tolist()
    assert longest == slow_text(tandem, 4, free_token)[:12]
    for new in (1, 3, 5, 6, 7, 8, 11):
        assert write(new).tolist() == longest[:new]


@pytest.mark.slow
def test_blocks_of_one_free_token_are_the_primary_alone():
    tandem = writer_drafters(64)["last-own"]
    alone = generate(writer(64), PROMPT, NEW)
    np.testing.assert_array_equal(block_generate(writer(64), tandem, PROMPT, NEW, 1).tokens, alone.tokens)


def test_one_block_is_the_secondary_with_an_encoded_prompt():
    """γ → ∞: the primary reads the prompt and nothing else."""
    tandem, text = writer_drafters(64)["last-paper"], list(PROMPT)
    for _ in range(NEW):
        text.append(int(np.argmax(secondary_logits(tandem, text, len(PROMPT) - 1))))
    for block_len, free_token in ((NEW, False), (10_000, False), (NEW + 1, True)):
        out = block_generate(writer(64), tandem, PROMPT, NEW, block_len, free_token)
        assert np.asarray(out.tokens).tolist() == text[len(PROMPT) :]
        assert out.trace.summary()["cycles"] == 1


@pytest.mark.parametrize("free_token", [True, False])
def test_the_primary_reads_each_token_once(free_token, monkeypatch):
    """After the prompt (padded to 32), γ of them a call: what one block leaves out, the next begins with."""
    widths, extend = set(), Transformer.extend

    def counted(self, tokens, *args, **how):
        if self.config == writer(64).config:
            widths.add(tokens.shape[0])
        return extend(self, tokens, *args, **how)

    monkeypatch.setattr(Transformer, "extend", counted)
    tandem = writer_drafters(64)["last-paper"]
    block_generate(writer(64), tandem, PROMPT, 20, 3, free_token, max_block_len=3)
    assert widths == {32, 3}


def test_where_nothing_is_drafted_the_primary_goes_on():
    """Prompt lookup that never finds anything: without the primary's token the text would never end."""
    lookup = PromptLookup(48, ngram=8, least=8)
    out = block_generate(writer(64), lookup, PROMPT, NEW, 4, free_token=False)
    np.testing.assert_array_equal(out.tokens, generate(writer(64), PROMPT, NEW).tokens)
    assert out.trace.summary()["drafted"] == 0


def test_a_stop_token_ends_a_block():
    tandem = writer_drafters(64)["last-paper"]
    free = np.asarray(block_generate(writer(64), tandem, PROMPT, NEW, 4).tokens).tolist()
    stop = free[9]
    out = block_generate(writer(64), tandem, PROMPT, NEW, 4, stop_token=stop)
    first = free.index(stop)
    assert int(out.length) == first + 1
    assert np.asarray(out.tokens).tolist() == free[: first + 1] + [stop] * (NEW - first - 1)


@pytest.mark.slow
def test_sampled_blocks_differ_by_key():
    tandem, how = writer_drafters(64)["last-paper"], Sampling(temperature=1.0)
    texts = [
        tuple(
            np.asarray(
                block_generate(writer(64), tandem, PROMPT, NEW, 4, sampling=how, key=jax.random.key(i)).tokens
            )
        )
        for i in (0, 0, 1)
    ]
    assert texts[0] == texts[1] != texts[2]
