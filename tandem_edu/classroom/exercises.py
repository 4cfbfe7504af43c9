"""The course's exercises: one short function each, from what a notebook has explained.

The model solutions below are the plain ones a student could write; the tests hold them to the library's.
Students see them in this file, as in any textbook with answers at the back: whoever grades should add
cases (`Exercise`) of their own.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tandem_edu.classroom.check import Case, Exercise, Report
from tandem_edu.errors import require


def read_time(weights, tokens, peak, bandwidth, bytes_per_weight):
    """Seconds to read so many tokens at once, by the roofline.

    `peak` is in operations a second, `bandwidth` in bytes a second.
    """
    return max(weights * bytes_per_weight / bandwidth, 2 * weights * tokens / peak)


def block_start(position, block_len, offset):
    """k(i), where the block of `position` starts, if blocks start at offset, offset + block_len, ...

    What is before the offset is cut on the same grid. A block that would start before the text starts at 0.
    """
    return max(0, offset + (position - offset) // block_len * block_len)


def whose_keys(query, key, block_len):
    """Whose key of position `key` the tandem's token `query` attends to, in the paper's form: "primary" or
    "secondary", or None where it may not look.
    """
    if key > query:
        return None
    return "secondary" if key >= query // block_len * block_len else "primary"


def total_variation(p, q):
    """The TV distance of two distributions."""
    return np.abs(p - q).sum() / 2


def distillation_loss(primary_logits, logits, target, weight):
    """Cross-entropy to the target plus weight · KL(primary ‖ model), at one position.

    Logits may be large: subtract the largest before exp.
    """
    log_p, log_q = (x - np.log(np.exp(x - x.max()).sum()) - x.max() for x in (primary_logits, logits))
    return -log_q[target] + weight * (np.exp(log_p) * (log_p - log_q)).sum()


def residual(p, q):
    """The distribution of the token drawn after a rejection; p where p = q."""
    left = np.maximum(p - q, 0)
    return left / left.sum() if left.sum() > 0 else p


def drafts_kept(drafts, q, p, u):
    """How many drafts are kept, if draft x at place i is kept where u[i] < p[i][x] / q[i][x] and all drafts
    before it were.

    Row i of q is what draft i was drawn from, row i of p the primary's distribution there, u[i] uniform in
    [0, 1). There may be more rows than drafts.
    """
    for i, draft in enumerate(drafts):
        if u[i] * q[i][draft] >= p[i][draft]:
            return i
    return len(drafts)


def tokens_per_call(acceptance):
    """Tokens emitted per call of the primary, its own included; `acceptance` holds α_1 .. α_γ, each given
    that its position is reached.
    """
    return 1 + sum(np.prod(acceptance[: k + 1]) for k in range(len(acceptance)))


def best_block_len(alpha, draft_cost, verify_cost):
    """The fastest γ in 1 .. len(verify_cost), where verify_cost[γ - 1] is v(γ) and every draft is accepted
    with probability alpha. draft_cost is c; costs are in decoding steps of the primary.
    """
    speeds = [
        tokens_per_call([alpha] * gamma) / (verify + gamma * draft_cost)
        for gamma, verify in enumerate(verify_cost, 1)
    ]
    return 1 + int(np.argmax(speeds))


def draft_length(confidence, threshold):
    """How many drafts are made, if drafting ends after the first one whose confidence is below the
    threshold, or with the last.
    """
    for i, sure in enumerate(confidence, 1):
        if sure < threshold:
            return i
    return len(confidence)


_P, _Q = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.2, 0.5, 0.2, 0.1])
_R = np.array([0.2, 0.2, 0.5, 0.1])
_ONE, _OTHER = np.array([1.0, 0.0]), np.array([0.0, 1.0])
_LOGITS, _TEACHER = np.array([0.5, -1.0, 2.0]), np.array([1.5, 0.0, 1.0])
_ROWS_P, _ROWS_Q = np.array([_P, _P, _Q]), np.array([_Q, _Q, _P])

EXERCISES: dict[str, Exercise] = {
    exercise.name: exercise
    for exercise in [
        Exercise(
            read_time,
            (
                Case("one token: moving the weights decides", (1e9, 1, 1e12, 1e11, 4), "bytes / bandwidth"),
                Case(
                    "a hundred: computing decides", (1e9, 100, 1e12, 1e11, 4), "2 operations a weight a token"
                ),
                Case(
                    "half the bytes a weight", (1e9, 1, 1e12, 1e11, 2), "bytes = weights · bytes_per_weight"
                ),
            ),
            "01_why_decoding_is_slow",
        ),
        Exercise(
            block_start,
            (
                Case("inside a block", (5, 4, 0), "k(i) = floor(i / γ) · γ"),
                Case("the first of a block", (8, 4, 0), "it starts its own block"),
                Case("blocks that start at 1", (4, 4, 1), "count from the offset, then add it again"),
                Case("a whole block before the offset", (2, 2, 3), "offset - γ starts a block too"),
                Case("before the first whole block", (1, 4, 2), "nothing starts before position 0"),
            ),
            "02_inside_the_tandem",
        ),
        Exercise(
            whose_keys,
            (
                Case("an earlier block", (5, 3, 4), "the primary has read the blocks before"),
                Case("the same block", (6, 4, 4), "the primary has not read this block yet"),
                Case("itself", (4, 4, 4), "t ≤ i includes i"),
                Case("the future", (4, 5, 4), "causal: nobody sees t > i"),
                Case("an earlier block, shorter ones", (7, 5, 2), "k(i) depends on γ"),
            ),
            "02_inside_the_tandem",
        ),
        Exercise(
            total_variation,
            (
                Case("two that acceptance_prob", (_P, _R), "TV = ½ Σ |p - q|"),
                Case("the same twice", (_P, _P), "no distance"),
                Case("nothing in common", (_ONE, _OTHER), "at most 1: mind the ½"),
            ),
            "03_training_a_pair",
        ),
        Exercise(
            distillation_loss,
            (
                Case("cross-entropy alone", (_TEACHER, _LOGITS, 2, 0.0), "-log softmax(logits)[target]"),
                Case("with the paper's weight", (_TEACHER, _LOGITS, 0, 0.5), "KL = Σ p (log p - log q)"),
                Case("the primary itself", (_LOGITS, _LOGITS, 1, 0.5), "KL(p ‖ p) = 0"),
                Case("large logits", (_TEACHER + 1e3, _LOGITS + 1e3, 0, 0.5), "subtract the largest first"),
            ),
            "03_training_a_pair",
        ),
        Exercise(
            residual,
            (
                Case("two that acceptance_prob", (_P, _R), "max(0, p - q), then make it sum to one", 2),
                Case("nothing in common", (_ONE, _OTHER), "all of p is left"),
                Case("no difference", (_P, _P), "nothing is left to divide: give p"),
            ),
            "04_speculative_decoding",
        ),
        Exercise(
            drafts_kept,
            (
                Case(
                    "all likelier to the primary",
                    ([0, 0], _ROWS_Q, _ROWS_P, [0.9, 0.9]),
                    "p ≥ q: always kept",
                ),
                Case(
                    "kept by a small u", ([1, 1], _ROWS_Q, _ROWS_P, [0.5, 0.59]), "keep while u < p(x) / q(x)"
                ),
                Case(
                    "the first goes",
                    ([1, 0], _ROWS_Q, _ROWS_P, [0.7, 0.1]),
                    "what follows a rejection goes too",
                ),
                Case("impossible to the primary", ([3], _ROWS_Q, _ROWS_P, [0.0]), "p(x) = 0: never kept"),
                Case(
                    "the third goes",
                    ([0, 1, 0], _ROWS_Q, _ROWS_P, [0.9, 0.5, 0.5]),
                    "row i belongs to draft i; count up to the first rejection",
                ),
                Case("no drafts", ([], _ROWS_Q, _ROWS_P, []), "nothing to keep"),
            ),
            "04_speculative_decoding",
        ),
        Exercise(
            tokens_per_call,
            (
                Case("all kept", ([1.0, 1.0, 1.0],), "γ + 1 at most"),
                Case("half of them", ([0.5, 0.5],), "1 + α₁ + α₁ α₂"),
                Case(
                    "different at each place",
                    ([0.9, 0.5, 0.25],),
                    "draft k counts if all before it were kept",
                ),
                Case("no drafts", ([],), "the primary's own token is always there"),
            ),
            "05_block_sizes_and_speedups",
        ),
        Exercise(
            best_block_len,
            (
                Case(
                    "good drafts, cheap",
                    (0.8, 0.05, [1.1, 1.2, 1.3, 1.4, 1.5, 1.6]),
                    "tokens / (v(γ) + γ c)",
                    2,
                ),
                Case("dearer drafts", (0.7, 0.15, [1.1, 1.3, 1.5, 1.7, 1.9, 2.1]), "each draft costs c"),
                Case("poor ones", (0.6, 0.2, [1.1, 1.2, 1.3, 1.4, 1.5, 1.6]), "1 + α + ... + α^γ tokens"),
            ),
            "05_block_sizes_and_speedups",
        ),
        Exercise(
            draft_length,
            (
                Case("never unsure", ([0.9, 0.8, 0.9], 0.5), "γ_max ends it"),
                Case("unsure at the second", ([0.9, 0.4, 0.9], 0.5), "the doubtful draft is still sent"),
                Case("two doubts", ([0.9, 0.4, 0.9, 0.3], 0.5), "the first doubt ends it"),
                Case("just sure enough", ([0.5, 0.4], 0.5), "below, not at, the threshold"),
            ),
            "06_adaptive_block_length",
        ),
    ]
}
"""By name, in the order of the course."""

_best: dict[str, Report] = {}
"""Each exercise's best report in this session."""


def check(name: str, answer: Callable[..., Any]) -> Report:
    """Judge `answer`, a function, as the solution of the exercise `name`; the best report is kept.

    Raises `BadInput` for an unknown exercise, or an answer that is no function.

    >>> report = check("total_variation", lambda p, q: abs(p - q).sum())
    >>> print(report)
    total_variation: 1 of 3 points
      wrong  two that acceptance_prob (1 point)
             expected 0.4, got 0.8
             hint: TV = ½ Σ |p - q|
      right  the same twice (1 point)
      wrong  nothing in common (1 point)
             expected 1., got 2.
             hint: at most 1: mind the ½
    """
    names = ", ".join(EXERCISES)
    require(name in EXERCISES, f"an exercise among {names}", repr(name), "check the spelling")
    report = EXERCISES[name].judge(answer)
    if name not in _best or report.points >= _best[name].points:
        _best[name] = report
    return report


def standing() -> list[dict[str, Any]]:
    """A row for each exercise: its points so far in this session, and how many it is worth.

    >>> standing()[0]["exercise"], standing()[0]["out of"]
    ('read_time', 3)
    """
    return [
        {
            "exercise": name,
            "points": _best[name].points if name in _best else 0,
            "out of": sum(case.points for case in exercise.cases),
        }
        for name, exercise in EXERCISES.items()
    ]
