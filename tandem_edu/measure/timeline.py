"""When each model works: a decoding as spans of time, from its trace and the cost of each step."""

from typing import NamedTuple

from tandem_edu.decode import Trace
from tandem_edu.decode.trace import records_of_one_text
from tandem_edu.errors import require


class Span(NamedTuple):
    """One span of work by one model, "primary" or "drafter", and the tokens emitted at its end."""

    who: str
    start: float
    end: float
    tokens: int


def timeline(trace: Trace, draft_cost: float, verify_cost: float) -> list[Span]:
    """The spans of one text. Time and costs are in decoding steps of the primary.

    `draft_cost` is c, `verify_cost` is v(γ), both measured. A call of the primary costs 1 if nothing is
    drafted, as in `generate`. Raises `BadInput` for a cost that is not above 0, and for a batch.
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
