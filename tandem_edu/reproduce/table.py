"""A table of results: what it shows, how it was measured, the paper's figures beside ours.

Written as JSON, which is what was measured, and as Markdown, which is made from the JSON.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tandem_edu.errors import BadInput
from tandem_edu.files import written_whole
from tandem_edu.measure import Interval, machine, spread

Cell = str | int | float | Interval | None


@dataclass(frozen=True)
class Table:
    """Rows under the same columns; `name` is its file's name."""

    name: str
    title: str
    note: str
    rows: Sequence[Mapping[str, Cell]]
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Alternative text by file name."""

    def markdown(self) -> str:
        """Title, note, table and pictures.

        >>> rows = [{"model": "tandem", "TV": Interval(0.2, 0.1, 0.3)}]
        >>> print(Table("t", "Title", "Note.", rows).markdown())
        ## Title
        <BLANKLINE>
        Note.
        <BLANKLINE>
        | model | TV |
        |---|---|
        | tandem | 0.200 [0.100, 0.300] |
        <BLANKLINE>
        """
        columns = list(self.rows[0]) if self.rows else []
        lines = [f"## {self.title}", "", self.note, "", _line(columns), "|" + "---|" * len(columns)]
        lines += [_line([_text(row[column]) for column in columns]) for row in self.rows]
        for name, alt in self.pictures.items():
            lines += ["", captioned(name, alt)]
        return "\n".join(lines) + "\n"


def captioned(path: str, alt: str) -> str:
    """A picture in Markdown, under the first words of its alternative text: which of several it is.

    >>> print(captioned("a.png", "code, greedy. Line chart."))
    **code, greedy**
    <BLANKLINE>
    ![code, greedy. Line chart.](a.png)
    """
    return f"**{alt.partition('. ')[0]}**\n\n![{alt}]({path})"


def quartiles(values: np.ndarray) -> Interval:
    """Median and quartiles of repetitions, as a cell.

    >>> quartiles(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    Interval(value=3.0, low=2.0, high=4.0)
    """
    return Interval(*spread(values))


def save_table(table: Table, folder: Path) -> None:
    """Write `table` to `folder` as JSON, with the machine it was measured on."""
    rows = [{name: _plain(cell) for name, cell in row.items()} for row in table.rows]
    found = {**asdict(table), "rows": rows, "machine": machine()}
    with written_whole(folder / f"{table.name}.json") as part:
        part.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")


_STAGE = {"positions": "quality", "blocks": "decoding", "speed": "decoding"}
"""The stage that makes a table, where it has another name."""


def load_table(folder: Path, name: str) -> Table:
    """The table `name` of `folder`. Raises `BadInput` if it is not there."""
    path = folder / f"{name}.json"
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        fix = f"make it: tandem-edu reproduce --stage {_STAGE.get(name, name)}"
        raise BadInput(f"results at {path}", error, fix) from error
    found.pop("machine")
    rows = [{column: _cell(value) for column, value in row.items()} for row in found.pop("rows")]
    return Table(rows=rows, **found)


def _plain(cell: Cell) -> Any:
    return cell._asdict() if isinstance(cell, Interval) else cell


def _cell(value: Any) -> Cell:
    return Interval(**value) if isinstance(value, dict) else value


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    return (
        cell if isinstance(cell, str) else f"{cell:.3f}" if isinstance(cell, float | Interval) else str(cell)
    )


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
