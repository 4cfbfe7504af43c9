"""The layers of the package: a file imports only from lower layers, or from its own subpackage.

Imports are read from the syntax tree, so an import inside a function or a string given to `import_module`
counts as well.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tandem_edu"
LAYERS = [
    ["errors"],
    ["files", "progress"],
    ["kernels"],
    ["model", "data"],
    ["drafters"],
    ["decode"],
    ["train"],
    ["zoo", "measure"],
    ["show", "classroom"],
    ["cli"],
    ["__init__", "nano"],
]
LAYER = {name: number for number, layer in enumerate(LAYERS) for name in layer}
ONLY_IN_SHOW = {"matplotlib", "ipywidgets"}
NEVER = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve"}


def imported(source: str, package: str) -> list[tuple[int, str]]:
    """Line and full dotted name of everything that a module of `package` imports."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parents = package.split(".")
                above = parents[: len(parents) - node.level + 1]
                module = ".".join(above + ([module] if module else []))
            names += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            if name in ("import_module", "__import__", "lazy_import"):
                names.append((node.lineno, str(node.args[0].value)))
    return names


def complaints(path: str, source: str) -> list[str]:
    """What is wrong with the imports of `path`, a file name relative to the package."""
    *folders, name = Path(path).with_suffix("").parts
    part = folders[0] if folders else name
    if part not in LAYER:
        return [f"{path}: {part} is in no layer"]
    wrong = []
    for line, target in imported(source, ".".join(["tandem_edu", *folders])):
        where = f"{path}:{line}: {target}"
        top, *rest = target.split(".")
        if top in NEVER:
            wrong.append(f"{where}: never pickle")
        if top in ONLY_IN_SHOW and part != "show":
            wrong.append(f"{where}: only show draws")
        if top == "studies":
            wrong.append(f"{where}: studies are not installed")
        if top != "tandem_edu":
            continue
        # Any other name is one that the package's own __init__ offers.
        other = rest[0] if rest and rest[0] in LAYER else "__init__"
        if other != part and LAYER[other] >= LAYER[part]:
            wrong.append(f"{where}: {other} is not below {part}")
    return wrong


@pytest.mark.parametrize(
    "path", sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")), ids=str
)
def test_a_file_imports_from_lower_layers_only(path):
    assert complaints(path, (PACKAGE / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("model/cache.py", "from tandem_edu.decode import sampling"),
        ("model/cache.py", "from tandem_edu.data import Batches"),
        ("model/cache.py", "from ..drafters.files import load_model"),
        ("model/cache.py", "from .. import train"),
        ("kernels/cpu.py", "from tandem_edu.model import Cache"),
        ("drafters/a.py", "import tandem_edu"),
        ("drafters/a.py", "from tandem_edu import Sampling"),
        ("decode/a.py", "def f():\n    import tandem_edu.train.losses"),
        ("decode/a.py", "import importlib\nimportlib.import_module('tandem_edu.show')"),
        ("classroom/a.py", "from tandem_edu.show import plots"),
        ("errors.py", "from tandem_edu.files import written_whole"),
        ("show/a.py", "from tandem_edu import cli"),
        ("show/a.py", "from tandem_edu import nano"),
        ("measure/a.py", "from matplotlib import pyplot"),
        ("measure/a.py", "from studies import tables"),
        ("cli.py", "import ipywidgets as w"),
        ("__init__.py", "import matplotlib"),
        ("zoo/a.py", "from pickle import load"),
        ("zoo/a.py", "import os, pickle"),
        ("attic/a.py", ""),
    ],
)
def test_the_checker_sees_a_wrong_import(path, source):
    assert len(complaints(path, source)) == 1


def test_the_package_can_be_imported_without_plotting():
    code = f"import sys, tandem_edu; print(sorted({ONLY_IN_SHOW} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
