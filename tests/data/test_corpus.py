"""Corpora: what is a document, where text comes from, and every way in which it can be missing."""

import copy
import functools
import hashlib
import http.server
import json
import os
import pickle
import random
import subprocess
import sys
import threading
import time

import pytest

from tandem_edu.data import Corpus, corpus, files, load_text, stdlib
from tandem_edu.errors import BadInput

PLAY = "".join(f"Speaker {i % 7}:\nLine {i} of the play, spoken aloud.\n\n" for i in range(400))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def pydocs(cache):
    return load_text("pydocs", cache_dir=cache)


@pytest.fixture(scope="module")
def pysource():
    return load_text("pysource")


def random_documents(rng: random.Random) -> list[str]:
    words = ["alpha", "beta", "γάμμα", "δ\n\nδ", "🙂", "\ttab", "#"]
    count = rng.randint(2, 60)
    return [" ".join(rng.choices(words, k=rng.randint(1, 12))) for _ in range(count)]


# The string that remembers its documents


def test_titles_decide_the_split_and_stay_with_their_documents():
    titles = [f"file {i}" for i in range(50)]
    old = Corpus((f"Text {i}." for i in range(50)), "old", titles)
    new = Corpus((f"Text {i}, revised." for i in range(50)), "new", titles)
    for mine, theirs in zip(old.train_valid(0.3), new.train_valid(0.3), strict=True):
        assert mine.titles == theirs.titles
        assert all(
            text == f"Text {title.split()[1]}."
            for text, title in zip(mine.documents, mine.titles, strict=True)
        )
    inner = old.train_valid(0.3)[1].train_valid(0.5)
    assert {*inner[0].titles, *inner[1].titles} == set(old.train_valid(0.3)[1].titles)
    with pytest.raises(BadInput, match="one title a document, got 1 for 2 documents"):
        Corpus(["One.", "Two."], titles=["first"])


def test_the_library_is_split_by_its_files_names(pysource):
    assert "json/decoder.py" in pysource.titles
    assert pysource.documents[pysource.titles.index("json/decoder.py")].startswith('"""Implementation')


def test_a_corpus_is_its_documents_joined_by_blank_lines():
    text = Corpus(["One.", "Two."], "numbers")
    assert isinstance(text, str) and text == "One.\n\nTwo." and text[0] == "O"
    assert (text.name, text.documents) == ("numbers", ("One.", "Two."))
    assert repr(text) == "Corpus('numbers', 2 documents, 10 characters)"


def test_a_corpus_is_immutable_and_survives_pickle_and_copy():
    text = Corpus(["One.", "Two."], "numbers")
    with pytest.raises(AttributeError, match="immutable"):
        text.name = "other"
    for twin in (pickle.loads(pickle.dumps(text)), copy.copy(text), copy.deepcopy(text)):
        assert (twin, twin.name, twin.documents) == (text, text.name, text.documents)
        assert twin.digest == text.digest


def test_the_digest_tells_document_boundaries_apart():
    same_text = Corpus(["a\n\nb", "c"]), Corpus(["a", "b\n\nc"])
    assert same_text[0] == same_text[1] and same_text[0].digest != same_text[1].digest


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "at least one document, got none"),
        (["a", " \n"], r"got a blank one at \[1\]"),
        ([b"bytes"], "expected strings"),
        (["a", "b\udce2"], "UTF-8 can hold, got .* at character 1 of document 1"),
    ],
)
def test_what_no_corpus_can_be_made_of(documents, message):
    with pytest.raises(BadInput, match=message):
        Corpus(documents)


# The split


def test_the_split_parts_the_documents_and_keeps_copies_together():
    for trial in range(200):
        rng = random.Random(trial)
        text = Corpus([*random_documents(rng), "one more", "and another"])
        train, valid = text.train_valid(rng.uniform(0.01, 0.99), seed=trial)
        assert not set(train.documents) & set(valid.documents)
        assert sorted(train.documents + valid.documents) == sorted(text.documents)
        in_order = [document for document in text.documents if document in set(train.documents)]
        assert train.documents == tuple(in_order)


def test_the_split_has_about_the_fraction_and_moves_nobody_when_text_is_added():
    documents = [f"document {i}" for i in range(2000)]
    _, valid = Corpus(documents).train_valid(0.1)
    assert abs(len(valid.documents) - 200) < 5 * (2000 * 0.1 * 0.9) ** 0.5
    _, longer = Corpus([*documents, "new", "newer"]).train_valid(0.1)
    assert set(longer.documents) - set(valid.documents) <= {"new", "newer"}
    assert set(valid.documents) <= set(longer.documents)


def test_the_seed_changes_the_split_and_small_corpora_are_topped_up():
    text = Corpus(f"document {i}" for i in range(50))
    assert len({text.train_valid(0.3, seed)[1].digest for seed in range(8)}) == 8
    for fraction in (1e-9, 0.5, 1 - 1e-9):
        train, valid = Corpus(["a", "b"]).train_valid(fraction)
        assert (len(train.documents), len(valid.documents)) == (1, 1)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_outside_its_range(fraction):
    with pytest.raises(BadInput, match=r"valid_fraction inside \(0, 1\), got"):
        Corpus(["a", "b"]).train_valid(fraction)


def test_copies_of_one_document_cannot_be_split():
    with pytest.raises(BadInput, match="at least two different documents, got 1"):
        Corpus(["a", "a"]).train_valid()


def test_another_process_splits_alike():
    code = (
        "from tandem_edu.data import Corpus\n"
        "text = Corpus(f'document {i}' for i in range(99))\n"
        "print(text.digest, *(part.digest for part in text.train_valid(0.2, seed=3)))"
    )
    run = [sys.executable, "-c", code]
    env = os.environ | {"PYTHONHASHSEED": "12345"}
    there = subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout.split()
    text = Corpus(f"document {i}" for i in range(99))
    assert there == [text.digest, *(part.digest for part in text.train_valid(0.2, seed=3))]


# This machine's Python


def test_pydocs_is_two_megabytes_of_english(pydocs, cache):
    assert pydocs.name == "pydocs" and 1_200_000 < len(pydocs) < 4_000_000
    assert len(pydocs.documents) > 300 and len(set(pydocs.documents)) == len(pydocs.documents)
    assert all(document == document.strip() for document in pydocs.documents)
    assert "JSON (JavaScript Object Notation)" in pydocs and " the " in pydocs
    assert [path.suffix for path in cache.iterdir()] == [".json"]


def test_pydocs_comes_from_the_cache_the_second_time(pydocs, cache, monkeypatch):
    monkeypatch.setattr(stdlib, "pysource", lambda: pytest.fail("parsed again"))
    start = time.perf_counter()
    assert load_text("pydocs", cache_dir=cache).documents == pydocs.documents
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("spoiled", ["", '["cut sho', "{}", "[1, 2]", '"text"'])
def test_a_spoiled_cache_is_collected_anew(spoiled, tmp_path, monkeypatch):
    monkeypatch.setattr(stdlib, "pysource", lambda: {"a.py": '"""A module."""', "b.py": "x = 1"})
    fresh = load_text("pydocs", cache_dir=tmp_path)
    assert "A module." in fresh.documents
    (kept,) = tmp_path.iterdir()
    kept.write_text(spoiled)
    assert load_text("pydocs", cache_dir=tmp_path).documents == fresh.documents
    assert json.loads(kept.read_text()) == list(fresh.documents)


def test_pydocs_needs_no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(stdlib, "pysource", lambda: {"a.py": '"""A module."""'})
    (tmp_path / "file").write_text("not a folder")
    assert "A module." in load_text("pydocs", cache_dir=tmp_path / "file").documents


def test_docstrings_are_found_wherever_they_hide():
    source = (
        '"""Module."""\nif x:\n  class A:\n    """Class."""\n    async def f(self):\n'
        '      """\n      Two\n        lines.\n      """\ntry: pass\nexcept E:\n'
        '  def g(): "Handler."\nfinally:\n  def h():\n    def inner(): "Inner."\n'
    )
    found = ["Module.", "Class.", "Two\n  lines.", "Handler.", "Inner."]
    assert list(stdlib.docstrings(source)) == found
    assert list(stdlib.docstrings("print 'Python 2'")) == []
    assert list(stdlib.docstrings('"\\d is an odd escape"')) == ["\\d is an odd escape"]


def test_a_docstring_is_kept_once_and_topics_do_not_contain_one_another():
    sources = ['"""Same."""', '"""Same."""\ndef f(): "Own."\ndef g(): "Own."', '"""Same."""']
    assert list(stdlib._collect_docs(sources)) == ["Same.", "Own."]
    topics = stdlib._topics().values()
    assert len(topics) > 40
    assert not any(one in other for one in topics for other in topics if one != other)


def test_pysource_is_the_source_that_people_wrote(pysource):
    assert pysource.name == "pysource" and 5_000_000 < len(pysource) < 15_000_000
    import json.decoder

    with open(json.decoder.__file__, encoding="utf-8") as file:
        assert file.read().strip("\n") in pysource.documents
    assert "decoding_table = (" not in pysource and "build_time_vars = {" not in pysource
    assert load_text("pysource").digest == pysource.digest


def test_source_in_another_encoding_is_decoded_and_broken_source_skipped(tmp_path, monkeypatch):
    (tmp_path / "b.py").write_bytes("# coding: latin-1\nx = 'é'\n".encode("latin-1"))
    (tmp_path / "a.py").write_bytes(b"x = '\xe9'\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "c.py").write_text("left_out = 1")
    (tmp_path / "_sysconfigdata_here.py").write_text("left_out = 2")
    monkeypatch.setattr(stdlib.sysconfig, "get_path", lambda name: str(tmp_path))
    assert load_text("pysource").documents == ("# coding: latin-1\nx = 'é'",)


def test_a_python_without_source_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(stdlib.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(BadInput, match=r"standard library's source in .*, got no \.py file"):
        load_text("pysource")


# Files and folders


def test_a_long_file_is_cut_at_blank_lines(tmp_path):
    path = tmp_path / "play.txt"
    path.write_text(PLAY, encoding="utf-8")
    text = load_text(path)
    assert text.name == "play.txt" and len(text.documents) > 5
    assert all(len(document) >= corpus.PIECE for document in text.documents)
    assert all(document.startswith("Speaker") for document in text.documents)
    assert text == PLAY.strip("\n")
    assert load_text(str(path)).digest == text.digest


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


def test_only_the_long_piece_is_cut_at_words():
    text = PLAY + "word " * 9_000 + "\n\n" + PLAY
    pieces = corpus.cut(text)
    assert max(map(len, pieces)) <= corpus.LONGEST_PIECE
    assert all(piece[:7] in ("Speaker", "word wo") for piece in pieces)


def test_windows_line_ends_and_byte_order_marks_are_taken_off(tmp_path):
    path = tmp_path / "play.txt"
    path.write_bytes(b"\xef\xbb\xbf" + PLAY.replace("\n", "\r\n").encode())
    assert load_text(path) == PLAY.strip("\n")


def test_a_folder_gives_a_document_a_file_in_order(tmp_path):
    names = ["b.txt", "a.md", "sub/c.RST", "sub/d.py", "skip.png", ".hidden/e.txt", "blank.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if name == "blank.txt" else f"text of {name}")
    expected = tuple(f"text of {name}" for name in ("a.md", "b.txt", "sub/c.RST", "sub/d.py"))
    assert load_text(tmp_path).documents == expected


def test_a_folder_of_one_file_is_cut_like_the_file(tmp_path):
    (tmp_path / "play.txt").write_text(PLAY)
    assert load_text(tmp_path).documents == load_text(tmp_path / "play.txt").documents


@pytest.mark.parametrize("content", [b"", b" \n\t\n", b"\xef\xbb\xbf"])
def test_an_empty_file(content, tmp_path):
    (tmp_path / "empty.txt").write_bytes(content)
    with pytest.raises(BadInput, match=r"some text in .*empty\.txt, got only blank space"):
        load_text(tmp_path / "empty.txt")
    with pytest.raises(BadInput, match="got only blank space"):
        load_text(tmp_path)


def test_a_short_file_is_one_document(tmp_path):
    text = "A line.\n\n" * 200
    (tmp_path / "short.txt").write_text(text)
    short = load_text(tmp_path / "short.txt")
    assert short == text and short.documents == (text,)
    with pytest.raises(BadInput, match="at least two different documents, got 1"):
        short.train_valid()


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_in_another_encoding_is_named_with_the_offset(encoding, tmp_path):
    path = tmp_path / "foreign.txt"
    path.write_bytes(("plain é" + PLAY).encode(encoding))
    offset = {"utf-16": 0, "latin-1": 6}[encoding]
    with pytest.raises(BadInput, match=rf"0x.. at offset {offset} of .*foreign.txt.*convert"):
        load_text(path)
    with pytest.raises(BadInput, match="convert the file to UTF-8"):
        load_text(tmp_path)


@pytest.mark.parametrize("name", ["pydoc", "no/such/file.txt", "", 7, None])
def test_neither_a_name_nor_a_path(name):
    with pytest.raises(BadInput, match="one of pydocs, pysource, stdlib, shakespeare, or the path") as error:
        load_text(name)
    assert not name or not isinstance(name, str) or f"nothing at {os.getcwd()}" in str(error.value)


def test_a_folder_without_texts(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    with pytest.raises(BadInput, match=r"\.txt, \.md, \.rst, \.py files in the folder .* got none"):
        load_text(tmp_path)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "secret.txt").write_text(PLAY)
    monkeypatch.setattr(files.Path, "read_bytes", denied)
    with pytest.raises(BadInput, match=r"got Permission denied \(.*secret\.txt\): check the path"):
        load_text(tmp_path / "secret.txt")


# The download


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `body`, announcing `announced` bytes; a 404 where there is no body."""

    def __init__(self, reply, *args):
        self.reply = reply
        super().__init__(*args)

    def do_GET(self):
        self.reply["requests"] += 1
        body, announced = self.reply["body"], self.reply.get("announced")
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"") if announced is None else announced))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """What the server replies, a dict; `load_text("shakespeare")` asks this server."""
    reply = {"body": PLAY.encode(), "requests": 0}
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, reply))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(corpus, "SHAKESPEARE_URL", f"http://127.0.0.1:{httpd.server_port}/play")
    monkeypatch.setattr(corpus, "SHAKESPEARE_SHA256", hashlib.sha256(PLAY.encode()).hexdigest())
    yield reply
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_shakespeare_is_downloaded_once_and_cut(server, tmp_path, capfd):
    first = load_text("shakespeare", cache_dir=tmp_path)
    assert first.name == "shakespeare" and first == PLAY.strip("\n") and len(first.documents) > 5
    assert "100%" in capfd.readouterr().err
    assert load_text("shakespeare", cache_dir=tmp_path).digest == first.digest
    assert server["requests"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["shakespeare.txt"]


def test_a_spoiled_download_is_told_and_not_kept(server, tmp_path):
    good, server["body"] = server["body"], b"<html>Sign in to this network</html>"
    got = hashlib.sha256(server["body"]).hexdigest()
    wanted = corpus.SHAKESPEARE_SHA256
    with pytest.raises(BadInput, match=rf"SHA-256 {wanted}, got {got} \(36 bytes from http.*again"):
        load_text("shakespeare", cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())
    server["body"] = good
    assert load_text("shakespeare", cache_dir=tmp_path) == PLAY.strip("\n")


def test_a_download_that_breaks_off_is_told_and_not_kept(server, tmp_path):
    server.update(body=PLAY.encode()[:5000], announced=len(PLAY.encode()))
    with pytest.raises(BadInput, match=r"a download from http.*pydocs.*need no network"):
        load_text("shakespeare", cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_page_is_told(server, tmp_path):
    server["body"] = None
    with pytest.raises(BadInput, match=r"a download from .* got HTTPError: 404"):
        load_text("shakespeare", cache_dir=tmp_path)


@pytest.mark.parametrize("spoiled", [b"", PLAY.encode()[:-1], b"\x00" * 100])
def test_a_spoiled_copy_in_the_cache_is_fetched_anew(spoiled, server, tmp_path):
    kept = tmp_path / "shakespeare.txt"
    kept.write_bytes(spoiled)
    assert load_text("shakespeare", cache_dir=tmp_path) == PLAY.strip("\n")
    assert kept.read_bytes() == PLAY.encode() and server["requests"] == 1


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(corpus, "SHAKESPEARE_URL", "http://127.0.0.1:9/nobody")
    (tmp_path / "shakespeare.txt").write_bytes(b"spoiled")
    message = 'got ConnectionError.*"pydocs" and "pysource" need no network; or pass the path'
    with pytest.raises(BadInput, match=message):
        load_text("shakespeare", cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())  # the spoiled copy is gone too


def test_a_cache_that_cannot_be_written_costs_only_the_download(server, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for count in (1, 2):
        text = load_text("shakespeare", cache_dir=tmp_path / "file")
        assert text == PLAY.strip("\n") and server["requests"] == count


def test_the_true_address_and_checksum_are_the_well_known_ones():
    assert corpus.SHAKESPEARE_URL.startswith("https://raw.githubusercontent.com/karpathy/char-rnn/")
    assert corpus.SHAKESPEARE_SHA256[:8] == "86c4e6aa" and len(corpus.SHAKESPEARE_SHA256) == 64


# Whole or not there


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.written_whole(path) as part:
        part.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_failed_rename_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with (
        pytest.raises(BadInput, match=r"to write .*new\.txt, got No space left on device: make room"),
        files.written_whole(tmp_path / "new.txt") as part,
    ):
        part.write_text("new")
    assert not list(tmp_path.iterdir())
