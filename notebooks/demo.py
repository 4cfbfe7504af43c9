"""Run the quickstart notebook into one page that needs no network: `make demo`.

Text is printed as it appears in the notebook. The page is demo/quickstart.html.
"""

import os
import sys
import time
import webbrowser
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

HERE = Path(__file__).parent


def run(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Run all cells; print each heading when its section begins, and what the section prints."""
    began = time.perf_counter()

    def heading(cell, cell_index):
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            title = cell.source.partition("\n")[0].lstrip("# ")
            print(f"\n[{time.perf_counter() - began:3.0f} s] {title}", flush=True)

    def output(cell, cell_index, execute_reply):
        for part in cell.outputs:
            text = part.get("text", "") if part.get("name") == "stdout" else ""
            if text.strip() and "\r" not in text:  # a progress bar rewrites its line
                print("        " + text.strip().replace("\n", "\n        "), flush=True)

    resources = {"metadata": {"path": HERE}}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources)
    client.on_cell_start = heading
    client.on_cell_executed = output
    return client.execute()


def to_page(notebook: nbformat.NotebookNode) -> str:
    """The notebook with its outputs as one HTML page without scripts from elsewhere."""
    notebook.metadata.pop("widgets", None)
    exporter = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="", exclude_input_prompt=True)
    return exporter.from_notebook_node(notebook)[0]


def main() -> None:
    """Run the notebook, write the page, and open it where there is a screen."""
    print("Running notebooks/00_quickstart.ipynb (one to three minutes on two cores)")
    page = Path("demo", "quickstart.html")
    page.parent.mkdir(exist_ok=True)
    notebook = run(nbformat.read(HERE / "00_quickstart.ipynb", as_version=4))
    page.write_text(to_page(notebook), "utf-8")
    print(f"\nThe notebook with all its pictures: {page}")
    if sys.stdout.isatty() and (sys.platform == "darwin" or os.name == "nt" or os.environ.get("DISPLAY")):
        webbrowser.open(page.resolve().as_uri())


if __name__ == "__main__":
    main()
