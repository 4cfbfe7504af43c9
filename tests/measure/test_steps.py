"""What is timed is what it says: steps that decode. No time is asserted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tandem_edu.errors import BadInput
from tandem_edu.measure import Stepping, ratio_rows, readable, short_set, size_in_bytes, summing, timed


@pytest.mark.parametrize("width", [1, 5])
def test_a_loop_of_steps_is_those_steps_one_by_one(tiny_primary, width):
    stepping = Stepping(tiny_primary, width, length=20, capacity=40)
    block, cache = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), stepping.carry)
    for step in range(4):
        logits, cache = tiny_primary.extend(block, cache.with_length(20 + step))
        block = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    np.testing.assert_array_equal(stepping.run(4), block)


def test_a_tandems_steps_are_those_one_by_one(tiny_tandem):
    stepping = Stepping(tiny_tandem, length=20, capacity=40)
    token, cache = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), stepping.carry)
    for _ in range(4):
        logits, cache = tiny_tandem.extend(token, cache)
        token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    np.testing.assert_array_equal(stepping.run(4), token)


def test_more_steps_than_the_cache_has_room_for(tiny_primary):
    stepping = Stepping(tiny_primary, length=20, capacity=24)
    stepping.run(50)
    assert 20 <= int(stepping.carry[1].length) <= 24


def test_steps_that_do_not_fit(tiny_primary):
    with pytest.raises(BadInput, match="length and width within the capacity"):
        Stepping(tiny_primary, width=5, length=20, capacity=24)


def test_the_loop_is_there_to_be_read(tiny_primary):
    text = Stepping(tiny_primary, length=20, capacity=40).compiled_text(4)
    assert "while(" in text
    assert "f32[2,40,4]" in text  # the cache


def test_a_sum_reads_what_it_is_told_to():
    work = summing(2048 * 3, times=4)
    np.testing.assert_array_equal(work.run(), np.full(3, 4 * 512.0))
    assert work.units == 4


def test_bytes_of_a_model(tiny_primary):
    n = sum(leaf.size for leaf in jax.tree.leaves(tiny_primary))
    assert size_in_bytes(tiny_primary) == 4 * n


def test_the_short_set_has_a_row_each(tiny_primary, tiny_tandem):
    work, against = short_set(tiny_primary, {"tandem": tiny_tandem}, [1, 2, 3], new=8, capacity=40)
    rows = ratio_rows(*timed(work, repetitions=2), against)
    assert [row["what"] for row in rows] == list(work)
    assert {row["what"]: row["against"] for row in rows if "against" in row} == against
    assert len(readable(rows)) == len(rows)
    np.testing.assert_array_equal(work["speculation, tandem"].run(), work["primary alone, 8 tokens"].run())
