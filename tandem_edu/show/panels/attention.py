"""The attention panel: layer, head and a token to step through; where it looks, and whose view that is."""

from collections.abc import Sequence
from html import escape

import ipywidgets as widgets
import numpy as np

from tandem_edu.errors import require
from tandem_edu.measure.attention import OWN, PRIMARY
from tandem_edu.show.attention import attention_head, shares_in_words
from tandem_edu.show.panels.core import panel, whole
from tandem_edu.show.tables import html_table

SHOWN = 5
"""Keys in the table that is open at once."""


def attention_panel(maps: np.ndarray, strings: Sequence[str]) -> widgets.VBox:
    """`maps` as `measure.attention_maps` gives them, `strings` the tokens they are of.

    Raises `BadInput` if there are more or fewer strings than tokens.
    """
    layers, heads, seq = maps.shape[:3]
    require(len(strings) == seq, f"{seq} strings, one a token", len(strings), "pass the same tokens")
    controls = {
        "layer": whole("layer", 0, layers - 1, 0),
        "head": whole("head", 0, heads - 1, 0),
        "token": whole("token", 0, seq - 1, seq - 1),
    }
    return panel(lambda layer, head, token: attention_view(maps, strings, layer, head, token), controls)


def attention_view(maps: np.ndarray, strings: Sequence[str], layer: int, head: int, token: int) -> str:
    """What `attention_panel` shows at one setting, as HTML."""
    picture = attention_head(maps, strings, layer, head, token)
    words = escape(shares_in_words(maps, layer, head, token))
    rows = _most(maps[layer, head, token], strings)
    most = html_table(rows[:SHOWN], "Where it looks most")
    return f"{picture.html()}<p>{words}</p>{most}{html_table(rows, 'Wherever it looks', folded=True)}"


def _most(weights: np.ndarray, strings: Sequence[str]) -> list[dict[str, str]]:
    """The keys it sees by falling weight, float[sides, seq]."""
    order = np.argsort(weights, axis=None)[::-1][: np.count_nonzero(weights)]
    names = {OWN: "its own", PRIMARY: "the primary's"}
    rows = []
    for side, token in (np.unravel_index(place, weights.shape) for place in order):
        said = {"token": f"{token}: {strings[int(token)]!r}", "view": names[int(side)]}
        rows.append({**said, "weight": f"{weights[side, token]:.1%}"})
    return rows
