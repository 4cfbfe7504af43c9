"""Corpora: what a document is, where text comes from, and what happens when there is none."""

import copy
import hashlib
import json
import os
import pickle
import random
import socketserver
import threading
from pathlib import Path

import pytest
from refusal import refuses

from tandem_edu import files
from tandem_edu.data import Corpus, corpus, load_text, stdlib
from tandem_edu.errors import BadInput

PLAY = "".join(f"Speaker {i % 7}:\nLine {i} of the play, spoken aloud.\n\n" for i in range(400))


@pytest.fixture(scope="module")
def pysource():
    return load_text("pysource")


def test_titles_decide_the_split_and_stay_with_their_documents(pysource):
    titles = [f"file {i}" for i in range(50)]
    old = Corpus((f"Text {i}." for i in range(50)), "old", titles)
    new = Corpus((f"Text {i}, revised." for i in range(50)), "new", titles)
    for before, after in zip(old.train_valid(0.3), new.train_valid(0.3), strict=True):
        assert before.titles == after.titles
        assert list(before.documents) == [f"Text {title.split()[1]}." for title in before.titles]
    inner = old.train_valid(0.3)[1].train_valid(0.5)
    assert {*inner[0].titles, *inner[1].titles} == set(old.train_valid(0.3)[1].titles)
    refuses("one title a document, got 1 for 2 documents", Corpus, ["One.", "Two."], titles=["first"])
    assert pysource.documents[pysource.titles.index("json/decoder.py")].startswith('"""Implementation')


def test_a_corpus_is_its_documents_joined_and_survives_pickle_and_copy():
    text = Corpus(["One.", "Two."], "numbers")
    assert isinstance(text, str) and text == "One.\n\nTwo." and text[0] == "O"
    assert repr(text) == "Corpus('numbers', 2 documents, 10 characters)"
    for twin in (pickle.loads(pickle.dumps(text)), copy.deepcopy(text)):
        assert (twin, vars(twin)) == (text, vars(text)) and twin.documents == ("One.", "Two.")
    same_text = Corpus(["a\n\nb", "c"]), Corpus(["a", "b\n\nc"])
    assert same_text[0] == same_text[1] and same_text[0].digest != same_text[1].digest


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "at least one document, got none"),
        (["a", " \n"], "got a blank one at index 1"),
        ([b"bytes"], "text that UTF-8 can hold, got 'bytes' object .* at index 0"),
        (["a", "b\udce2"], "text that UTF-8 can hold, got .* in position 1: .* at index 1"),
    ],
)
def test_what_no_corpus_can_be_made_of(documents, message):
    refuses(message, Corpus, documents)


def test_the_split_has_about_the_fraction_and_added_text_moves_no_document():
    documents = [f"document {i}" for i in range(2000)]
    _, valid = Corpus(documents).train_valid(0.1)
    assert abs(len(valid.documents) - 200) < 5 * (2000 * 0.1 * 0.9) ** 0.5
    _, longer = Corpus([*documents, "new", "newer"]).train_valid(0.1)
    assert set(longer.documents) - set(valid.documents) <= {"new", "newer"}
    assert set(valid.documents) <= set(longer.documents)
    assert len({Corpus(documents).train_valid(0.1, seed)[1].digest for seed in range(3)}) == 3


def test_the_split_parts_the_documents_in_order_and_trains_on_the_longer_part():
    for trial in range(300):
        rng = random.Random(trial)
        documents = [f"page {i} {'δ' * rng.randint(0, 99)}\n\n🙂" for i in range(rng.randint(2, 9))]
        documents += rng.choices(documents, k=rng.randint(0, 30))  # pages that are repeated
        for fraction in (1e-9, 0.1, 0.3, 0.49, 0.9, 1 - 1e-9):
            train, valid = Corpus(documents).train_valid(fraction, seed=trial)
            assert train.documents and valid.documents
            for part, other in ((train, valid), (valid, train)):
                assert part.documents == tuple(text for text in documents if text not in other.documents)
            assert len(train) >= len(valid) or fraction > 0.5
    for name in "abcdef":
        train, valid = Corpus([f"page {name}"] * 10 + ["the last page"]).train_valid(0.1)
        assert (len(train.documents), len(valid.documents)) == (10, 1)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_what_cannot_be_split(fraction):
    refuses(r"valid_fraction inside \(0, 1\), got", Corpus(["a", "b"]).train_valid, fraction)
    refuses("at least two different documents, got 1", Corpus(["a", "a"]).train_valid)


def test_pydocs_is_two_megabytes_of_english():
    pydocs = load_text("pydocs")
    assert pydocs.name == "pydocs" and 1_200_000 < len(pydocs) < 4_000_000
    assert len(pydocs.documents) > 300 and len(set(pydocs.documents)) == len(pydocs.documents)
    assert all(document == document.strip() for document in pydocs.documents)
    assert "JSON (JavaScript Object Notation)" in pydocs and " the " in pydocs


def test_docstrings_are_collected_from_every_block():
    source = (
        '"""Module."""\nif x:\n  class A:\n    """Class."""\n    async def f(self):\n'
        '      """\n      Two\n        lines.\n      """\ntry: pass\nexcept E:\n'
        '  def g(): "Handler."\nfinally:\n  def h():\n    def inner(): "Inner."\n'
    )
    docstrings = ["Module.", "Class.", "Two\n  lines.", "Handler.", "Inner."]
    assert stdlib.docstrings(source) == docstrings
    assert stdlib.docstrings("print 'Python 2'") == []
    assert stdlib.docstrings('"\\d is an odd escape"') == ["\\d is an odd escape"]


def test_a_docstring_is_kept_once_and_topics_do_not_contain_one_another(monkeypatch):
    sources = ['"""Same."""', '"""Same."""\ndef f(): "Own."\ndef g(): "Own."', '"""Same."""']
    monkeypatch.setattr(stdlib, "pysource", lambda: dict(enumerate(sources)))
    *topics, same, own = stdlib.pydocs()
    assert len(topics) > 40 and (same, own) == ("Same.", "Own.")
    assert not any(one in other for one in topics for other in topics if one != other)


def test_pysource_is_the_source_that_people_wrote(pysource):
    assert pysource.name == "pysource" and 5_000_000 < len(pysource) < 15_000_000
    assert Path(json.decoder.__file__).read_text("utf-8").strip("\n") in pysource.documents
    assert "decoding_table = (" not in pysource and "build_time_vars = {" not in pysource


def test_source_in_another_encoding_is_decoded_and_broken_source_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(stdlib.sysconfig, "get_path", lambda name: str(tmp_path))
    refuses(r"standard library's source in .*, got no \.py file", load_text, "pysource")
    (tmp_path / "b.py").write_bytes("# coding: latin-1\nx = 'é'\n".encode("latin-1"))
    (tmp_path / "a.py").write_bytes(b"x = '\xe9'\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "c.py").write_text("left_out = 1")
    (tmp_path / "_sysconfigdata_here.py").write_text("left_out = 2")
    assert load_text("pysource").documents == ("# coding: latin-1\nx = 'é'",)


def test_a_long_file_is_cut_at_blank_lines(tmp_path):
    path = tmp_path / "play.txt"
    path.write_text(PLAY, encoding="utf-8")
    text = load_text(path)
    assert text == PLAY.strip("\n") and text.name == "play.txt" and len(text.documents) > 5
    assert all(len(part) >= corpus.PIECE and part.startswith("Speaker") for part in text.documents)
    assert load_text(str(path)).digest == text.digest
    pieces = corpus.cut(PLAY + "word " * 9_000 + "\n\n" + PLAY)  # only the long piece is cut at words
    assert max(map(len, pieces)) <= corpus.LONGEST_PIECE
    assert all(piece[:7] in ("Speaker", "word wo") for piece in pieces)


def test_any_text_of_two_thousand_characters_gives_two_documents():
    for trial in range(60):
        rng = random.Random(trial)
        glue = rng.choice(["", " ", "\n", "\n\n", "\n \t\n"])
        words = ("".join(rng.choices("abcdé🙂", k=rng.randint(1, 90))) for _ in range(10**6))
        text, size = [], rng.randint(2_000, 60_000)
        while sum(map(len, text)) < size:
            text.append(glue.join(next(words) for _ in range(5)) + glue)
        text = "".join(text)
        pieces = corpus.cut(text)
        assert len(pieces) >= 2
        assert max(map(len, pieces)) <= corpus.LONGEST_PIECE
        assert "".join("".join(pieces).split()) == "".join(text.split())
        if len(text) >= 3 * corpus.PIECE:
            assert min(map(len, pieces)) >= corpus.PIECE - 10  # the glue at its ends is stripped


def test_windows_line_ends_and_byte_order_marks_are_taken_off(tmp_path):
    (tmp_path / "play.txt").write_bytes(b"\xef\xbb\xbf" + PLAY.replace("\n", "\r\n").encode())
    assert load_text(tmp_path / "play.txt") == PLAY.strip("\n")
    # A folder of one file is cut like the file.
    assert load_text(tmp_path).documents == load_text(tmp_path / "play.txt").documents


def test_a_folder_gives_a_document_a_file_in_order(tmp_path):
    names = ["b.txt", "a.md", "sub/c.RST", "sub/d.py", "skip.png", ".hidden/e.txt", "blank.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if name == "blank.txt" else f"text of {name}")
    expected = tuple(f"text of {name}" for name in ("a.md", "b.txt", "sub/c.RST", "sub/d.py"))
    assert load_text(tmp_path).documents == expected


def test_a_short_file_is_one_document_and_an_empty_one_none(tmp_path):
    text = "A line.\n\n" * 200
    (tmp_path / "short.txt").write_text(text)
    assert load_text(tmp_path / "short.txt").documents == (text,)
    for blank in (b"", b" \n\t\n", b"\xef\xbb\xbf"):
        (tmp_path / "short.txt").write_bytes(blank)
        for path in (tmp_path / "short.txt", tmp_path):
            refuses(r"some text in .*, got only blank space", load_text, path)


@pytest.mark.parametrize(("encoding", "offset"), [("utf-16", 0), ("latin-1", 6)])
def test_a_file_in_another_encoding_is_named_with_the_offset(encoding, offset, tmp_path):
    path = tmp_path / "foreign.txt"
    path.write_bytes(("plain é" + PLAY).encode(encoding))
    for given in (path, tmp_path):
        refuses(rf"0x.. at offset {offset} of .*foreign.txt: convert the file", load_text, given)


@pytest.mark.parametrize("name", ["pydoc", "no/such/file.txt", "the text itself " * 40, "", 7, None])
def test_neither_a_name_nor_a_path(name):
    error = refuses("one of pydocs, pysource, stdlib, shakespeare, or the path", load_text, name)
    assert not name or not isinstance(name, str) or f"nothing at {os.getcwd()}" in error


def test_a_folder_without_texts_and_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    refuses(r"\.txt, \.md, \.rst, \.py files in the folder .* got none", load_text, tmp_path)
    (tmp_path / "secret.txt").write_text(PLAY)
    monkeypatch.setattr(files.Path, "read_bytes", denied)
    refuses(r"got Permission denied \(.*secret\.txt\): check the path", load_text, tmp_path / "secret.txt")


def test_text_of_ones_own_needs_no_home(tmp_path, monkeypatch):
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "own.txt").write_text("A text of my own.")
    assert load_text(tmp_path / "own.txt").documents == ("A text of my own.",)
    refuses(r"there is nothing at .*~", load_text, "~/own.txt")


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        self.server.requests += 1
        self.wfile.write(self.server.reply)


def http_reply(body: bytes, length: int | None = None, status: str = "200 OK") -> bytes:
    """A reply that announces a body of `length` bytes."""
    length = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n".encode() + body


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The server that `load_text("shakespeare")` asks; `tmp_path` is the cache."""
    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.reply = 0, http_reply(PLAY.encode())
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(corpus.pooch, "os_cache", lambda name: tmp_path)
        monkeypatch.setattr(corpus, "SHAKESPEARE_URL", f"http://127.0.0.1:{server.server_address[1]}/play")
        monkeypatch.setattr(corpus, "SHAKESPEARE_SHA256", hashlib.sha256(PLAY.encode()).hexdigest())
        yield server
        server.shutdown()
        thread.join()


def test_shakespeare_is_downloaded_once_and_cut(server, tmp_path, capfd):
    first = load_text("shakespeare")
    assert first.name == "shakespeare" and first == PLAY.strip("\n") and len(first.documents) > 5
    assert "100%" in capfd.readouterr().err
    assert load_text("shakespeare", cache_dir=tmp_path).digest == first.digest and server.requests == 1
    (kept,) = tmp_path.iterdir()
    for requests, spoiled in enumerate((b"", PLAY.encode()[:-1], b"\x00" * 100), start=2):
        kept.write_bytes(spoiled)
        assert load_text("shakespeare") == first
        assert kept.read_bytes() == PLAY.encode() and server.requests == requests


def test_a_bad_download_is_reported_and_not_kept(server, tmp_path, monkeypatch):
    bad = b"<html>Sign in to this network</html>"
    wanted, got = corpus.SHAKESPEARE_SHA256, hashlib.sha256(bad).hexdigest()
    for reply, message in [
        (http_reply(bad), rf"a download from http.*expected sha256:{wanted} but got {got}.*: try again"),
        (http_reply(bad, length=5000), r"a download from http.*pydocs.*need no network"),
        (http_reply(b"", status="404 Not Found"), "a download from .* got HTTPError: 404"),
    ]:
        server.reply = reply
        refuses(message, load_text, "shakespeare")
    monkeypatch.setattr(corpus, "SHAKESPEARE_URL", "http://127.0.0.1:9/nobody")
    refuses(r'got ConnectionError.*"pydocs" and "pysource" need no network', load_text, "shakespeare")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cache", ["no home", "a file"])
def test_without_a_cache_each_call_downloads(cache, server, tmp_path, monkeypatch):
    def no_home(name):
        raise RuntimeError("Could not determine home directory.")

    (tmp_path / "file").write_text("not a folder")
    os_cache = no_home if cache == "no home" else lambda name: tmp_path / "file"
    monkeypatch.setattr(corpus.pooch, "os_cache", os_cache)
    for count in (1, 2):
        assert load_text("shakespeare") == PLAY.strip("\n")
        assert server.requests == count


def test_an_interrupted_or_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "kept.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.written_whole(path) as part:
        part.write_text("ne")
        raise KeyboardInterrupt

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    message = r"to write .*kept\.txt, got No space left on device: free some disk space"
    with pytest.raises(BadInput, match=message), files.written_whole(path) as part:
        part.write_text("new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
