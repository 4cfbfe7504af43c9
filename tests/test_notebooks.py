"""The notebooks run, and those in the repository are what their sources say."""

import json
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest

HERE = Path(__file__).parents[1] / "notebooks"
SOURCES = sorted(HERE.glob("[0-9]*.py"))
assert SOURCES

sys.path.insert(0, str(HERE))  # the scripts that make them stand beside them
import build  # noqa: E402
import exercises  # noqa: E402
import links  # noqa: E402

FULL = bool(os.environ.get("TANDEM_EDU_FULL"))
"""Whether `test_it_runs` takes what a reader runs: a quarter of an hour for all nine."""

every_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def test_an_unknown_name_is_refused():
    with pytest.raises(SystemExit, match=r"names among 00_quickstart, .*, got 00_quickstart.py"):
        build.main(["00_quickstart.py"])


@every_notebook
def test_the_notebook_is_its_source(source):
    committed = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    made = build.from_source(source)
    cells = lambda notebook: [(cell.cell_type, cell.source) for cell in notebook.cells]
    assert cells(committed) == cells(made), "run `make notebooks`"


@every_notebook
def test_badge_and_set_up_cell_name_the_repository(source):
    text = source.read_text("utf-8")
    assert links.linked(source.stem, text, links.address()) == text, "run `make links`"
    assert f"{links.address().removeprefix('https://')}" in text and f"/notebooks/{source.stem}.ipynb" in text
    assert text.count("Open in Colab") == text.count("%pip install") == 1


def test_a_new_address_reaches_the_notebook_and_leaves_its_results(tmp_path):
    path = SOURCES[0]
    for suffix in (".py", ".ipynb"):
        (tmp_path / path.with_suffix(suffix).name).write_bytes(path.with_suffix(suffix).read_bytes())
    links.write_linked(tmp_path / path.name, "https://github.com/some/where")
    before, after = (
        nbformat.read(folder / path.with_suffix(".ipynb").name, as_version=4) for folder in (HERE, tmp_path)
    )
    for cell in before.cells:
        cell.source = cell.source.replace("tandem-edu/tandem-edu", "some/where")
    assert after.cells == before.cells
    assert "github.com/some/where" in (tmp_path / path.name).read_text("utf-8")


@every_notebook
def test_it_has_what_each_notebook_has(source):
    """Time, goals, summary, three questions with folded answers, what comes next."""
    text = source.read_text("utf-8")
    time = re.search(r"^# \*\*Time:\*\* ((?:# )?[^#]*(?:\n# [^#]*)?)\n#\n", text, re.MULTILINE)
    times = time[1].replace("\n# ", " ") if time else ""
    assert "CPU" in times and "Colab GPU" in times and "estimate" in times
    goals = re.search(r"^# \*\*At the end you can\*\*\n((?:# .*\n)+)", text, re.MULTILINE)
    assert goals and goals[1].count("# * ") >= 3
    assert text.count("\n# ## What you have seen\n") == text.count("\n# ## Questions\n") == 1
    answers = re.findall(r"<details><summary>.*\?</summary>\n#\n((?:# .*\n|#\n)+?)# </details>", text)
    assert len(answers) == text.count("<details>") == 3 and min(map(len, answers)) > 40
    way_on = text[text.index("\n# ## The way on\n") :]
    linked = re.findall(r"\]\((.+?\.ipynb)\)", way_on)
    assert linked if source != SOURCES[-1] else not linked
    assert all((HERE / name).exists() for name in linked)


def test_the_readme_lists_every_notebook_with_its_badge():
    page = (HERE.parent / "README.md").read_text("utf-8")
    assert links.linked_badges(page, links.address()) == page, "run `make links`"
    for source in SOURCES:
        assert f"](notebooks/{source.stem}.ipynb)" in page
        assert f"/blob/main/notebooks/{source.stem}.ipynb)" in page


@every_notebook
def test_the_committed_notebook_shows_its_results(source):
    """Executed, in order, without errors, warnings, widgets or a path of the machine that ran it."""
    path = source.with_suffix(".ipynb")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert not build.complaints(notebook)
    assert not [output for output in outputs if build.is_passing(output)]
    assert not [output for output in outputs if "\r" in output.get("text", "")]  # a progress bar
    assert sum("data:image/png" in json.dumps(output) for output in outputs) >= 1
    assert "widgets" not in notebook.metadata
    text = path.read_text("utf-8")
    assert str(HERE.parent) not in text and str(Path.home()) not in text
    assert not re.search(r"/(home|root|work|tmp|Users|usr)/\w", text)  # of whoever built it


def test_the_exercises_are_what_their_script_makes():
    committed = nbformat.read(HERE / "exercises.ipynb", as_version=4)
    assert committed.cells == exercises.sheet().cells, "run `make notebooks`"
    assert links.address() in committed.cells[2].source


@pytest.mark.parametrize("answers", [False, True], ids=["as students get them", "solved"])
def test_the_exercises_are_marked(answers):
    """Run as nbgrader does: a test cell's last value is its mark, and a word on stderr would cost it all."""
    sheet = exercises.sheet(answers)
    nbformat.validate(sheet)
    build.run(sheet)
    code = [cell for cell in sheet.cells if cell.cell_type == "code"]
    assert not build.complaints(sheet)
    tests = [cell for cell in code if cell.metadata.get("nbgrader", {}).get("grade")]
    marks = [cell.outputs[-1].data["text/plain"] for cell in tests]
    worth = [cell.metadata.nbgrader.points for cell in tests]
    assert marks == [str(points if answers else 0) for points in worth]


@pytest.mark.parametrize(
    "source",
    [pytest.param(path, marks=() if path.stem.startswith("04") else pytest.mark.slow) for path in SOURCES],
    ids=lambda path: path.stem,
)
def test_it_runs(source, monkeypatch):
    """From top to bottom, with the tests' short cut (or in full, see above); nothing goes to stderr."""
    if not FULL:
        monkeypatch.setenv("TANDEM_EDU_FAST", "1")
    notebook = build.run(build.from_source(source))
    assert not build.complaints(notebook)
    assert any(build.is_panel(output) for cell in notebook.cells for output in cell.get("outputs", []))
