"""The comparison: what it counts, and that its yardstick runs in the same rounds."""

import json

import jax
import numpy as np
import pytest

from tandem_edu.decode import Sampling, generate, speculate
from tandem_edu.errors import BadInput
from tandem_edu.measure import compare, interleaved, tokens_per_call

PROMPTS = [np.array([1, 2, 3], np.int32), np.array([7, 5, 11, 2], np.int32)]


@pytest.fixture(scope="module")
def comparison(tiny_primary, tiny_secondary, tiny_tandem):
    drafters = {"plain": tiny_secondary, "tandem": tiny_tandem}
    return compare(tiny_primary, drafters, PROMPTS, 12, block_lens=(1, 3), repetitions=2)


def test_every_drafter_at_every_block_length(comparison, tiny_primary, tiny_tandem):
    assert comparison.drafters == ["plain", "tandem"]
    assert comparison.block_lens == [1, 3]
    assert comparison.identical
    run = comparison.run("tandem", 3)
    outs = [speculate(tiny_primary, tiny_tandem, prompt, 12, block_len=3) for prompt in PROMPTS]
    for mine, theirs in zip(run.outputs, outs, strict=True):
        np.testing.assert_array_equal(mine.tokens, theirs.tokens)
    assert run.summary["emitted"] == 24
    assert run.summary["cycles"] == sum(int(out.trace.cycles) for out in outs)
    for out, prompt in zip(comparison.primary_outputs, PROMPTS, strict=True):
        np.testing.assert_array_equal(out.tokens, generate(tiny_primary, prompt, 12).tokens)


def test_speedup_is_taken_round_by_round(comparison):
    for run in comparison.runs:
        assert run.seconds.shape == (2,)
        np.testing.assert_array_equal(run.speedup, comparison.primary_seconds / run.seconds)


def test_the_table_is_json(comparison):
    rows = json.loads(json.dumps(comparison.table()))
    assert [(row["drafter"], row["block_len"]) for row in rows] == [
        ("plain", 1), ("plain", 3), ("tandem", 1), ("tandem", 3),
    ]  # fmt: skip


def test_efficiency_follows_from_acceptance_where_no_block_is_cut(tiny_primary):
    """The primary as its own drafter: everything is accepted, and blocks of 3 fill 12 tokens exactly."""
    comparison = compare(tiny_primary, {"self": tiny_primary}, PROMPTS, 12, block_lens=(3,), repetitions=1)
    summary = comparison.run("self", 3).summary
    assert summary["acceptance_by_position"] == [1.0, 1.0, 1.0]
    assert summary["block_efficiency"] == tokens_per_call([1.0, 1.0, 1.0]) == 4.0


def test_a_bound_for_all_changes_no_text(tiny_primary, tiny_secondary):
    how = {"max_new_tokens": 12, "block_lens": (1, 3), "repetitions": 1}
    own, bound = (
        compare(tiny_primary, {"plain": tiny_secondary}, PROMPTS, **how, **more)
        for more in ({}, {"max_block_len": 5})
    )
    for mine, theirs in zip(own.runs, bound.runs, strict=True):
        assert mine.summary == theirs.summary
        assert mine.outputs[0].trace.draft_ids.shape[-1] == mine.block_len
        assert theirs.outputs[0].trace.draft_ids.shape[-1] == 5


def test_the_typical_prompt_takes_as_many_calls_as_the_mean(tiny_primary, tiny_secondary):
    drafters = {"self": tiny_primary, "plain": tiny_secondary}
    prompts = [np.arange(start, start + 3, dtype=np.int32) for start in range(8)]
    found = compare(tiny_primary, drafters, prompts, 12, block_lens=(3,), repetitions=1)
    calls = {run.drafter: [int(out.trace.cycles) for out in run.outputs] for run in found.runs}
    assert len(set(calls["plain"])) > 1, "texts that differ, or nothing is chosen"
    mean = 12 / found.run("plain", 3).summary["block_efficiency"]  # of "self" all take three
    nearest = min(range(8), key=lambda i: abs(calls["plain"][i] - mean))
    assert found.typical_prompt(3, tokens=12) == nearest


def test_each_prompt_is_sampled_with_a_key_of_its_own(tiny_primary, tiny_secondary):
    """The same numbers for all would make texts alike, and the intervals over them too narrow."""
    prompts, key, how = [PROMPTS[0]] * 2, jax.random.key(0), Sampling(temperature=1.0)
    found = compare(tiny_primary, {"plain": tiny_secondary}, prompts, 12, (2,), how, key, repetitions=1)
    for outputs in (found.primary_outputs, found.run("plain", 2).outputs):
        first, second = (np.asarray(out.tokens).tolist() for out in outputs)
        assert first != second
    alone = generate(tiny_primary, PROMPTS[0], 12, how, jax.random.fold_in(key, 1))
    np.testing.assert_array_equal(found.primary_outputs[1].tokens, alone.tokens)


def test_contenders_take_turns():
    order = []
    seconds, first = interleaved({name: lambda name=name: order.append(name) for name in "ab"}, 3)
    assert "".join(order) == "abababab"
    assert seconds["a"].shape == (3,)
    assert set(first) == {"a", "b"}


@pytest.mark.parametrize("missing", ["drafters", "prompts", "block_lens"])
def test_nothing_to_compare(missing, tiny_primary, tiny_secondary):
    given = {"drafters": {"plain": tiny_secondary}, "prompts": PROMPTS, "block_lens": (2,)}
    given[missing] = type(given[missing])()
    with pytest.raises(BadInput, match="expected at least one"):
        compare(tiny_primary, max_new_tokens=4, **given)
