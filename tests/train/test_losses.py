"""The losses against float64 NumPy, their gradients, and what an objective adds up."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tandem_edu.errors import BadInput
from tandem_edu.train import (
    Objective,
    Recipe,
    cross_entropy,
    kl_divergence,
    losses,
    negative_log_acceptance,
    reverse_kl_divergence,
    total_variation,
)
from tandem_edu.train.losses import token_losses
from tandem_edu.train.step import init_state, predict, split, train_step

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


def slow_reverse_kl(teacher, logits):
    p, q = softmax(teacher), softmax(logits)
    return (q * np.log(q / p)).sum(-1).mean()


def slow_tv(teacher, logits):
    return (np.abs(softmax(teacher) - softmax(logits)).sum(-1) / 2).mean()


def slow_nla(teacher, logits):
    return -np.log(np.minimum(softmax(teacher), softmax(logits)).sum(-1)).mean()


# By the name of the weight: ours and the slow one, both of (teacher logits, logits).
DIVERGENCES = {
    "kl": (kl_divergence, slow_kl),
    "reverse_kl": (reverse_kl_divergence, slow_reverse_kl),
    "tv": (total_variation, slow_tv),
    "nla": (negative_log_acceptance, slow_nla),
}
OTHERS = ("kl", "reverse_kl", "tv")
each_divergence = pytest.mark.parametrize("name", DIVERGENCES)


def check_against_float64(name, seed, scale):
    p, q, _ = draw(seed, scale)
    ours, slow = DIVERGENCES[name]
    assert float(ours(jnp.asarray(p), jnp.asarray(q))) == pytest.approx(slow(p, q), rel=2e-6, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [0.1, 3.0, 10.0])
def test_against_float64(seed, scale):
    _, q, targets = draw(seed, scale)
    assert float(cross_entropy(jnp.asarray(q), jnp.asarray(targets))) == pytest.approx(
        slow_cross_entropy(q, targets), rel=2e-6, abs=1e-6
    )
    for name in DIVERGENCES:
        check_against_float64(name, seed, scale)


WRONG = {
    "kl": lambda log_p, log_q: jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1),
    "reverse_kl": lambda log_p, log_q: jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1),
    "tv": lambda log_p, log_q: jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)), axis=-1),
    "nla": lambda log_p, log_q: -jnp.log(jnp.sum(jnp.minimum(jnp.exp(log_p), jnp.exp(log_q)), axis=-1)),
}


@pytest.mark.parametrize("name", OTHERS)  # nla's wrong one is right where α is not too small
def test_a_wrong_formula_is_noticed(name, monkeypatch):
    monkeypatch.setitem(losses._DIVERGENCES, name, WRONG[name])
    with pytest.raises(AssertionError):
        check_against_float64(name, 0, 3.0)


def test_known_values():
    logits, targets = jnp.zeros((4, 8)), jnp.arange(4)
    assert float(cross_entropy(logits, targets)) == pytest.approx(np.log(8), rel=1e-6)


@each_divergence
def test_zero_and_flat_where_the_two_are_alike(name):
    p, q, _ = (jnp.asarray(x) for x in draw(0))
    ours, _ = DIVERGENCES[name]
    value, gradient = jax.value_and_grad(ours, argnums=1)(p, p)
    assert float(value) == pytest.approx(0, abs=1e-6)
    if name in ("kl", "reverse_kl"):  # the other two have a kink there: rounding decides on a side
        np.testing.assert_allclose(gradient, 0, atol=1e-7)
    assert float(ours(p, p + 5)) == pytest.approx(0, abs=1e-5)
    assert float(ours(p, q)) > 0.1


@pytest.mark.parametrize("scale", [0.1, 3.0, 10.0, 1000.0])
def test_acceptance_is_what_total_variation_leaves(scale):
    """TV in [0, 1]; α = 1 - TV at a position; over positions mean(-log α) ≥ -log(mean α), by Jensen."""
    p, q, _ = (jnp.asarray(x) for x in draw(7, scale))
    variation, surprise = float(total_variation(p, q)), float(negative_log_acceptance(p, q))
    assert 0 <= variation <= 1 + 1e-6
    assert surprise >= -np.log1p(-min(variation, 1 - 1e-7)) - 1e-6
    for place in np.ndindex(SHAPE[:-1]):
        alone = p[place][None], q[place][None]
        share = np.exp(-float(negative_log_acceptance(*alone)))
        assert share == pytest.approx(1 - float(total_variation(*alone)), abs=1e-6)


def test_a_shift_of_the_logits_and_huge_logits_do_no_harm():
    _, q, targets = draw(1)
    plain = cross_entropy(jnp.asarray(q), jnp.asarray(targets))
    assert float(cross_entropy(jnp.asarray(q + 100), jnp.asarray(targets))) == pytest.approx(
        float(plain), rel=1e-5
    )
    huge = jnp.array([[1e4, 0.0, -1e4]])
    assert float(cross_entropy(huge, jnp.array([1]))) == 1e4
    assert float(kl_divergence(huge, jnp.array([[0.0, 1e4, 0.0]]))) == 1e4


def check_extremes(name, expected):
    """Teacher and model sure of different tokens: no acceptance_prob that a float could hold."""
    teacher, logits = jnp.array([[1e4, 0.0, -1e4]]), jnp.array([[-1e4, 1e4, 0.0]])
    value, gradient = jax.value_and_grad(DIVERGENCES[name][0], argnums=1)(teacher, logits)
    assert float(value) == expected
    assert np.isfinite(gradient).all()
    rng = np.random.default_rng(0)
    for _ in range(20):
        teacher, logits = (jnp.asarray(rng.choice([-1e4, 0, 1e4], SHAPE), jnp.float32) for _ in range(2))
        value, gradient = jax.value_and_grad(DIVERGENCES[name][0], argnums=1)(teacher, logits)
        assert np.isfinite(value) and np.isfinite(gradient).all()


# log p = (0, -1e4, -2e4) and log q = (-2e4, 0, -1e4), so that the largest of their minima is -1e4.
@pytest.mark.parametrize(("name", "expected"), [("kl", 2e4), ("reverse_kl", 1e4), ("tv", 1.0), ("nla", 1e4)])
def test_extreme_logits_give_finite_values_and_gradients(name, expected):
    check_extremes(name, expected)


def test_the_textbook_acceptance_does_not_survive_extreme_logits(monkeypatch):
    monkeypatch.setitem(losses._DIVERGENCES, "nla", WRONG["nla"])
    check_against_float64("nla", 0, 3.0)
    with pytest.raises(AssertionError):
        check_extremes("nla", 1e4)


def test_where_nothing_overlaps_total_variation_is_flat_and_acceptance_is_not():
    both = jnp.array([[50.0, 0.0, 0.0]]), jnp.array([[0.0, 50.0, 0.0]])
    flat, steep = (jax.grad(DIVERGENCES[name][0], argnums=1)(*both) for name in ("tv", "nla"))
    assert np.abs(flat).max() < 1e-20
    assert steep[0, 0] < -0.1 and steep[0, 1] > 0.1


def test_one_sequence_and_batches_agree():
    p, q, targets = (jnp.asarray(x) for x in draw(2))
    rows = [cross_entropy(q[i], targets[i]) for i in range(3)]
    assert float(cross_entropy(q, targets)) == pytest.approx(float(sum(rows) / 3), rel=1e-6)
    assert token_losses(q, targets).shape == targets.shape
    for ours, _ in DIVERGENCES.values():
        rows = [ours(p[i], q[i]) for i in range(3)]
        assert float(ours(p, q)) == pytest.approx(float(sum(rows) / 3), rel=1e-6)


def test_the_gradients_are_the_textbook_ones():
    """At each of n positions, with s = sign(q - p) and α = Σ min(p, q):

    | loss | gradient · n |
    |---|---|
    | CE | q - onehot |
    | KL(p ‖ q) | q - p |
    | KL(q ‖ p) | q · (log(q/p) - KL(q ‖ p)) |
    | TV | q · (s - Σ q s) / 2 |
    | -log α | that of TV / α |
    """
    p, q, targets = draw(3)
    n = targets.size
    gradient = jax.grad(cross_entropy)(jnp.asarray(q), jnp.asarray(targets))
    onehot = np.eye(SHAPE[-1])[targets]
    np.testing.assert_allclose(gradient, (softmax(q) - onehot) / n, atol=1e-7)
    teacher, model = softmax(p), softmax(q)
    surplus = lambda x: model * (x - (model * x).sum(-1, keepdims=True))
    variation = surplus(np.sign(model - teacher)) / 2
    expected = {
        "kl": model - teacher,
        "reverse_kl": surplus(np.log(model / teacher)),
        "tv": variation,
        "nla": variation / np.minimum(teacher, model).sum(-1, keepdims=True),
    }
    for name, (ours, _) in DIVERGENCES.items():
        gradient = jax.grad(ours, argnums=1)(jnp.asarray(p), jnp.asarray(q))
        np.testing.assert_allclose(gradient, expected[name] / n, rtol=1e-5, atol=1e-7, err_msg=name)


def test_the_gradients_against_finite_differences():
    p, q, targets = draw(4, scale=1.0)
    rng = np.random.default_rng(0)
    direction, eps = rng.normal(size=SHAPE), 1e-5
    for ours, slow in (
        (lambda x: cross_entropy(x, jnp.asarray(targets)), lambda x: slow_cross_entropy(x, targets)),
        *((partial(ours, jnp.asarray(p)), partial(slow, p)) for ours, slow in DIVERGENCES.values()),
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
    weights = {"kl": 0.5, "reverse_kl": 0.25, "tv": 2.0, "nla": 4.0}
    total = 3 * ce + sum(weights[name] * float(ours(p, q)) for name, (ours, _) in DIVERGENCES.items())
    assert float(Objective(ce=3.0, **weights)(q, targets, p)) == pytest.approx(total, rel=1e-6)


def test_only_what_has_a_weight_is_computed_and_each_softmax_once(monkeypatch):
    p, q, targets = (jnp.asarray(x) for x in draw(5))
    taken, log_softmax = [], jax.nn.log_softmax
    monkeypatch.setattr(losses.jax.nn, "log_softmax", lambda x: taken.append(1) or log_softmax(x))
    Objective(ce=1.0, kl=1.0, reverse_kl=1.0, tv=1.0, nla=1.0)(q, targets, p)
    assert len(taken) == 2
    Objective()(q, targets, p)
    assert len(taken) == 2
    for name in ("reverse_kl", "tv", "nla"):
        monkeypatch.delitem(losses._DIVERGENCES, name)
    monkeypatch.delattr(losses, "cross_entropy")
    Objective(ce=0.0, kl=1.0)(q, targets, p)
    with pytest.raises(NameError):
        Objective(ce=0.1, kl=1.0)(q, targets, p)


@pytest.mark.parametrize("bad", [-0.5, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["ce", *DIVERGENCES])
def test_bad_weights(name, bad):
    with pytest.raises(BadInput, match=rf"weights of at least 0.*{name}={bad}"):
        Objective(**{name: bad})


def test_no_weight_at_all():
    with pytest.raises(BadInput, match="not all 0"):
        Objective(ce=0.0)


@each_divergence
def test_distillation_needs_a_teacher(name):
    _, q, targets = (jnp.asarray(x) for x in draw(6))
    assert Objective(**{name: 0.5}).distils and not Objective().distils
    with pytest.raises(BadInput, match=f"teacher_logits for {name},"):
        Objective(**{name: 0.5})(q, targets)


@pytest.mark.parametrize("name", ["nla", *(pytest.param(x, marks=pytest.mark.slow) for x in OTHERS)])
def test_a_tandems_step_lowers_the_loss_it_is_given(name, tiny_tandem, tiny_primary):
    objective = Objective(**{"ce": 0.0, name: 1.0})
    sizes = {"steps": 9, "learning_rate": 1e-2, "warmup_steps": 0, "batch_size": 2, "seq_len": 8}
    recipe = Recipe("", **sizes, objectives=((1.0, objective),), block_lens=(2,), random_offsets=False)
    batch = jax.random.randint(jax.random.key(0), (2, 9), 0, 13)

    @eqx.filter_jit
    def first_loss(tandem, primary):
        teacher, hidden = primary(batch[:, :-1], return_hidden=True)
        logits = predict(tandem, primary, batch[:, :-1], hidden, (jnp.int32(2), jnp.int32(0)))
        return DIVERGENCES[name][0](teacher, logits)

    state, seen = init_state(tiny_tandem, recipe), []
    for _ in range(3):
        given = ((split(tiny_tandem)[1],), tiny_primary, batch)
        (state,), (loss,) = train_step(given, (state,), (recipe,), (objective,))
        seen.append(float(loss))
    assert seen[0] == pytest.approx(float(first_loss(tiny_tandem, tiny_primary)), rel=1e-5)
    assert seen[0] > seen[1] > seen[2]
