"""The corpora that every Python carries with it: its documentation and its own source code.

`pydocs`    English: the help topics of `pydoc_data` and the docstrings of the standard library.
`pysource`  Python: the source files of the standard library.
`stdlib`    both, each text once: the help topics, and the source files with their docstrings in them.

Nothing is imported or run to find them: the source is read as text and parsed with `ast`.

Left out are tests, bundled packages, and what a person did not write: the tables of `encodings`
and the build's own settings. Some hundred near-copies of one table would otherwise sit on both
sides of the split into training and validation text, and validation would flatter the model.
"""

import ast
import hashlib
import json
import os
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from tandem_edu.errors import BadInput, require
from tandem_edu.files import written_whole

SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "ensurepip", "turtledemo", "encodings", "pydoc_data"}
    | {"site-packages", "dist-packages", "__pycache__"}
)
SKIPPED_FILES = ("_sysconfigdata", "sitecustomize", "usercustomize")
_RECIPE = 1  # raise it when `_collect_docs` changes, so that no older cache is read

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def pysource() -> dict[str, str]:
    """Each source file of the standard library by its path there, sorted; about 9 MB.

    Raises `BadInput` where Python was installed without its source files.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    files = {path.relative_to(folder).as_posix(): _source(path) for path in _python_files(folder)}
    documents = {name: text for name, text in files.items() if text.strip()}
    fix = "install a full Python, or pass the path of a text of your own"
    require(bool(documents), f"the standard library's source in {folder}", "no .py file", fix)
    return documents


def pydocs(cache_dir: Path) -> tuple[str, ...]:
    """One document for each help topic and for each module's docstrings; about 2 MB.

    Parsing the library takes some seconds, so the documents are kept in `cache_dir` as JSON, under
    a name that belongs to this one Python. A cache that cannot be read or written is done without.
    """
    path = cache_dir / f"pydocs-{sysconfig.get_python_version()}-{_fingerprint()}.json"
    with suppress(OSError, ValueError):
        kept = json.loads(path.read_text("utf-8"))
        if isinstance(kept, list) and kept and all(isinstance(text, str) for text in kept):
            return tuple(kept)
    documents = (*_topics().values(), *_collect_docs(pysource().values()))
    with suppress(BadInput), written_whole(path) as part:
        part.write_text(json.dumps(documents), "utf-8")
    return documents


def stdlib() -> dict[str, str]:
    """Each help topic by its name and each source file by its path; about 9 MB."""
    return {**_topics(), **pysource()}


def docstrings(source: str) -> Iterator[str]:
    '''The docstrings of a module's source in reading order, dedented and stripped.

    >>> list(docstrings('"""Module."""\\ndef f():\\n  """Function."""'))
    ['Module.', 'Function.']
    '''
    with suppress(SyntaxError, ValueError):
        yield from _docstrings_below(_parsed(source))


def _parsed(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is odd in other people's source
        return ast.parse(source)


def _docstrings_below(node: ast.AST) -> Iterator[str]:
    if isinstance(node, _Documented) and (docstring := ast.get_docstring(node)):
        yield docstring.strip()
    for field in ("body", "orelse", "handlers", "finalbody"):
        children = getattr(node, field, ())
        for child in children if isinstance(children, list) else ():
            yield from _docstrings_below(child)


def _collect_docs(sources: Iterable[str]) -> Iterator[str]:
    """One document a module. A docstring that came before, such as an override's, is left out."""
    seen = {""}
    for source in sources:
        fresh = [text for text in docstrings(source) if text not in seen]
        seen.update(fresh)
        if fresh:
            yield "\n\n".join(dict.fromkeys(fresh))


def _topics() -> dict[str, str]:
    """The help topics by name, sorted by text, without those that are a section of a longer one."""
    from pydoc_data.topics import topics

    kept: dict[str, str] = {}
    stripped = {name: text.strip() for name, text in topics.items()}
    for name in sorted(stripped, key=lambda name: len(stripped[name]), reverse=True):
        below_its_title = stripped[name].split("\n\n", 1)[-1]
        if not any(below_its_title in longer for longer in kept.values()):
            kept[name] = stripped[name]
    return dict(sorted(kept.items(), key=lambda item: item[1]))


def _python_files(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        found += [Path(parent, name) for name in names if name.endswith(".py")]
    found = [path for path in found if not path.name.startswith(SKIPPED_FILES)]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _source(path: Path) -> str:
    """The text of a source file in the encoding it declares; nothing if that cannot be read."""
    with suppress(OSError, SyntaxError, UnicodeDecodeError), tokenize.open(path) as file:
        return file.read().strip("\n")
    return ""


def _fingerprint() -> str:
    where = f"{_RECIPE}\n{sys.version}\n{sysconfig.get_path('stdlib')}"
    return hashlib.sha256(where.encode()).hexdigest()[:12]
