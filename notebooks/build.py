"""Make each notebook from its py:percent source: convert, run, keep what a reader without a kernel needs.

python notebooks/build.py                 all of them
python notebooks/build.py 00_quickstart   one
"""

import sys
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
    return notebook


def executed(notebook: nbformat.NotebookNode, timeout: int = 600) -> nbformat.NotebookNode:
    """Run all cells. A panel needs a kernel, so its output is left out, as are progress bars."""
    NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": HERE}}
    ).execute()
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)
            cell.outputs = [output for output in cell.outputs if _lasting(output)]
    return notebook


def _lasting(output: nbformat.NotebookNode) -> bool:
    is_panel = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return not is_panel and output.get("name") != "stderr"


def main(names: list[str]) -> None:
    """Build the notebooks of these names, or all."""
    for source in sorted(HERE.glob("[0-9]*.py")):
        if not names or source.stem in names:
            nbformat.write(executed(from_source(source)), source.with_suffix(".ipynb"))
            print(source.with_suffix(".ipynb").name)


if __name__ == "__main__":
    main(sys.argv[1:])
