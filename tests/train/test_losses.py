"""The losses against float64 NumPy, their gradients, and what an objective adds up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tandem_edu.errors import BadInput
from tandem_edu.train import Objective, cross_entropy, kl_divergence
from tandem_edu.train.losses import token_losses

SHAPE = (3, 5, 11)


def draw(seed, scale=3.0):
    """Teacher logits, logits, targets."""
    rng = np.random.default_rng(seed)
    p, q = (rng.normal(size=SHAPE).astype(np.float32) * np.float32(scale) for _ in range(2))
    return p, q, rng.integers(0, SHAPE[-1], SHAPE[:-1]).astype(np.int32)


def softmax(logits):
    x = logits.astype(np.float64)
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def slow_cross_entropy(logits, targets):
    q = softmax(logits)
    losses = [-np.log(q[place][targets[place]]) for place in np.ndindex(*targets.shape)]
    return sum(losses) / len(losses)


def slow_kl(teacher, logits):
    p, q = softmax(teacher), softmax(logits)
    return (p * np.log(p / q)).sum(-1).mean()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [0.1, 3.0, 10.0])
def test_against_float64(seed, scale):
    p, q, targets = draw(seed, scale)
    assert float(cross_entropy(jnp.asarray(q), jnp.asarray(targets))) == pytest.approx(
        slow_cross_entropy(q, targets), rel=2e-6, abs=1e-6
    )
    assert float(kl_divergence(jnp.asarray(p), jnp.asarray(q))) == pytest.approx(
        slow_kl(p, q), rel=2e-6, abs=1e-6
    )


def test_known_values():
    logits, targets = jnp.zeros((4, 8)), jnp.arange(4)
    assert float(cross_entropy(logits, targets)) == pytest.approx(np.log(8), rel=1e-6)
    p, q, _ = draw(0)
    assert float(kl_divergence(jnp.asarray(p), jnp.asarray(p))) == 0.0
    assert float(kl_divergence(jnp.asarray(p), jnp.asarray(p + 5))) == pytest.approx(0, abs=1e-5)
    assert float(kl_divergence(jnp.asarray(p), jnp.asarray(q))) > 0


def test_a_shift_of_the_logits_and_huge_logits_do_no_harm():
    _, q, targets = draw(1)
    plain = cross_entropy(jnp.asarray(q), jnp.asarray(targets))
    assert float(cross_entropy(jnp.asarray(q + 100), jnp.asarray(targets))) == pytest.approx(
        float(plain), rel=1e-5
    )
    huge = jnp.array([[1e4, 0.0, -1e4]])
    assert float(cross_entropy(huge, jnp.array([1]))) == 1e4
    assert float(kl_divergence(huge, jnp.array([[0.0, 1e4, 0.0]]))) == 1e4


def test_one_sequence_and_batches_agree():
    p, q, targets = (jnp.asarray(x) for x in draw(2))
    rows = [cross_entropy(q[i], targets[i]) for i in range(3)]
    assert float(cross_entropy(q, targets)) == pytest.approx(float(sum(rows) / 3), rel=1e-6)
    assert token_losses(q, targets).shape == targets.shape
    rows = [kl_divergence(p[i], q[i]) for i in range(3)]
    assert float(kl_divergence(p, q)) == pytest.approx(float(sum(rows) / 3), rel=1e-6)


def test_the_gradients_are_the_textbook_ones():
    """d CE / d logits = (q - onehot) / n and d KL / d logits = (q - p) / n."""
    p, q, targets = draw(3)
    n = targets.size
    gradient = jax.grad(cross_entropy)(jnp.asarray(q), jnp.asarray(targets))
    onehot = np.eye(SHAPE[-1])[targets]
    np.testing.assert_allclose(gradient, (softmax(q) - onehot) / n, atol=1e-7)
    gradient = jax.grad(kl_divergence, argnums=1)(jnp.asarray(p), jnp.asarray(q))
    np.testing.assert_allclose(gradient, (softmax(q) - softmax(p)) / n, atol=1e-7)


def test_the_gradients_against_finite_differences():
    p, q, targets = draw(4, scale=1.0)
    rng = np.random.default_rng(0)
    direction, eps = rng.normal(size=SHAPE), 1e-5
    for ours, slow in (
        (lambda x: cross_entropy(x, jnp.asarray(targets)), lambda x: slow_cross_entropy(x, targets)),
        (lambda x: kl_divergence(jnp.asarray(p), x), lambda x: slow_kl(p, x)),
    ):
        high, low = (slow(q.astype(np.float64) + sign * eps * direction) for sign in (1, -1))
        slope = np.vdot(np.asarray(jax.grad(ours)(jnp.asarray(q)), np.float64), direction)
        assert slope == pytest.approx((high - low) / (2 * eps), rel=1e-4, abs=1e-6)


def test_an_objective_is_the_weighted_sum():
    p, q, targets = (jnp.asarray(x) for x in draw(5))
    ce, kl = float(cross_entropy(q, targets)), float(kl_divergence(p, q))
    assert float(Objective()(q, targets)) == pytest.approx(ce, rel=1e-6)
    assert float(Objective(ce=1.0, kl=0.5)(q, targets, p)) == pytest.approx(ce + 0.5 * kl, rel=1e-6)
    assert float(Objective(ce=0.0, kl=2.0)(q, targets, p)) == pytest.approx(2 * kl, rel=1e-6)
    assert float(Objective(ce=0.25)(q, targets, p)) == pytest.approx(0.25 * ce, rel=1e-6)


@pytest.mark.parametrize(("ce", "kl"), [(0.0, 0.0), (-1.0, 1.0), (1.0, -0.5), (float("nan"), 1.0)])
def test_bad_weights(ce, kl):
    with pytest.raises(BadInput, match="weights of at least 0"):
        Objective(ce=ce, kl=kl)


def test_distillation_needs_a_teacher():
    _, q, targets = (jnp.asarray(x) for x in draw(6))
    with pytest.raises(BadInput, match="teacher_logits"):
        Objective(kl=0.5)(q, targets)
