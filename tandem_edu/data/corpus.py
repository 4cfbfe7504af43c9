r"""A text that knows its documents, and where to get one.

Text is split into a training and a validation part *by document*. A cut at 90 % of the characters would
put half of a chapter in each part, and the model would be scored on what it memorised.

`load_text("pydocs")`, `"pysource"`, `"stdlib"`   from this machine's Python, see `tandem_edu.data.stdlib`
`load_text("shakespeare")`            1.1 MB, downloaded once and checked against its SHA-256
`load_text("my/notes.txt")`           your own file, cut into documents at blank lines
`load_text("my/folder")`              your own folder, each file a document
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tandem_edu.data.files import fetched, read_utf8
from tandem_edu.data.stdlib import pydocs, pysource, stdlib
from tandem_edu.errors import BadInput, require

CORPORA = ("pydocs", "pysource", "stdlib", "shakespeare")
SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SUFFIXES = (".txt", ".md", ".rst", ".py")
PIECE = 2_000  # characters: a shorter text is one document, a longer one is cut into pieces of this size
LONGEST_PIECE = 10 * PIECE
_BREAKS = (r"\n\s*\n", r"\n", r"\s", r"(?s).{1,100}")  # paragraphs, else lines, words, anything


class Corpus(str):
    r"""A string that knows its documents: text = documents joined by blank lines.

    Arguments: `documents`, texts of which none is blank; `name`, shown in reports; `titles`, one a
    document. With titles, `train_valid` splits by title, so a new edition of a document stays in the
    same part. The attribute `digest` is the SHA-256 (hex) of the documents. Raises `BadInput` if there
    is no document, if one is blank or cannot be written as UTF-8, or if the numbers of titles and
    documents differ.

    >>> corpus = Corpus(["One two.", "Three."], name="numbers")
    >>> corpus
    Corpus('numbers', 2 documents, 16 characters)
    >>> str(corpus)
    'One two.\n\nThree.'
    """

    name: str
    documents: tuple[str, ...]
    titles: tuple[str, ...]
    digest: str

    def __new__(
        cls, documents: Iterable[str], name: str = "text", titles: Iterable[str] | None = None
    ) -> "Corpus":
        documents = documents_of(documents)
        require(bool(documents), "at least one document", "none", "pass a list of texts")
        digest = hashlib.sha256()
        for index, text in enumerate(documents):
            data = _utf8(text, index)
            digest.update(b"%d:" % len(data) + data)  # the length makes the encoding unique
        corpus = super().__new__(cls, "\n\n".join(documents))
        corpus.name, corpus.documents, corpus.digest = name, documents, digest.hexdigest()
        corpus.titles = documents if titles is None else tuple(titles)
        got = f"{len(corpus.titles)} for {len(documents)} documents"
        require(len(corpus.titles) == len(documents), "one title a document", got, "leave titles out")
        return corpus

    def train_valid(self, valid_fraction: float = 0.1, seed: int = 0) -> tuple["Corpus", "Corpus"]:
        """Split by document into a training and a validation corpus.

        A hash of `seed` and a document's title (or text, without titles) gives a number in [0, 1). The
        document is held out if that is below `valid_fraction`. So the split is the same in every
        process, copies of a document stay together, and a document added later moves no other.

        The fraction counts different documents and holds on average. Each part gets at least one. Below
        a fraction of 1/2, no document is held out that would make the training part the shorter one, such
        as a page repeated many times.

        Raises `BadInput` if the fraction is not inside (0, 1) or all documents are the same.

        >>> train, valid = Corpus(f"Document {i}." for i in range(100)).train_valid(0.2)
        >>> len(train.documents), len(valid.documents)
        (81, 19)
        """
        require(0 < valid_fraction < 1, "valid_fraction inside (0, 1)", valid_fraction, "try 0.1")
        sizes = Counter[str]()
        for title, text in zip(self.titles, self.documents, strict=True):
            sizes[title] += len(text) + len("\n\n")
        fix = "add text, or cut the text into documents"
        require(len(sizes) > 1, "at least two different documents", len(sizes), fix)
        held_out = _held_out(sizes, valid_fraction, seed)
        return self._part("train", sizes.keys() - held_out), self._part("valid", held_out)

    def _part(self, name: str, titles: set[str]) -> "Corpus":
        kept = [index for index, title in enumerate(self.titles) if title in titles]
        documents, titled = ([texts[index] for index in kept] for texts in (self.documents, self.titles))
        return Corpus(documents, f"{self.name}/{name}", titled)

    def __repr__(self) -> str:
        return f"Corpus({self.name!r}, {len(self.documents):,} documents, {len(self):,} characters)"


def load_text(
    name_or_path: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None
) -> Corpus:
    """Load a corpus by its name (one of `CORPORA`) or from a path.

    A path is a UTF-8 file or a folder. A file of 2,000 characters or more is cut into documents at blank
    lines. The documents of a folder are its .txt, .md, .rst and .py files in the order of their paths. A
    folder with one such file counts as that file. `cache_dir` holds downloads; by default the user's cache
    folder does. Raises `BadInput` for what cannot be found, read, decoded or downloaded.
    """
    match name_or_path:
        case "pydocs":
            return Corpus(pydocs(), "pydocs")
        case "pysource" | "stdlib":
            texts = pysource() if name_or_path == "pysource" else stdlib()
            return Corpus(texts.values(), name_or_path, titles=texts)
        case "shakespeare":
            plays = fetched(SHAKESPEARE_URL, SHAKESPEARE_SHA256, "shakespeare.txt", cache_dir)
            return Corpus(cut(plays.decode("utf-8")), "shakespeare")
    is_path = isinstance(name_or_path, str | os.PathLike) and bool(str(name_or_path))
    known = f"one of {', '.join(CORPORA)}, or the path of a text file or folder"
    require(is_path, known, repr(name_or_path), 'try load_text("pydocs")')
    path = Path(os.path.expanduser(name_or_path))
    got = f"{str(name_or_path)!r}, and there is nothing at {path.absolute()}"
    require(path.exists(), known, got, "check the spelling and the folder you are in")
    files = _text_files(path) if path.is_dir() else [path]
    fix = "put your texts there, or pass the path of one file"
    require(bool(files), f"{', '.join(SUFFIXES)} files in the folder {path}", "none", fix)
    texts = [text for text in map(read_utf8, files) if text.strip()]
    require(bool(texts), f"some text in {path}", "only blank space", "pass a text with content")
    return Corpus(texts if len(texts) > 1 or len(texts[0]) < PIECE else cut(texts[0]), path.name)


def cut(text: str) -> list[str]:
    r"""Cut one text into documents of at least 2,000 characters, at blank lines.

    A text shorter than three pieces is cut into thirds. A piece longer than half the text, or than
    20,000 characters, is cut again: at its lines, else its words, else anywhere.

    >>> [len(piece) for piece in cut("A line of verse.\n\n" * 1000)]
    [2014, 2014, 2014, 2014, 2014, 2014, 2014, 3886]
    """
    least = min(PIECE, max(1, len(text) // 3))
    longest = min(LONGEST_PIECE, len(text) // 2)
    pieces = (piece.strip("\n") for piece in _pieces(text, least, longest, _BREAKS))
    return [piece for piece in pieces if piece.strip()]


def documents_of(texts: Iterable[str]) -> tuple[str, ...]:
    """The documents in `texts`: those of a corpus, a single string as one, or an iterable's items."""
    if isinstance(texts, Corpus):
        return texts.documents
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _utf8(text: object, index: int) -> bytes:
    got = type(text).__name__ if not isinstance(text, str) else "" if text.strip() else "a blank one"
    fix = "read the files as text and leave blank ones out"
    require(not got, "documents with some text", f"{got} at index {index}", fix)
    try:
        return str(text).encode("utf-8")
    except UnicodeEncodeError as error:
        got = f"{error.object[error.start]!r} at character {error.start} of document {index}"
        raise BadInput("text that UTF-8 can hold", got, "decode the source as UTF-8") from error


def _pieces(text: str, least: int, longest: int, breaks: tuple[str, ...]) -> Iterator[str]:
    bounds = [0]
    for match in re.finditer(breaks[0], text):
        if match.end() - bounds[-1] >= least and len(text) - match.end() >= least:
            bounds.append(match.end())
    for start, end in zip(bounds, [*bounds[1:], len(text)], strict=True):
        if end - start > longest and len(breaks) > 1:
            yield from _pieces(text[start:end], least, longest, breaks[1:])
        else:
            yield text[start:end]


def _held_out(sizes: dict[str, int], fraction: float, seed: int) -> set[str]:
    """The titles to hold out, given each title's number of characters."""
    numbers = {title: _uniform(seed, title) for title in sizes}
    largest = sum(sizes.values()) / 2 if fraction < 0.5 else sum(sizes.values())
    held_out, size = set(), 0
    for title in sorted(sizes, key=numbers.__getitem__):
        enough = held_out and numbers[title] >= fraction
        if enough or len(held_out) == len(sizes) - 1:
            break
        if size + sizes[title] <= largest:
            held_out.add(title)
            size += sizes[title]
    return held_out


def _uniform(seed: int, text: str) -> float:
    """A number in [0, 1), the same on every machine."""
    hashed = hashlib.sha256(f"{seed}\n{text}".encode()).digest()
    return int.from_bytes(hashed[:8], "big") / 2**64


def _text_files(folder: Path) -> list[Path]:
    """The text files below a folder, without hidden ones, sorted by their paths."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    shown = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    return [folder / name for name in sorted(shown, key=Path.as_posix) if (folder / name).is_file()]
