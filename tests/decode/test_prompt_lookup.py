"""Prompt lookup against a search written with slices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lively_models import writer

from tandem_edu.decode import PromptLookup, generate, speculate
from tandem_edu.decode.drafters.prompt_lookup import latest_match


def slow_match(text: list[int], ngram: int, least: int) -> int | None:
    """Where the continuation starts: the longest suffix first, and the latest place first."""
    for size in range(min(ngram, len(text) - 1), least - 1, -1):
        for place in range(len(text) - 1, size - 1, -1):
            if text[place - size : place] == text[-size:]:
                return place
    return None


def test_matches_are_those_of_the_slow_search():
    rng = np.random.default_rng(0)
    fast = jax.jit(latest_match, static_argnums=(2, 3))
    found = 0
    for _ in range(300):
        length, ngram = int(rng.integers(1, 20)), int(rng.integers(1, 5))
        least = int(rng.integers(1, ngram + 1))
        text = rng.integers(0, 4, 24)  # what lies behind `length` must not matter
        place, ready = fast(jnp.asarray(text, jnp.int32), jnp.int32(length), ngram, least)
        expected = slow_match(text[:length].tolist(), ngram, least)
        assert bool(ready) == (expected is not None)
        if expected is not None:
            found += 1
            assert int(place) == expected
    assert 100 < found < 300


@pytest.mark.slow
def test_a_text_that_repeats_itself_is_drafted_whole():
    """A greedy text that has fallen into a loop is accepted up to the last draft."""
    primary = writer(512)
    start = np.asarray(generate(primary, [7], 20).tokens)
    prompt = np.tile(start, 6)
    out = speculate(primary, PromptLookup(48, ngram=3), prompt, 60, 8)
    np.testing.assert_array_equal(out.tokens, generate(primary, prompt, 60).tokens)
    rows = out.trace.to_records()
    text = [*prompt.tolist(), *np.asarray(out.tokens).tolist()]
    n = len(prompt)
    for row in rows:
        written = text[:n]
        for draft in row["draft_ids"]:
            assert draft == written[slow_match(written, 3, 1)]
            written.append(draft)
        n += row["emitted"]
    assert sum(row["drafted"] for row in rows) > 20


def test_nothing_is_drafted_where_nothing_matches():
    out = speculate(writer(64), PromptLookup(48, ngram=4, least=4), [1, 2, 3, 4], 6, 4)
    assert out.trace.summary()["drafted"] == 0 and out.trace.summary()["cycles"] == 6
