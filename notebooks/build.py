"""Make each notebook from its py:percent source: convert, run, keep what lasts.

python notebooks/build.py                 all of them
python notebooks/build.py 00_quickstart   one
"""

import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def from_source(source: Path) -> nbformat.NotebookNode:
    """The notebook of a py:percent file, without outputs, cells numbered in their order."""
    notebook = jupytext.read(source)
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index:02}"
        cell["metadata"] = {}
        cell["source"] = cell.source.strip("\n")  # the blank lines that a function has above it in a .py
    return notebook


def run(notebook: nbformat.NotebookNode, timeout: int = 600) -> nbformat.NotebookNode:
    """Run all cells; the first error raises."""
    place = {"metadata": {"path": HERE}}
    return NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources=place).execute()


def lasting(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """What a reader without a kernel has use for: no panels, no progress bars, no traces of the run."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)
            cell.outputs = [output for output in cell.outputs if not is_passing(output)]
    return notebook


def is_passing(output: nbformat.NotebookNode) -> bool:
    """Whether it is of use only while the notebook runs: a panel, a progress bar or what is left of one."""
    text = output.get("text", "")
    bar = output.get("name") == "stdout" and (text.startswith("\r") or not text.strip())
    return bar or is_panel(output)


def complaints(notebook: nbformat.NotebookNode) -> list[str]:
    """What the cells wrote to stderr: there should be nothing."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.text for output in outputs if output.get("name") == "stderr"]


def is_panel(output: nbformat.NotebookNode) -> bool:
    """Whether it is an ipywidget, which is nothing without its kernel."""
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def main(names: list[str]) -> None:
    """Build the notebooks of these names, or all."""
    sources = {source.stem: source for source in sorted(HERE.glob("[0-9]*.py"))}
    if unknown := set(names) - set(sources):
        sys.exit(f"expected names among {', '.join(sources)}, got {', '.join(sorted(unknown))}")
    for name in names or sources:
        began, source = time.perf_counter(), sources[name]
        notebook = run(from_source(source))
        told = complaints(notebook)
        assert not told, f"{source.name} wrote to stderr: {told}"
        nbformat.write(lasting(notebook), source.with_suffix(".ipynb"))
        print(f"{source.with_suffix('.ipynb').name}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
