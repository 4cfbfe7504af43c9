"""The exercises: model solutions agree with the library, wrong answers lose points and get a hint."""

import sys
import warnings
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest
from refusal import refuses

from tandem_edu.classroom import EXERCISES, Case, Exercise, check, exercises, scores
from tandem_edu.decode.verify import next_distribution
from tandem_edu.measure import tokens_per_call, tokens_per_call_iid, wall_clock_factor
from tandem_edu.measure.roofline import Hardware, read_time
from tandem_edu.model.masks import block_starts, tandem_masks
from tandem_edu.train.losses import LOSSES

SOLUTIONS = {name: exercise.solution for name, exercise in EXERCISES.items()}
RNG = np.random.default_rng(0)


def distributions(*shape):
    return RNG.dirichlet(np.full(shape[-1], 0.5), shape[:-1]).astype(np.float32)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(exercises, "_best", Counter())


def test_solutions_are_the_librarys():
    chip = Hardware("any", 3e11, 2e10, 2)
    for tokens in (1, 10, 200):
        assert SOLUTIONS["read_time"](5e6, tokens, 3e11, 2e10, 2) == read_time(chip, 5e6, tokens)
    for block_len, offset in [(1, 0), (3, 0), (4, 2), (5, 4)]:
        starts = [SOLUTIONS["block_start"](i, block_len, offset) for i in range(20)]
        assert starts == block_starts(20, block_len, offset).tolist()
    own, primary = tandem_masks(block_starts(9, 3))
    for i, t in np.ndindex(9, 9):
        whose = SOLUTIONS["whose_keys"](i, t, 3)
        assert (bool(own[i, t]), bool(primary[i, t])) == (whose == "secondary", whose == "primary")
    p, q = distributions(6), distributions(6)
    log_p, log_q = jnp.log(p)[None], jnp.log(q)[None]
    inputs = log_q, jnp.array([2]), log_p
    distance = float(LOSSES["tv"](*inputs)[0])
    assert SOLUTIONS["total_variation"](p, q) == pytest.approx(distance, abs=1e-5)
    loss = float(LOSSES["ce"](*inputs)[0] + 0.5 * LOSSES["kl"](*inputs)[0])
    assert SOLUTIONS["distillation_loss"](np.log(p), np.log(q), 2, 0.5) == pytest.approx(loss, abs=1e-4)
    assert SOLUTIONS["tokens_per_call"]([0.9, 0.5]) == pytest.approx(tokens_per_call([0.9, 0.5]))


@pytest.mark.parametrize("seed", range(5))
def test_verification_is_the_librarys(seed):
    rng = np.random.default_rng(seed)
    p, q = distributions(4, 5), distributions(3, 5)
    drafts, u = rng.integers(0, 5, 3), rng.uniform(size=3).astype(np.float32)
    count = SOLUTIONS["count_accepted"](drafts, q, p, u)
    accepted = u * q[np.arange(3), drafts] < p[np.arange(3), drafts]
    assert count == int(np.argmin([*accepted, False]))
    reference = next_distribution(jnp.asarray(p), jnp.asarray(q), jnp.int32(1), jnp.int32(3))
    np.testing.assert_allclose(SOLUTIONS["residual"](p[1], q[1]), reference, rtol=1e-4, atol=1e-6)


def test_the_best_block_is_the_fastest():
    rng = np.random.default_rng(1)
    for _ in range(50):
        alpha, cost, verify = rng.uniform(0.1, 0.95), rng.uniform(0, 0.3), np.sort(rng.uniform(1, 3, 8))
        tokens = [tokens_per_call_iid(alpha, g) for g in range(1, 9)]
        speeds = [wall_clock_factor(n, g, cost, verify[g - 1]) for g, n in enumerate(tokens, 1)]
        assert speeds[SOLUTIONS["best_block_len"](alpha, cost, verify) - 1] == pytest.approx(max(speeds))


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_earns_all_points_and_a_constant_never_does(name):
    assert check(name, SOLUTIONS[name]).points == check(name, SOLUTIONS[name]).out_of
    wanted = {str(SOLUTIONS[name](*case.arguments)) for case in EXERCISES[name].cases}
    assert len(wanted) >= 2
    for case in EXERCISES[name].cases:
        constant = SOLUTIONS[name](*case.arguments)
        report = check(name, lambda *_, constant=constant: constant)
        assert report.points < report.out_of


def residual_by(left):
    """A `residual` that is correct where p = q, and elsewhere `left(p, q)`."""
    return lambda p, q: left(p, q) if np.any(p > q) else p


def fastest(factor):
    """A `best_block_len` that takes the speedup to be `factor(α, tokens, c, v, γ)`."""

    def best(alpha, c, costs):
        expected = lambda g: tokens_per_call_iid(alpha, g)
        return 1 + np.argmax([factor(alpha, expected(g), c, v, g) for g, v in enumerate(costs, 1)])

    return best


def each_accepted(drafts, q, p, u):
    return [u[i] * q[i][x] < p[i][x] for i, x in enumerate(drafts)]


WRONG = {
    "read_time": [lambda n, tokens, peak, bandwidth, size: n * size / bandwidth + 2 * n * tokens / peak],
    "block_start": [
        lambda i, n, offset: i // n * n,
        lambda i, n, offset: 0 if i < offset else SOLUTIONS["block_start"](i, n, offset),
    ],
    "whose_keys": [
        lambda i, t, n: "primary" if t // n < i // n else "secondary",
        lambda i, t, n: SOLUTIONS["whose_keys"](i, t, 4),
    ],
    "total_variation": [lambda p, q: 1 - np.minimum(p, q).sum() ** 2, lambda p, q: np.abs(p - q).max()],
    "distillation_loss": [
        lambda teacher, logits, target, weight: (
            np.log(np.exp(logits).sum()) - logits[target] if weight == 0 else np.nan
        )
    ],
    "residual": [
        lambda p, q: np.maximum(p - q, 0),
        residual_by(lambda p, q: np.eye(len(p))[np.argmax(p - q)]),
        residual_by(lambda p, q: np.maximum(p - q, 0) / max((p - q).max(), 1e-9)),
        residual_by(lambda p, q: np.where(p > q, p, 0) / p[p > q].sum()),
    ],
    "count_accepted": [
        lambda *given: sum(each_accepted(*given)),  # counts past the first rejection
        lambda *given: len(given[0]) * all(each_accepted(*given)),
        lambda drafts, q, p, u: SOLUTIONS["count_accepted"](drafts, [q[0]] * len(u), [p[0]] * len(u), u),
    ],
    "tokens_per_call": [lambda acceptance: 1 + sum(acceptance)],
    "best_block_len": [
        fastest(lambda alpha, tokens, c, v, g: tokens / v),
        fastest(lambda alpha, tokens, c, v, g: tokens / (v + c)),
        fastest(lambda alpha, tokens, c, v, g: tokens / (1 + g * c)),
        fastest(lambda alpha, tokens, c, v, g: tokens / (v + (g + 1) * c)),
        fastest(lambda alpha, tokens, c, v, g: (tokens - 1) / (v + g * c)),
        fastest(lambda alpha, tokens, c, v, g: (1 + alpha * g) / (v + g * c)),
    ],
    "draft_length": [
        lambda sure, threshold: sum(c >= threshold for c in sure),
        lambda sure, threshold: max((i for i, c in enumerate(sure, 1) if c < threshold), default=len(sure)),
    ],
    "standalone_speedup": [
        lambda speed, gamma, free: gamma / (1 + gamma / speed),
        lambda speed, gamma, free: (gamma + 1) / (1 + gamma / speed),
        lambda speed, gamma, free: (gamma + free) / (1 + (gamma + free) / speed),
        lambda speed, gamma, free: (gamma + free) / (1 + gamma * speed),
    ],
}


@pytest.mark.parametrize(("name", "answer"), [(name, one) for name in EXERCISES for one in WRONG[name]])
def test_a_likely_mistake_loses_points_and_gets_a_hint(name, answer):
    report = check(name, answer)
    assert 0 <= report.points < report.out_of
    assert all(case.hint in str(report) for case, message in report.results if message)


class Odd:
    def __array__(self, *_, **__):
        raise RuntimeError("not a number")


ODD = [None, "0.4", Odd(), [[1], [1, 2]], np.full(3, 0.4), 1j, np.complex64(1j), 10**400]


@pytest.mark.parametrize(
    "answer", [lambda p, q: sys.exit(1), lambda p, q: p, *(lambda p, q, x=value: x for value in ODD)]
)
def test_checking_continues_whatever_an_answer_returns_or_raises(answer, capsys):
    report = check("total_variation", answer)
    assert report.points == 0 and len(report.results) == 3
    assert "expected" in str(report) and capsys.readouterr().err == ""


def test_an_answers_faults_are_named_and_without_effect_on_the_cases(capsys):
    def loud(p, q):
        warnings.warn("careful", stacklevel=1)
        print("overflow", file=sys.stderr)  # nbgrader gives no points for a cell that writes there
        return np.abs(p - q).sum() / 2

    def raises(p, q):
        raise RuntimeError("no")

    def overwrites(p, q):
        p[:] = 0
        return 0.4

    assert "it raised RuntimeError('no')" in str(check("total_variation", raises))
    assert check("total_variation", overwrites).points == 1
    assert check("total_variation", loud).points == 3 and capsys.readouterr().err == ""
    assert "is the return missing" in str(check("residual", lambda p, q: None))
    assert "got 'x'" in str(check("residual", lambda p, q: "x"))
    assert check("whose_keys", lambda *_: None).points == 1
    assert check("residual", lambda p, q: jnp.asarray(SOLUTIONS["residual"](p, q))).points == 4


def test_bad_input():
    refuses("an exercise among read_time", check, "nothing", len)
    refuses(r"a function for residual, got ndarray: write `def residual", check, "residual", np.ones(3))


def test_the_best_attempt_counts():
    points = []
    for answer in (WRONG["residual"][0], SOLUTIONS["residual"], WRONG["residual"][0]):
        check("residual", answer)
        (row,) = (row for row in scores() if row["exercise"] == "residual")
        points.append(row["points"])
    assert points[0] < points[1] == points[2] == row["out of"] == 4
    assert scores()[0] == {"exercise": "read_time", "points": 0, "out of": 3}


def test_a_class_can_bring_exercises_of_its_own():
    def double(x):
        """Twice x."""
        return 2 * x

    exercise = Exercise(double, (Case("a number", (3,), "x + x", points=5),))
    assert exercise.task == "Twice x."
    report = exercise.check(lambda x: x + x)
    assert (report.points, report.out_of) == (5, 5)
