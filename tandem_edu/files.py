"""Files that are whole or not there: no half file is ever left under a name that is trusted.

A file under its final name is complete, because it is written under another name beside it and
renamed at the end, which the operating system does in one step. Whoever pulls the plug half-way
leaves the old file, or none.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from tandem_edu.errors import BadInput


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Lend a temporary name beside `path`; rename it to `path` if all went well, else remove it.

    Missing folders are made. Raises `BadInput` if the disk is full or may not be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with written_whole(f"{folder}/new/note.txt") as part:
    ...         _ = part.write_text("whole")
    ...     Path(folder, "new", "note.txt").read_text()
    'whole'
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())  # else the name could reach the disk before what it stands for
        os.replace(part, path)
    except OSError as error:
        got = f"{error.strerror or error}"
        raise BadInput(f"to write {path}", got, "make room or choose another place") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
