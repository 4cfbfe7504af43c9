"""The tokenizer: nothing is lost, nothing depends on the day, and every bad file is told apart."""

import hashlib
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tandem_edu.data import (
    END_ID,
    END_OF_TEXT,
    Corpus,
    load_text,
    load_tokenizer,
    save_tokenizer,
    token_strings,
    tokenizer,
    train_tokenizer,
)
from tandem_edu.errors import BadInput

ODD_TEXTS = [
    "",
    " ",
    "\x00",
    "tabs\tand\r\nline\rends\n\n\n  ",
    "🙂👩‍👩‍👧 日本語 e\u0301 \u202eright to left",
    f"{END_OF_TEXT} in a text {END_OF_TEXT}{END_OF_TEXT}",
    "".join(map(chr, range(0x300))),
    "\ufeff\ufffd\U0010ffff",
    "Ġ Ċ ▁ the signs that byte-level tokens are spelt with",
]


@pytest.fixture(scope="module")
def documents():
    """A few hundred kilobytes of Python's own source, enough for 1,024 tokens."""
    return load_text("pysource").documents[:20]


@pytest.fixture(scope="module")
def trained(documents):
    return train_tokenizer(documents)


def random_text(rng: random.Random) -> str:
    """Any characters at all, but the surrogates, which are not text."""
    planes = [(0, 0x80), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0x110000), (0x20, 0x7F)]
    ranges = [range(*rng.choice(planes)) for _ in range(rng.randint(0, 80))]
    return "".join(chr(rng.choice(characters)) for characters in ranges)


def test_the_vocabulary_is_the_end_the_bytes_and_the_merges(trained):
    assert trained.get_vocab_size() == 1024
    assert trained.token_to_id(END_OF_TEXT) == END_ID == 0
    assert sorted(trained.get_vocab().values()) == list(range(1024))
    singles = {tokenizer._BYTE_OF[trained.id_to_token(token)] for token in range(1, 257)}
    assert singles == set(range(256))


@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_odd_texts_come_back(trained, text):
    ids = trained.encode(text).ids
    assert trained.decode(ids) == text
    assert END_ID not in ids


def test_any_text_comes_back(trained):
    bare = train_tokenizer("", vocab_size=257)
    for trial in range(400):
        text = random_text(random.Random(trial))
        for one in (trained, bare):
            ids = one.encode(text).ids
            assert one.decode(ids) == text and END_ID not in ids
        assert len(ids) == len(text.encode())


def test_whole_documents_come_back_and_are_shorter(trained, documents):
    count = 0
    for document in documents:
        ids = trained.encode(document).ids
        assert trained.decode(ids) == document
        count += len(ids)
    assert count < sum(map(len, documents)) / 2


def test_a_corpus_a_text_and_an_iterable_are_all_taken_as_documents(documents):
    as_corpus = train_tokenizer(Corpus(documents[:3]), 400).to_str()
    assert train_tokenizer(list(documents[:3]), 400).to_str() == as_corpus
    assert train_tokenizer((text for text in documents[:3]), 400).to_str() == as_corpus
    assert train_tokenizer(documents[0], 300).to_str() == train_tokenizer([documents[0]], 300).to_str()


def test_the_same_text_gives_the_same_tokenizer_in_every_process(trained, documents):
    code = (
        "import hashlib\n"
        "from tandem_edu.data import load_text, train_tokenizer\n"
        "made = train_tokenizer(load_text('pysource').documents[:20])\n"
        "print(hashlib.sha256(made.to_str().encode()).hexdigest())"
    )
    run = [sys.executable, "-c", code]
    env = os.environ | {"PYTHONHASHSEED": "54321", "RAYON_NUM_THREADS": "1"}
    there = subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout.strip()
    again = train_tokenizer(documents).to_str()
    assert again == trained.to_str()
    assert there == hashlib.sha256(again.encode()).hexdigest()


def test_training_is_silent(documents, capfd):
    train_tokenizer(documents[:3], 300)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [256, 0, -1, 1024.0, "1024", None])
def test_a_vocabulary_too_small_for_the_bytes(size):
    with pytest.raises(BadInput, match=r"vocab_size of at least 257, .* got"):
        train_tokenizer("text", size)


def test_a_text_too_small_for_the_vocabulary_says_how_far_it_reached():
    message = r"for vocab_size=1024, got text enough for 258 tokens: .*smaller vocab_size \(at most 258\)"
    with pytest.raises(BadInput, match=message):
        train_tokenizer(["abab"], 1024)
    assert train_tokenizer(["abab"], 258).get_vocab_size() == 258


# What the tokens look like


def test_token_strings_join_to_the_text_where_characters_are_whole(trained, documents):
    for document in documents[:5]:
        assert document.isascii()
        assert "".join(token_strings(trained, trained.encode(document).ids)) == document


def test_broken_characters_show_their_bytes_and_newlines_stay(trained):
    shown = token_strings(trained, trained.encode("☃\n\t\x00\x7f").ids)
    assert shown == ["\\xe2", "\\x98", "\\x83", "\n", "\t", "\x00", "\x7f"]
    assert token_strings(trained, [END_ID]) == [END_OF_TEXT]


def test_token_strings_take_arrays_and_lists(trained):
    ids = trained.encode("for i in range(10):").ids
    expected = token_strings(trained, ids)
    for kind in (np.int32, np.uint16, np.int64):
        assert token_strings(trained, np.array(ids, kind)) == expected
    assert token_strings(trained, []) == []


def test_every_byte_string_of_the_vocabulary_is_spelt_right(trained):
    every = token_strings(trained, np.arange(1, 1024))
    for token, shown in enumerate(every, start=1):
        decoded = trained.decode([token])
        assert shown == decoded or ("\ufffd" in decoded and shown.startswith("\\x"))


def test_tokens_of_another_kind_are_spelt_as_they_are():
    other = Tokenizer(models.WordLevel({"▁the": 0, "日本": 1}, unk_token="▁the"))
    assert token_strings(other, [0, 1]) == ["▁the", "日本"]


@pytest.mark.parametrize("token", [1024, -1, 2**40])
def test_ids_outside_the_vocabulary(trained, token):
    with pytest.raises(BadInput, match=rf"a token id below 1024, got {token}"):
        token_strings(trained, [5, token])


# On disk


def test_saving_and_loading_loses_nothing(trained, tmp_path):
    save_tokenizer(trained, tmp_path / "new" / "tokenizer.json")
    again = load_tokenizer(tmp_path / "new" / "tokenizer.json")
    assert again.to_str() == trained.to_str()
    for text in ODD_TEXTS:
        assert again.encode(text).ids == trained.encode(text).ids
        assert again.decode(again.encode(text).ids) == text
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["tokenizer.json"]


def test_an_interrupted_save_keeps_the_old_file(trained, tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    save_tokenizer(trained, path)
    before = path.read_bytes()

    def full(self, *_):
        with open(self, "w") as file:
            file.write("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(BadInput, match=r"to write .*tokenizer\.json, got No space left on device"):
        save_tokenizer(train_tokenizer("", 257), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_missing_tokenizer(tmp_path):
    with pytest.raises(BadInput, match=r"a tokenizer file to read, got No such file"):
        load_tokenizer(tmp_path / "none.json")
    with pytest.raises(BadInput, match=r"a tokenizer file to read, got Is a directory"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.999])
def test_a_truncated_tokenizer(trained, tmp_path, part):
    text = trained.to_str()
    (tmp_path / "cut.json").write_text(text[: int(part * len(text))], "utf-8")
    with pytest.raises(BadInput, match=r"written by save_tokenizer at .*cut\.json, .* cut short"):
        load_tokenizer(tmp_path / "cut.json")


def test_a_foreign_file(trained, tmp_path):
    path = tmp_path / "foreign.json"
    path.write_text('{"a": 1}')
    with pytest.raises(BadInput, match="cut short or of another kind"):
        load_tokenizer(path)
    path.write_bytes(b"\x80\x04\x95")
    with pytest.raises(BadInput, match="byte 0x80 at offset 0"):
        load_tokenizer(path)
    words = Tokenizer(models.WordLevel({END_OF_TEXT: 0, "b": 1}, unk_token="b"))
    late = Tokenizer(models.BPE({"a": 0, END_OF_TEXT: 1}, []))
    late.decoder = trained.decoder
    late.pre_tokenizer = pre_tokenizers.ByteLevel()
    for other in (words, late):
        save_tokenizer(other, path)
        with pytest.raises(BadInput, match=r"not byte-level with <\|endoftext\|> as id 0: train one"):
            load_tokenizer(path)
