"""The timeline panel: who works when, for given traces, at costs to play with."""

from collections.abc import Mapping

import ipywidgets as widgets

from tandem_edu.decode import Trace
from tandem_edu.errors import require
from tandem_edu.measure.timeline import Span, timeline
from tandem_edu.show.ideas import timelines
from tandem_edu.show.panels.core import number, panel, whole
from tandem_edu.show.tables import html_table


def timeline_panel(
    traces: Mapping[str, Trace], draft_costs: Mapping[str, float], verify_cost: float, tokens: int = 32
) -> widgets.VBox:
    """Sliders scale the measured costs: of a draft step c (each drafter's own), of a verification v.

    `traces` of one text each, by the drafter's name; costs in decoding steps of the primary. The primary
    alone is shown beside them. Raises `BadInput` for a drafter without a cost.
    """
    missing = sorted(traces.keys() - draft_costs.keys())
    require(not missing, "a draft cost for each trace", f"none for {', '.join(missing)}", "measure it")
    controls = {
        "scale": number("draft step, times the measured", 0.1, 4.0, 1.0, 0.1),
        "verify_cost": number("verification v", 1.0, 4.0, round(verify_cost, 1), 0.1),
        "tokens": whole("tokens shown", 4, 64, tokens),
    }

    def draw(scale: float, verify_cost: float, tokens: int) -> str:
        costs = {name: cost * scale for name, cost in draft_costs.items()}
        return timeline_view(traces, costs, verify_cost, tokens)

    return panel(draw, controls)


def timeline_view(
    traces: Mapping[str, Trace], draft_costs: Mapping[str, float], verify_cost: float, tokens: int = 32
) -> str:
    """What `timeline_panel` shows at one setting, as HTML."""
    rows = {"primary alone": [Span("primary", i, i + 1, 1) for i in range(tokens)]}
    for name, trace in traces.items():
        rows[name] = first_tokens(timeline(trace, draft_costs[name], verify_cost), tokens)
    picture = timelines(rows)
    table = html_table(
        [_row(name, spans) for name, spans in rows.items()], "In decoding steps of the primary"
    )
    return picture.html() + table


def first_tokens(spans: list[Span], tokens: int) -> list[Span]:
    """The spans until so many tokens are out."""
    kept, out = [], 0
    for span in spans:
        if out >= tokens:
            break
        kept.append(span)
        out += span.tokens
    return kept


def _row(name: str, spans: list[Span]) -> dict[str, str]:
    tokens, end = sum(span.tokens for span in spans), spans[-1].end if spans else 0.0
    busy = sum(span.end - span.start for span in spans if span.who == "drafter")
    return {
        "who": name,
        "tokens": str(tokens),
        "steps": f"{end:.1f}",
        "tokens per step": f"{tokens / end:.2f}" if end else "–",
        "drafting": f"{busy / end:.0%}" if end else "–",
    }
