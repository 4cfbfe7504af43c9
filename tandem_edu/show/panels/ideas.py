"""Panels on ideas: the block mask, the roofline, the speedup calculator. They need no model."""

from html import escape

import ipywidgets as widgets

from tandem_edu.measure import Comparison, spread
from tandem_edu.measure.roofline import PRESETS
from tandem_edu.show import ideas
from tandem_edu.show.panels.core import below, choice, number, panel, whole
from tandem_edu.show.picture import Picture
from tandem_edu.show.tables import Rows, html_table


def mask_panel(seq: int = 12) -> widgets.VBox:
    """Sequence length, γ, offset, and a token to step through: which keys it sees and whose they are."""

    def draw(seq: int, block_len: int, offset: int, token: int) -> str:
        picture = ideas.block_mask(seq, block_len, offset, token)
        return _told(picture, ideas.mask_rows(seq, block_len, offset), "Every token")

    controls = {
        "seq": whole("tokens", 4, 24, seq),
        "block_len": whole("γ", 1, 8, 4),
        "offset": whole("first block starts at", 0, 3, 0),
        "token": whole("token that looks", 0, seq - 1, seq - 3),
    }
    below(controls["token"], controls["seq"])
    below(controls["offset"], controls["block_len"])
    return panel(draw, controls)


def roofline_panel(weights: float = 4.7e6) -> widgets.VBox:
    """Hardware and model size: how many tokens a model reads in the time of one."""

    def draw(hardware: int, weights: float) -> str:
        picture = ideas.roofline(PRESETS[hardware], weights)
        return _told(picture, ideas.roofline_rows(PRESETS[hardware], weights), "Time to read")

    sizes = [
        (f"this course's primary, {weights / 1e6:.1f} M", weights),
        ("1 B", 1e9),
        ("8 B", 8e9),
        ("70 B", 70e9),
    ]
    names = [(chip.name, index) for index, chip in enumerate(PRESETS)]
    return panel(draw, {"hardware": choice("hardware", names), "weights": choice("weights", sizes)})


def speedup_panel(
    alpha: float = 0.7,
    draft_cost: float = 0.1,
    verify_cost: float = 1.2,
    slope: float = 0.0,
    measured: ideas.Measured | None = None,
) -> widgets.VBox:
    """The formula as a calculator: acceptance, cost of a draft, cost of a verification, `slope` more of it
    for each draft.

    `measured` points (`measured_speedups`) stand beside it.
    """

    def draw(alpha: float, draft_cost: float, verify_cost: float, slope: float) -> str:
        costs = (alpha, draft_cost, verify_cost, slope)
        rows = ideas.speedup_rows(ideas.speedup_factors(*costs), measured)
        return _told(ideas.speedup_curve(*costs, measured=measured), rows, "Times as fast")

    return panel(
        draw,
        {
            "alpha": number("acceptance α", 0.0, 0.99, alpha, 0.01),
            "draft_cost": number("draft step c", 0.01, 0.5, draft_cost, 0.01),
            "verify_cost": number("verification v at γ = 0", 0.5, 3.0, verify_cost, 0.01),
            "slope": number("and per draft", 0.0, 0.5, slope, 0.01),
        },
    )


def _told(picture: Picture, rows: Rows, caption: str) -> str:
    """The picture, its text for all to read, and its numbers."""
    return f"{picture.html()}<p>{escape(picture.alt)}</p>{html_table(rows, caption, folded=True)}"


def measured_speedups(comparison: Comparison) -> ideas.Measured:
    """The points of `speedup_panel` from what `measure.compare` found."""
    return {
        name: [(run.block_len, *spread(run.speedup)) for run in comparison.of(name)]
        for name in comparison.drafters
    }
