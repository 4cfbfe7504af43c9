"""Write a file completely or not at all.

The content goes to a temporary file in the same folder, which is renamed at the end. The operating
system renames in one step, so a crash leaves the old file or none, never half a file.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from tandem_edu.errors import BadInput


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`. Rename it to `path` on success, remove it on failure.

    Missing folders are made. Raises `BadInput` if the disk is full or `path` cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())  # the content must reach the disk before the name does
        os.replace(part, path)
    except OSError as error:
        fix = "free some disk space or choose another folder"
        raise BadInput(f"to write {path}", error.strerror or error, fix) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
