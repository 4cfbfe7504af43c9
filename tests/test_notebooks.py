"""The notebooks run, and those in the repository are what their sources say."""

import importlib.util
import json
from pathlib import Path

import nbformat
import pytest

HERE = Path(__file__).parents[1] / "notebooks"
SOURCES = sorted(HERE.glob("[0-9]*.py"))


def _script(name: str):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build, links = _script("build"), _script("links")
every_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert SOURCES


@every_notebook
def test_the_notebook_is_its_source(source):
    committed = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    made = build.from_source(source)
    cells = lambda notebook: [(cell.cell_type, cell.source) for cell in notebook.cells]
    assert cells(committed) == cells(made), "run `make notebooks`"


@every_notebook
def test_badge_and_set_up_cell_name_the_repository(source):
    text = source.read_text("utf-8")
    assert links.linked(source.stem, text) == text, "run `make links`"
    assert f"{links.address().removeprefix('https://')}" in text and f"/notebooks/{source.stem}.ipynb" in text
    assert text.count("Open in Colab") == text.count("%pip install") == 1


def test_the_readme_lists_every_notebook_with_its_badge():
    page = (HERE.parent / "README.md").read_text("utf-8")
    assert links.linked_badges(page) == page, "run `make links`"
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
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert not [output for output in outputs if "\r" in output.get("text", "")]  # a progress bar
    assert sum("data:image/png" in json.dumps(output) for output in outputs) >= 2
    assert "widgets" not in notebook.metadata
    text = path.read_text("utf-8")
    assert str(HERE.parent) not in text
    assert str(Path.home()) not in text


@pytest.mark.parametrize(
    "source",
    [pytest.param(path, marks=() if path.stem.startswith("04") else pytest.mark.slow) for path in SOURCES],
    ids=lambda path: path.stem,
)
def test_it_runs(source, monkeypatch):
    """From top to bottom, with the tests' short cut; nothing goes to stderr but progress bars."""
    monkeypatch.setenv("TANDEM_EDU_FAST", "1")
    notebook = build.run(build.from_source(source))
    told = [
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.get("name") == "stderr"
    ]
    assert not [text for text in told if "Warning" in text]
    panels = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if build.is_panel(output)
    ]
    assert panels
