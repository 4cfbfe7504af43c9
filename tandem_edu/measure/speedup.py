"""How acceptance becomes speed: tokens per call of the primary, and the speedup in time.

Symbols: α the acceptance rate, γ the block length, c the time of a draft step and v(γ) that of verifying a
block (γ + 1 tokens), both in decoding steps of the primary. Measure v; it is about 1 on a GPU, not on a CPU.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tandem_edu.decode import Trace
from tandem_edu.decode.trace import records_of_one_text
from tandem_edu.errors import require


def tokens_per_call(acceptance: Sequence[float | None]) -> float:
    """1 + Σ_k Π_{i≤k} α_i: tokens emitted per call of the primary, its own token included.

    `acceptance` holds α_1 .. α_γ, such as a trace's `acceptance_by_position`; `None`, for a position without
    drafts, ends the block. Raises `BadInput` outside [0, 1].

    >>> tokens_per_call([0.5, 0.5]), tokens_per_call([0.5, None])
    (1.75, 1.5)
    """
    alphas = np.asarray([0.0 if alpha is None else alpha for alpha in acceptance], float)
    valid = all(0 <= alpha <= 1 for alpha in alphas)
    require(valid, "acceptance rates in [0, 1]", acceptance, "pass shares, not percentages")
    return 1.0 + float(np.sum(np.cumprod(alphas)))


def tokens_per_call_iid(alpha: float, block_len: int) -> float:
    """(1 - α^(γ+1)) / (1 - α): the same if every position has the rate α (arXiv:2211.17192, eq. 1)."""
    require(block_len >= 0, "block_len (γ) of at least 0", block_len, "0 is the primary alone")
    return tokens_per_call([alpha] * block_len)


def wall_clock_factor(tokens: float, block_len: int, draft_cost: float, verify_cost: float) -> float:
    """tokens / (v(γ) + γ · c): the speedup over the primary alone. Raises `BadInput` for impossible costs.

    >>> wall_clock_factor(3.0, block_len=4, draft_cost=0.05, verify_cost=1.3)
    2.0
    """
    got, fix = f"c={draft_cost} and v={verify_cost}", "divide both by the primary's step"
    require(draft_cost >= 0 and verify_cost > 0, "costs in units of one decoding step", got, fix)
    return tokens / (verify_cost + block_len * draft_cost)


class Span(NamedTuple):
    """One span of work by one model, "primary" or "drafter", and the tokens emitted at its end."""

    who: str
    start: float
    end: float
    tokens: int


def timeline(trace: Trace, draft_cost: float, verify_cost: float) -> list[Span]:
    """The spans of one text. Time and costs are in decoding steps of the primary.

    `draft_cost` is c, `verify_cost` v(γ), both measured; a call costs 1 where nothing is drafted, as in
    `generate`. Raises `BadInput` for a cost that is not above 0, and for a batch.
    """
    require(draft_cost > 0 and verify_cost > 0, "costs above 0", (draft_cost, verify_cost), "measure them")
    rows = records_of_one_text(trace)
    call = verify_cost if any(row["drafted"] for row in rows) else 1.0
    spans, now = [], 0.0
    for row in rows:
        if row["drafted"]:
            spans.append(Span("drafter", now, now := now + row["drafted"] * draft_cost, 0))
        spans.append(Span("primary", now, now := now + call, row["emitted"]))
    return spans
