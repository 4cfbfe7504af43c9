"""Greedy speculative decoding writes what the primary alone would write, token for token."""

import importlib

import jax.numpy as jnp
import numpy as np
import pytest
import slow
from lively_models import (
    DRAFTERS,
    ONE_OF_A_KIND,
    TRAINED,
    by_turns,
    retraced,
    writer,
    writer_drafters,
    writer_trained,
)

from tandem_edu.decode import ConfidenceRule, EntropyRule, generate, speculate

# A package's attribute `verify` is the function; the module of that name is what gets patched.
speculative = importlib.import_module("tandem_edu.decode.speculative")
verification = importlib.import_module("tandem_edu.decode.verify")


def prompt_of(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([length, seed]).integers(0, 48, length)


def compare(drafter, max_len: int, prompts, block_lens=range(1, 9), **more) -> dict:
    """Fill the context after every prompt with every γ; the counts, once every text agrees."""
    primary = writer(max_len)
    counts = {"tokens": 0, "drafted": 0, "accepted": 0, "kinds": set()}
    for prompt in prompts:
        new = max_len - len(prompt)
        alone = np.asarray(generate(primary, prompt, new).tokens)
        counts["kinds"] |= set(alone.tolist())
        for block_len in block_lens:
            out = speculate(primary, drafter, prompt, new, block_len, **more)
            np.testing.assert_array_equal(out.tokens, alone)
            summary = out.trace.summary()
            assert summary["emitted"] == int(out.length) == new
            counts["tokens"] += new
            counts["drafted"] += summary["drafted"]
            counts["accepted"] += summary["accepted"]
    return counts


def assert_telling(counts: dict, tokens: int) -> None:
    """The comparison saw enough: varied texts, drafts accepted and drafts rejected."""
    assert counts["tokens"] >= tokens
    assert len(counts["kinds"]) >= 24
    assert 0.005 * counts["drafted"] < counts["accepted"] < 0.9 * counts["drafted"]


@pytest.mark.parametrize(
    "name", [n if n in ONE_OF_A_KIND else pytest.param(n, marks=pytest.mark.slow) for n in DRAFTERS]
)
def test_greedy_equals_the_primary_in_a_short_context(name):
    lengths = [1] * 6 + [2, 3, 8, 16, 28, 29, 30, 31]
    prompts = [prompt_of(length, seed) for seed, length in enumerate(lengths)]
    assert_telling(compare(writer_drafters(32)[name], 32, prompts), tokens=2_000)


@pytest.mark.slow
@pytest.mark.parametrize("verification", ["token", "block"])
@pytest.mark.parametrize("name", DRAFTERS)
def test_greedy_equals_the_primary_over_long_texts(name, verification):
    prompts = [prompt_of(length) for length in (1, 2, 5, 11, 20)]
    drafter = writer_drafters(512)[name]
    assert_telling(compare(drafter, 512, prompts, verification=verification), tokens=20_000)


@pytest.mark.slow
@pytest.mark.parametrize("name, verification", by_turns(TRAINED))
def test_greedy_equals_the_primary_with_trained_drafters(name, verification):
    prompts = [prompt_of(length) for length in (1, 2, 5, 11, 20, 3)]
    drafter = writer_trained(name, 512)
    counts = compare(drafter, 512, prompts, verification=verification)
    assert counts["tokens"] >= 20_000 and counts["accepted"] > 0.01 * counts["drafted"]


@pytest.mark.parametrize(
    "router", [ConfidenceRule(0.3), pytest.param(EntropyRule(1.0), marks=pytest.mark.slow)]
)
def test_greedy_equals_the_primary_with_a_router(router):
    counts = compare(writer_drafters(32)["plain"], 32, [prompt_of(1)], block_lens=[8], router=router)
    assert 0.3 * counts["drafted"] < counts["accepted"] < counts["drafted"] < 8 * counts["tokens"] / 2


@pytest.mark.slow
@pytest.mark.parametrize("name, max_len", [*((name, 40) for name in DRAFTERS), ("fused-own", 512)])
def test_greedy_equals_the_primary_where_the_context_ends(name, max_len):
    prompts = [prompt_of(max_len - left) for left in (1, 2, 3, 5, 7)]
    counts = compare(writer_drafters(max_len)[name], max_len, prompts)
    assert counts["tokens"] == 8 * (1 + 2 + 3 + 5 + 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "last-paper", "fused-own"])
def test_greedy_equals_the_primary_with_wide_blocks(name):
    counts = compare(writer_drafters(512)[name], 512, [prompt_of(1)], block_lens=[9, 16, 40])
    assert counts["accepted"] > 0


def test_generate_equals_full_forward_passes():
    primary, counted = writer(32), 0
    for length in (1, 2, 7, 30, 31):
        new = 32 - length
        out = generate(primary, prompt_of(length), new)
        assert np.asarray(out.tokens).tolist() == slow.greedy_text(primary, prompt_of(length), new)
        counted += int(out.length)
    assert counted == 31 + 30 + 25 + 2 + 1


@pytest.mark.slow
def test_generate_equals_full_forward_passes_over_long_texts():
    primary = writer(512)
    for length in (1, 5, 100, 505):
        out = generate(primary, prompt_of(length), 512 - length)
        expected = slow.greedy_text(primary, prompt_of(length), 512 - length)
        assert np.asarray(out.tokens).tolist() == expected
        assert len(set(expected)) >= min(24, len(expected) - 4)


def test_a_drafter_that_is_the_primary_is_always_accepted():
    primary = writer(32)
    for block_len in (1, 3, 8):
        summary = speculate(primary, primary, [7], 31, block_len).trace.summary()
        assert summary["accepted"] == summary["drafted"]
        assert summary["cycles"] == -(-31 // (block_len + 1))


def one_draft_too_many(drafts, drafted, q, p, sampling, u):
    verdict = verification.verify(drafts, drafted, q, p, sampling, u)
    accepted = jnp.minimum(verdict.accepted + 1, drafted)
    return verification.Verification(
        accepted, jnp.argmax(p[accepted]).astype(jnp.int32), verdict.acceptance_prob
    )


def the_row_before(drafts, drafted, q, p, sampling, u):
    verdict = verification.verify(drafts, drafted, q, p, sampling, u)
    row = jnp.maximum(verdict.accepted - 1, 0)
    return verification.Verification(
        verdict.accepted, jnp.argmax(p[row]).astype(jnp.int32), verdict.acceptance_prob
    )


@pytest.mark.parametrize("broken", [one_draft_too_many, pytest.param(the_row_before, marks=pytest.mark.slow)])
def test_the_comparison_fails_for_a_broken_verification(broken, monkeypatch):
    monkeypatch.setitem(speculative.VERIFICATIONS, "token", broken)
    drafter = retraced(writer_drafters(32)["plain"])
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        compare(drafter, 32, [prompt_of(1, seed) for seed in range(6)])
