"""A picture is a figure and the sentence that says what it shows to those who cannot see it.

Colours are Okabe and Ito's, which the colour-blind can tell apart; every series has a marker or a line
style of its own as well.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import imsave

BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#000000",
)
SERIES = [
    (ORANGE, "s", "--"),
    (PINK, "D", ":"),
    (RED, "v", "-"),
    (SKY, "P", "--"),
    (BLACK, "X", "-."),
    ("#777777", "*", ":"),
]
"""Colour, marker and line of the things compared, in turn; the paper's two have their own everywhere."""


def series(names: Iterable[str]) -> list[tuple[str, str, str]]:
    """A colour, marker and line for each name: the tandem green, the primary blue, others in turn."""
    own = {"tandem": (GREEN, "o", "-"), "primary": (BLUE, "^", "-.")}
    others = cycle(SERIES)
    return [own[name] if name in own else next(others) for name in names]


def untypeset(name: str) -> str:
    r"""A name that a person or a model wrote, as a label: what is between $s is no mathematics.

    >>> untypeset("$x$")
    '\\$x\\$'
    """
    return name.replace("$", r"\$")


@dataclass(frozen=True)
class Picture:
    """Shows itself in a notebook, as an image with an alternative text."""

    figure: Figure = field(repr=False)
    alt: str

    def png(self, dpi: int = 144) -> bytes:
        """The image's bytes."""
        self.figure.set_dpi(dpi)
        agg, buffer = FigureCanvasAgg(self.figure), io.BytesIO()
        agg.draw()  # once: `savefig` goes through it twice
        imsave(buffer, agg.buffer_rgba(), format="png", dpi=dpi, pil_kwargs={"compress_level": 3})
        return buffer.getvalue()

    def html(self) -> str:
        """One `<img>` that needs no other file."""
        data = base64.b64encode(self.png()).decode("ascii")
        width, height = (round(inches * 96) for inches in self.figure.get_size_inches())
        size = f'width="{width}" height="{height}" style="max-width:100%;height:auto"'
        return f'<img alt="{escape(self.alt)}" {size} src="data:image/png;base64,{data}">'

    _repr_html_ = html


def canvas(
    title: str,
    x: str,
    y: str,
    width: float = 6.4,
    height: float = 3.8,
    room: tuple[float, float] | None = None,
) -> tuple[Figure, Axes]:
    """An empty figure with one set of axes: labels on it, and only the spines that are read.

    `room` as in `canvases`.
    """
    figure, (axes,) = canvases([title], x, width, height, room)
    axes.set_ylabel(y)
    return figure, axes


def legend(axes: Axes, **how: Any) -> None:
    """Matplotlib's, without a frame, on white: no line of the grid goes through its words."""
    axes.legend(facecolor="white", edgecolor="none", **how)


def primary_alone(axes: Axes) -> None:
    """A line at 1, the yardstick of what is measured in times of it."""
    axes.axhline(1, color=BLACK, linewidth=1)
    at = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate("primary\nalone", (1, 1), (4, 0), fontsize=9, ha="left", va="center", **at)


def canvases(
    titles: Sequence[str],
    x: str,
    width: float,
    height: float,
    room: tuple[float, float] | None = None,
    between: float = 0.0,
) -> tuple[Figure, list[Axes]]:
    """Several of them side by side, with one label for all the x axes.

    `room` has the inches left and right of the axes, `between` those between them. Where it is known, as in
    what a panel draws, a third of the time is saved: else matplotlib measures every label first.
    """
    figure = Figure(figsize=(width, height), layout=None if room else "constrained", facecolor="white")
    row = list(figure.subplots(1, len(titles), squeeze=False)[0])
    if room:
        left, right = room
        each = (width - left - right - between * (len(titles) - 1)) / len(titles)
        figure.subplots_adjust(
            left / width, 0.48 / height, 1 - right / width, 1 - 0.3 / height, between / each
        )
    for axes, title in zip(row, titles, strict=True):
        axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
        axes.set_xlabel(x)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, row


def widest(labels: Iterable[str], fontsize: float) -> float:
    """Inches that the widest of some labels takes."""
    font = FontProperties(size=fontsize)
    sizes = (_SCALE.get_text_width_height_descent(label, font, ismath=False) for label in labels)
    return max((size[0] for size in sizes), default=0.0) / 72


_SCALE = RendererAgg(1, 1, 72)
"""Measures text, at as many dots as there are points to an inch."""
