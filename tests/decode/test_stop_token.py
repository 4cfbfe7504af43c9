"""A stop token ends the text at any position of a cycle, and is itself the last of the text."""

from functools import cache

import jax
import numpy as np
import pytest
from noisy_models import writer, writer_drafters

from tandem_edu.decode import Sampling, generate, speculate

NEW, BLOCK_LEN = 28, 4
ROLES = ["first draft", "later draft", "bonus", "residual", "first token"]


def speculated(seed: int, stop_token=None, **more):
    """A prompt, and what follows it."""
    prompt = np.random.default_rng(seed).integers(0, 48, 4)
    drafter = writer_drafters(32)["plain"]
    return prompt, speculate(writer(32), drafter, prompt, NEW, BLOCK_LEN, stop_token=stop_token, **more)


@cache
def appearances() -> dict[str, tuple[int, int]]:
    """For each role a text (its seed), and where a token that is new to that text plays the role."""
    first = {}
    for seed in range(8):
        _, out = speculated(seed)
        tokens, start = np.asarray(out.tokens).tolist(), 0
        for record in out.trace.to_records():
            for i in range(record["emitted"]):
                if tokens.index(tokens[start + i]) == start + i:
                    first.setdefault(role(record, start, i), (seed, start + i))
            start += record["emitted"]
    return first


def role(record: dict, start: int, i: int) -> str:
    if start + i == 0:
        return "first token"
    if i < record["accepted"]:
        return "first draft" if i == 0 else "later draft"
    return "bonus" if record["accepted"] == record["drafted"] else "residual"


@pytest.mark.parametrize("which", ROLES)
def test_the_text_ends_with_the_stop_token(which):
    seed, at = appearances()[which]
    prompt, full = speculated(seed)
    stop = int(full.tokens[at])
    _, out = speculated(seed, stop)
    for stopped in (out, generate(writer(32), prompt, NEW, stop_token=stop)):
        assert int(stopped.length) == at + 1
        np.testing.assert_array_equal(stopped.tokens[: at + 1], full.tokens[: at + 1])
        assert set(np.asarray(stopped.tokens[at:]).tolist()) == {stop}
    records, summary = out.trace.to_records(), out.trace.summary()
    assert sum(record["emitted"] for record in records) == summary["emitted"] == at + 1
    ended_on_a_draft = which.endswith("draft") or (which == "first token" and records[-1]["accepted"] == 1)
    assert records[-1]["emitted"] == records[-1]["accepted"] + (not ended_on_a_draft)
    # Every cycle but the last is as it was without the stop token.
    assert records[:-1] == full.trace.to_records()[: len(records) - 1]


def test_a_rejected_draft_stops_nothing():
    for seed in range(8):
        _, full = speculated(seed)
        drafted = {token for record in full.trace.to_records() for token in record["draft_ids"]}
        for token in sorted(drafted - set(np.asarray(full.tokens).tolist()))[:3]:
            _, out = speculated(seed, token)
            np.testing.assert_array_equal(out.tokens, full.tokens)
            assert int(out.length) == NEW
            return
    raise AssertionError("every drafted token was emitted in every text: choose other seeds")


def test_a_stop_token_in_the_prompt_stops_nothing():
    prompt, full = speculated(0)
    unused = [int(token) for token in prompt if token not in np.asarray(full.tokens)]
    assert unused
    _, out = speculated(0, unused[0])
    np.testing.assert_array_equal(out.tokens, full.tokens)


def test_a_sampled_text_is_the_same_up_to_its_end():
    how = {"sampling": Sampling(1.0), "key": jax.random.key(4)}
    _, full = speculated(2, **how)
    tokens = np.asarray(full.tokens).tolist()
    for stop in (tokens[3], tokens[11]):
        at = tokens.index(stop)
        _, out = speculated(2, stop, **how)
        assert int(out.length) == at + 1
        assert np.asarray(out.tokens).tolist() == tokens[: at + 1] + [stop] * (NEW - at - 1)
