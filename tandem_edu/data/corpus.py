r"""Text that remembers its documents, and where to get it.

A corpus is a string, so everything that takes text takes a corpus. It also keeps the documents it
was joined from, because text is split into a training and a validation part *by document*: a cut
at 90 % of the characters would put one half of a chapter on each side, and what the model then
repeats from the first half would be counted as what it understood of the second.

`load_text("pydocs")`, `"pysource"`, `"stdlib"`   from this machine's Python, see `tandem_edu.data.stdlib`
`load_text("shakespeare")`            1.1 MB, downloaded once and checked against its SHA-256
`load_text("my/notes.txt")`           a file of your own, cut into documents at blank lines
`load_text("my/folder")`              a folder of your own, each file a document
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pooch

from tandem_edu.data.files import fetched, read_utf8
from tandem_edu.data.stdlib import pydocs, pysource, stdlib
from tandem_edu.errors import BadInput, require

CORPORA = ("pydocs", "pysource", "stdlib", "shakespeare")
SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SUFFIXES = (".txt", ".md", ".rst", ".py")
PIECE = 2_000  # characters: the shortest piece a long text is cut into, and the shortest text
LONGEST_PIECE = 10 * PIECE  # a longer one is cut again, at lines, words or anywhere
# In the order of preference: paragraphs, lines, words, anything.
_BREAKS = (r"\n\s*\n", r"\n", r"\s", r"(?s).{1,100}")


class Corpus(str):
    r"""An immutable string that remembers its documents: text = documents joined by blank lines.

    Arguments: `documents`, texts of which none is blank; `name`, shown in reports; `titles`, one a
    document, by which `train_valid` then splits instead of by the texts themselves, so that a new
    edition of a document stays where the old one was. The attribute `digest` is the SHA-256 (hex) of
    the documents: equal digests, equal documents.
    Raises `BadInput` if there is no document, if one is blank or cannot be written as UTF-8, or if
    there are more or fewer titles than documents.

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
        fix = "read the files as text and leave blank ones out"
        require(all(isinstance(text, str) for text in documents), "strings", "others too", fix)
        blank = [index for index, text in enumerate(documents) if not text.strip()]
        require(not blank, "documents with some text", f"a blank one at {blank[:1]}", fix)
        titles = documents if titles is None else tuple(titles)
        got = f"{len(titles)} for {len(documents)} documents"
        require(len(titles) == len(documents), "one title a document", got, "leave titles out")
        corpus = super().__new__(cls, "\n\n".join(documents))
        corpus.__dict__.update(name=name, documents=documents, titles=titles, digest=_digest(documents))
        return corpus

    def train_valid(self, valid_fraction: float = 0.1, seed: int = 0) -> tuple["Corpus", "Corpus"]:
        """Split by document into a training and a validation corpus.

        A document's place is a number in [0, 1) hashed from `seed` and its text, or its title if the
        corpus has titles; it is held out if that is below `valid_fraction`. So the split is the same
        in every process, a document is never cut, copies of it stay together, and a document added
        later moves no other. The fraction counts documents and holds on average; both sides get at
        least one.

        Raises `BadInput` if the fraction is not inside (0, 1) or all documents are the same.

        >>> train, valid = Corpus(f"Document {i}." for i in range(100)).train_valid(0.2)
        >>> len(train.documents), len(valid.documents)
        (81, 19)
        """
        require(0 < valid_fraction < 1, "valid_fraction inside (0, 1)", valid_fraction, "try 0.1")
        places = {title: _place(seed, title) for title in self.titles}
        fix = "add text, or cut the text into documents"
        require(len(places) > 1, "at least two different documents", len(places), fix)
        count = sum(place < valid_fraction for place in places.values())
        count = min(max(count, 1), len(places) - 1)
        held_out = set(sorted(places, key=places.__getitem__)[:count])
        named = list(zip(self.documents, self.titles, strict=True))
        train = [(text, title) for text, title in named if title not in held_out]
        valid = [(text, title) for text, title in named if title in held_out]
        return _named(train, f"{self.name}/train"), _named(valid, f"{self.name}/valid")

    def __repr__(self) -> str:
        size = f"{len(self.documents):,} documents, {len(self):,} characters"
        return f"Corpus({self.name!r}, {size})"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Corpus is immutable: cannot set {name!r}")

    def __getnewargs__(self):
        return self.documents, self.name, self.titles


def load_text(
    name_or_path: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None
) -> Corpus:
    """Load a corpus by its name (one of `CORPORA`) or from a path.

    A path is a UTF-8 file, cut into documents (see `cut`) unless it has less than 2,000 characters, or
    a folder whose .txt, .md, .rst and .py files are the documents in the order of their paths; a folder
    with one such file counts as that file.

    `cache_dir` holds downloads and collected docstrings; the default is the user's own cache.
    Raises `BadInput` for what cannot be found, read, decoded or downloaded.
    """
    cache = Path(cache_dir) if cache_dir is not None else Path(pooch.os_cache("tandem_edu"))
    match name_or_path:
        case "pydocs":
            return Corpus(pydocs(cache), "pydocs")
        case "pysource":
            return _named(((text, name) for name, text in pysource().items()), "pysource")
        case "stdlib":
            return _named(((text, name) for name, text in stdlib().items()), "stdlib")
        case "shakespeare":
            plays = fetched(SHAKESPEARE_URL, SHAKESPEARE_SHA256, cache / "shakespeare.txt")
            return Corpus(cut(plays.decode("utf-8")), "shakespeare")
    path = _existing(name_or_path)
    return Corpus(_documents_at(path), path.name)


def cut(text: str, least: int = PIECE) -> list[str]:
    r"""Cut one text into documents of at least `least` characters, at blank lines.

    A text shorter than three pieces is cut into pieces of a third of it, and a piece longer than
    half the text (or than 20,000 characters) is cut again at its lines, then at its words, then
    anywhere: a text of 2,000 characters makes two pieces or more, none huge. Blank ones are left out.

    >>> [len(piece) for piece in cut("A line of verse.\n\n" * 1000)]
    [2014, 2014, 2014, 2014, 2014, 2014, 2014, 3886]
    """
    least = min(least, max(1, len(text) // 3))
    longest = min(LONGEST_PIECE, len(text) // 2)
    pieces = (piece.strip("\n") for piece in _pieces(text, least, longest, _BREAKS))
    return [piece for piece in pieces if piece.strip()]


def documents_of(texts: Iterable[str]) -> tuple[str, ...]:
    """The documents in `texts`: those of a corpus, a lone string as one, or an iterable's items."""
    if isinstance(texts, Corpus):
        return texts.documents
    return (texts,) if isinstance(texts, str) else tuple(texts)


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


def _named(documents: Iterable[tuple[str, str]], name: str) -> Corpus:
    texts, titles = zip(*documents, strict=True)
    return Corpus(texts, name, titles)


def _existing(name_or_path: str | os.PathLike[str]) -> Path:
    is_path = isinstance(name_or_path, str | os.PathLike) and bool(str(name_or_path))
    known = f"one of {', '.join(CORPORA)}, or the path of a text file or folder"
    require(is_path, known, repr(name_or_path), 'try load_text("pydocs")')
    path = Path(name_or_path).expanduser()
    got = f"{str(name_or_path)!r}, and there is nothing at {path.absolute()}"
    require(path.exists(), known, got, "check the spelling and the folder you are in")
    return path


def _documents_at(path: Path) -> list[str]:
    files = _text_files(path) if path.is_dir() else [path]
    fix = "put your texts there, or pass the path of one file"
    require(bool(files), f"{', '.join(SUFFIXES)} files in the folder {path}", "none", fix)
    texts = [text for text in map(read_utf8, files) if text.strip()]
    require(bool(texts), f"some text in {path}", "only blank space", "pass a text with content")
    return texts if len(texts) > 1 or len(texts[0]) < PIECE else cut(texts[0])


def _text_files(folder: Path) -> list[Path]:
    inside = ((path.relative_to(folder), path) for path in folder.rglob("*"))
    visible = {
        name.as_posix(): path
        for name, path in inside
        if path.suffix.lower() in SUFFIXES and path.is_file()
        if not any(part.startswith(".") for part in name.parts)
    }
    return [visible[name] for name in sorted(visible)]


def _place(seed: int, text: str) -> float:
    """A number in [0, 1), spread evenly over texts and the same on every machine."""
    hashed = hashlib.sha256(f"{seed}\n{text}".encode()).digest()
    return int.from_bytes(hashed[:8], "big") / 2**64


def _digest(documents: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for index, text in enumerate(documents):
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            got = f"{text[error.start]!r} at character {error.start} of document {index}"
            raise BadInput("text that UTF-8 can hold", got, "decode the source as UTF-8") from error
        digest.update(b"%d:" % len(data) + data)  # with its length, so that no two lists collide
    return digest.hexdigest()
