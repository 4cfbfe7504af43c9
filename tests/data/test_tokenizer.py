"""The tokenizer: it loses nothing, the same text gives the same one, and bad files are refused."""

import copy
import json
import pickle
import random
import time

import numpy as np
import pytest
from refusal import refuses
from tokenizers import Tokenizer, models, pre_tokenizers

from tandem_edu.data import (
    END_ID,
    END_OF_TEXT,
    Corpus,
    load_text,
    load_tokenizer,
    save_tokenizer,
    text_of,
    token_strings,
    tokenizer,
    train_tokenizer,
)

ODD_TEXTS = [
    "",
    " ",
    "\x00",
    "tabs\tand\r\nline\rends\n\n\n  ",
    "🙂👩‍👩‍👧 日本語 e\u0301 \u202eright to left",
    f"{END_OF_TEXT} in a text {END_OF_TEXT}{END_OF_TEXT}",
    "".join(map(chr, range(0x300))),
    "\ufeff\ufffd\U0010ffff",
    "Ġ Ċ ▁ the signs that byte-level tokens are written with",
]


@pytest.fixture(scope="module")
def documents():
    """A few hundred kilobytes of Python's own source, enough for 1,024 tokens."""
    return load_text("pysource").documents[:20]


@pytest.fixture(scope="module")
def trained(documents):
    return train_tokenizer(documents)


def test_the_vocabulary_is_the_end_the_bytes_and_the_merges(trained):
    assert trained.get_vocab_size() == 1024
    assert trained.token_to_id(END_OF_TEXT) == END_ID == 0
    assert sorted(trained.get_vocab().values()) == list(range(1024))
    singles = {tokenizer._BYTE_OF[trained.id_to_token(token)] for token in range(1, 257)}
    assert singles == set(range(256))


def test_odd_texts_come_back_whatever_was_done_to_the_tokenizer(trained, tmp_path):
    """No text ends itself: a copy must not read the end token's name in a text as the end."""
    save_tokenizer(trained, tmp_path / "new" / "tokenizer.json")
    loaded, pickled = load_tokenizer(tmp_path / "new" / "tokenizer.json"), pickle.dumps(trained)
    for one in (trained, loaded, pickle.loads(pickled), copy.deepcopy(trained)):
        assert one.to_str() == trained.to_str()
        for text in ODD_TEXTS:
            ids = one.encode(text).ids
            assert one.decode(ids) == text and END_ID not in ids
            assert ids == trained.encode(text).ids
            assert one.decode([END_ID, *ids, END_ID]) == text


def test_an_older_file_with_a_special_token_is_read_as_the_same_tokenizer(trained, tmp_path):
    old = json.loads(trained.to_str())
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    old["added_tokens"] = [{"id": 0, "content": END_OF_TEXT, "special": True, **flags}]
    old["decoder"] = old["decoder"]["decoders"][-1]
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert Tokenizer.from_str(json.dumps(old)).encode(END_OF_TEXT).ids == [END_ID]
    assert load_tokenizer(tmp_path / "old.json").to_str() == trained.to_str()


def test_any_text_comes_back(trained):
    bare = train_tokenizer("", vocab_size=257)
    planes = [(0, 0x80), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0x110000), (0x20, 0x7F)]  # no surrogates
    for trial in range(400):
        rng = random.Random(trial)
        text = "".join(chr(rng.choice(range(*rng.choice(planes)))) for _ in range(rng.randint(0, 80)))
        for one in (trained, bare):
            ids = one.encode(text).ids
            assert one.decode(ids) == text and END_ID not in ids
        assert len(ids) == len(text.encode())


def test_a_corpus_a_text_and_an_iterable_are_all_taken_as_documents(documents, capfd):
    as_corpus = train_tokenizer(Corpus(documents[:3]), 400).to_str()
    assert capfd.readouterr() == ("", "")  # training is silent
    assert train_tokenizer(iter(documents[:3]), 400).to_str() == as_corpus
    assert train_tokenizer(documents[0], 300).to_str() == train_tokenizer([documents[0]], 300).to_str()


@pytest.mark.parametrize("signs", ["ACGT", " \t\n", "日本語"])
def test_training_on_very_long_words_takes_linear_time(signs):
    rng = random.Random(0)
    words = ["".join(rng.choices(signs, k=200_000)) for _ in range(2)]
    start = time.process_time()
    made = train_tokenizer(words, 400)
    assert time.process_time() - start < 8  # seconds; in quadratic time at least 16
    assert made.decode(made.encode(words[0]).ids) == words[0]


def test_a_vocabulary_too_small_for_the_bytes_or_too_large_for_the_text():
    for size in (256, 1024.0, None):
        refuses(r"vocab_size of at least 257, got", train_tokenizer, "text", size)
    message = r"for vocab_size=1024, got text enough for 258 tokens: .*smaller vocab_size \(at most 258\)"
    refuses(message, train_tokenizer, ["abab"], 1024)
    assert train_tokenizer(["abab"], 258).get_vocab_size() == 258


def test_documents_become_shorter_and_come_back_as_a_whole_and_in_parts(trained, documents):
    rows = [trained.encode(document).ids for document in documents]
    assert sum(map(len, rows)) < sum(map(len, documents)) / 2
    for document, ids in zip(documents[:3], rows, strict=False):
        assert document.isascii()
        assert document == trained.decode(ids) == "".join(token_strings(trained, ids))


def test_broken_characters_show_their_bytes_and_newlines_stay(trained):
    shown = token_strings(trained, trained.encode("☃\n\t\x00\x7f").ids)
    assert shown == ["\\xe2", "\\x98", "\\x83", "\n", "\t", "\x00", "\x7f"]
    assert token_strings(trained, [END_ID]) == [END_OF_TEXT]
    assert token_strings(trained, []) == []


def test_every_token_of_the_vocabulary_has_its_text(trained):
    every = token_strings(trained, np.arange(1, 1024))
    for token, shown in enumerate(every, start=1):
        decoded = trained.decode([token])
        assert shown == decoded or ("\ufffd" in decoded and shown.startswith("\\x"))


def test_tokens_that_are_not_byte_level_stay_as_they_are():
    other = Tokenizer(models.WordLevel({"▁the": 0, "日本": 1}, unk_token="▁the"))
    assert token_strings(other, [0, 1]) == ["▁the", "日本"]


@pytest.mark.parametrize("token", [1024, -1, 2**40])
def test_an_id_without_a_token_is_shown_as_its_number(trained, token):
    ids = trained.encode("日!").ids
    assert token_strings(trained, [*ids[-1:], token]) == ["!", f"[{token}]"]
    assert text_of(trained, np.array([*ids, token, *ids, END_ID])) == f"日![{token}]日!"
    assert text_of(trained, []) == ""


def test_a_file_that_is_no_tokenizer_of_ours(trained, tmp_path):
    for path, got in ((tmp_path / "none.json", "No such file"), (tmp_path, "Is a directory")):
        refuses(f"a tokenizer file to read, got {got}", load_tokenizer, path)
    path, text = tmp_path / "bad.json", trained.to_str()
    words = Tokenizer(models.WordLevel({END_OF_TEXT: 0, "b": 1}, unk_token="b"))
    late = Tokenizer(models.BPE({"a": 0, END_OF_TEXT: 1}, []))
    late.decoder = trained.decoder
    late.pre_tokenizer = pre_tokenizers.ByteLevel()
    cut_short = r"written by save_tokenizer at .*bad\.json, .* cut short or of another kind"
    foreign = r"not byte-level with <\|endoftext\|> as id 0: train one"
    for content, message in [
        *((text[: int(part * len(text))].encode(), cut_short) for part in (0.0, 0.3, 0.999)),
        (b'{"a": 1}', cut_short),
        (b"\x80\x04\x95", "byte 0x80 at offset 0"),
        *((other.to_str().encode(), foreign) for other in (words, late)),
    ]:
        path.write_bytes(content)
        refuses(message, load_tokenizer, path)
