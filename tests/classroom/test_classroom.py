"""The exercises: model solutions agree with the library, wrong answers lose points and say why."""

import sys
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from tandem_edu.classroom import EXERCISES, Case, Exercise, check, exercises, standing
from tandem_edu.decode.verify import next_distribution
from tandem_edu.errors import BadInput
from tandem_edu.measure import tokens_per_call, tokens_per_call_iid, wall_clock_factor
from tandem_edu.measure.roofline import Hardware, read_time
from tandem_edu.model.masks import block_starts, tandem_masks
from tandem_edu.train.losses import cross_entropy, kl_divergence, total_variation

SOLUTIONS = {name: exercise.solution for name, exercise in EXERCISES.items()}
RNG = np.random.default_rng(0)


def distributions(*shape):
    return RNG.dirichlet(np.full(shape[-1], 0.5), shape[:-1]).astype(np.float32)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(exercises, "_best", {})


def test_solutions_are_the_librarys():
    chip = Hardware("any", 3e11, 2e10, 2)
    for tokens in (1, 10, 200):
        assert SOLUTIONS["read_time"](5e6, tokens, 3e11, 2e10, 2) == read_time(chip, 5e6, tokens)
    for block_len, offset in [(1, 0), (3, 0), (4, 2), (5, 4)]:
        starts = [SOLUTIONS["block_start"](i, block_len, offset) for i in range(20)]
        assert starts == block_starts(20, block_len, offset).tolist()
    own, primary = tandem_masks(block_starts(9, 3))
    for i, t in np.ndindex(9, 9):
        seen = {"secondary": bool(own[i, t]), "primary": bool(primary[i, t])}
        assert [who for who, sees in seen.items() if sees] == [
            w for w in [SOLUTIONS["whose_keys"](i, t, 3)] if w
        ]
    p, q = distributions(6), distributions(6)
    log_p, log_q = jnp.log(p), jnp.log(q)
    theirs = float(total_variation(log_p[None], log_q[None]))
    assert SOLUTIONS["total_variation"](p, q) == pytest.approx(theirs, abs=1e-5)
    loss = cross_entropy(log_q[None], jnp.array([2])) + 0.5 * kl_divergence(log_p[None], log_q[None])
    assert SOLUTIONS["distillation_loss"](np.log(p), np.log(q), 2, 0.5) == pytest.approx(
        float(loss), abs=1e-4
    )
    assert SOLUTIONS["tokens_per_call"]([0.9, 0.5]) == pytest.approx(tokens_per_call([0.9, 0.5]))


@pytest.mark.parametrize("seed", range(5))
def test_verification_is_the_librarys(seed):
    rng = np.random.default_rng(seed)
    p, q = distributions(4, 5), distributions(3, 5)
    drafts, u = rng.integers(0, 5, 3), rng.uniform(size=3).astype(np.float32)
    kept = SOLUTIONS["drafts_kept"](drafts, q, p, u)
    accepted = u * q[np.arange(3), drafts] < p[np.arange(3), drafts]
    assert kept == int(np.argmin([*accepted, False]))
    theirs = next_distribution(jnp.asarray(p), jnp.asarray(q), jnp.int32(1), jnp.int32(3))
    np.testing.assert_allclose(SOLUTIONS["residual"](p[1], q[1]), theirs, rtol=1e-4, atol=1e-6)


def test_the_best_block_is_the_fastest():
    rng = np.random.default_rng(1)
    for _ in range(50):
        alpha, cost, verify = rng.uniform(0.1, 0.95), rng.uniform(0, 0.3), np.sort(rng.uniform(1, 3, 8))
        speeds = [
            wall_clock_factor(tokens_per_call_iid(alpha, g), g, cost, verify[g - 1]) for g in range(1, 9)
        ]
        assert speeds[SOLUTIONS["best_block_len"](alpha, cost, verify) - 1] == pytest.approx(max(speeds))


@pytest.mark.parametrize("name", EXERCISES)
def test_a_right_answer_earns_all_points_and_a_constant_never_does(name):
    assert check(name, SOLUTIONS[name]).points == check(name, SOLUTIONS[name]).out_of
    wanted = {str(SOLUTIONS[name](*case.arguments)) for case in EXERCISES[name].cases}
    assert len(wanted) >= 2
    for case in EXERCISES[name].cases:
        constant = SOLUTIONS[name](*case.arguments)
        report = check(name, lambda *_, constant=constant: constant)
        assert report.points < report.out_of


WRONG = {
    "read_time": lambda n, tokens, peak, bandwidth, size: n * size / bandwidth + 2 * n * tokens / peak,
    "block_start": lambda i, block_len, offset: i // block_len * block_len,
    "whose_keys": lambda i, t, block_len: "primary" if t // block_len < i // block_len else "secondary",
    "total_variation": lambda p, q: 1 - np.minimum(p, q).sum() ** 2,
    "distillation_loss": lambda teacher, logits, target, weight: (
        np.log(np.exp(logits).sum()) - logits[target] if weight == 0 else np.nan
    ),
    "residual": lambda p, q: np.maximum(p - q, 0),
    "drafts_kept": lambda drafts, q, p, u: sum(
        u[i] * q[i][x] < p[i][x] for i, x in enumerate(drafts)
    ),  # counts past the first rejection
    "tokens_per_call": lambda acceptance: 1 + sum(acceptance),
    "best_block_len": lambda alpha, draft_cost, verify_cost: len(verify_cost),
    "draft_length": lambda confidence, threshold: sum(c >= threshold for c in confidence),
}


@pytest.mark.parametrize("name", EXERCISES)
def test_a_likely_mistake_loses_points_and_gets_a_hint(name):
    report = check(name, WRONG[name])
    assert 0 <= report.points < report.out_of
    failed = [case for case, fine, _ in report.findings if not fine]
    assert all(case.hint in str(report) for case in failed)


def one_hot(left):
    return np.eye(len(left))[np.argmax(left)]


def fastest(factor):
    """A `best_block_len` that takes the speedup to be `factor(alpha, c, v, γ)`."""
    return lambda alpha, c, costs: (
        1 + int(np.argmax([factor(alpha, c, v, gamma) for gamma, v in enumerate(costs, 1)]))
    )


SUBTLE = [
    ("best_block_len", fastest(lambda alpha, c, v, g: tokens_per_call_iid(alpha, g) / v)),
    ("best_block_len", fastest(lambda alpha, c, v, g: tokens_per_call_iid(alpha, g) / (v + c))),
    ("best_block_len", fastest(lambda alpha, c, v, g: tokens_per_call_iid(alpha, g) / (1 + g * c))),
    ("best_block_len", fastest(lambda alpha, c, v, g: tokens_per_call_iid(alpha, g) / (v + (g + 1) * c))),
    ("best_block_len", fastest(lambda alpha, c, v, g: (tokens_per_call_iid(alpha, g) - 1) / (v + g * c))),
    ("best_block_len", fastest(lambda alpha, c, v, g: (1 + alpha * g) / (v + g * c))),
    ("total_variation", lambda p, q: np.abs(p - q).max()),
    ("residual", lambda p, q: one_hot(p - q) if np.any(p > q) else p),
    ("residual", lambda p, q: np.maximum(p - q, 0) / max((p - q).max(), 1e-9) if np.any(p > q) else p),
    ("residual", lambda p, q: np.where(p > q, p, 0) / p[p > q].sum() if np.any(p > q) else p),
    (
        "drafts_kept",
        lambda drafts, q, p, u: (
            len(drafts) if all(u[i] * q[i][x] < p[i][x] for i, x in enumerate(drafts)) else 0
        ),
    ),
    (
        "drafts_kept",
        lambda drafts, q, p, u: SOLUTIONS["drafts_kept"](drafts, [q[0]] * len(u), [p[0]] * len(u), u),
    ),
    ("whose_keys", lambda i, t, block_len: SOLUTIONS["whose_keys"](i, t, 4)),
    (
        "draft_length",
        lambda sure, least: max((i for i, s in enumerate(sure, 1) if s < least), default=len(sure)),
    ),
    ("block_start", lambda i, n, offset: 0 if i < offset else SOLUTIONS["block_start"](i, n, offset)),
]


@pytest.mark.parametrize(("name", "answer"), SUBTLE)
def test_an_answer_that_is_right_by_luck_does_not_earn_all_points(name, answer):
    """Likely mistakes, of which some were once given all of them."""
    assert check(name, answer).points < check(name, answer).out_of


def test_whatever_an_answer_does_it_is_judged():
    def raises(p, q):
        raise RuntimeError("<b>no</b>")

    def spoils(p, q):
        p[:] = 0
        return 0.4

    class Odd:
        def __array__(self, *_, **__):
            raise TypeError("odd")

    assert "it raised RuntimeError('<b>no</b>')" in str(check("total_variation", raises))
    html = check("total_variation", raises)._repr_html_()
    assert "<b>no</b>" not in html and "&lt;b&gt;no" in html
    assert check("total_variation", spoils).points == 1
    assert check("total_variation", SOLUTIONS["total_variation"]).points == 3  # the cases were not spoilt
    for value in (None, "0.4", Odd(), [[1], [1, 2]], np.full(3, 0.4), 1j):
        assert check("total_variation", lambda p, q, value=value: value).points == 0
    assert check("total_variation", lambda p: p).points == 0
    assert "is the return missing" in str(check("residual", lambda p, q: None))
    assert "(shapes (4,) and ())" in str(check("residual", lambda p, q: 1.0))
    assert check("whose_keys", lambda *_: None).points == 1
    assert check("residual", lambda p, q: jnp.asarray(SOLUTIONS["residual"](p, q))).points == 4


def test_bad_input():
    with pytest.raises(BadInput, match="an exercise among read_time"):
        check("nothing", len)
    with pytest.raises(BadInput, match=r"a function for residual, got ndarray: write `def residual"):
        check("residual", np.ones(3))


class NoNumber:
    def __array__(self, *_, **__):
        raise RuntimeError("not a number")


@pytest.mark.parametrize(
    "answer",
    [lambda p, q: 10**400, lambda p, q: NoNumber(), lambda p, q: np.complex64(1j), lambda *_: sys.exit(1)],
)
def test_whatever_an_answer_is_judging_goes_on(answer, capsys):
    report = check("total_variation", answer)
    assert report.points == 0 and len(report.findings) == 3
    assert "expected" in str(report) and capsys.readouterr().err == ""


def test_an_answers_warnings_are_kept_from_stderr(capsys):
    """nbgrader takes a cell's points for any word there."""

    def loud(p, q):
        warnings.warn("careful", stacklevel=1)
        print("overflow", file=sys.stderr)
        return np.abs(p - q).sum() / 2

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = check("total_variation", loud)
    assert report.points == report.out_of
    assert capsys.readouterr().err == ""


def test_the_best_attempt_stands():
    check("residual", WRONG["residual"])
    first = next(row for row in standing() if row["exercise"] == "residual")["points"]
    check("residual", SOLUTIONS["residual"])
    check("residual", WRONG["residual"])
    best = next(row for row in standing() if row["exercise"] == "residual")
    assert first < best["points"] == best["out of"] == 4


def test_a_class_can_bring_exercises_of_its_own():
    def double(x):
        """Twice x."""
        return 2 * x

    mine = Exercise(double, (Case("a number", (3,), "x + x", points=5),))
    assert mine.asks == "Twice x."
    report = mine.judge(lambda x: x + x)
    assert (report.points, report.out_of) == (5, 5)
