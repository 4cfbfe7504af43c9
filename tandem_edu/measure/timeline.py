"""Who works when: the steps of a decoding as spans of time, from its trace and what a step costs."""

from typing import NamedTuple

from tandem_edu.decode import Trace
from tandem_edu.decode.trace import records_of_one_text
from tandem_edu.errors import require


class Span(NamedTuple):
    """One stretch of work."""

    who: str
    """"primary" or "drafter"."""
    start: float
    end: float
    tokens: int
    """Emitted when it ends."""


def timeline(trace: Trace, draft_cost: float, verify_cost: float) -> list[Span]:
    """The spans of one text, in units of one decoding step of the primary (costs are in these units).

    `draft_cost` is c, `verify_cost` v(γ), both measured. Where nothing is drafted at all, as in
    `generate`, a call of the primary costs 1. Raises `BadInput` for costs that are not above 0, or a batch.

    >>> from tandem_edu.decode.trace import Trace
    >>> import jax.numpy as jnp
    >>> alone = Trace.of_single_tokens(jnp.int32(2), rows=4)
    >>> [(span.who, span.start, span.end) for span in timeline(alone, 0.1, 1.5)]
    [('primary', 0.0, 1.0), ('primary', 1.0, 2.0)]
    """
    require(draft_cost > 0 and verify_cost > 0, "costs above 0", (draft_cost, verify_cost), "measure them")
    rows = records_of_one_text(trace)
    call = verify_cost if any(row["drafted"] for row in rows) else 1.0
    spans, now = [], 0.0
    for row in rows:
        if row["drafted"]:
            spans.append(Span("drafter", now, now + row["drafted"] * draft_cost, 0))
            now = spans[-1].end
        spans.append(Span("primary", now, now + call, row["emitted"]))
        now = spans[-1].end
    return spans
