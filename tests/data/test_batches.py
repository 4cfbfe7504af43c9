"""Tokens, batches, windows and prompts, each against its slow and obvious version."""

import os
import subprocess
import sys

import numpy as np
import pytest
from refusal import refuses
from tokenizers import Tokenizer, models

from tandem_edu.data import END_ID, Batches, Corpus, batches, encode, prompts, train_tokenizer, windows
from tandem_edu.errors import BadInput

SENTENCES = [f"Sentence {i} is about {['αβγ', 'trees', '🙂'][i % 3]}.\n" * (1 + i % 9) for i in range(120)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(SENTENCES, 300)


@pytest.fixture(scope="module")
def tokens(tokenizer):
    return encode(tokenizer, SENTENCES)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_encode_is_the_slow_loop_whatever_the_chunk(tokenizer, chunk, monkeypatch):
    monkeypatch.setattr(batches, "_CHUNK", chunk)
    row = encode(tokenizer, SENTENCES)
    slow = [token for text in SENTENCES for token in [*tokenizer.encode(text).ids, END_ID]]
    assert row.dtype == np.uint16 and row.tolist() == slow
    assert all(encode(tokenizer, same).tolist() == slow for same in (Corpus(SENTENCES), iter(SENTENCES)))
    one = encode(tokenizer, "a <|endoftext|> b")  # a text is one document and cannot end itself
    assert one[-1] == END_ID and END_ID not in one[:-1]


def test_a_large_vocabulary_takes_four_bytes():
    vocab = {"<|endoftext|>": 0} | {f"w{i}": i for i in range(1, 2**16 + 1)}
    large = Tokenizer(models.WordLevel(vocab, unk_token="w1"))
    row = encode(large, [f"w{2**16}"])
    assert row.dtype == np.uint32 and row.tolist() == [2**16, 0]


def test_what_cannot_be_encoded(tokenizer):
    refuses("at least one document, got none", encode, tokenizer, [])
    with pytest.raises(BadInput, match=r"a tokenizer with <\|endoftext\|>, got one without"):
        encode(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), ["a"])


def test_a_batch_is_made_of_windows_of_the_row():
    for trial in range(100):
        rng = np.random.default_rng(trial)
        length, size = int(rng.integers(2, 200)), int(rng.integers(1, 9))
        seq_len = int(rng.integers(1, length))
        batch = Batches(np.arange(length, dtype=np.uint16), size, seq_len, seed=trial)(trial)
        assert batch.dtype == np.int32 and batch.shape == (size, seq_len + 1)
        assert (np.diff(batch) == 1).all() and batch.min() >= 0 and batch.max() < length


def test_a_batch_is_a_pure_function_of_seed_and_step(tokens):
    keys = [(seed, step) for seed in range(5) for step in range(20)]
    drawn = {key: Batches(tokens, 3, 20, key[0])(key[1]) for key in keys}
    assert len({batch.tobytes() for batch in drawn.values()}) == len(drawn)
    once = [Batches(tokens, 3, 20, seed) for seed in range(5)]
    for seed, step in reversed(keys):
        assert np.array_equal(once[seed](np.int32(step)), drawn[seed, step])
    # In every version of NumPy.
    assert Batches(np.arange(10_000), 4, 1, seed=3)(5)[:, 0].tolist() == [4401, 8030, 2672, 9021]


def test_every_position_is_drawn_as_often():
    row = np.arange(40)
    starts = np.concatenate([Batches(row, 500, 30)(step)[:, 0] for step in range(20)])
    counts = np.bincount(starts, minlength=10)
    assert len(counts) == 10 and abs(counts - 1000).max() < 5 * (10_000 * 0.1 * 0.9) ** 0.5


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"batch_size": 0}, "batch_size of at least 1, got 0"),
        ({"seq_len": 2.0}, "seq_len of at least 1, got 2.0"),
        ({"seed": -1}, "seed of at least 0, got -1"),
        ({"seed": True}, "seed of at least 0, got True"),
        ({"seed": 2**64}, r"seed and step below 2\*\*64"),
        ({"step": -1}, "step of at least 0, got -1"),
        ({"seq_len": 10}, r"at least seq_len [+] 1 = 11 tokens, got 10: use a longer text or a smaller"),
        ({"tokens": [1, 2, 3, 4]}, "tokens as a one-dimensional integer array, got list of shape"),
        ({"tokens": np.ones(9)}, "array, got float64 of shape .9,.: use encode"),
        ({"tokens": np.ones((3, 3), int)}, "array, got int64 of shape .3, 3.: use encode"),
    ],
)
def test_bad_batches(bad, message):
    given = {"tokens": np.arange(10), "batch_size": 2, "seq_len": 4, "seed": 0, "step": 0} | bad
    step = given.pop("step")
    refuses(message, lambda: Batches(**given)(step))
    if bad.keys() & {"tokens", "seq_len"}:
        refuses(message, windows, given["tokens"], given["seq_len"])


def test_windows_count_every_target_once():
    for trial in range(100):
        rng = np.random.default_rng(trial)
        length = int(rng.integers(2, 300))
        seq_len = int(rng.integers(1, length))
        rows = windows(np.arange(length, dtype=np.uint16), seq_len)
        assert rows.dtype == np.int32 and rows.shape[1] == seq_len + 1
        targets = rows[:, 1:].ravel()
        assert targets.tolist() == list(range(1, len(targets) + 1))
        assert length - 1 - seq_len < len(targets) <= length - 1
        assert (rows[1:, 0] == rows[:-1, -1]).all()


def test_a_limit_spreads_the_windows_over_the_text(tokens):
    every = windows(tokens, 20)
    few = windows(tokens, 20, limit=3)
    assert np.array_equal(few, every[[0, len(every) // 3, 2 * len(every) // 3]])
    assert np.array_equal(windows(tokens, 20, limit=10**6), every)
    refuses("limit of at least 1, got 0", windows, tokens, 20, limit=0)


def test_prompts_come_from_distinct_documents_while_there_are_enough(tokenizer):
    rows = [tokenizer.encode(text).ids for text in SENTENCES]
    long = [" ".join(map(str, row)) for row in rows if len(row) >= 40]
    drawn = prompts(Corpus(SENTENCES), tokenizer, 40, len(long))
    assert all(prompt.dtype == np.int32 and prompt.shape == (40,) for prompt in drawn)
    sources = [[row for row in long if " ".join(map(str, prompt)) in row] for prompt in drawn]
    assert sorted(sources) == sorted([row] for row in long)


def test_prompts_are_distinct_windows_until_all_are_used():
    text = "abcdefghijklmnopqrstuvwxyz"
    bare = train_tokenizer("", 257)
    drawn = prompts([text, text, "short"], bare, 20, 14)
    written = [bare.decode(prompt) for prompt in drawn]
    assert sorted(set(written)) == [text[i : i + 20] for i in range(7)]
    assert written[7:] == written[:7]


def test_prompts_depend_on_the_seed_and_nothing_else(tokenizer):
    drawn = [np.stack(prompts(SENTENCES, tokenizer, 16, 8, seed)) for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    assert np.array_equal(prompts(SENTENCES, tokenizer, 16, 3), drawn[0][:3])


def test_prompts_that_no_document_can_give(tokenizer):
    message = "a document of at least 5000 tokens, got 2 shorter ones: use a smaller length"
    refuses(message, prompts, SENTENCES[:2], tokenizer, 5000, 1)
    refuses("count of at least 1, got 0", prompts, SENTENCES, tokenizer, 5, 0)


ALIKE = """
import hashlib
import numpy as np
from tandem_edu.data import Batches, Corpus, prompts, train_tokenizer
texts = Corpus(f"{i} is a number; " * 9 for i in range(99))
made = train_tokenizer(texts, 280)
print(hashlib.sha256(made.to_str().encode()).hexdigest())
print(texts.digest, *(part.digest for part in texts.train_valid(0.2, seed=3)))
print(Batches(np.arange(5000), 4, 8, seed=9)(11)[:, 0].tolist())
print([prompt.tolist() for prompt in prompts(texts, made, 9, 5, seed=2)])
"""


def test_another_process_makes_the_same_tokenizer_split_batches_and_prompts(capsys):
    environment = os.environ | {"PYTHONHASHSEED": "777", "RAYON_NUM_THREADS": "1"}
    run = [sys.executable, "-c", ALIKE]
    other = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout
    exec(ALIKE, {})
    assert other == capsys.readouterr().out
