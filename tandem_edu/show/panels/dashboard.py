"""The training dashboard: curves and a table that follow a training while it runs."""

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from tandem_edu.show.picture import Picture
from tandem_edu.show.plots import loss_curves


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
