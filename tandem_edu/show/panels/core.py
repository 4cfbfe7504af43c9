"""A panel: controls, and one piece of HTML that follows them.

All results are computed before the panel appears; a control only redraws. One `widgets.HTML` holds the
picture, so that nothing stacks up or flickers, in JupyterLab and on Colab. Each drawing is cached.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import ipywidgets as widgets


def panel(draw: Callable[..., str], controls: Mapping[str, Any]) -> widgets.VBox:
    """Controls and, below them, the HTML of `draw(**values)`, redrawn at every change."""
    cached = cache(draw)
    view = widgets.HTML()

    def redraw(_=None) -> None:
        view.value = cached(**{name: control.value for name, control in controls.items()})

    redraw()
    for control in controls.values():
        control.observe(redraw, names="value")
    return widgets.VBox([widgets.HBox(list(controls.values()), layout=_WRAPPED), view])


def int_slider(description: str, low: int, high: int, value: int) -> widgets.IntSlider:
    """A slider over whole numbers, disabled if there is only one. The panel redraws on release."""
    return widgets.IntSlider(value, low, high, disabled=low == high, **_slider(description))


def float_slider(description: str, low: float, high: float, value: float, step: float) -> widgets.FloatSlider:
    """A slider over numbers; a `value` outside its range starts at the nearer end."""
    return widgets.FloatSlider(
        min(max(value, low), high), min=low, max=high, step=step, **_slider(description)
    )


def stops(description: str, options: Sequence[tuple[str, int]], value: int) -> widgets.SelectionSlider:
    """A slider over the values of `options`, each with its label."""
    return widgets.SelectionSlider(
        options=options, value=value, description=description, continuous_update=False
    )


def choice(description: str, options: Sequence[tuple[str, Any]] | Sequence[Any], value: Any = None):
    """A row of buttons, one of them pressed.

    Not a drop-down list: JupyterLab uses its arrow keys to move between cells (ipywidgets issue 3912).
    """
    chosen = {} if value is None else {"value": value}
    style = {**_STYLE, "button_width": "auto"}
    return widgets.ToggleButtons(options=options, description=description, style=style, **chosen)


def keep_below(slider: widgets.IntSlider, limit: widgets.IntSlider) -> None:
    """Keep `slider` below the value of `limit`. Call this before a panel observes them."""

    def follow(_) -> None:
        slider.max = limit.value - 1
        slider.disabled = slider.min == slider.max

    limit.observe(follow, names="value")


_STYLE = {"description_width": "initial"}
_WRAPPED = widgets.Layout(flex_flow="row wrap", grid_gap="0 16px")


def _slider(description: str) -> dict[str, Any]:
    """Wide enough for the description and the slider; the default of 300 pixels is not."""
    layout = {"width": f"{len(description) + 32}ch"}
    return {"description": description, "continuous_update": False, "style": _STYLE, "layout": layout}
