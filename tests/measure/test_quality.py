"""Quality against a loop over positions in float64."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from refusal import refuses
from scipy.special import softmax

from tandem_edu.drafters import Tandem
from tandem_edu.measure import qualities, quality
from tandem_edu.model import Transformer
from tandem_edu.train.evaluation import token_scores

WINDOWS = np.random.default_rng(1).integers(0, 13, (11, 8)).astype(np.int32)
"""Eleven, so that they need two batches and do not fill the second."""
read, forced = eqx.filter_jit(Transformer.__call__), eqx.filter_jit(Tandem.__call__)


def slow_scores(model, window, primary):
    tokens, targets = jnp.asarray(window[:-1]), window[1:]
    reference, hidden = read(primary, tokens, return_hidden=True)
    logits = read(model, tokens) if isinstance(model, Transformer) else forced(model, tokens, hidden, 2)
    q_rows, p_rows = (softmax(oracle.f64(x), axis=-1) for x in (logits, reference))
    for q, t, p in zip(q_rows, targets, p_rows, strict=True):
        best, distance = np.argmax(q), 0.5 * np.sum(np.abs(p - q))
        yield [-np.log(q[t]), best == t, best == np.argmax(p), distance]


@pytest.mark.parametrize("kind", ["secondary", "tandem"])
def test_equals_the_loop(kind, tiny_primary, tiny_secondary, tiny_tandem):
    model = {"secondary": tiny_secondary, "tandem": tiny_tandem}[kind]
    expected = np.array([list(slow_scores(model, window, tiny_primary)) for window in WINDOWS])
    scores = token_scores({"": model}, WINDOWS, tiny_primary, 2)[""]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    tokens, *means = quality(model, WINDOWS, tiny_primary, block_len=2)
    assert tokens == 77
    np.testing.assert_allclose(means, expected.mean((0, 1)), rtol=1e-4)


def test_several_are_measured_as_one_by_one(tiny_primary, tiny_secondary, tiny_tandem):
    models = {"secondary": tiny_secondary, "tandem": tiny_tandem, "primary": tiny_primary}
    results = qualities(models, WINDOWS, tiny_primary, block_len=3)
    assert list(results) == list(models)
    for name, model in models.items():
        assert results[name] == quality(model, WINDOWS, tiny_primary, block_len=3)
    each = qualities(models, WINDOWS, tiny_primary, {"secondary": 1, "tandem": 3, "primary": 1})
    assert each == results


def test_a_model_agrees_with_itself(tiny_primary):
    measured = quality(tiny_primary, WINDOWS, tiny_primary)
    assert measured.agreement == 1.0
    assert measured.total_variation == pytest.approx(0.0, abs=1e-6)
    assert quality(tiny_primary, WINDOWS).agreement is None


def test_bad_input(tiny_primary, tiny_tandem):
    for message, model, given in (
        ("a primary for the Tandem", tiny_tandem, WINDOWS),
        ("at least one window", tiny_primary, WINDOWS[:0]),
        (r"ids of a vocabulary of 13, got \d\.\.13", tiny_primary, WINDOWS + 1),
        ("seq_len of at most max_len = 64, got 65", tiny_primary, np.zeros((1, 66), np.int32)),
    ):
        refuses(message, quality, model, given)
