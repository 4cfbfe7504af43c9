"""The course's palette, Okabe and Ito's: blue primary, green accepted, orange-red rejected, drafters vary."""

from collections.abc import Iterable
from typing import Any

from matplotlib.rcsetup import cycler

PRIMARY, ACCEPTED, REJECTED = "#0072B2", "#009E73", "#D55E00"
TANDEM, GREY, BLACK = "#E69F00", "#777777", "#000000"
_PRIMARY = {"color": PRIMARY, "marker": "^", "linestyle": "-."}
_TANDEM = {"color": TANDEM, "marker": "o", "linestyle": "-"}
_FIXED = {"primary": _PRIMARY, "primary alone": _PRIMARY, "tandem": _TANDEM}
# The last is Okabe and Ito's yellow, darkened: a thin line must be visible on white.
_COLOURS = ["#CC79A7", "#56B4E9", BLACK, GREY, "#A89A00"]
_OTHERS = cycler(color=_COLOURS, marker=list("DPX*v"), linestyle=[":", "--", "-.", ":", "-"])


def series(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Arguments of matplotlib's `plot` for each name. The primary is blue, "tandem" orange; others vary."""
    others = _OTHERS()
    looks = {name: _FIXED[name] if name in _FIXED else next(others) for name in names}
    return {name: {**look, "label": plain(name)} for name, look in looks.items()}


def plain(name: str) -> str:
    r"""A label that matplotlib shows as it is: text between two $ is not typeset as mathematics."""
    return name.replace("$", r"\$")


def label_of(string: str, limit: int = 12) -> str:
    """A token as an axis label: white space made visible, nothing typeset, at most `limit` characters."""
    label = plain(string[:limit].replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥"))
    return "".join(char if char.isprintable() else "�" for char in label)
