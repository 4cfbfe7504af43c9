"""A panel: controls, and one piece of HTML that follows them.

All results are computed before the panel appears; a control only redraws. One `widgets.HTML` holds the
picture, so that nothing stacks up or flickers, in JupyterLab and on Colab. Each drawing is cached.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import ipywidgets as widgets

_STYLE = {"description_width": "initial"}


def panel(draw: Callable[..., str], controls: Mapping[str, Any]) -> widgets.VBox:
    """Controls and, below them, the HTML of `draw(**values)`, redrawn at every change."""
    cached = cache(draw)
    view = widgets.HTML()

    def redraw(_=None) -> None:
        view.value = cached(**{name: control.value for name, control in controls.items()})

    redraw()
    for control in controls.values():
        control.observe(redraw, names="value")
    wrapped = widgets.Layout(flex_flow="row wrap", grid_gap="0 16px")
    return widgets.VBox([widgets.HBox(list(controls.values()), layout=wrapped), view])


def slider(description: str, low: float, high: float, value: float, step: float = 1) -> Any:
    """A slider, over whole numbers unless `step` is a fraction, disabled if it cannot move.

    A `value` outside its range starts at the nearer end. The panel redraws on release.
    """
    kind = widgets.IntSlider if step == 1 else widgets.FloatSlider
    options = {"disabled": low == high, "continuous_update": False, "style": _STYLE}
    options["layout"] = {"width": f"{len(description) + 32}ch"}  # the default cuts the description off
    start = min(max(value, low), high)
    return kind(start, min=low, max=high, step=step, description=description, **options)


def stops(description: str, options: Sequence[tuple[str, int]], value: int) -> widgets.SelectionSlider:
    """A slider over the values of `options`, each with its label."""
    chosen = {"options": options, "value": value}
    return widgets.SelectionSlider(**chosen, description=description, continuous_update=False)


def choice(description: str, options: Sequence[Any], value: Any = None) -> widgets.ToggleButtons:
    """A row of buttons, one of them pressed.

    Not a drop-down list: JupyterLab uses its arrow keys to move between cells (ipywidgets issue 3912).
    """
    chosen = {"options": options} if value is None else {"options": options, "value": value}
    return widgets.ToggleButtons(**chosen, description=description, style=_STYLE | {"button_width": "auto"})
