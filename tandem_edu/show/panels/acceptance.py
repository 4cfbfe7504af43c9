"""The acceptance panel: how often each position of a block is accepted, at a block length to choose."""

from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets

from tandem_edu.errors import require
from tandem_edu.measure import Comparison
from tandem_edu.show.panels.core import choice, panel
from tandem_edu.show.plots import acceptance_by_position
from tandem_edu.show.tables import html_table


def acceptance_panel(comparison: Comparison) -> widgets.VBox:
    """Raises `BadInput` for a comparison without drafters."""
    require(len(comparison.runs) > 0, "a comparison with drafters", "none", "pass them to compare")
    lengths = comparison.block_lens
    return panel(
        lambda block_len: acceptance_view(comparison, block_len),
        {"block_len": choice("γ", lengths, lengths[-1])},
    )


def acceptance_view(comparison: Comparison, block_len: int) -> str:
    """What `acceptance_panel` shows at one γ, as HTML."""
    summaries = {name: comparison.run(name, block_len).summary for name in comparison.drafters}
    rows = [
        {"position": str(i + 1), **{name: _share(summary, i) for name, summary in summaries.items()}}
        for i in range(block_len)
    ]
    table = html_table(rows, f"Accepted, of those reached, γ = {block_len}")
    return acceptance_by_position(comparison, block_len).html() + table


def _share(summary: Mapping[str, Any], place: int) -> str:
    reached = summary["reached_by_position"]
    if place >= len(reached) or not reached[place]:
        return "–"
    return f"{summary['acceptance_by_position'][place]:.0%} of {reached[place]}"
