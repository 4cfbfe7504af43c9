"""Read text and JSON files, and download files."""

import json
import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pooch

from tandem_edu.errors import BadInput, require
from tandem_edu.files import written_whole

FilePath = str | os.PathLike[str]


def read_utf8(path: FilePath, what: str = "text file") -> str:
    r"""The text of a UTF-8 file, with `\n` at line ends and without a byte order mark.

    Raises `BadInput` if the file does not exist, cannot be read, or is not UTF-8.
    """
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


def fetched(url: str, sha256: str, name: str, cache_dir: FilePath | None) -> str:
    """The text behind `url`, kept as `name` in `cache_dir`, or in the user's cache folder if there is one.

    Raises `BadInput` without a network, or if the SHA-256 of the download is not `sha256` (hex).
    """
    with TemporaryDirectory() as folder:
        with suppress(OSError, RuntimeError):  # a user without a home, as in some containers: nothing is kept
            cache = Path(cache_dir or pooch.os_cache("tandem_edu"))
            cache.mkdir(parents=True, exist_ok=True)
            folder = cache
        try:
            return read_utf8(pooch.retrieve(url, f"sha256:{sha256}", name, folder, progressbar=True))
        except (OSError, ValueError) as error:
            fix = 'try again; "pydocs" and "pysource" need no network; or pass the path of your own text'
            # The chain of causes holds four exceptions of the network libraries that add nothing.
            raise BadInput(f"a download from {url}", f"{type(error).__name__}: {error}", fix) from None
