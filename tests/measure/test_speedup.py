"""The formulas against simulation and against each other."""

import numpy as np
import pytest

from tandem_edu.errors import BadInput
from tandem_edu.measure import spread, tokens_per_call, tokens_per_call_iid, wall_clock_factor


@pytest.mark.parametrize("acceptance", [[0.9, 0.5, 0.2], [1.0, 1.0], [0.0, 0.7], []])
def test_tokens_per_call_is_the_mean_of_simulated_cycles(acceptance):
    rng, cycles = np.random.default_rng(0), 100_000
    accepted = np.cumprod(rng.random((cycles, len(acceptance))) < np.array(acceptance), axis=1).sum(1)
    emitted = 1 + accepted
    error = 5 * emitted.std() / cycles**0.5
    assert abs(tokens_per_call(acceptance) - emitted.mean()) <= error


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("block_len", [0, 1, 5])
def test_equal_rates_give_the_closed_form(alpha, block_len):
    closed = (1 - alpha ** (block_len + 1)) / (1 - alpha)
    assert tokens_per_call_iid(alpha, block_len) == pytest.approx(closed)


def test_all_accepted_is_the_block_and_one():
    assert tokens_per_call_iid(1.0, 4) == 5.0


def test_no_drafts_is_the_primary_alone():
    assert wall_clock_factor(tokens_per_call([]), 0, draft_cost=0.1, verify_cost=1.0) == 1.0


def test_spread_is_median_and_quartiles():
    assert spread(np.arange(9.0)) == (4.0, 2.0, 6.0)


@pytest.mark.parametrize("bad", [[1.2], [-0.1], [float("nan")]])
def test_rates_are_shares(bad):
    with pytest.raises(BadInput, match=r"acceptance rates in \[0, 1\]"):
        tokens_per_call(bad)


def test_costs_that_cannot_be():
    with pytest.raises(BadInput, match="block_len"):
        tokens_per_call_iid(0.5, -1)
    with pytest.raises(BadInput, match="costs in units of one decoding step"):
        wall_clock_factor(2.0, 4, draft_cost=0.1, verify_cost=0.0)
