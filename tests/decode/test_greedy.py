"""Greedy speculative decoding writes what the primary alone would write, token for token."""

import jax.numpy as jnp
import noisy_models as models
import numpy as np
import pytest
import slow_decoder

from tandem_edu.decode import ConfidenceRule, generate, speculate
from tandem_edu.decode.speculative import VERIFICATIONS
from tandem_edu.decode.verify import Verification, verify


def prompt_of(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([length, seed]).integers(0, 48, length)


def compare(drafter, max_len: int, prompts, block_lens=range(1, 9), **more) -> dict:
    """Fill the context after every prompt with every γ; the counts, once every text agrees."""
    primary = models.writer(max_len)
    counts = {"tokens": 0, "drafted": 0, "accepted": 0, "different": set()}
    for prompt in prompts:
        new = max_len - len(prompt)
        alone = np.asarray(generate(primary, prompt, new).tokens)
        counts["different"] |= set(alone.tolist())
        for block_len in block_lens:
            out = speculate(primary, drafter, prompt, new, block_len, **more)
            np.testing.assert_array_equal(out.tokens, alone)
            summary = out.trace.summary()
            assert summary["emitted"] == int(out.length) == new
            counts["tokens"] += new
            counts["drafted"] += summary["drafted"]
            counts["accepted"] += summary["accepted"]
    return counts


def assert_varied(counts: dict, tokens: int, most_accepted: float = 0.9) -> None:
    """The comparison saw enough: different tokens, drafts accepted and drafts rejected."""
    assert counts["tokens"] >= tokens
    assert len(counts["different"]) >= 24
    assert 0.005 * counts["drafted"] < counts["accepted"] < most_accepted * counts["drafted"]


@pytest.mark.parametrize(
    "name",
    [*models.ONE_OF_A_KIND, *models.slow(*(n for n in models.DRAFTERS if n not in models.ONE_OF_A_KIND))],
)
def test_greedy_equals_the_primary_in_a_short_context(name):
    """Also where the context ends within the first block."""
    lengths = [1] * 6 + [2, 3, 8, 16, 28, 29, 30, 31]
    prompts = [prompt_of(length, seed) for seed, length in enumerate(lengths)]
    assert_varied(compare(models.writer_drafters(32)[name], 32, prompts), tokens=2_000)


CASES = [(name, verification, False) for name in models.DRAFTERS for verification in ("token", "block")]
CASES += [(*case, True) for case in models.alternating(models.TRAINED)]


@pytest.mark.slow
@pytest.mark.parametrize("name, verification, trained", CASES)
def test_greedy_equals_the_primary_over_20_000_tokens(name, verification, trained):
    prompts = [prompt_of(length) for length in (1, 2, 5, 11, 20, 3)]
    drafter = models.writer_trained(name, 512) if trained else models.writer_drafters(512)[name]
    counts = compare(drafter, 512, prompts, verification=verification)
    assert_varied(counts, tokens=20_000, most_accepted=1.0 if trained else 0.9)


@pytest.mark.parametrize("router", [ConfidenceRule(0.3), *models.slow(ConfidenceRule(0.6))])
def test_greedy_equals_the_primary_with_a_router(router):
    counts = compare(models.writer_drafters(32)["plain"], 32, [prompt_of(1)], block_lens=[8], router=router)
    assert 0.3 * counts["drafted"] < counts["accepted"] < counts["drafted"] < 8 * counts["tokens"] / 2


CORNERS = [(name, 40, (1, 2, 3, 5, 7), range(1, 9)) for name in models.DRAFTERS]
CORNERS += [("plain", 40, (7,), (3,)), ("fused-own", 512, (1, 2, 3, 5, 7), range(1, 9))]
CORNERS += [(name, 512, (511,), (9, 16, 40)) for name in ("plain", "last-paper", "fused-own")]


@pytest.mark.slow
@pytest.mark.parametrize("name, max_len, new, block_lens", CORNERS)
def test_greedy_equals_the_primary_in_the_corners(name, max_len, new, block_lens):
    """Where the context ends, also one that is no power of two; and with wide blocks."""
    prompts = [prompt_of(max_len - left) for left in new]
    more = {"max_draft_len": max(block_lens)}
    counts = compare(models.writer_drafters(max_len)[name], max_len, prompts, block_lens, **more)
    assert counts["tokens"] == len(block_lens) * sum(new)
    assert max_len == 40 or counts["accepted"] > 0


@pytest.mark.parametrize("max_len, lengths", [(32, (1, 2, 7, 30, 31)), *models.slow((512, (1, 5, 100, 505)))])
def test_generate_equals_full_forward_passes(max_len, lengths):
    primary, different = models.writer(max_len), set()
    for length in lengths:
        new = max_len - length
        expected = slow_decoder.greedy_text(primary, prompt_of(length), new)
        assert np.asarray(generate(primary, prompt_of(length), new).tokens).tolist() == expected
        different |= set(expected)
    assert len(different) >= 24


def broken_verification(change):
    """`change` gives the number of accepted drafts, and the position of the next token."""

    def rule(drafts, drafted, q, p, sampling, u):
        right = verify(drafts, drafted, q, p, sampling, u)
        accepted, position = change(right.accepted, drafted)
        token = jnp.argmax(p[position]).astype(jnp.int32)
        return Verification(accepted, token, right.acceptance_prob)

    return rule


ONE_TOO_MANY = broken_verification(lambda m, drafted: (jnp.minimum(m + 1, drafted),) * 2)
POSITION_BEFORE = broken_verification(lambda m, drafted: (m, jnp.maximum(m - 1, 0)))


@pytest.mark.parametrize("broken", [ONE_TOO_MANY, *models.slow(POSITION_BEFORE)])
def test_the_comparison_fails_for_a_broken_verification(broken, monkeypatch):
    monkeypatch.setitem(VERIFICATIONS, "token", broken)
    drafter = models.retraced(models.writer_drafters(32)["plain"])
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        compare(drafter, 32, [prompt_of(1, seed) for seed in range(6)])
