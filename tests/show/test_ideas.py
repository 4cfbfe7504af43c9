"""Pictures of ideas: the numbers in them are the formulas'."""

import jax.numpy as jnp
import pytest

from tandem_edu.decode import Trace
from tandem_edu.errors import BadInput
from tandem_edu.measure.roofline import PRESETS, Hardware, read_time, ridge
from tandem_edu.measure.timeline import timeline
from tandem_edu.show import ideas

CHIP = Hardware("round numbers", peak=1e12, bandwidth=1e11, bytes_per_weight=4)


def test_the_roofline_bends_at_its_ridge():
    assert ridge(CHIP) == 20
    assert read_time(CHIP, 1e9, 1) == read_time(CHIP, 1e9, 20) == 0.04
    assert read_time(CHIP, 1e9, 40) == 2 * read_time(CHIP, 1e9, 20)
    assert all(1 < ridge(chip) < 1000 for chip in PRESETS)
    with pytest.raises(BadInput, match="tokens above 0"):
        read_time(CHIP, 1e9, 0)


def test_a_timeline_adds_up():
    cycles = [jnp.array(x, jnp.int32) for x in ([3, 0, 0], [2, 0, 0], [3, 1, 0])]
    blank = jnp.zeros((3, 4))
    trace = Trace(jnp.int32(2), *cycles, jnp.full((3, 4), -1, jnp.int32), blank, blank)
    spans = timeline(trace, draft_cost=0.25, verify_cost=1.5)
    assert [(s.who, s.start, s.end, s.tokens) for s in spans] == [
        ("drafter", 0, 0.75, 0),
        ("primary", 0.75, 2.25, 3),
        ("primary", 2.25, 3.75, 1),
    ]
    alt = ideas.timelines({"tandem": spans, "nothing": []}).alt
    assert "tandem: 4 tokens in 3.8 steps" in alt and "nothing: 0 tokens" in alt


def test_the_mask_in_words():
    alt = ideas.block_mask(8, 3, 1, token=5).alt
    assert "Token 5 attends to the primary's representation of tokens 0 to 3 and" in alt
    assert "and to the secondary's own of tokens 4 to 5." in alt
    assert "representation of no token and" in ideas.block_mask(4, 2, 0, token=0).alt


def test_the_best_block_length_is_the_formulas():
    # α = 0.5, c = 0.5: (1 + α) / (1 + c) = 1 at γ = 1, and less for a larger γ.
    assert "best at γ = 1 with speedup 1.00" in ideas.speedup_curve(0.5, 0.5, 1.0).alt
