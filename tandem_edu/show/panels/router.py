"""The router panel: a slider for τ, and what it does to draft length, waste and speed."""

from collections.abc import Sequence

import ipywidgets as widgets

from tandem_edu.errors import require
from tandem_edu.measure.thresholds import Threshold
from tandem_edu.show.adaptive import thresholds
from tandem_edu.show.panels.core import panel
from tandem_edu.show.tables import html_table, speedup_cell


def router_panel(sweep: Sequence[Threshold]) -> widgets.VBox:
    """A slider over the thresholds of `measure.sweep_thresholds`. Raises `BadInput` for an empty sweep."""
    require(len(sweep) > 0, "at least one threshold", "none", "sweep some")
    slider = widgets.SelectionSlider(
        options=[(f"{one.threshold:g}", index) for index, one in enumerate(sweep)],
        value=len(sweep) // 2,
        description="τ",
        continuous_update=False,
    )
    return panel(lambda index: router_view(sweep, index), {"index": slider})


def router_view(sweep: Sequence[Threshold], index: int) -> str:
    """What `router_panel` shows at one place of its slider, as HTML."""
    picture = thresholds(sweep, sweep[index].threshold)
    rows = [_row(one, place == index) for place, one in enumerate(sweep)]
    return picture.html() + html_table(rows, "At each threshold")


def _row(one: Threshold, chosen: bool) -> dict[str, str]:
    return {
        "τ": f"{one.threshold:g}{' (chosen)' if chosen else ''}",
        "drafts a block": f"{one.drafted:.2f}",
        "accepted": f"{one.accepted:.2f}",
        "wasted": f"{one.wasted:.0%}",
        "tokens per call": f"{one.tokens_per_call:.2f}",
        "times as fast (quartiles)": speedup_cell(one.speedup),
    }
