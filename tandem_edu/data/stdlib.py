"""The corpora that come with every Python: its documentation and its own source code.

Nothing is run. Left out: tests, bundled packages, generated files, the near-equal tables of `encodings`.
"""

import ast
import os
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tandem_edu.errors import require

SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "ensurepip", "turtledemo", "encodings", "pydoc_data"}
    | {"site-packages", "dist-packages", "__pycache__"}
)
SKIPPED_FILES = ("_sysconfigdata", "sitecustomize", "usercustomize")


def pysource() -> dict[str, str]:
    """The standard library's source files by path in it, sorted; 9 MB. Raises `BadInput` without any."""
    library, documents = Path(sysconfig.get_path("stdlib")), {}
    for parent, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        for path in (Path(parent, n) for n in names if n.endswith(".py") and not n.startswith(SKIPPED_FILES)):
            with suppress(OSError, SyntaxError, UnicodeDecodeError), tokenize.open(path) as file:
                documents[path.relative_to(library).as_posix()] = file.read().strip("\n")
    documents = {name: text for name, text in sorted(documents.items()) if text.strip()}
    fix = "install a full Python, or pass the path of your own text"
    require(bool(documents), f"the standard library's source in {library}", "no .py file", fix)
    return documents


def pydocs() -> Iterator[str]:
    """English: a document for each help topic and for each module's docstrings, each once; about 2 MB."""
    yield from _topics().values()
    seen = {""}  # a docstring that was seen before is that of an override
    for source in pysource().values():
        fresh = dict.fromkeys(text for text in docstrings(source) if text not in seen)
        seen.update(fresh)
        if fresh:
            yield "\n\n".join(fresh)


def stdlib() -> dict[str, str]:
    """Both: each help topic by its name and each source file by its path; about 9 MB."""
    return {**_topics(), **pysource()}


def docstrings(source: str) -> list[str]:
    """The docstrings of a module's source in reading order, dedented and stripped; none of broken source."""
    with suppress(SyntaxError, ValueError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as invalid escapes in the source
        return list(_docstrings_below(ast.parse(source)))
    return []


def _docstrings_below(node: ast.AST) -> Iterator[str]:
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    if documented and (docstring := ast.get_docstring(node)):
        yield docstring.strip()
    for field in ("body", "orelse", "handlers", "finalbody"):
        for child in getattr(node, field, ()):
            yield from _docstrings_below(child)


def _topics() -> dict[str, str]:
    """The help topics by name, sorted by text. A topic that is a section of a longer one is left out."""
    from pydoc_data.topics import topics

    kept: dict[str, str] = {}
    for name in sorted(sorted(topics), key=lambda name: len(topics[name].strip()), reverse=True):
        text = topics[name].strip()
        below_its_title = text.split("\n\n", 1)[-1]
        if not any(below_its_title in longer for longer in kept.values()):
            kept[name] = text
    return dict(sorted(kept.items(), key=lambda item: item[1]))
