"""Prompt lookup against a search written with slices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from pairs import VOCAB, config

from tandem_edu.decode import generate, speculate
from tandem_edu.drafters import PromptLookup
from tandem_edu.drafters.prompt_lookup import latest_match
from tandem_edu.model import Transformer


def slow_match(text: list[int], ngram: int) -> int | None:
    """Where the continuation starts: the longest suffix first, and the latest position first."""
    for size in range(min(ngram, len(text) - 1), 0, -1):
        for position in range(len(text) - 1, size - 1, -1):
            if text[position - size : position] == text[-size:]:
                return position
    return None


@pytest.fixture(scope="module")
def primary() -> Transformer:
    sizes = dataclasses.replace(config(16, 2, 2, 1), max_len=256)
    return oracle.lively(Transformer(sizes, key=jax.random.key(0)), 1)


def test_matches_are_those_of_the_slow_search():
    rng = np.random.default_rng(0)
    fast = jax.jit(latest_match, static_argnums=2)
    n_matches = 0
    for _ in range(300):
        length, ngram = int(rng.integers(1, 20)), int(rng.integers(1, 5))
        text = rng.integers(0, 4, 24)  # what follows after `length` must not matter
        position, matches = fast(jnp.asarray(text, jnp.int32), jnp.int32(length), ngram)
        expected = slow_match(text[:length].tolist(), ngram)
        assert bool(matches) == (expected is not None)
        if expected is not None:
            n_matches += 1
            assert int(position) == expected
    assert 100 < n_matches < 300


def test_a_text_that_repeats_is_drafted_whole(primary):
    """Each draft is what the slow search finds, and a greedy text that repeats is accepted."""
    start = np.asarray(generate(primary, [7], 20).tokens)
    prompt = np.tile(start, 6)
    out = speculate(primary, PromptLookup(VOCAB, ngram=3), prompt, 60, 8)
    np.testing.assert_array_equal(out.tokens, generate(primary, prompt, 60).tokens)
    records = out.trace.to_records()
    text, n = [*prompt.tolist(), *np.asarray(out.tokens).tolist()], len(prompt)
    for record in records:
        read = text[:n]
        for draft in record["draft_ids"]:
            assert draft == read[slow_match(read, 3)]
            read.append(draft)
        n += record["emitted"]
    assert sum(record["drafted"] for record in records) > 20


def test_nothing_is_drafted_where_nothing_matches(primary):
    first, *_ = speculate(primary, PromptLookup(VOCAB, ngram=4), [1, 2, 3, 4], 6, 4).trace.to_records()
    assert first["drafted"] == 0 and first["emitted"] == 1
