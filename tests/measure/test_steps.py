"""The steps that are timed are steps of decoding. No time is asserted."""

import jax.numpy as jnp
import numpy as np
import pytest
from refusal import refuses

from tandem_edu.decode import generate
from tandem_edu.errors import BadInput
from tandem_edu.measure import draft_steps, read_steps


@pytest.mark.parametrize("width", [1, 5])
def test_a_loop_of_steps_is_those_steps_one_by_one(tiny_primary, width):
    work = read_steps(tiny_primary, width, length=20, capacity=40, steps=7)
    assert work.units == 7
    tokens = jnp.arange(20, dtype=jnp.int32) % tiny_primary.config.vocab_size
    _, cache = tiny_primary.prefill(tokens, 20, 40)
    block = jnp.arange(width, dtype=jnp.int32)
    for step in range(7):  # 16 tokens fit at the lengths 20 to 24
        logits, _, cache = tiny_primary.extend(block, cache.with_length(20 + step % 5))
        block = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    np.testing.assert_array_equal(work.run(), block)


def test_a_transformer_as_drafter_drafts_its_own_text(tiny_primary, tiny_secondary):
    work = draft_steps(tiny_primary, tiny_secondary, length=20, capacity=24)
    text = generate(tiny_secondary, [*(np.arange(20) % 13), 1], 4).tokens
    assert work.units == 4
    np.testing.assert_array_equal(work.run(), text[-1])


def test_a_tandems_steps_can_be_timed(tiny_primary, tiny_tandem):
    assert 0 <= int(draft_steps(tiny_primary, tiny_tandem, length=20, capacity=40).run()) < 13


def test_steps_that_do_not_fit(tiny_primary, tiny_secondary):
    refuses("length and width within the capacity", read_steps, tiny_primary, width=5, length=20, capacity=24)
    with pytest.raises(BadInput, match="length and width within the capacity"):
        draft_steps(tiny_primary, tiny_secondary, length=20, capacity=20)
