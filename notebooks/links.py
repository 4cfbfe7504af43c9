"""Write the repository's address into the notebooks' sources (badge, set-up cell) and the README's badges.

python notebooks/links.py       after a change of [project.urls] Repository in pyproject.toml
"""

import re
import tomllib
from pathlib import Path

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


def linked(name: str, source: str) -> str:
    """The source of the notebook `name` with badge and set-up cell as they should be."""
    badge = BADGE.format(owner=address().removeprefix("https://github.com/"), name=name)
    source = re.sub(r"# \[!\[Open in Colab\].*\n", lambda _: badge, source, count=1)
    setup = SETUP.format(address=address())
    old = re.compile(r"# %% \[markdown\]\n# ## Set-up\n(?:.*\n)*?    pass\n\n")
    return old.sub(lambda _: setup, source, count=1)


def linked_badges(page: str) -> str:
    """The README with every badge leading to the repository."""
    here = address().removeprefix("https://github.com/")
    return re.sub(r"(colab\.research\.google\.com/github)/[^)]*/blob/", rf"\1/{here}/blob/", page)


if __name__ == "__main__":
    readme = HERE.parent / "README.md"
    readme.write_text(linked_badges(readme.read_text("utf-8")), "utf-8")
    for path in sorted(HERE.glob("[0-9]*.py")):
        path.write_text(linked(path.stem, path.read_text("utf-8")), "utf-8")
