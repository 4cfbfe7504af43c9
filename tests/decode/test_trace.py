"""The trace: its counts, its measures by hand, and its Σ min(p, q) against teacher-forced passes."""

import json
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow_decoder
from noisy_models import ROUNDING, TRAINED, slow, writer, writer_drafters

from tandem_edu.decode import Sampling, Trace, speculate
from tandem_edu.decode.trace import summarise
from tandem_edu.model.masks import block_starts

PROMPT, BLOCK_LEN = [5, 40, 3], 4
# No top-k: where its boundary is a tie within rounding, two passes may keep different tokens.
SAMPLED = {"temperature": 0.8}


def by_hand(drafted, accepted, emitted) -> Trace:
    """A trace of these cycles, with an empty entry after them as the real ones have."""
    columns = [jnp.array([*column, 0], jnp.int32) for column in (drafted, accepted, emitted)]
    entries = len(drafted) + 1
    ids, blank = jnp.full((entries, 8), -1, jnp.int32), jnp.zeros((entries, 8))
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


def test_positions_without_drafts_have_no_rate():
    assert by_hand([3, 3], [0, 1], [1, 2]).summary()["acceptance_by_position"] == [1 / 2, 0.0, None]
    # The second cycle emits its one accepted draft, the stop token: the draft after it was not rejected.
    assert by_hand([2, 2], [2, 1], [3, 1]).summary()["acceptance_by_position"] == [1.0, 1.0]
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
    records = batch.to_records()
    assert [record["row"] for record in records] == [0, 0, 1, 1, 1]
    assert [record["emitted"] for record in records] == [4, 2, 1, 3, 1]


@cache
def sampled(name: str, size: int):
    """A text of 3/4 of `size`, its trace's records and summary."""
    drafter, key = writer_drafters(size)[name], jax.random.key(1)
    out = speculate(writer(size), drafter, PROMPT, size * 3 // 4, BLOCK_LEN, Sampling(**SAMPLED), key)
    return [*PROMPT, *np.asarray(out.tokens).tolist()], out.trace.to_records(), out.trace.summary()


def test_the_records_agree_with_the_text_and_the_summary():
    text, records, summary = sampled("plain", 256)
    assert json.loads(json.dumps(records)) == records
    assert json.loads(json.dumps(summary)) == summary
    n = len(PROMPT)
    for i, record in enumerate(records):
        accepted = record["draft_ids"][: record["accepted"]]
        assert record["cycle"] == i
        assert record["drafted"] == len(record["draft_ids"]) == len(record["acceptance_prob"])
        assert record["drafted"] == min(BLOCK_LEN, len(text) - n - 1)
        assert record["emitted"] == record["accepted"] + 1 <= record["drafted"] + 1
        assert text[n : n + record["accepted"]] == accepted
        n += record["emitted"]
    assert n == len(text) == len(PROMPT) + summary["emitted"]
    for count in ("drafted", "accepted", "emitted"):
        assert summary[count] == sum(record[count] for record in records)
    assert summary["cycles"] == len(records)


def teacher_forced(name: str, size: int, text: list[int], records: list[dict]) -> list[np.ndarray]:
    """Σ_v min(p, q) at every draft of every cycle, from full forward passes of both models."""
    contexts, starts, n = [], [], len(PROMPT)
    blocks = np.asarray(block_starts(size, BLOCK_LEN, n - 1)).copy()
    for record in records:
        # The block of a cycle starts at its pending token, and remains one block for the later cycles.
        blocks[n - 1 :] = n - 1
        context = np.zeros(size, np.int32)
        context[: n + record["drafted"]] = text[:n] + record["draft_ids"]
        contexts.append(context)
        starts.append(blocks.copy())
        n += record["emitted"]
    pair = writer(size), writer_drafters(size)[name]
    logits = slow_decoder.both_models(*pair, np.array(contexts), np.array(starts), BLOCK_LEN)
    p, q = (np.asarray(x, np.float64) for x in logits)

    def acceptance_prob(i: int, t: int) -> float:
        both = (slow_decoder.distribution(logits[i, t], **SAMPLED) for logits in (p, q))
        return np.sum(np.minimum(*both))

    return [
        np.array([acceptance_prob(i, starts[i][-1] + t) for t in range(record["drafted"])])
        for i, record in enumerate(records)
    ]


@pytest.mark.parametrize("name, size", [("plain", 256), *slow(*((name, 512) for name in TRAINED))])
def test_the_acceptance_probability_is_one_minus_the_total_variation(name, size):
    text, records, summary = sampled(name, size)
    expected = teacher_forced(name, size, text, records)
    difference, variance = 0.0, 0.0
    for record, acceptance_prob in zip(records, expected, strict=True):
        np.testing.assert_allclose(record["acceptance_prob"], acceptance_prob, atol=ROUNDING)
        # Of the drafts that were verified, each is accepted with probability β.
        for i in range(min(record["accepted"] + 1, record["drafted"])):
            difference += (record["accepted"] > i) - acceptance_prob[i]
            variance += acceptance_prob[i] * (1 - acceptance_prob[i])
    assert variance > 10 and 0 < summary["accepted"] < summary["drafted"]
    assert abs(difference) < 4 * variance**0.5
