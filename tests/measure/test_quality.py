"""Quality against a loop over positions in float64."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from tandem_edu.drafters import Tandem
from tandem_edu.errors import BadInput
from tandem_edu.measure import qualities, quality
from tandem_edu.model import Transformer

read, forced = eqx.filter_jit(Transformer.__call__), eqx.filter_jit(Tandem.__call__)


@pytest.fixture(scope="module")
def windows():
    """Eleven, so that they need two batches and do not fill the second."""
    return np.random.default_rng(1).integers(0, 13, (11, 8)).astype(np.int32)


def softmax(x):
    e = np.exp(oracle.f64(x) - np.max(x))
    return e / e.sum()


def slow_quality(model, windows, primary):
    scores = []
    for window in windows:
        tokens, targets = jnp.asarray(window[:-1]), window[1:]
        reference, hidden = read(primary, tokens, return_hidden=True)
        logits = read(model, tokens) if isinstance(model, Transformer) else forced(model, tokens, hidden, 2)
        for q, t, p in zip(map(softmax, logits), targets, map(softmax, reference), strict=True):
            best, distance = np.argmax(q), 0.5 * np.sum(np.abs(p - q))
            scores.append([-np.log(q[t]), best == t, best == np.argmax(p), distance])
    return np.mean(scores, axis=0)


@pytest.mark.parametrize("kind", ["secondary", "tandem"])
def test_equals_the_loop(kind, windows, tiny_primary, tiny_secondary, tiny_tandem):
    model = {"secondary": tiny_secondary, "tandem": tiny_tandem}[kind]
    tokens, *means = quality(model, windows, tiny_primary, block_len=2)
    assert tokens == 77
    np.testing.assert_allclose(means, slow_quality(model, windows, tiny_primary), rtol=1e-4)


def test_several_are_measured_as_one_by_one(windows, tiny_primary, tiny_secondary, tiny_tandem):
    models = {"secondary": tiny_secondary, "tandem": tiny_tandem, "primary": tiny_primary}
    results = qualities(models, windows, tiny_primary, block_len=3)
    assert list(results) == list(models)
    for name, model in models.items():
        assert results[name] == quality(model, windows, tiny_primary, block_len=3)


def test_a_model_agrees_with_itself(windows, tiny_primary):
    measured = quality(tiny_primary, windows, tiny_primary)
    assert measured.agreement == 1.0
    assert measured.total_variation == pytest.approx(0.0, abs=1e-6)
    assert quality(tiny_primary, windows).agreement is None


def test_bad_input(windows, tiny_primary, tiny_tandem, tiny_config):
    def other(**changes):
        return Transformer(dataclasses.replace(tiny_config, **changes), key=jax.random.key(0))

    for message, model, given, primary in (
        ("a primary for the Tandem", tiny_tandem, windows, None),
        ("n_layers=3 for this tandem, got n_layers=4", tiny_tandem, windows, other(n_layers=4)),
        ("at least one window", tiny_primary, windows[:0], None),
        (
            r"ids of a vocabulary of 13, got \d\.\.13",
            tiny_primary,
            windows + 1,
            None,
        ),
        ("seq_len of at most max_len = 64, got 65", tiny_primary, np.zeros((1, 66), np.int32), None),
        ("same vocabulary", tiny_primary, windows, other(vocab_size=14)),
    ):
        with pytest.raises(BadInput, match=message):
            quality(model, given, primary)
