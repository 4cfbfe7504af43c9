"""The course's one palette, from Okabe and Ito's colours for colour-blind readers.

Blue is the primary, green accepted, orange-red rejected; drafters have other colours. Each series also has
its own marker and line style, each kind of bar its own hatch.
"""

from collections.abc import Iterable
from itertools import cycle
from typing import Any

PRIMARY, ACCEPTED, REJECTED = "#0072B2", "#009E73", "#D55E00"
TANDEM, GREY, BLACK = "#E69F00", "#777777", "#000000"
DRAFTERS = [
    ("#CC79A7", "D", ":"),
    ("#56B4E9", "P", "--"),
    (BLACK, "X", "-."),
    (GREY, "*", ":"),
    ("#A89A00", "v", "-"),  # Okabe and Ito's yellow, darkened: a thin line must be visible on white
]
"""Colour, marker and line of the drafters other than the tandem."""


def series(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of each name, as arguments of matplotlib's `plot`.

    "primary" is always blue and "tandem" always orange; the others take turns.
    """
    blue = (PRIMARY, "^", "-.")
    fixed, others = {"primary": blue, "primary alone": blue, "tandem": (TANDEM, "o", "-")}, cycle(DRAFTERS)
    styles = {name: fixed[name] if name in fixed else next(others) for name in names}
    return {n: {"color": c, "marker": marker, "linestyle": line} for n, (c, marker, line) in styles.items()}


def plain(name: str) -> str:
    r"""A label that matplotlib shows as it is: text between two $ is not typeset as mathematics."""
    return name.replace("$", r"\$")
