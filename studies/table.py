"""What a study is given and what it returns: tables, as JSON in a file, as Markdown on a page.

A table's title and note are in `words.toml`.
"""

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from studies.machine import machine
from tandem_edu.errors import BadInput
from tandem_edu.files import written_whole
from tandem_edu.measure import Interval, spread
from tandem_edu.zoo.shipped import Pair, Texts

Cell = str | int | float | Interval | None
Row = dict[str, Cell]
WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text("utf-8"))
"""Title and note of each table by its name."""


class Lab(NamedTuple):
    """What a study is given."""

    pair: Pair
    parts: Texts
    work: Path
    """Where trainings keep their checkpoints."""
    repetitions: int = 20
    """Rounds of a timing. The paper's tables have their own."""
    say: Callable[[str], None] = print


@dataclass(frozen=True)
class Table:
    """Rows under the same columns; `name` is its file's name."""

    name: str
    rows: Sequence[Mapping[str, Cell]]
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Alternative text by file name."""
    images: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    """The pictures themselves, where the table has just been made."""

    def markdown(self) -> str:
        """Title, note, table and pictures."""
        columns, words = list(self.rows[0]), WORDS[self.name]
        lines = [
            f"## {words['title']}",
            "",
            " ".join(words["note"].split()),
            "",
            _line(columns),
            "|" + "---|" * len(columns),
        ]
        lines += [_line([_text(row[column]) for column in columns]) for row in self.rows]
        for name, alt in self.pictures.items():
            lines += ["", captioned(name, alt)]
        return "\n".join(lines) + "\n"


def captioned(path: str, alt: str) -> str:
    """A picture in Markdown, under the first sentence of its alternative text."""
    return f"**{alt.partition('. ')[0]}**\n\n![{alt}]({path})"


def timing_rows(
    seconds: Mapping[str, np.ndarray], first: Mapping[str, float], against: Mapping[str, str]
) -> list[Row]:
    """A row for each contender of `timed`: milliseconds, and its ratio to another in the same round."""
    return [
        {
            "": name,
            "milliseconds": spread(1e3 * taken),
            "times as long": spread(taken / seconds[against[name]]) if name in against else None,
            "as": against.get(name),
            "first call, seconds": first[name],
        }
        for name, taken in seconds.items()
    ]


def save_table(table: Table, folder: Path) -> None:
    """Write `table` to `folder` as JSON, with the machine it was measured on, and its pictures."""
    plain = lambda cell: cell._asdict() if isinstance(cell, Interval) else cell
    rows = [{name: plain(cell) for name, cell in row.items()} for row in table.rows]
    for name, image in table.images.items():
        with written_whole(folder / name) as part:
            part.write_bytes(image)
    with written_whole(folder / f"{table.name}.json") as part:
        record = {"name": table.name, "rows": rows, "pictures": dict(table.pictures), "machine": machine()}
        part.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


def load_table(folder: Path, name: str) -> Table:
    """The table `name` of `folder`. Raises `BadInput` if it is not there."""
    path = folder / f"{name}.json"
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        study = {"positions": "quality", "blocks": "decoding", "speed": "decoding"}.get(name, name)
        raise BadInput(f"results at {path}", error, f"make it: python -m studies {study}") from error
    cell = lambda value: Interval(**value) if isinstance(value, dict) else value
    rows = [{column: cell(value) for column, value in row.items()} for row in record["rows"]]
    return Table(name, rows, record["pictures"])


def _text(cell: Cell) -> str:
    if isinstance(cell, float | Interval):
        large = (cell if isinstance(cell, float) else cell.value) >= 1000
        return f"{cell:{'.0f' if large else '.3f'}}"
    return "" if cell is None else str(cell)


def _line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(cells) + " |"
