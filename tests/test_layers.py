"""The floors of the package: a file imports only from below its own (or from its own room).

Read from the syntax tree, so that an import inside a function or a string given to `import_module`
counts as well.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tandem_edu"
FLOOR = {
    "errors": -1,
    "files": 0,
    "progress": 0,
    **dict.fromkeys(["model", "data"], 1),
    "decode": 2,
    "train": 3,
    **dict.fromkeys(["measure", "zoo"], 4),
    **dict.fromkeys(["show", "classroom"], 5),
    **dict.fromkeys(["demo", "reproduce"], 6),
    "cli": 7,
    "__main__": 8,
    "__init__": 8,
}
ONLY_IN_SHOW = {"matplotlib", "ipywidgets"}
NEVER = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve"}


def imported(source: str, package: str) -> list[tuple[int, str]]:
    """Line and full dotted name of whatever a module of `package` imports."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parents = package.split(".")
                above = parents[: len(parents) - node.level + 1]
                module = ".".join(above + ([module] if module else []))
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            if name in ("import_module", "__import__", "lazy_import"):
                found.append((node.lineno, str(node.args[0].value)))
    return found


def complaints(path: str, source: str) -> list[str]:
    """What is wrong with the imports of `path`, a file name relative to the package."""
    *folders, name = Path(path).with_suffix("").parts
    room = folders[0] if folders else name
    if room not in FLOOR:
        return [f"{path}: {room} has no floor"]
    wrong = []
    for line, target in imported(source, ".".join(["tandem_edu", *folders])):
        where = f"{path}:{line}: {target}"
        top, *rest = target.split(".")
        if top in NEVER:
            wrong.append(f"{where}: never pickle")
        if top in ONLY_IN_SHOW and room != "show":
            wrong.append(f"{where}: only show draws")
        if top != "tandem_edu":
            continue
        # A name that is no room comes out of the package's own __init__, which sees everything.
        other = rest[0] if rest and rest[0] in FLOOR else "__init__"
        if other != room and FLOOR[other] >= FLOOR[room]:
            wrong.append(f"{where}: {other} is on floor {FLOOR[other]}, {room} on {FLOOR[room]}")
    return wrong


@pytest.mark.parametrize(
    "path", sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")), ids=str
)
def test_a_file_imports_from_below_only(path):
    assert complaints(path, (PACKAGE / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("model/tandem.py", "from tandem_edu.decode import sampling"),
        ("model/tandem.py", "from tandem_edu.data import Batches"),
        ("model/tandem.py", "from ..data.files import fetched"),
        ("model/tandem.py", "from .. import train"),
        ("model/tandem.py", "import tandem_edu"),
        ("model/tandem.py", "from tandem_edu import Sampling"),
        ("decode/a.py", "def f():\n    import tandem_edu.train.losses"),
        ("decode/a.py", "import importlib\nimportlib.import_module('tandem_edu.show')"),
        ("classroom/a.py", "from tandem_edu.show import plots"),
        ("errors.py", "from tandem_edu.files import fetched"),
        ("show/a.py", "from tandem_edu import cli"),
        ("measure/a.py", "from matplotlib import pyplot"),
        ("cli.py", "import ipywidgets as w"),
        ("__init__.py", "import matplotlib"),
        ("zoo/a.py", "from pickle import load"),
        ("zoo/a.py", "import os, pickle"),
        ("attic/a.py", ""),
    ],
)
def test_the_checker_sees_a_bad_import(path, source):
    assert len(complaints(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("model/tandem.py", "from tandem_edu.model.cache import Cache\nfrom .masks import causal_mask"),
        ("model/tandem.py", "from tandem_edu import errors\nfrom ..errors import BadInput\nimport jax"),
        ("decode/__init__.py", "from . import sampling\nfrom ..model import Tandem"),
        ("show/a.py", "import matplotlib.pyplot\nimport ipywidgets\nfrom tandem_edu.zoo import cards"),
        ("cli.py", "from tandem_edu.show import plots"),
        ("__init__.py", "from tandem_edu.cli import main\nfrom .decode import generate"),
    ],
)
def test_the_checker_lets_a_good_import_pass(path, source):
    assert complaints(path, source) == []


def test_the_package_needs_no_plotting_to_be_imported():
    code = f"import sys, tandem_edu; print(sorted({ONLY_IN_SHOW} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
