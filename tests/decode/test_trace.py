"""The trace: its counts, its measures by hand, and its overlaps against teacher-forced passes."""

import json
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow
from lively_models import ROUNDING, TRAINED, writer, writer_drafters

from tandem_edu.decode import Sampling, Trace, speculate
from tandem_edu.decode.trace import summarise
from tandem_edu.model.masks import block_starts

PROMPT = [5, 40, 3]
NEW, BLOCK_LEN = 400, 4
# No top-k: where its boundary is a tie within rounding, two passes may keep different tokens.
HOW = {"temperature": 0.8}


def by_hand(drafted, accepted, emitted) -> Trace:
    """A trace of these cycles, with an empty row behind them as the real ones have."""
    columns = [jnp.array([*column, 0], jnp.int32) for column in (drafted, accepted, emitted)]
    rows = len(drafted) + 1
    ids, blank = jnp.full((rows, 8), -1, jnp.int32), jnp.zeros((rows, 8))
    return Trace(jnp.int32(len(drafted)), *columns, ids, blank, blank)


def test_the_measures_of_a_trace_made_by_hand():
    summary = by_hand([3, 3, 3, 1], [3, 1, 0, 1], [4, 2, 1, 2]).summary()
    assert (summary["cycles"], summary["emitted"]) == (4, 9)
    assert (summary["drafted"], summary["accepted"]) == (10, 5)
    assert summary["block_efficiency"] == 9 / 4
    assert summary["mean_accepted"] == 5 / 4
    # Reached: 4 at the first position, 2 at the second (the fourth block ended), 1 at the third.
    assert summary["acceptance_by_position"] == [3 / 4, 1 / 2, 1.0]
    assert summary["reached_by_position"] == [4, 2, 1]


def test_a_position_that_no_draft_reached_has_no_rate():
    assert by_hand([3, 3], [0, 1], [1, 2]).summary()["acceptance_by_position"] == [1 / 2, 0.0, None]


def test_drafts_behind_a_stop_token_were_not_rejected():
    """The second cycle emits its one accepted draft, the stop token, and nothing of the primary's."""
    assert by_hand([2, 2], [2, 1], [3, 1]).summary()["acceptance_by_position"] == [1.0, 1.0]


def test_a_trace_without_drafts():
    summary = by_hand([0], [0], [1]).summary()
    assert summary["block_efficiency"] == 1
    assert summary["acceptance_by_position"] == []
    nothing = by_hand([], [], []).summary()
    assert nothing["cycles"] == nothing["emitted"] == 0
    assert nothing["block_efficiency"] is nothing["mean_accepted"] is nothing["acceptance_rate"] is None


def test_a_batch_is_measured_as_one():
    one, two = by_hand([3, 1, 0], [3, 1, 0], [4, 2, 1]), by_hand([3, 3, 0], [0, 2, 0], [1, 3, 1])
    one = eqx.tree_at(lambda trace: trace.cycles, one, jnp.int32(2))
    batch = jax.tree.map(lambda x, y: jnp.stack([x, y]), one, two)
    assert batch.summary() == summarise([one, two])
    assert (batch.summary()["cycles"], batch.summary()["emitted"]) == (5, 11)
    assert batch.summary()["mean_drafted"] == 2 and batch.summary()["acceptance_rate"] == 6 / 10
    table = batch.to_dict()
    assert table["row"] == [0, 0, 1, 1, 1] and table["emitted"] == [4, 2, 1, 3, 1]
    assert json.loads(batch.to_json()) == {"summary": batch.summary(), "cycles": batch.to_records()}


@cache
def sampled(name: str):
    """A text, the rows of its trace, its summary."""
    drafter, key = writer_drafters(512)[name], jax.random.key(1)
    out = speculate(writer(512), drafter, PROMPT, NEW, BLOCK_LEN, Sampling(**HOW), key)
    return [*PROMPT, *np.asarray(out.tokens).tolist()], out.trace.to_records(), out.trace.summary()


def test_rows_agree_with_the_text_and_the_summary():
    text, rows, summary = sampled("plain")
    assert json.loads(json.dumps(rows)) == rows
    assert json.loads(json.dumps(summary)) == summary
    n = len(PROMPT)
    for i, row in enumerate(rows):
        kept = row["draft_ids"][: row["accepted"]]
        assert row["cycle"] == i
        assert row["drafted"] == len(row["draft_ids"]) == len(row["acceptance_prob"])
        assert row["drafted"] == min(BLOCK_LEN, len(text) - n - 1)
        assert row["emitted"] == row["accepted"] + 1 <= row["drafted"] + 1
        assert text[n : n + row["accepted"]] == kept
        n += row["emitted"]
    assert n == len(text) == len(PROMPT) + summary["emitted"]
    for count in ("drafted", "accepted", "emitted"):
        assert summary[count] == sum(row[count] for row in rows)
    assert summary["cycles"] == len(rows)


def teacher_forced(name: str, text: list[int], rows: list[dict]) -> list[np.ndarray]:
    """Σ_v min(p, q) at every draft of every cycle, from full forward passes of both models."""
    contexts, starts, n = [], [], len(PROMPT)
    blocks = np.asarray(block_starts(512, BLOCK_LEN, n - 1)).copy()
    for row in rows:
        # The block of a cycle starts at its pending token, and stays one block for those after it.
        blocks[n - 1 :] = n - 1
        context = np.zeros(512, np.int32)
        context[: n + row["drafted"]] = text[:n] + row["draft_ids"]
        contexts.append(context)
        starts.append(blocks.copy())
        n += row["emitted"]
    pair = writer(512), writer_drafters(512)[name]
    logits = slow.both_models(*pair, np.array(contexts), np.array(starts), BLOCK_LEN)
    p, q = (np.asarray(x, np.float64) for x in logits)
    overlaps = []
    for i, row in enumerate(rows):
        at = range(starts[i][-1], starts[i][-1] + row["drafted"])
        overlaps.append(
            np.array(
                [np.sum(np.minimum(slow.warped(p[i, t], **HOW), slow.warped(q[i, t], **HOW))) for t in at]
            )
        )
    return overlaps


@pytest.mark.parametrize(
    "name",
    ["plain", *(pytest.param(n, marks=pytest.mark.slow) for n in TRAINED[1:])],
)
def test_acceptance_is_one_minus_the_total_variation(name):
    text, rows, summary = sampled(name)
    expected = teacher_forced(name, text, rows)
    surprise, variance = 0.0, 0.0
    for row, acceptance_prob in zip(rows, expected, strict=True):
        np.testing.assert_allclose(row["acceptance_prob"], acceptance_prob, atol=ROUNDING)
        # Of the drafts that were judged, each is kept with probability β.
        for i in range(min(row["accepted"] + 1, row["drafted"])):
            surprise += (row["accepted"] > i) - acceptance_prob[i]
            variance += acceptance_prob[i] * (1 - acceptance_prob[i])
    assert variance > 10 and 0 < summary["accepted"] < summary["drafted"]
    assert abs(surprise) < 4 * variance**0.5
