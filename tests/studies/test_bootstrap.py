"""Intervals: their coverage is as stated, and the bootstrap compares models on the same documents."""

import numpy as np
import pytest

from studies.bootstrap import bootstrap
from tandem_edu.errors import BadInput


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def test_it_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        units = np.stack([rng.exponential(size=60), np.ones(60)], axis=1)
        low, high = bootstrap(mean, units, resamples=400, seed=seed)[1:]
        hits += low <= 1.0 <= high
    assert 0.87 <= hits / 200 <= 0.99  # 95 % nominal; the percentile bootstrap is a little short at 60


def test_a_long_document_counts_by_its_tokens():
    units = np.array([[90.0, 100.0], [0.0, 10.0]])
    assert bootstrap(mean, units).value == pytest.approx(90 / 110)


def test_two_models_are_compared_on_the_same_documents():
    level = np.random.default_rng(1).uniform(0.2, 0.8, 30)  # documents differ much, the models by a tenth
    units = np.stack([level, 1.1 * level], axis=1)
    assert bootstrap(lambda sums: sums[..., 1] / sums[..., 0], units)[1:] == pytest.approx((1.1, 1.1))


def test_one_document_has_no_interval():
    with pytest.raises(BadInput, match="at least two units"):
        bootstrap(mean, np.ones((1, 2)))
