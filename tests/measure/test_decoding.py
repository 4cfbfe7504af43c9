"""The comparison: its counts, and a baseline in the same rounds."""

import jax
import numpy as np
import pytest
from refusal import refuses

from tandem_edu.decode import ConfidenceRule, Sampling, generate, speculate
from tandem_edu.measure import Work, compare, sweep_thresholds, timed, tokens_per_call
from tandem_edu.train import train_router

PROMPTS = [np.array([1, 2, 3], np.int32), np.array([7, 5, 11, 2], np.int32)]


def test_every_drafter_at_every_block_length(tiny_primary, tiny_secondary, tiny_tandem):
    drafters = {"plain": tiny_secondary, "tandem": tiny_tandem}
    comparison = compare(tiny_primary, drafters, PROMPTS, 12, block_lens=(1, 3), repetitions=2)
    assert comparison.drafters == ["plain", "tandem"]
    assert comparison.block_lens == [1, 3]
    run = comparison.run("tandem", 3)
    outs = [speculate(tiny_primary, tiny_tandem, prompt, 12, block_len=3) for prompt in PROMPTS]
    assert run.summary["emitted"] == 24
    assert run.summary["cycles"] == sum(int(out.trace.cycles) for out in outs)
    for index, prompt in enumerate(PROMPTS):
        alone = generate(tiny_primary, prompt, 12).tokens
        for outputs in (comparison.primary_outputs, *(run.outputs for run in comparison.runs)):
            np.testing.assert_array_equal(outputs[index].tokens, alone)
    for run in comparison.runs:  # the speedup is taken round by round
        assert run.seconds.shape == (2,)
        alone, other = (one.speedup * one.seconds for one in (run, comparison.runs[0]))
        np.testing.assert_allclose(alone, other)


def test_efficiency_follows_from_acceptance_where_no_block_is_cut(tiny_primary):
    """The primary as its own drafter: all is accepted, and blocks of 1 and of 3 fill 12 tokens exactly."""
    for run in compare(tiny_primary, {"self": tiny_primary}, PROMPTS, 12, (1, 3), repetitions=1).runs:
        sure = [1.0] * run.block_len
        assert run.summary["acceptance_by_position"] == sure
        assert run.summary["block_efficiency"] == tokens_per_call(sure) == run.block_len + 1


def test_a_bound_for_all_changes_no_text(tiny_primary, tiny_secondary):
    how = {"max_new_tokens": 12, "block_lens": (1, 3), "repetitions": 1}
    own, bound = (
        compare(tiny_primary, {"plain": tiny_secondary}, PROMPTS, **how, **more)
        for more in ({}, {"max_draft_len": 5})
    )
    for run, bounded in zip(own.runs, bound.runs, strict=True):
        assert run.summary == bounded.summary
        assert run.outputs[0].trace.draft_ids.shape[-1] == run.block_len
        assert bounded.outputs[0].trace.draft_ids.shape[-1] == 5


def test_each_prompt_is_sampled_with_a_key_of_its_own(tiny_primary, tiny_secondary):
    """With one key the texts would be alike, and intervals over them too narrow."""
    prompts, key, how = [PROMPTS[0]] * 2, jax.random.key(0), Sampling(temperature=1.0)
    result = compare(tiny_primary, {"plain": tiny_secondary}, prompts, 12, (2,), how, key, repetitions=1)
    for outputs in (result.primary_outputs, result.run("plain", 2).outputs):
        first, second = (np.asarray(out.tokens).tolist() for out in outputs)
        assert first != second
    alone = generate(tiny_primary, PROMPTS[0], 12, how, jax.random.fold_in(key, 1))
    np.testing.assert_array_equal(result.primary_outputs[1].tokens, alone.tokens)


@pytest.mark.parametrize("learned", [True, False])
def test_a_sweep_over_thresholds_starts_at_the_constant_block_length(learned, tiny_primary, tiny_tandem):
    how = {"max_new_tokens": 8, "steps": 5, "progress": False, "key": jax.random.key(0)}
    router = ConfidenceRule(0.5)
    if learned:
        router, _ = train_router(tiny_primary, tiny_tandem, PROMPTS, 3, **how)
    settings = {"block_len": 3, "max_new_tokens": 8, "repetitions": 1}
    sweep = sweep_thresholds(tiny_primary, tiny_tandem, PROMPTS, router, (0.0, 0.5, 1.0), **settings)
    assert sweep[0].drafted >= sweep[1].drafted >= sweep[2].drafted
    (constant,) = compare(tiny_primary, {"t": tiny_tandem}, PROMPTS, 8, (3,), repetitions=1).runs
    summary = constant.summary
    assert sweep[0].drafted == summary["mean_drafted"]
    assert sweep[0].tokens_per_call == summary["block_efficiency"]
    assert all(sweep[0].speedup > 0)
    refuses("at least one prompt", sweep_thresholds, tiny_primary, tiny_tandem, [], router, (0.5,))


def test_contenders_take_turns():
    order = []
    add = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds, first = timed({"a": add["a"], "b": Work(add["b"], units=10**9)}, 3)
    assert "".join(order) == "abababab"
    assert seconds["a"].shape == (3,) and max(seconds["b"]) < 1e-6
    assert set(first) == {"a", "b"}
    refuses("repetitions of at least 1", timed, add, 0)


@pytest.mark.parametrize("missing", ["drafters", "prompts", "block_lens"])
def test_nothing_to_compare(missing, tiny_primary, tiny_secondary):
    given = {"drafters": {"plain": tiny_secondary}, "prompts": PROMPTS, "block_lens": (2,)}
    given[missing] = type(given[missing])()
    refuses("expected at least one", compare, tiny_primary, max_new_tokens=4, **given)
