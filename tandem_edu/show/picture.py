"""A picture: a figure, and a sentence that says what it shows to readers who cannot see it."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from tandem_edu.show.palette import PRIMARY


@dataclass(frozen=True)
class Picture:
    """A figure with its alternative text, and for a panel its numbers; a notebook shows it as an image."""

    figure: Figure = field(repr=False)
    alt: str
    rows: Sequence[dict[str, str]] = field(default=(), repr=False)

    def png(self, dpi: int = 144) -> bytes:
        """The image's bytes."""
        self.figure.set_dpi(dpi)
        agg, buffer = FigureCanvasAgg(self.figure), io.BytesIO()
        agg.draw()  # `savefig` would draw twice
        imsave(buffer, agg.buffer_rgba(), format="png", dpi=dpi, pil_kwargs={"compress_level": 3})
        return buffer.getvalue()

    def html(self) -> str:
        """One `<img>` that needs no other file."""
        data = base64.b64encode(self.png()).decode("ascii")
        width, height = (round(inches * 96) for inches in self.figure.get_size_inches())
        size = f'width="{width}" height="{height}" style="max-width:100%;height:auto"'
        return f'<img alt="{escape(self.alt)}" {size} src="data:image/png;base64,{data}">'

    _repr_html_ = html


def canvas(title: str, x: str, y: str, width: float = 6.4, height: float = 3.8) -> tuple[Figure, Axes]:
    """An empty figure with one set of axes."""
    figure, (axes,) = canvases([title], x, width, height)
    axes.set_ylabel(y)
    return figure, axes


def canvases(titles: Sequence[str], x: str, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """An empty figure with several sets of axes side by side, all with the x label `x`."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    row = list(figure.subplots(1, len(titles), squeeze=False)[0])
    for axes, title in zip(row, titles, strict=True):
        axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
        axes.set(xlabel=x, axisbelow=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    return figure, row


def legend(axes: Axes, **options: Any) -> None:
    """Matplotlib's legend without a frame, on white, so that no grid line crosses its words."""
    axes.legend(facecolor="white", edgecolor="none", **options)


def log_scales(axes: Axes) -> None:
    """Label both logarithmic axes with plain numbers."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def shifts(names: Sequence[str], width: float) -> dict[str, float]:
    """Small shifts along x, so that no error bar hides another."""
    return {name: width * ((i + 0.5) / len(names) - 0.5) for i, name in enumerate(names)}


def error_bars(axes: Axes, x, y, low, high, **style: Any) -> None:
    """Points with bars from `low` to `high`; rounding may put one on the wrong side of `y`."""
    axes.errorbar(x, y, [np.maximum(0, y - low), np.maximum(0, high - y)], capsize=3, **style)


def primary_alone(axes: Axes) -> None:
    """The baseline: a blue line at 1."""
    axes.axhline(1, color=PRIMARY, linewidth=1.5)
    at = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate("primary\nalone", (1, 1), (4, 0), fontsize=9, ha="left", va="center", **at)
