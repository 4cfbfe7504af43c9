"""A picture: a figure, and a sentence that says what it shows to readers who cannot see it. And a table."""

import base64
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tandem_edu.show.palette import GREY, PRIMARY


@dataclass(frozen=True)
class Picture:
    """A figure with its alternative text, and for a panel its numbers; a notebook shows it as an image."""

    figure: Figure = field(repr=False)
    alt: str
    rows: Sequence[dict[str, str]] = field(default=(), repr=False)

    def png(self) -> bytes:
        """The image's bytes."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, dpi=144)
        return buffer.getvalue()

    def html(self) -> str:
        """One `<img>` that needs no other file."""
        data = base64.b64encode(self.png()).decode("ascii")
        width, height = (round(inches * 96) for inches in self.figure.get_size_inches())
        size = f'width="{width}" height="{height}" style="max-width:100%;height:auto"'
        return f'<img alt="{escape(self.alt)}" {size} src="data:image/png;base64,{data}">'

    _repr_html_ = html

    def with_table(self, caption: str, folded: bool = False) -> str:
        """The image, and its numbers as a table; if that is `folded`, the alternative text is in sight."""
        words = f"<p>{escape(self.alt)}</p>" if folded else ""
        return self.html() + words + html_table(self.rows, caption, folded)


def html_table(rows: Sequence[Mapping[str, Any]], caption: str, folded: bool = False) -> str:
    """An HTML table, escaped; its first column holds row headers. `folded` shows the caption alone."""
    if not rows:
        return ""
    if folded:
        return f"<details><summary>{escape(caption)}</summary>{html_table(rows, caption)}</details>"
    body = "".join(f'<th scope="col">{escape(name)}</th>' for name in rows[0])
    for row in rows:
        first, *others = (escape(str(row[name])) for name in rows[0])
        body += f'</tr><tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others)
    title = f'<caption style="text-align:left">{escape(caption)}</caption>'
    return f'<table style="border-spacing:14px 3px;text-align:left">{title}<tr>{body}</tr></table>'


def canvas(title: str, x: str, y: str, width: float = 6.4, height: float = 3.8) -> tuple[Figure, Axes]:
    """An empty figure with one set of axes."""
    figure, (axes,) = canvases([title], x, y, width, height)
    return figure, axes


def canvases(titles: Sequence[str], x: str, y: str, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """An empty figure with several sets of axes side by side, all with the same labels."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    row = list(figure.subplots(1, len(titles), squeeze=False)[0])
    for axes, title in zip(row, titles, strict=True):
        axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
        axes.set(xlabel=x, ylabel=y, axisbelow=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    return figure, row


def legend(of: Axes | Figure, **options: Any) -> None:
    """Matplotlib's legend without a frame, on white, so that no grid line crosses its words."""
    of.legend(facecolor="white", edgecolor="none", **options)


def shifts(names: Collection[str], width: float) -> dict[str, float]:
    """Small shifts along x, so that no mark hides another."""
    return {name: width * ((i + 0.5) / len(names) - 0.5) for i, name in enumerate(names)}


def error_bars(axes: Axes, x, intervals: Sequence, **style: Any) -> None:
    """Points with bars, of (value, low, high) each; rounding may put one end on the wrong side."""
    y, low, high = np.array(intervals).reshape(-1, 3).T
    axes.errorbar(x, y, np.maximum(0, [y - low, high - y]), capsize=3, **style)


def primary_alone(axes: Axes) -> None:
    """The baseline: a blue line at 1."""
    axes.axhline(1, color=PRIMARY, linewidth=1.5)
    at = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate("primary\nalone", (1, 1), (4, 0), fontsize=9, ha="left", va="center", **at)


def one_by_one(axes: Axes, tokens: Sequence[float], time: float) -> None:
    """The line of one call per token, each taking `time`; plain numbers on both logarithmic axes."""
    axes.loglog(tokens, np.multiply(tokens, time), color=GREY, linestyle=":", label="one by one")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.minorticks_off()
