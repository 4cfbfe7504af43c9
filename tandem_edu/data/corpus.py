r"""A text that knows its documents, and where to get one.

Text is split into a training and a validation part *by document*. A cut at 90 % of the characters would
put half of a chapter in each part, and the model would be scored on what it memorised.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pooch

from tandem_edu.data.stdlib import pydocs, pysource, stdlib
from tandem_edu.errors import BadInput, require
from tandem_edu.files import FilePath, read_utf8

CORPORA = ("pydocs", "pysource", "stdlib", "shakespeare")
SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SUFFIXES = (".txt", ".md", ".rst", ".py")
PIECE = 2_000  # characters: a shorter text is one document, a longer one is cut into pieces of this size
LONGEST_PIECE = 10 * PIECE
_BREAKS = (r"\n\s*\n", r"\n", r"\s", r"(?s).{1,100}")  # paragraphs, else lines, words, anything


class Corpus(str):
    r"""A string that knows its documents: text = documents joined by blank lines.

    `name` is shown in reports, `titles` (one a document) decide the part in `train_valid`, `digest` is the
    SHA-256 (hex) of the documents. Raises `BadInput` without a document, if one is blank or no UTF-8, or if
    the numbers of titles and documents differ.

    >>> Corpus(["One two.", "Three."], name="numbers")
    Corpus('numbers', 2 documents, 16 characters)
    """

    name: str
    documents: tuple[str, ...]
    titles: tuple[str, ...]
    digest: str

    def __new__(cls, documents: Iterable[str], name: str = "text", titles: Iterable[str] | None = None):
        documents = documents_of(documents)
        require(bool(documents), "at least one document", "none", "pass a list of texts")
        digest = hashlib.sha256()
        for index, text in enumerate(documents):
            try:
                data = text.encode("utf-8")
            except (AttributeError, UnicodeEncodeError) as error:
                got, fix = f"{error} at index {index}", "read the files as UTF-8"
                raise BadInput("documents of text that UTF-8 can hold", got, fix) from error
            got = f"a blank one at index {index}"
            require(bool(text.strip()), "documents with some text", got, "leave it out")
            digest.update(b"%d:" % len(data) + data)  # the length makes the encoding unique
        corpus = super().__new__(cls, "\n\n".join(documents))
        corpus.name, corpus.documents, corpus.digest = name, documents, digest.hexdigest()
        corpus.titles = documents if titles is None else tuple(titles)
        got = f"{len(corpus.titles)} for {len(documents)} documents"
        require(len(corpus.titles) == len(documents), "one title a document", got, "leave titles out")
        return corpus

    def train_valid(self, valid_fraction: float = 0.1, seed: int = 0) -> tuple["Corpus", "Corpus"]:
        """Split by document into a training and a validation corpus.

        A document is held out if a hash of `seed` and its title (or text, without titles), a number in
        [0, 1), is below `valid_fraction`. So the split is the same in every process, copies of a document
        stay together, and a document added later moves no other. Each part gets at least one document.
        Below a fraction of 1/2, none is held out that would make the training part the shorter one. Raises
        `BadInput` if the fraction is not inside (0, 1) or all documents are the same.

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
        hashes = {title: hashlib.sha256(f"{seed}\n{title}".encode()).digest()[:8] for title in sizes}
        numbers = {title: int.from_bytes(hashed, "big") / 2**64 for title, hashed in hashes.items()}
        left = sizes.total() // 2 if valid_fraction < 0.5 else sizes.total() - 1  # characters to hold out
        held_out = set()
        for title in sorted(sizes, key=numbers.__getitem__):
            if (not held_out or numbers[title] < valid_fraction) and sizes[title] <= left:
                held_out.add(title)
                left -= sizes[title]
        return self._part("train", sizes.keys() - held_out), self._part("valid", held_out)

    def _part(self, name: str, titles: set[str]) -> "Corpus":
        pairs = zip(self.documents, self.titles, strict=True)
        documents, titled = zip(*(pair for pair in pairs if pair[1] in titles), strict=True)
        return Corpus(documents, f"{self.name}/{name}", titled)

    def __repr__(self) -> str:
        return f"Corpus({self.name!r}, {len(self.documents):,} documents, {len(self):,} characters)"


def load_text(name_or_path: FilePath, *, cache_dir: FilePath | None = None) -> Corpus:
    """Load a corpus by its name (one of `CORPORA`), or from the path of a UTF-8 file or a folder.

    "shakespeare" (1.1 MB) is downloaded once, to `cache_dir` or the user's cache folder; the others come from
    this machine's Python (`data.stdlib`). A file of 2,000 characters or more is cut into documents at blank
    lines. In a folder each .txt, .md, .rst and .py file is one, in the order of their paths. A folder of one
    such file counts as that file. Raises `BadInput` for what cannot be found, read, decoded or downloaded.
    """
    match name_or_path:
        case "pydocs":
            return Corpus(pydocs(), "pydocs")
        case "pysource" | "stdlib":
            texts = pysource() if name_or_path == "pysource" else stdlib()
            return Corpus(texts.values(), name_or_path, titles=texts)
        case "shakespeare":
            return Corpus(cut(_shakespeare(cache_dir)), "shakespeare")
    path = Path(os.path.expanduser(str(name_or_path)))
    known = f"one of {', '.join(CORPORA)}, or the path of a text file or folder"
    got = f"{str(name_or_path)!r}, and there is nothing at {path.absolute()}"
    exists = name_or_path != "" and os.path.exists(path)  # False too for a name too long for a file
    require(exists, known, got, "check the spelling and the folder you are in")
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
    least = min(PIECE, len(text) // 3)
    longest = min(LONGEST_PIECE, len(text) // 2)
    pieces = (piece.strip("\n") for piece in _pieces(text, least, longest, _BREAKS))
    return [piece for piece in pieces if piece.strip()]


def documents_of(texts: Iterable[str]) -> tuple[str, ...]:
    """The documents in `texts`: those of a corpus, a single string as one, or an iterable's items."""
    if isinstance(texts, Corpus):
        return texts.documents
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _shakespeare(cache_dir: FilePath | None) -> str:
    """The plays, kept in `cache_dir` or the user's cache folder. Raises `BadInput` without a network."""
    with TemporaryDirectory() as folder:
        with suppress(OSError, RuntimeError):  # a user without a home, as in some containers: nothing is kept
            cache = Path(cache_dir or pooch.os_cache("tandem_edu"))
            cache.mkdir(parents=True, exist_ok=True)
            folder = cache
        try:
            known, name = f"sha256:{SHAKESPEARE_SHA256}", "shakespeare.txt"
            return read_utf8(pooch.retrieve(SHAKESPEARE_URL, known, name, folder, progressbar=True))
        except (OSError, ValueError) as error:
            got = f"{type(error).__name__}: {error}"
            fix = 'try again; "pydocs" and "pysource" need no network; or pass the path of your own text'
            # The chain of causes holds four exceptions of the network libraries that add nothing.
            raise BadInput(f"a download from {SHAKESPEARE_URL}", got, fix) from None


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


def _text_files(folder: Path) -> list[Path]:
    """The text files below a folder, without hidden ones, sorted by their paths."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    shown = sorted(name for name in paths if name.lower().endswith(SUFFIXES) and "/." not in f"/{name}")
    return [paths[name] for name in shown]
