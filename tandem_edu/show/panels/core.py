"""A panel: controls, and one piece of HTML that follows them.

Everything a panel shows is computed before it appears; a change of a control only draws. One
`widgets.HTML` holds the picture, so nothing stacks up and nothing flickers, in JupyterLab as on Colab.
What has been drawn once is kept.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import ipywidgets as widgets


def panel(draw: Callable[..., str], controls: Mapping[str, Any]) -> widgets.VBox:
    """Controls above, below them `draw(**values)`, drawn anew at every change."""
    kept = cache(lambda values: draw(**dict(values)))

    def drawn() -> str:
        return kept(tuple((name, control.value) for name, control in controls.items()))

    view = widgets.HTML(value=drawn())

    def redraw(_) -> None:
        view.value = drawn()

    for control in controls.values():
        control.observe(redraw, names="value")
    return widgets.VBox([widgets.HBox(list(controls.values()), layout=_WRAPPED), view])


def whole(description: str, low: int, high: int, value: int) -> widgets.IntSlider:
    """A slider over whole numbers; the picture follows when it is let go, the arrow keys move it.

    It is greyed out where there is but one number to choose.
    """
    return widgets.IntSlider(
        value,
        low,
        high,
        description=description,
        disabled=low == high,
        continuous_update=False,
        **_look(description),
    )


def below(slider: widgets.IntSlider, limit: widgets.IntSlider) -> None:
    """Keep `slider` below the value of `limit`, so that each of its places means something.

    To be said before a panel watches them: else it would draw one place that is no longer there.
    """

    def follow(_) -> None:
        slider.max = limit.value - 1
        slider.disabled = slider.min == slider.max

    limit.observe(follow, names="value")


def number(description: str, low: float, high: float, value: float, step: float) -> widgets.FloatSlider:
    """A slider over numbers; a value beyond its ends starts at the nearer one."""
    return widgets.FloatSlider(
        min(max(value, low), high),
        min=low,
        max=high,
        step=step,
        description=description,
        continuous_update=False,
        **_look(description),
    )


def choice(description: str, options: Sequence[tuple[str, Any]] | Sequence[Any], value: Any = None):
    """A row of buttons, one of them pressed.

    No drop-down list: JupyterLab takes its arrow keys away to move between cells (ipywidgets issue 3912).
    """
    chosen = {} if value is None else {"value": value}
    style = {**_STYLE, "button_width": "auto"}
    return widgets.ToggleButtons(options=options, description=description, style=style, **chosen)


_STYLE = {"description_width": "initial"}
_WRAPPED = widgets.Layout(flex_flow="row wrap", grid_gap="0 16px")


def _look(description: str) -> dict[str, dict[str, str]]:
    """A slider's width follows its name: of the default 300 pixels a long one leaves none to slide in."""
    return {"style": _STYLE, "layout": {"width": f"{len(description) + 32}ch"}}
