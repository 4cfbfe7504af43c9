"""The course's exercises: one short function each, on what a notebook has explained.

The model solutions are as plain as a student would write them. Students can read them in this file; whoever
grades should add cases (`Exercise`) of their own.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from tandem_edu.classroom.check import Case, Exercise, Report
from tandem_edu.errors import require

EXERCISES: dict[str, Exercise] = {}
"""By name, in the order of the course."""

_best = Counter()  # the most points for each exercise in this session

_P, _Q = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.2, 0.5, 0.2, 0.1])
_R = np.array([0.2, 0.2, 0.5, 0.1])
_ONE, _OTHER = np.array([1.0, 0.0]), np.array([0.0, 1.0])
_LOGITS, _TEACHER = np.array([0.5, -1.0, 2.0]), np.array([1.5, 0.0, 1.0])
_ROWS_P, _ROWS_Q = np.array([_P, _P, _Q]), np.array([_Q, _Q, _P])


def _exercise(notebook: str, *cases: Case) -> Callable[[Callable], Callable]:
    """Add the function below it to `EXERCISES` as the model solution."""

    def add(solution: Callable) -> Callable:
        EXERCISES[solution.__name__] = Exercise(solution, cases, notebook)
        return solution

    return add


@_exercise(
    "01_why_decoding_is_slow",
    Case("one token: memory limits", (1e9, 1, 1e12, 1e11, 4), "bytes / bandwidth"),
    Case("a hundred: compute limits", (1e9, 100, 1e12, 1e11, 4), "2 operations per weight and token"),
    Case("half the bytes per weight", (1e9, 1, 1e12, 1e11, 2), "bytes = weights · bytes_per_weight"),
)
def read_time(weights, tokens, peak, bandwidth, bytes_per_weight):
    """Seconds to read `tokens` tokens in one call, by the roofline.

    `peak` is in operations per second, `bandwidth` in bytes per second.
    """
    return max(weights * bytes_per_weight / bandwidth, 2 * weights * tokens / peak)


@_exercise(
    "02_inside_the_tandem",
    Case("inside a block", (5, 4, 0), "k(i) = floor(i / γ) · γ"),
    Case("the first token of a block", (8, 4, 0), "it starts its own block"),
    Case("blocks that start at 1", (4, 4, 1), "count from the offset, then add it again"),
    Case("a whole block before the offset", (2, 2, 3), "offset - γ starts a block too"),
    Case("before the first whole block", (1, 4, 2), "nothing starts before position 0"),
)
def block_start(position, block_len, offset):
    """k(i), the start of the block that contains `position`. Blocks start at offset, offset + block_len, ...

    Tokens before the offset are divided into blocks in the same way, counting backwards. A block that would
    start before position 0 starts at 0.
    """
    return max(0, offset + (position - offset) // block_len * block_len)


@_exercise(
    "02_inside_the_tandem",
    Case("an earlier block", (5, 3, 4), "the primary has read the earlier blocks"),
    Case("the same block", (6, 4, 4), "the primary has not read this block yet"),
    Case("itself", (4, 4, 4), "t ≤ i includes i"),
    Case("the future", (4, 5, 4), "causal: no token attends to t > i"),
    Case("an earlier block, shorter blocks", (7, 5, 2), "k(i) depends on γ"),
)
def whose_keys(query, key, block_len):
    """Which model's key of token `key` does the tandem's token `query` attend to, in the paper's form?
    Return "primary", "secondary", or None if it cannot attend to that token.
    """
    if key > query:
        return None
    return "secondary" if key >= query // block_len * block_len else "primary"


@_exercise(
    "03_training_a_pair",
    Case("two that overlap", (_P, _R), "TV = ½ Σ |p - q|"),
    Case("two equal ones", (_P, _P), "no distance"),
    Case("nothing in common", (_ONE, _OTHER), "at most 1: remember the ½"),
)
def total_variation(p, q):
    """The TV distance of two distributions."""
    return np.abs(p - q).sum() / 2


@_exercise(
    "03_training_a_pair",
    Case("cross-entropy alone", (_TEACHER, _LOGITS, 2, 0.0), "-log softmax(logits)[target]"),
    Case("with the paper's weight", (_TEACHER, _LOGITS, 0, 0.5), "KL = Σ p (log p - log q)"),
    Case("the primary itself", (_LOGITS, _LOGITS, 1, 0.5), "KL(p ‖ p) = 0"),
    Case("large logits", (_TEACHER + 1e3, _LOGITS + 1e3, 0, 0.5), "subtract the largest first"),
)
def distillation_loss(primary_logits, logits, target, weight):
    """Cross-entropy to the target plus weight · KL(primary ‖ model), at one position.

    Logits may be large: subtract the largest before exp.
    """
    log_p, log_q = (x - np.log(np.exp(x - x.max()).sum()) - x.max() for x in (primary_logits, logits))
    return -log_q[target] + weight * (np.exp(log_p) * (log_p - log_q)).sum()


@_exercise(
    "04_speculative_decoding",
    Case("two that overlap", (_P, _R), "max(0, p - q), scaled to sum to 1", 2),
    Case("nothing in common", (_ONE, _OTHER), "all of p is left"),
    Case("no difference", (_P, _P), "the sum is 0: return p"),
)
def residual(p, q):
    """The distribution from which the token after a rejection is drawn; p if p = q."""
    left = np.maximum(p - q, 0)
    return left / left.sum() if left.sum() > 0 else p


@_exercise(
    "04_speculative_decoding",
    Case("all p ≥ q", ([0, 0], _ROWS_Q, _ROWS_P, [0.9, 0.9]), "p ≥ q: always accepted"),
    Case("small u", ([1, 1], _ROWS_Q, _ROWS_P, [0.5, 0.59]), "accept while u < p(x) / q(x)"),
    Case("the first is rejected", ([1, 0], _ROWS_Q, _ROWS_P, [0.7, 0.1]), "so is each draft after it"),
    Case("p(x) = 0", ([3], _ROWS_Q, _ROWS_P, [0.0]), "p(x) = 0: never accepted"),
    Case("the third is rejected", ([0, 1, 0], _ROWS_Q, _ROWS_P, [0.9, 0.5, 0.5]), "row i belongs to draft i"),
    Case("no drafts", ([], _ROWS_Q, _ROWS_P, []), "nothing to accept"),
)
def count_accepted(drafts, q, p, u):
    """How many drafts are accepted? Draft x at position i is accepted if u[i] < p[i][x] / q[i][x] and all
    drafts before it were accepted.

    Draft i was drawn from row i of q. Row i of p is the primary's distribution there, u[i] is uniform in
    [0, 1). There may be more rows than drafts.
    """
    for i, draft in enumerate(drafts):
        if u[i] * q[i][draft] >= p[i][draft]:
            return i
    return len(drafts)


@_exercise(
    "05_block_sizes_and_speedups",
    Case("all accepted", ([1.0, 1.0, 1.0],), "γ + 1 at most"),
    Case("half of them", ([0.5, 0.5],), "1 + α₁ + α₁ α₂"),
    Case("one rate per position", ([0.9, 0.5, 0.25],), "draft k counts if all before it do"),
    Case("no drafts", ([],), "the primary always emits one token"),
)
def tokens_per_call(acceptance):
    """Tokens emitted per call of the primary, its own included. `acceptance` holds α_1 .. α_γ, each given
    that its position is reached.
    """
    return 1 + sum(np.prod(acceptance[: k + 1]) for k in range(len(acceptance)))


@_exercise(
    "05_block_sizes_and_speedups",
    Case("good, cheap drafts", (0.8, 0.05, [1.1, 1.2, 1.3, 1.4, 1.5, 1.6]), "tokens / (v(γ) + γ c)", 2),
    Case("expensive drafts", (0.7, 0.15, [1.1, 1.3, 1.5, 1.7, 1.9, 2.1]), "each draft costs c"),
    Case("poor drafts", (0.6, 0.2, [1.1, 1.2, 1.3, 1.4, 1.5, 1.6]), "1 + α + ... + α^γ tokens"),
)
def best_block_len(alpha, draft_cost, verify_cost):
    """The fastest γ in 1 .. len(verify_cost), if every draft is accepted with probability alpha.

    verify_cost[γ - 1] is v(γ) and draft_cost is c, both in decoding steps of the primary.
    """
    speeds = [tokens_per_call([alpha] * g) / (v + g * draft_cost) for g, v in enumerate(verify_cost, 1)]
    return 1 + int(np.argmax(speeds))


@_exercise(
    "06_adaptive_block_length",
    Case("all above", ([0.9, 0.8, 0.9], 0.5), "drafting ends at γ_max"),
    Case("the second is below", ([0.9, 0.4, 0.9], 0.5), "this draft is still verified"),
    Case("two are below", ([0.9, 0.4, 0.9, 0.3], 0.5), "the first of them ends drafting"),
    Case("equal", ([0.5, 0.4], 0.5), "below, not at, the threshold"),
)
def draft_length(confidence, threshold):
    """How many drafts are made? Drafting ends after the first draft with a confidence below the threshold,
    or after the last.
    """
    for i, sure in enumerate(confidence, 1):
        if sure < threshold:
            return i
    return len(confidence)


@_exercise(
    "07_tandem_alone",
    Case("the paper's table 3", (6.40, 3, True), "γ + 1 tokens in 1 + γ c steps, c = 1 / 6.40"),
    Case("without the free token", (6.40, 3, False), "γ tokens in as many steps"),
    Case("the primary alone", (6.40, 0, True), "one token in one step"),
    Case("a secondary of half the speed", (3.20, 3, True), "c is twice as large"),
)
def standalone_speedup(secondary_speed, block_len, free_token):
    """How many times as fast as the primary is a tandem without verification, if reading a block takes the
    primary one step? The secondary alone is `secondary_speed` times as fast as the primary.
    """
    return (block_len + free_token) / (1 + block_len / secondary_speed)


def check(name: str, answer: Callable[..., Any]) -> Report:
    """Check `answer`, a function, as the solution of the exercise `name`; the best result is stored.

    Raises `BadInput` for an unknown exercise, and for an answer that is not a function.

    >>> check("total_variation", lambda p, q: abs(p - q).sum())
    total_variation: 1 of 3 points
      ✗ failed  two that overlap (points: 1)
                expected 0.4, got 0.8
                hint: TV = ½ Σ |p - q|
      ✓ passed  two equal ones (points: 1)
    ...
    """
    require(name in EXERCISES, f"an exercise among {', '.join(EXERCISES)}", repr(name), "check the spelling")
    report = EXERCISES[name].check(answer)
    _best[name] = max(_best[name], report.points)
    return report


def scores() -> list[dict[str, Any]]:
    """One row per exercise: its best points so far in this session, and the points available."""
    return [
        {"exercise": name, "points": _best[name], "out of": sum(case.points for case in exercise.cases)}
        for name, exercise in EXERCISES.items()
    ]
