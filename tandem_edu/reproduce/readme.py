"""The README's results: a picture and six lines from the tables, between two marks in the text."""

from pathlib import Path
from typing import Any

from tandem_edu.errors import require
from tandem_edu.files import written_whole
from tandem_edu.reproduce.table import Cell, captioned, load_table

HEADLINE = ("quality", "blocks", "speed")
"""The tables that the lines come from."""
PICTURE = "code-temperature-1.png"
"""Of those that stand with the table of blocks."""
RESULTS = "results"
"""The folder of results beside the README."""
BEGIN, END = "<!-- results: made by tandem-edu reproduce -->", "<!-- end of results -->"

MODES = ("temperature 1", "greedy")
"""Greedy text of small models repeats itself, which flatters every drafter; so sampled text stands first."""


def headline(folder: Path) -> str:
    """A picture and a Markdown table of the main figures in `folder`.

    Raises `BadInput` if one of its tables is missing.
    """
    quality = {row["model"]: row for row in load_table(folder, "quality").rows}
    distilled, tandem = quality["distilled"], quality["tandem (γ = 2)"]
    against = [tandem["agreement / distilled's"], tandem["TV / distilled's"]]
    rows = [
        ("same likeliest token as the primary", distilled["agreement"], tandem["agreement"], against[0], ""),
        ("TV distance to the primary", distilled["TV"], tandem["TV"], against[1], ""),
    ]
    for mode in MODES:
        row = _row(folder, "blocks", prompts="code", mode=mode)
        name = f"drafts accepted of 5, code, {mode}"
        rows.append((name, row["distilled"], row["tandem"], row["tandem / distilled"], "1.11"))
    for mode in MODES:
        row = _row(folder, "speed", prompts="code", mode=mode, samples=1)
        name = f"times as fast as the primary alone, code, {mode}, measured on a CPU"
        rows.append((name, row["distilled"], row["tandem"], row["tandem / distilled"], "1.14"))
    alt = load_table(folder, "blocks").pictures[PICTURE]
    head = f"{captioned(f'{RESULTS}/{PICTURE}', alt)}\n\n"
    head += "| | distilled secondary | tandem | ratio | the paper's ratio |\n|---|---|---|---|---|\n"
    return head + "".join(f"| {name} | {' | '.join(map(_text, cells))} |\n" for name, *cells in rows)


def refresh(readme: Path, folder: Path) -> None:
    """Put `headline(folder)` between the marks of `readme`. Raises `BadInput` if it has no marks."""
    text = readme.read_text("utf-8")
    marked = text.count(BEGIN) == text.count(END) == 1
    require(marked, f"{BEGIN} and {END} once in {readme}", "something else", "put them back")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    with written_whole(readme) as part:
        part.write_text(f"{before}{BEGIN}\n{headline(folder)}{END}{after}", "utf-8")


def _row(folder: Path, name: str, **wanted: Any) -> dict[str, Cell]:
    rows = load_table(folder, name).rows
    return dict(next(row for row in rows if all(row[key] == value for key, value in wanted.items())))


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else f"{cell:.2f}"
