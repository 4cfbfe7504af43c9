"""The training dashboard: curves and a table that follow a training while it runs."""

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from tandem_edu.errors import require
from tandem_edu.show.picture import Picture
from tandem_edu.show.plots import loss_curves
from tandem_edu.show.tables import html_table


class TrainingDashboard(widgets.HTML):
    """Display it, then pass `follow()` to `train_together` as `on_eval`. It redraws at each evaluation.

    `picture()` is the static view for readers without a kernel. Raises `BadInput` for an evaluation under
    another name.
    """

    def __init__(self, names: Sequence[str]):
        super().__init__(value="<p>Waiting for the first evaluation.</p>")
        self.histories: dict[str, list[dict[str, Any]]] = {name: [] for name in names}

    def follow(self) -> Callable[[str, dict[str, Any]], None]:
        """A new `on_eval`; every history starts again."""
        self.histories = {name: [] for name in self.histories}

        def on_eval(name: str, entry: dict[str, Any]) -> None:
            known = ", ".join(self.histories)
            require(name in self.histories, f"a name among {known}", repr(name), "check the spelling")
            self.histories[name].append(entry)
            if len({len(history) for history in self.histories.values() if history}) == 1:
                self._draw()  # all models in training have been evaluated

        return on_eval

    def picture(self) -> Picture:
        """The curves so far."""
        return loss_curves({name: history for name, history in self.histories.items() if history})

    def _draw(self) -> None:
        rows = {name: [_row(name, entry) for entry in history] for name, history in self.histories.items()}
        last = html_table([row for of in rows.values() for row in of[-1:]], "Last evaluation")
        every = html_table([row for of in rows.values() for row in of], "All evaluations", folded=True)
        self.value = self.picture().html() + last + every


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
