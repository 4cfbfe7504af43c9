"""Quality against a loop over positions in float64."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from tandem_edu.errors import BadInput
from tandem_edu.measure import qualities, quality
from tandem_edu.model import Joint, Tandem, Transformer, TransformerConfig


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


@pytest.fixture(scope="module")
def windows():
    return np.random.default_rng(1).integers(0, 13, (5, 8)).astype(np.int32)


def slow(logits, targets, reference):
    hits = surprise = agreed = distance = 0.0
    for q, t, p in zip(logits, targets, reference, strict=True):
        q, p = softmax(oracle.f64(q)), softmax(oracle.f64(p))
        hits += np.argmax(q) == t
        surprise -= np.log(q[t])
        agreed += np.argmax(q) == np.argmax(p)
        distance += 0.5 * np.sum(np.abs(p - q))
    return np.array([hits, surprise, agreed, distance])


read = eqx.filter_jit(Transformer.__call__)
forced = eqx.filter_jit(Tandem.__call__)


def slow_quality(model, windows, primary):
    sums = np.zeros(4)
    for window in windows:
        tokens, targets = jnp.asarray(window[:-1]), window[1:]
        reference, hidden = read(primary, tokens, return_hidden=True)
        logits = read(model, tokens) if isinstance(model, Transformer) else forced(model, tokens, hidden, 2)
        sums += slow(logits, targets, reference)
    return sums / windows[:, 1:].size


@pytest.mark.parametrize("kind", ["secondary", "tandem"])
def test_equals_the_loop(kind, windows, tiny_primary, tiny_secondary, tiny_tandem):
    model = {"secondary": tiny_secondary, "tandem": tiny_tandem}[kind]
    measured = quality(model, windows, tiny_primary, block_len=2, batch_size=2)
    assert measured.tokens == 35
    figures = (
        measured.accuracy,
        measured.cross_entropy,
        measured.agreement,
        measured.total_variation,
    )
    np.testing.assert_allclose(figures, slow_quality(model, windows, tiny_primary), rtol=1e-4)


def test_several_are_measured_as_one_by_one(windows, tiny_primary, tiny_secondary, tiny_tandem):
    models = {"secondary": tiny_secondary, "tandem": tiny_tandem, "primary": tiny_primary}
    found = qualities(models, windows, tiny_primary, block_len=3, batch_size=2)
    assert list(found) == list(models)
    for name, model in models.items():
        assert found[name] == quality(model, windows, tiny_primary, block_len=3, batch_size=2)


def test_a_joint_model_reads_its_own_primary(windows, tiny_primary, tiny_tandem):
    joint = Joint(tiny_primary, tiny_tandem)
    expected = quality(tiny_tandem, windows, tiny_primary)
    assert quality(joint, windows, tiny_primary).agreement == expected.agreement
    alone = quality(joint, windows)
    assert alone.cross_entropy == pytest.approx(expected.cross_entropy) and alone.agreement is None


def test_a_model_is_its_own_best_drafter(windows, tiny_primary):
    measured = quality(tiny_primary, windows, tiny_primary)
    assert measured.agreement == 1.0
    assert measured.total_variation == pytest.approx(0.0, abs=1e-6)


def test_without_a_primary_there_is_nothing_to_agree_with(windows, tiny_primary):
    assert quality(tiny_primary, windows).agreement is None


def test_bad_input(windows, tiny_primary, tiny_tandem, tiny_config):
    with pytest.raises(BadInput, match="the Tandem with its primary"):
        quality(tiny_tandem, windows)
    deeper = Transformer(dataclasses.replace(tiny_config, n_layers=4), key=jax.random.key(0))
    with pytest.raises(BadInput, match="the Tandem's own primary"):
        quality(tiny_tandem, windows, deeper)
    with pytest.raises(BadInput, match="at least one window"):
        quality(tiny_primary, windows[:0])
    with pytest.raises(BadInput, match=r"ids of a vocabulary of 13, got \d\.\.13"):
        quality(tiny_primary, np.where(windows == 12, 13, windows))
    with pytest.raises(BadInput, match="seq_len of at most max_len = 64, got 65"):
        quality(tiny_primary, np.zeros((1, 66), np.int32))

    other = Transformer(
        TransformerConfig.from_dict({**tiny_config.to_dict(), "vocab_size": 14}), key=jax.random.key(0)
    )
    with pytest.raises(BadInput, match="same vocabulary"):
        quality(tiny_primary, windows, other)
