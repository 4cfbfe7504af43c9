"""Read text and JSON files, and write a file completely or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from tandem_edu.errors import BadInput, require

FilePath = str | os.PathLike[str]


@contextmanager
def written_whole(path: FilePath) -> Iterator[Path]:
    """Yield a temporary path beside `path`. Rename it to `path` on success, remove it on failure.

    The operating system renames in one step, so a crash leaves the old file or none, never half a file.
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


def read_utf8(path: FilePath, what: str = "text file") -> str:
    """A UTF-8 file's text, with line feeds at line ends. Raises `BadInput` if unreadable or not UTF-8."""
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} at offset {error.start} of {path}"
        raise BadInput("UTF-8 text", byte, "convert the file to UTF-8 and try again") from error
    except OSError as error:
        raise BadInput(f"a {what} to read", f"{error.strerror} ({path})", "check the path") from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, what: str, fix: str) -> dict[str, Any]:
    """The JSON object in a file. Raises `BadInput` with `fix` if the file holds none."""
    try:
        fields = json.loads(read_utf8(path, what))
    except json.JSONDecodeError as error:
        raise BadInput(f"a JSON object in {path}", error, fix) from error
    require(isinstance(fields, dict), f"a JSON object in {path}", type(fields).__name__, fix)
    return fields


def write_json(path: Path, fields: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all. Raises `BadInput` if it cannot be written."""
    with written_whole(path) as part:
        part.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", "utf-8")
