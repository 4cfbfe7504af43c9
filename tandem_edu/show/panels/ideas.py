"""Panels on ideas: the block mask, the roofline, the speedup formula, and which model works when."""

from collections.abc import Mapping
from html import escape

import ipywidgets as widgets

from tandem_edu.decode import Trace
from tandem_edu.errors import require
from tandem_edu.measure import PRESETS, Comparison, Span, timeline
from tandem_edu.show import ideas
from tandem_edu.show.panels.core import choice, float_slider, int_slider, keep_below, panel
from tandem_edu.show.picture import Picture
from tandem_edu.show.tables import html_table


def mask_panel(seq: int = 12) -> widgets.VBox:
    """Choose the length of the text, γ, the offset and a token: what does it attend to?"""
    controls = {
        "seq": int_slider("tokens", 4, 24, seq),
        "block_len": int_slider("γ", 1, 8, 4),
        "offset": int_slider("offset of the first block", 0, 3, 0),
        "token": int_slider("attending token", 0, seq - 1, seq - 3),
    }
    keep_below(controls["token"], controls["seq"])
    keep_below(controls["offset"], controls["block_len"])
    caption = "What each token attends to"
    return panel(lambda **values: _with_table(ideas.block_mask(**values), caption), controls)


def roofline_panel(weights: float = 4.7e6) -> widgets.VBox:
    """Choose hardware and model size: how many tokens does a call read in the time of one?"""
    sizes = [(f"this course's primary, {weights / 1e6:.1f} M", weights)]
    sizes += [(f"{billions} B", billions * 1e9) for billions in (1, 8, 70)]
    names = [(chip.name, index) for index, chip in enumerate(PRESETS)]
    return panel(
        lambda hardware, weights: _with_table(ideas.roofline(PRESETS[hardware], weights), "Time of one call"),
        {"hardware": choice("hardware", names), "weights": choice("weights", sizes)},
    )


def speedup_panel(
    alpha: float = 0.7,
    draft_cost: float = 0.1,
    verify_cost: float = 1.2,
    slope: float = 0.0,
    measured: Comparison | None = None,
) -> widgets.VBox:
    """Choose acceptance and costs as in `show.speedup_curve`; `measured` adds points."""
    controls = {
        "alpha": float_slider("acceptance α", 0.0, 0.99, alpha, 0.01),
        "draft_cost": float_slider("draft step c", 0.01, 0.5, draft_cost, 0.01),
        "verify_cost": float_slider("verification v at γ = 0", 0.5, 3.0, verify_cost, 0.01),
        "slope": float_slider("more v per draft", 0.0, 0.5, slope, 0.01),
    }
    draw = lambda **values: _with_table(ideas.speedup_curve(**values, measured=measured), "Speedup")
    return panel(draw, controls)


def _with_table(picture: Picture, caption: str) -> str:
    """The picture, its alternative text and its numbers."""
    return f"{picture.html()}<p>{escape(picture.alt)}</p>{html_table(picture.rows, caption, folded=True)}"


def timeline_panel(
    traces: Mapping[str, Trace], draft_costs: Mapping[str, float], verify_cost: float, tokens: int = 32
) -> widgets.VBox:
    """Scale every drafter's measured cost c, choose the verification cost v and how much is shown.

    `traces` of one text each, by drafter; costs in decoding steps of the primary. The primary alone is shown
    beside them. Raises `BadInput` for a drafter without a cost.
    """
    missing = sorted(traces.keys() - draft_costs.keys())
    require(not missing, "a draft cost for each trace", f"none for {', '.join(missing)}", "measure it")

    def draw(scale: float, verify_cost: float, tokens: int) -> str:
        costs = {name: cost * scale for name, cost in draft_costs.items()}
        return timeline_view(traces, costs, verify_cost, tokens)

    controls = {
        "scale": float_slider("draft step, times measured", 0.1, 4.0, 1.0, 0.1),
        "verify_cost": float_slider("verification v", 1.0, 4.0, round(verify_cost, 1), 0.1),
        "tokens": int_slider("tokens shown", 4, 64, tokens),
    }
    return panel(draw, controls)


def timeline_view(
    traces: Mapping[str, Trace], draft_costs: Mapping[str, float], verify_cost: float, tokens: int = 32
) -> str:
    """The panel at one setting as HTML."""
    spans_of = {"primary alone": [Span("primary", i, i + 1, 1) for i in range(tokens)]}
    for name, trace in traces.items():
        spans, emitted = [], 0
        for span in timeline(trace, draft_costs[name], verify_cost):
            if emitted < tokens:
                spans.append(span)
            emitted += span.tokens
        spans_of[name] = spans
    picture = ideas.timelines(spans_of)
    return picture.html() + html_table(picture.rows, "In decoding steps of the primary")
