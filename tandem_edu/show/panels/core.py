"""A panel: controls, and one `widgets.HTML` that follows them, so that nothing stacks up or flickers.

All results are computed before; a control only redraws, and each drawing is cached.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import ipywidgets as widgets

from tandem_edu.show.picture import Picture
from tandem_edu.show.plots import loss_curves

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
    """A slider, over whole numbers unless `step` is a fraction, disabled if it cannot move."""
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
    """Buttons, not a drop-down list: JupyterLab uses its arrow keys for the cells (ipywidgets issue 3912)."""
    chosen = {"options": options} if value is None else {"options": options, "value": value}
    return widgets.ToggleButtons(**chosen, description=description, style=_STYLE | {"button_width": "auto"})


class TrainingDashboard(widgets.HTML):
    """Display it, then pass `follow()` to `train_together` as `on_eval`. It redraws at each evaluation."""

    def __init__(self, names: Sequence[str]):
        super().__init__(value="<p>Waiting for the first evaluation.</p>")
        self.histories: dict[str, list[dict[str, Any]]] = {name: [] for name in names}

    def follow(self) -> Callable[[str, dict[str, Any]], None]:
        """A new `on_eval`; every history starts again."""
        self.histories = {name: [] for name in self.histories}

        def on_eval(name: str, entry: dict[str, Any]) -> None:
            self.histories[name].append(entry)
            # Redraw when all models in training have been evaluated.
            if len({len(history) for history in self.histories.values() if history}) == 1:
                self.value = self.picture().with_table("All evaluations", folded=True)

        return on_eval

    def picture(self) -> Picture:
        """The curves so far, for readers without a kernel."""
        return loss_curves({name: history for name, history in self.histories.items() if history})
