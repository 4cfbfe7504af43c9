"""The page of results, and the README's part of it: three figures between two marks."""

from pathlib import Path
from typing import Any

from studies.machine import machine
from studies.table import Cell, load_table
from tandem_edu.errors import require
from tandem_edu.files import written_whole

TITLE = "# Results"
"""The first line of the page."""
RESULTS = "results"
"""The folder of results beside the README."""
KIND = "documentation"
"""The prompts of the README's figures: the first kind in the tables."""
BEGIN, END = "<!-- results: made by python -m studies -->", "<!-- end of results -->"
FIGURES = (
    ("most probable token is the primary's", "quality", {"model": "{drafter}"}, "agreement", "{:.0%}"),
    ("drafts accepted of 5, greedy", "blocks", {"prompts": KIND, "mode": "greedy"}, "{drafter}", "{:.2f}"),
    (
        "speedup over the primary alone, greedy, on a CPU",
        "speed",
        {"prompts": KIND, "mode": "greedy", "samples": 1},
        "{drafter}",
        "{:.2f}",
    ),
)
"""Text, table, row, column, format."""
ANCHORS = {
    "quality": "quality-and-agreement-with-the-primary",
    "blocks": "drafts-accepted-per-block",
    "speed": "wall-clock",
}


def check_free(folder: Path) -> None:
    """Raise `BadInput` if the README.md of `folder` is not a page of results."""
    page = folder / "README.md"
    free = not page.exists() or page.read_text("utf-8").startswith(TITLE)
    require(free, f"a folder of results in {folder}", "one with a README of its own", "choose another --out")


def write_page(folder: Path, names: tuple[str, ...]) -> Path:
    """The page of all tables `names` that are in `folder`, in Markdown.

    A marked README beside a folder named `results` gets its lines anew.
    """
    tables = [load_table(folder, name) for name in names if (folder / f"{name}.json").exists()]
    facts = ", ".join(f"{name} {value}" for name, value in machine().items())
    head = (
        f"{TITLE}\n\nThe paper's tables (arXiv:2402.08644) and ours, made by `python -m studies`. Our models "
        f"are a thousand times smaller, and our processor is not a TPU. So compare the direction of an "
        f"effect, not its size. Each table's JSON names its machine. This page was written on: {facts}.\n\n"
    )
    path = folder / "README.md"
    with written_whole(path) as part:
        part.write_text(head + "\n".join(table.markdown() for table in tables), "utf-8")
    readme = folder.resolve().parent / "README.md"
    whole = folder.resolve().name == RESULTS and all((folder / f"{name}.json").exists() for name in ANCHORS)
    if whole and readme.exists() and BEGIN in readme.read_text("utf-8"):
        refresh(readme, folder)
    return path


def headline(folder: Path) -> str:
    """The three figures of the README as a Markdown table. Raises `BadInput` if a table is missing."""
    lines = [
        "| on text that no model was trained on | small model alone | in a tandem | conditions, intervals |",
        "|---|---|---|---|",
    ]
    for text, name, row, column, form in FIGURES:
        cells = []
        for drafter in ("distilled", "tandem"):
            model = "tandem (γ = 2)" if drafter == "tandem" else drafter
            wanted = {key: value if key != "model" else model for key, value in row.items()}
            cells.append(form.format(_row(folder, name, **wanted)[column.format(drafter=drafter)].value))
        link = f"[table]({RESULTS}/README.md#{ANCHORS[name]})"
        lines.append(f"| {text} | {' | '.join(cells)} | {link} |")
    return "\n".join(lines) + "\n"


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
