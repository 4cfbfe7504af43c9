"""The formulas against a simulation and against each other."""

import numpy as np
import pytest
from refusal import refuses

from tandem_edu.measure import share_interval, tokens_per_call, tokens_per_call_iid, wall_clock_factor


@pytest.mark.parametrize("acceptance", [[0.9, 0.5, 0.2], [1.0, 1.0], [0.0, 0.7], []])
def test_tokens_per_call_is_the_mean_of_simulated_cycles(acceptance):
    rng, cycles = np.random.default_rng(0), 100_000
    accepted = np.cumprod(rng.random((cycles, len(acceptance))) < np.array(acceptance), axis=1).sum(1)
    error = 5 * accepted.std() / cycles**0.5
    assert abs(tokens_per_call(acceptance) - 1 - accepted.mean()) <= error


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("block_len", [0, 1, 5])
def test_equal_rates_give_the_closed_form(alpha, block_len):
    closed = (1 - alpha ** (block_len + 1)) / (1 - alpha)
    assert tokens_per_call_iid(alpha, block_len) == pytest.approx(closed)
    assert tokens_per_call_iid(1.0, block_len) == block_len + 1


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_the_interval_of_a_share_covers_it(share):
    counts = np.random.default_rng(0).binomial(40, share, 2000)
    intervals = [share_interval(count / 40, 40) for count in counts]
    assert 0.92 <= np.mean([low <= share <= high for _, low, high in intervals]) <= 0.98


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tokens_per_call([1.2]), r"acceptance rates in \[0, 1\]"),
        (lambda: tokens_per_call([-0.1]), r"acceptance rates in \[0, 1\]"),
        (lambda: tokens_per_call([float("nan")]), r"acceptance rates in \[0, 1\]"),
        (lambda: tokens_per_call_iid(0.5, -1), "block_len"),
        (lambda: wall_clock_factor(2.0, 4, 0.1, 0.0), "costs in units of one decoding step"),
    ],
)
def test_impossible_rates_and_costs(call, message):
    refuses(message, call)
