"""The losses against float64 NumPy, their gradients, and what an objective adds up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusal import refuses
from scipy.special import softmax

from tandem_edu.train import LOSSES, Objective

SHAPE = (3, 5, 11)


def draw(seed, scale=3.0):
    """Teacher logits, logits, targets."""
    rng = np.random.default_rng(seed)
    p, q = (rng.normal(size=SHAPE).astype(np.float32) * np.float32(scale) for _ in range(2))
    return p, q, rng.integers(0, SHAPE[-1], SHAPE[:-1]).astype(np.int32)


def mean(name, teacher, logits, targets=None):
    """The loss that is tested, as a mean over positions."""
    return jnp.mean(LOSSES[name](jnp.asarray(logits), targets, jnp.asarray(teacher)))


def slope(name, teacher, logits, targets=None):
    return jax.grad(lambda x: mean(name, teacher, x, targets))(jnp.asarray(logits))


def slow(name, teacher, logits, targets=None):
    """The formulas of the table in float64."""
    p, q = (softmax(np.float64(x), axis=-1) for x in (teacher, logits))
    if name == "ce":
        return -np.mean([np.log(q[index][targets[index]]) for index in np.ndindex(*targets.shape)])
    at_each = {
        "kl": (p * np.log(p / q)).sum(-1),
        "reverse_kl": (q * np.log(q / p)).sum(-1),
        "tv": np.abs(p - q).sum(-1) / 2,
        "nla": -np.log(np.minimum(p, q).sum(-1)),
    }
    return at_each[name].mean()


def check_against_float64(name, seed, scale):
    p, q, targets = draw(seed, scale)
    expected = slow(name, p, q, targets)
    assert float(mean(name, p, q, targets)) == pytest.approx(expected, rel=2e-6, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [0.1, 3.0, 10.0])
def test_against_float64(seed, scale):
    for name in LOSSES:
        check_against_float64(name, seed, scale)


CORRECT = dict(LOSSES)
WRONG = {
    "ce": lambda q, t, p: jax.nn.logsumexp(q, axis=-1),
    "kl": CORRECT["reverse_kl"],
    "reverse_kl": CORRECT["kl"],
    "tv": lambda *inputs: 2 * CORRECT["tv"](*inputs),
    "nla": lambda q, t, p: -jnp.log(jnp.minimum(jax.nn.softmax(p), jax.nn.softmax(q)).sum(-1)),
}


@pytest.mark.parametrize("name", ["ce", "kl", "reverse_kl", "tv"])
def test_a_wrong_formula_is_noticed(name, monkeypatch):
    monkeypatch.setitem(LOSSES, name, WRONG[name])
    with pytest.raises(AssertionError):
        check_against_float64(name, 0, 3.0)


@pytest.mark.parametrize("name", ["kl", "reverse_kl", "tv", "nla"])
def test_zero_and_flat_where_the_two_are_alike(name):
    p, q, _ = draw(0)
    assert float(mean(name, p, p)) == pytest.approx(0, abs=1e-6)
    if name in ("kl", "reverse_kl"):  # the other two have a kink there, where rounding decides
        np.testing.assert_allclose(slope(name, p, p), 0, atol=1e-7)
    assert float(mean(name, p, p + 5)) == pytest.approx(0, abs=1e-5)
    assert float(mean(name, p, q)) > 0.1


def check_extremes(name, expected):
    """Teacher and model are sure of different tokens: α is too small for a float."""
    teacher, logits = jnp.array([[1e4, 0.0, -1e4]]), jnp.array([[-1e4, 1e4, 0.0]])
    assert float(mean(name, teacher, logits)) == expected
    assert np.isfinite(slope(name, teacher, logits)).all()
    rng = np.random.default_rng(0)
    for _ in range(20):
        teacher, logits = rng.choice([-1e4, 0, 1e4], (2, *SHAPE)).astype(np.float32)
        assert np.isfinite(mean(name, teacher, logits)) and np.isfinite(slope(name, teacher, logits)).all()


# log p = (0, -1e4, -2e4) and log q = (-2e4, 0, -1e4), so that the largest of their minima is -1e4.
@pytest.mark.parametrize(("name", "expected"), [("kl", 2e4), ("reverse_kl", 1e4), ("tv", 1.0), ("nla", 1e4)])
def test_extreme_logits_give_finite_values_and_gradients(name, expected):
    check_extremes(name, expected)


def test_the_textbook_acceptance_does_not_survive_extreme_logits(monkeypatch):
    monkeypatch.setitem(LOSSES, "nla", WRONG["nla"])
    check_against_float64("nla", 0, 3.0)
    with pytest.raises(AssertionError):
        check_extremes("nla", 1e4)
    huge = jnp.array([[1e4, 0.0, -1e4]])
    assert float(mean("ce", huge, huge, jnp.array([1]))) == 1e4
    # And where nothing overlaps, total variation is flat and -log α is not.
    both = jnp.array([[50.0, 0.0, 0.0]]), jnp.array([[0.0, 50.0, 0.0]])
    steep = slope("nla", *both)
    assert np.abs(slope("tv", *both)).max() < 1e-20
    assert steep[0, 0] < -0.1 and steep[0, 1] > 0.1


def test_the_gradients_are_the_textbook_ones():
    """At each position, times their number."""
    p, q, targets = draw(3)
    teacher, model = (softmax(np.float64(x), axis=-1) for x in (p, q))
    surplus = lambda x: model * (x - (model * x).sum(-1, keepdims=True))
    variation = surplus(np.sign(model - teacher)) / 2
    expected = {
        "ce": model - np.eye(SHAPE[-1])[targets],
        "kl": model - teacher,
        "reverse_kl": surplus(np.log(model / teacher)),
        "tv": variation,
        "nla": variation / np.minimum(teacher, model).sum(-1, keepdims=True),
    }
    for name in LOSSES:
        gradient = slope(name, p, q, targets) * targets.size
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-5, atol=2e-6, err_msg=name)


def test_an_objective_is_the_weighted_sum_of_what_has_a_weight(monkeypatch):
    p, q, targets = draw(5)
    model, truth, teacher = map(jnp.asarray, (q, targets, p))
    assert float(Objective()(model, truth)) == pytest.approx(slow("ce", p, q, targets), rel=1e-5)
    weights = {"ce": 3.0, "kl": 0.5, "reverse_kl": 0.25, "tv": 2.0, "nla": 4.0}
    assert all(Objective(**{name: weight}).distils == (name != "ce") for name, weight in weights.items())
    for chosen in (weights, {"ce": 1.0, "kl": 0.5}, {"ce": 0.0, "nla": 2.0}):
        total = sum(weight * slow(name, p, q, targets) for name, weight in chosen.items())
        with monkeypatch.context() as patch:
            for name in LOSSES.keys() - {name for name, weight in chosen.items() if weight}:
                patch.delitem(LOSSES, name)
            assert float(Objective(**chosen)(model, truth, teacher)) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("bad", [-0.5, float("nan"), float("inf")])
@pytest.mark.parametrize("name", LOSSES)
def test_bad_weights(name, bad):
    refuses(rf"weights of at least 0.*{name}={bad}", Objective, **{name: bad})
    refuses("not all 0", Objective, ce=0.0)
