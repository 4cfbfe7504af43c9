"""What acceptance is worth: tokens per call of the primary, and the time that saves.

Symbols: α the acceptance rate, γ the block length, c the time of one draft step and v(γ) that of one
verification of γ + 1 tokens, both in units of one decoding step of the primary. v is measured, never
assumed to be 1: that a wide step costs as much as a narrow one is what a GPU promises, not a CPU.
"""

from collections.abc import Sequence

import numpy as np

from tandem_edu.errors import require


def tokens_per_call(acceptance: Sequence[float | None]) -> float:
    """1 + Σ_k Π_{i≤k} α_i: tokens emitted per call of the primary, its own token counted.

    `acceptance` holds α_1 .. α_γ, each conditional on its position being reached, such as a trace's
    `acceptance_by_position`; `None`, where no draft was, ends the block.

    >>> tokens_per_call([0.5, 0.5]), tokens_per_call([0.5, None])
    (1.75, 1.5)
    """
    alphas = np.asarray([0.0 if alpha is None else alpha for alpha in acceptance], float)
    good = bool(np.all((alphas >= 0) & (alphas <= 1)))
    require(good, "acceptance rates in [0, 1]", acceptance, "pass shares, not percentages")
    return 1.0 + float(np.sum(np.cumprod(alphas)))


def tokens_per_call_iid(alpha: float, block_len: int) -> float:
    """(1 - α^(γ+1)) / (1 - α): the same where every position has the rate α (arXiv:2211.17192, eq. 1).

    >>> tokens_per_call_iid(0.5, 2)
    1.75
    """
    require(block_len >= 0, "block_len (γ) of at least 0", block_len, "0 is the primary alone")
    return tokens_per_call([alpha] * block_len)


def wall_clock_factor(tokens: float, block_len: int, draft_cost: float, verify_cost: float) -> float:
    """tokens / (v(γ) + γ · c): how many times faster than the primary alone.

    >>> wall_clock_factor(3.0, block_len=4, draft_cost=0.05, verify_cost=1.3)
    2.0
    """
    good = draft_cost >= 0 and verify_cost > 0
    got = f"c={draft_cost} and v={verify_cost}"
    require(good, "costs in units of one decoding step", got, "divide both by the primary's step")
    return tokens / (verify_cost + block_len * draft_cost)
