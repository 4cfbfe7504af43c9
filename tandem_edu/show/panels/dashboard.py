"""The training dashboard: curves and a table that follow a training while it runs."""

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from tandem_edu.errors import require
from tandem_edu.show.picture import Picture
from tandem_edu.show.plots import loss_curves
from tandem_edu.show.tables import html_table


class TrainingDashboard(widgets.HTML):
    """Show it, and give its `follow(name)` to each `train`, or `follow_all()` to one `train_together`.

    It is drawn anew at each evaluation. `picture()` is what stays for readers without a kernel. Raises
    `BadInput` for no names, or when asked to follow another.
    """

    def __init__(self, names: Sequence[str]):
        require(len(names) > 0, "the names of the models to be trained", "none", "pass some")
        super().__init__(value="<p>Waiting for the first evaluation.</p>")
        self.histories: dict[str, list[dict[str, Any]]] = {name: [] for name in names}

    def follow(self, name: str) -> Callable[[dict[str, Any]], None]:
        """The `on_eval` for the training of `name`."""
        self._known(name)
        self.histories[name] = []  # a cell that is run again trains anew

        def on_eval(entry: dict[str, Any]) -> None:
            self.histories[name].append(entry)
            self._draw()

        return on_eval

    def follow_all(self) -> Callable[[str, dict[str, Any]], None]:
        """The `on_eval` for training all of them together."""
        self.histories = {name: [] for name in self.histories}

        def on_eval(name: str, entry: dict[str, Any]) -> None:
            self._known(name)
            self.histories[name].append(entry)
            if len({len(history) for history in self.histories.values() if history}) == 1:
                # Each that is trained has had its evaluation.
                self._draw()

        return on_eval

    def _known(self, name: str) -> None:
        known = ", ".join(self.histories)
        require(name in self.histories, f"a name among {known}", repr(name), "check the spelling")

    def _draw(self) -> None:
        last = html_table(self.rows(last=1), "At the last evaluation")
        each = html_table(self.rows(), "At each evaluation", folded=True)
        self.value = self.picture().html() + last + each

    def picture(self) -> Picture:
        """The curves so far."""
        return loss_curves({name: history for name, history in self.histories.items() if history})

    def rows(self, last: int = 0) -> list[dict[str, str]]:
        """A row an evaluation, one model after the other; of each only the `last` ones, if said."""
        return [_row(name, entry) for name, history in self.histories.items() for entry in history[-last:]]


def training_dashboard(names: Sequence[str]) -> TrainingDashboard:
    """A dashboard for the models of these names, in the order of their training."""
    return TrainingDashboard(names)


def _row(name: str, entry: dict[str, Any]) -> dict[str, str]:
    agreement = entry.get("valid_agreement")
    return {
        "model": name,
        "step": f"{entry['step']:,}",
        "tokens": f"{entry['tokens']:,}",
        "seconds": f"{entry['seconds']:.0f}",
        "held-out loss": f"{entry['valid_loss']:.3f}",
        "accuracy": f"{entry['valid_accuracy']:.1%}",
        "agreement with the primary": "–" if agreement is None else f"{agreement:.1%}",
    }
