"""Tokens, batches, windows and prompts, each against its slow and obvious version."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from tandem_edu.data import (
    END_ID,
    Batches,
    Corpus,
    batches,
    encode,
    prompts,
    train_tokenizer,
    windows,
)
from tandem_edu.errors import BadInput

SENTENCES = [f"Sentence {i} is about {['αβγ', 'trees', '🙂'][i % 3]}.\n" * (1 + i % 9) for i in range(120)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(SENTENCES, 300)


@pytest.fixture(scope="module")
def tokens(tokenizer):
    return encode(tokenizer, SENTENCES)


def slow_encode(tokenizer, documents) -> list[int]:
    row = []
    for document in documents:
        row += tokenizer.encode(document).ids
        row.append(END_ID)
    return row


# Documents to tokens


@pytest.mark.parametrize("chunk", [1, 100, 2**20])
def test_encode_is_the_slow_loop_whatever_the_chunk(tokenizer, chunk, monkeypatch):
    monkeypatch.setattr(batches, "_CHUNK", chunk)
    row = encode(tokenizer, SENTENCES)
    assert row.dtype == np.uint16 and row.tolist() == slow_encode(tokenizer, SENTENCES)
    assert encode(tokenizer, Corpus(SENTENCES)).tolist() == row.tolist()
    assert encode(tokenizer, iter(SENTENCES)).tolist() == row.tolist()


def test_documents_come_back_between_the_ends(tokenizer, tokens):
    (ends,) = np.nonzero(tokens == END_ID)
    assert len(ends) == len(SENTENCES) and ends[-1] == len(tokens) - 1
    pieces = np.split(tokens, ends + 1)[:-1]
    assert [tokenizer.decode(piece[:-1]) for piece in pieces] == SENTENCES


def test_a_text_is_one_document_and_cannot_end_itself(tokenizer):
    row = encode(tokenizer, "a <|endoftext|> b")
    assert row[-1] == END_ID and END_ID not in row[:-1]
    assert encode(tokenizer, ["", ""]).tolist() == [END_ID, END_ID]


def test_a_large_vocabulary_takes_four_bytes():
    vocab = {"<|endoftext|>": 0} | {f"w{i}": i for i in range(1, 2**16 + 1)}
    large = Tokenizer(models.WordLevel(vocab, unk_token="w1"))
    row = encode(large, [f"w{2**16}"])
    assert row.dtype == np.uint32 and row.tolist() == [2**16, 0]


def test_what_cannot_be_encoded(tokenizer):
    with pytest.raises(BadInput, match="at least one document, got none"):
        encode(tokenizer, [])
    with pytest.raises(BadInput, match=r"a tokenizer with <\|endoftext\|>, got one without"):
        encode(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), ["a"])


# Training batches


def test_a_memory_mapped_row_gives_the_same(tokens, tmp_path):
    np.save(tmp_path / "tokens.npy", tokens)
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    for step in range(20):
        same = [Batches(row, 4, 33, seed=1)(step) for row in (tokens, mapped)]
        assert np.array_equal(same[0], same[1]) and type(same[1]) is np.ndarray
    assert np.array_equal(windows(mapped, 50), windows(tokens, 50))


def test_a_batch_is_made_of_windows_of_the_row():
    for trial in range(100):
        rng = np.random.default_rng(trial)
        length, size = int(rng.integers(2, 200)), int(rng.integers(1, 9))
        seq_len = int(rng.integers(1, length))
        batch = Batches(np.arange(length, dtype=np.uint16), size, seq_len, seed=trial)(trial)
        assert batch.dtype == np.int32 and batch.shape == (size, seq_len + 1)
        assert (np.diff(batch) == 1).all() and batch.min() >= 0 and batch.max() < length


def test_a_batch_is_a_pure_function_of_seed_and_step(tokens):
    drawn = {}
    for seed in range(5):
        for step in random.Random(seed).sample(range(100), 20):
            drawn[seed, step] = Batches(tokens, 3, 20, seed)(step)
    assert len({batch.tobytes() for batch in drawn.values()}) == len(drawn)
    once = [Batches(tokens, 3, 20, seed) for seed in range(5)]
    assert all(np.array_equal(once[seed](step), batch) for (seed, step), batch in drawn.items())
    assert np.array_equal(once[0](np.int32(7)), once[0](7))


def test_the_first_batch_is_the_same_for_ever():
    assert Batches(np.arange(10_000), 4, 1, seed=3)(5)[:, 0].tolist() == [4401, 8030, 2672, 9021]


def test_every_place_is_drawn_as_often():
    row = np.arange(40)
    starts = np.concatenate([Batches(row, 500, 30)(step)[:, 0] for step in range(20)])
    counts = np.bincount(starts, minlength=10)
    assert len(counts) == 10 and abs(counts - 1000).max() < 5 * (10_000 * 0.1 * 0.9) ** 0.5


def test_one_window_is_enough_and_fewer_tokens_are_not(tokens):
    assert Batches(tokens[:11], 2, 10)(0).tolist() == [tokens[:11].tolist()] * 2
    message = "at least seq_len [+] 1 = 11 tokens, got 10: use a longer text or a smaller seq_len"
    with pytest.raises(BadInput, match=message):
        Batches(tokens[:10], 2, 10)
    with pytest.raises(BadInput, match=message):
        windows(tokens[:10], 10)


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"seq_len": 2.0}, {"seed": -1}, {"seed": True}])
def test_sizes_and_seeds_that_cannot_be(tokens, bad):
    (name,) = bad
    with pytest.raises(BadInput, match=f"{name} of at least"):
        Batches(**{"tokens": tokens, "batch_size": 2, "seq_len": 4} | bad)
    with pytest.raises(BadInput, match="step of at least 0, got -1"):
        Batches(tokens, 2, 4)(-1)
    with pytest.raises(BadInput, match=r"seed and step below 2\*\*64"):
        Batches(tokens, 2, 4, seed=2**64)


@pytest.mark.parametrize("row", [[1, 2, 3, 4], np.ones(9), np.ones((3, 3), int)])
def test_what_is_no_row_of_tokens(row):
    with pytest.raises(BadInput, match="tokens as a one-dimensional integer array, got"):
        Batches(row, 1, 1)
    with pytest.raises(BadInput, match="use encode"):
        windows(row, 1)


# Evaluation windows


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
    with pytest.raises(BadInput, match="limit of at least 1, got 0"):
        windows(tokens, 20, limit=0)


# Prompts


def test_prompts_come_from_distinct_documents_while_there_are_enough(tokenizer):
    rows = [tokenizer.encode(text).ids for text in SENTENCES]
    sources = {text: row for text, row in zip(SENTENCES, rows, strict=True) if len(row) >= 40}
    drawn = prompts(Corpus(SENTENCES), tokenizer, 40, len(sources))
    assert all(prompt.dtype == np.int32 and prompt.shape == (40,) for prompt in drawn)
    homes = {home_of(prompt, sources) for prompt in drawn}
    assert len(homes) == len(sources) == len(drawn)


def home_of(prompt, sources) -> str:
    """The one document a prompt was taken from; its sentence's number tells it apart."""
    spelt = " ".join(map(str, prompt))
    homes = [text for text, row in sources.items() if spelt in " ".join(map(str, row))]
    assert len(homes) == 1
    return homes[0]


def test_prompts_are_distinct_windows_until_all_are_used(tokenizer):
    text = "abcdefghijklmnopqrstuvwxyz"
    bare = train_tokenizer("", 257)
    drawn = prompts([text, text, "short"], bare, 20, 14)
    spelt = [bare.decode(prompt) for prompt in drawn]
    assert sorted(set(spelt)) == [text[i : i + 20] for i in range(7)]
    assert spelt[7:] == spelt[:7]


def test_prompts_depend_on_the_seed_and_nothing_else(tokenizer):
    drawn = [np.stack(prompts(SENTENCES, tokenizer, 16, 8, seed)) for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    few = np.stack(prompts(SENTENCES, tokenizer, 16, 3, seed=0))
    assert np.array_equal(few, drawn[0][:3])


def test_prompts_that_no_document_can_give(tokenizer):
    message = "a document of at least 5000 tokens, got 2 shorter ones: use a smaller length"
    with pytest.raises(BadInput, match=message):
        prompts(SENTENCES[:2], tokenizer, 5000, 1)
    with pytest.raises(BadInput, match="count of at least 1, got 0"):
        prompts(SENTENCES, tokenizer, 5, 0)


def test_another_process_draws_alike(tokens):
    code = (
        "import numpy as np\n"
        "from tandem_edu.data import Batches, prompts, train_tokenizer\n"
        "print(Batches(np.arange(5000), 4, 8, seed=9)(11)[:, 0].tolist())\n"
        "texts = [f'{i} is a number; ' * 9 for i in range(30)]\n"
        "print([row.tolist() for row in prompts(texts, train_tokenizer('', 257), 9, 5, seed=2)])"
    )
    env = os.environ | {"PYTHONHASHSEED": "777"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    texts = [f"{i} is a number; " * 9 for i in range(30)]
    bare = train_tokenizer("", 257)
    here = [
        Batches(np.arange(5000), 4, 8, seed=9)(11)[:, 0].tolist(),
        [row.tolist() for row in prompts(texts, bare, 9, 5, seed=2)],
    ]
    assert run.stdout.decode().splitlines() == [str(value) for value in here]
