"""Text read and files fetched so that no half file is ever trusted; see `tandem_edu.files` for writing."""

import hashlib
import io
import os
from contextlib import suppress
from pathlib import Path

import pooch

from tandem_edu.errors import BadInput, require
from tandem_edu.files import written_whole


def read_utf8(path: str | os.PathLike[str], what: str = "text file") -> str:
    r"""The text of a UTF-8 file, with `\n` at line ends and without a byte order mark.

    Raises `BadInput` if there is no such file, if it may not be read, or if its bytes are not UTF-8.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} at offset {error.start} of {path}"
        raise BadInput("UTF-8 text", byte, "convert the file to UTF-8 and try again") from error
    except OSError as error:
        got = f"{error.strerror} ({path})"
        raise BadInput(f"a {what} to read", got, "check the path") from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def fetched(url: str, sha256: str, path: str | os.PathLike[str]) -> bytes:
    """The bytes behind `url`, kept at `path` for the next time.

    Only bytes with the right `sha256` (hex) are returned or kept: a spoiled copy at `path` is
    removed and fetched anew, a spoiled download is never written. A `path` that cannot be written
    costs a download each time, nothing else.

    Raises `BadInput` if there is no network, or if what arrives has another checksum.
    """
    path = Path(path)
    with suppress(OSError):
        if _sha256(kept := path.read_bytes()) == sha256:
            return kept
        path.unlink()
    data = _download(url)
    got = f"{_sha256(data)} ({len(data):,} bytes from {url})"
    fix = "nothing was kept, so try again; if it persists, something on the way alters the file"
    require(_sha256(data) == sha256, f"a download with SHA-256 {sha256}", got, fix)
    with suppress(BadInput), written_whole(path) as part:
        part.write_bytes(data)
    return data


def _download(url: str) -> bytes:
    body = io.BytesIO()
    try:
        pooch.HTTPDownloader(progressbar=True)(url, body, None)
    except OSError as error:
        fix = '"pydocs" and "pysource" need no network; or pass the path of a text of your own'
        # Four exceptions of the network libraries stand behind this one and say no more than it.
        got = f"{type(error).__name__}: {error}"
        raise BadInput(f"a download from {url}", got, fix) from None
    return body.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
