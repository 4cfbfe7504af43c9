"""Several texts decoded together: each is what it is alone, whoever its neighbours are. And streams."""

import jax
import numpy as np
import pytest
from lively_models import ONE_OF_A_KIND, ROUNDING, by_turns, writer, writer_drafters

from tandem_edu.decode import ConfidenceRule, Sampling, block_generate, generate, speculate, stream

PROMPTS = [[7], [1, 2, 3], [40, 4, 9, 9, 30, 2], [5, 5]]
SAMPLED = Sampling(temperature=1.0, top_k=20)
KEY = jax.random.key(5)


def assert_rows_are_texts(together, alone) -> None:
    """`alone(row)` decodes one row by itself. Floats may differ in the last bits, tokens and counts not."""
    for row, trace in enumerate(together.trace.per_text()):
        one = alone(row)
        np.testing.assert_array_equal(together.tokens[row], one.tokens)
        assert int(together.length[row]) == int(one.length)
        theirs = one.trace.per_text()[0]
        for name in ("cycles", "drafted", "accepted", "emitted", "draft_ids"):
            np.testing.assert_array_equal(getattr(trace, name), getattr(theirs, name))
        np.testing.assert_allclose(trace.acceptance_prob, theirs.acceptance_prob, atol=ROUNDING)
        np.testing.assert_allclose(trace.confidence, theirs.confidence, atol=ROUNDING)


def assert_uneven(together) -> None:
    """The rows advanced at their own pace, and wrote different texts."""
    assert len(set(np.asarray(together.trace.cycles).tolist())) > 1
    assert len({tuple(row) for row in np.asarray(together.tokens).tolist()}) == len(together.tokens)


def assert_different_prompts_together(primary, drafter, verification: str) -> None:
    given = {"verification": verification}
    together = speculate(primary, drafter, PROMPTS, 40, 3, SAMPLED, KEY, **given)

    def alone(row):
        key = jax.random.fold_in(KEY, row)
        return speculate(primary, drafter, PROMPTS[row], 40, 3, SAMPLED, key, **given)

    assert_uneven(together)
    assert_rows_are_texts(together, alone)


def test_different_prompts_together():
    assert_different_prompts_together(writer(64), writer_drafters(64)["fused-own"], "token")


@pytest.mark.slow
@pytest.mark.parametrize("name, verification", by_turns(ONE_OF_A_KIND))
def test_different_prompts_together_with_each_kind_of_drafter(name, verification):
    assert_different_prompts_together(writer(64), writer_drafters(64)[name], verification)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"router": ConfidenceRule(0.3), "verification": "block"},
    ],
)
def test_several_samples_of_one_prompt(more):
    primary, drafter = writer(64), writer_drafters(64)["plain"]
    together = speculate(primary, drafter, PROMPTS[1], 40, 4, SAMPLED, KEY, num_samples=3, **more)
    assert_uneven(together)
    assert_rows_are_texts(
        together,
        lambda row: speculate(
            primary, drafter, PROMPTS[1], 40, 4, SAMPLED, jax.random.fold_in(KEY, row), **more
        ),
    )


def test_neighbours_do_not_matter_to_a_row():
    """Bit for bit: the widths are the same, only the neighbours are others."""
    primary, drafter = writer(64), writer_drafters(64)["last-own"]
    here = speculate(primary, drafter, [[1, 2, 3], [7], [5, 5]], 40, 3, SAMPLED, KEY)
    there = speculate(primary, drafter, [[1, 2, 3], [9, 9, 9, 8], [40]], 40, 3, SAMPLED, KEY)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y[0]), here, there)
    assert here.tokens[1].tolist() != there.tokens[1].tolist()


@pytest.mark.slow
def test_a_row_that_has_ended_stays_as_it_is():
    """Each row ends at a stop token of its own place, the others go on."""
    primary, drafter = writer(64), writer_drafters(64)["fused-paper"]
    free = speculate(primary, drafter, PROMPTS, 50, 3)
    stop = int(free.tokens[0][4])
    together = speculate(primary, drafter, PROMPTS, 50, 3, stop_token=stop)
    assert len(set(np.asarray(together.length).tolist())) > 1
    assert_rows_are_texts(
        together, lambda row: speculate(primary, drafter, PROMPTS[row], 50, 3, stop_token=stop)
    )


def test_generate_in_batches():
    primary = writer(64)
    for prompts, more in ((PROMPTS, {}), ([PROMPTS[1]] * 3, {"num_samples": 3})):
        given = PROMPTS[1] if more else prompts
        together = generate(primary, given, 40, SAMPLED, KEY, stop_token=11, **more)
        assert_rows_are_texts(
            together,
            lambda row, prompts=prompts: generate(
                primary, prompts[row], 40, SAMPLED, jax.random.fold_in(KEY, row), stop_token=11
            ),
        )


@pytest.mark.slow
def test_samples_of_several_prompts_come_prompt_by_prompt():
    primary = writer(64)
    together = generate(primary, PROMPTS[:2], 20, SAMPLED, KEY, num_samples=2)
    assert together.tokens.shape == (4, 20)
    last = generate(primary, PROMPTS[1], 20, SAMPLED, jax.random.fold_in(KEY, 3))
    np.testing.assert_array_equal(together.tokens[3], last.tokens)


@pytest.mark.slow
def test_block_mode_in_batches():
    primary, tandem = writer(64), writer_drafters(64)["last-paper"]
    together = block_generate(primary, tandem, PROMPTS, 40, 4)
    assert_rows_are_texts(together, lambda row: block_generate(primary, tandem, PROMPTS[row], 40, 4))


def test_a_stream_yields_what_speculate_returns():
    primary, drafter = writer(64), writer_drafters(64)["fused-paper"]
    given = (primary, drafter, PROMPTS[1], 40, 3, SAMPLED, KEY, ConfidenceRule(0.1))
    out = speculate(*given, stop_token=11)
    cycles = list(stream(*given, stop_token=11))
    written = np.concatenate([cycle.tokens for cycle in cycles])
    np.testing.assert_array_equal(written, out.tokens[: int(out.length)])
    rows = out.trace.to_records()
    assert [cycle.accepted for cycle in cycles] == [row["accepted"] for row in rows]
    assert [cycle.drafted.tolist() for cycle in cycles] == [row["draft_ids"] for row in rows]
