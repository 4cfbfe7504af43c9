"""Write the repository's address into the notebooks (badge, set-up cell) and the README's badges.

python notebooks/links.py       after a change of [project.urls] Repository in pyproject.toml
"""

import re
import tomllib
from pathlib import Path

import nbformat

import build

HERE = Path(__file__).parent
BADGE = (
    "# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{owner}/blob/main/notebooks/{name}.ipynb)\n"
)
SETUP = """\
# %% [markdown]
# ## Set-up
# On Colab this installs the toolkit; elsewhere it does nothing. It may be run twice.

# %%
import importlib.util
import sys

if "google.colab" in sys.modules and importlib.util.find_spec("tandem_edu") is None:
    # %pip install --quiet git+{address}
    pass

"""


def address() -> str:
    """Where the repository is published."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))
    return project["project"]["urls"]["Repository"]


def linked(name: str, source: str, where: str) -> str:
    """The source of the notebook `name` with badge, set-up cell and links for the address `where`."""
    badge = BADGE.format(owner=where.removeprefix("https://github.com/"), name=name)
    source = re.sub(r"# \[!\[Open in Colab\].*\n", lambda _: badge, source, count=1)
    setup = SETUP.format(address=where)
    old = re.compile(r"# %% \[markdown\]\n# ## Set-up\n(?:.*\n)*?    pass\n\n")
    source = old.sub(lambda _: setup, source, count=1)
    return re.sub(r"https://github\.com/[\w-]+/[\w-]+/blob/", f"{where}/blob/", source)


def write_linked(source: Path, where: str) -> None:
    """Put the address into a notebook's source, and into the notebook made from it, whose outputs stay."""
    source.write_text(linked(source.stem, source.read_text("utf-8"), where), "utf-8")
    path = source.with_suffix(".ipynb")
    notebook, new = nbformat.read(path, as_version=4), build.from_source(source)
    for cell, now in zip(notebook.cells, new.cells, strict=True):
        cell["source"] = now.source
    nbformat.write(notebook, path)


def linked_badges(page: str, where: str) -> str:
    """The README with every badge leading to the repository."""
    here = where.removeprefix("https://github.com/")
    return re.sub(r"(colab\.research\.google\.com/github)/[^)]*/blob/", rf"\1/{here}/blob/", page)


if __name__ == "__main__":
    readme = HERE.parent / "README.md"
    readme.write_text(linked_badges(readme.read_text("utf-8"), address()), "utf-8")
    for path in sorted(HERE.glob("[0-9]*.py")):
        write_linked(path, address())
