"""From documents to one long row of token ids, and from that row to batches, windows and prompts.

`encode`    the row: every document's ids, each document closed by the end-of-text id
`Batches`   training: random windows, a pure function of (seed, step)
`windows`   evaluation: consecutive windows, every target counted once
`prompts`   decoding: beginnings, from random places of held-out documents

A window has `seq_len + 1` tokens, because inputs and targets are the same tokens, one apart:
`window[:-1]` predicts `window[1:]`. In memory a token takes two bytes; a row that a `.npy` file holds may be
memory-mapped, which every function here accepts in place of an array.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice

import numpy as np
from tokenizers import Tokenizer

from tandem_edu.data.corpus import documents_of
from tandem_edu.data.tokenizer import END_OF_TEXT
from tandem_edu.errors import at_least, require

_CHUNK = 2**20  # characters encoded at a time, which bounds the memory it takes
_WHOLE = "pass a whole number"


def encode(tokenizer: Tokenizer, documents: Iterable[str]) -> np.ndarray:
    """The ids of all documents in one row, each document followed by the end-of-text id.

    Returns uint16[n_tokens] if the vocabulary fits, else uint32[n_tokens]. `documents` is a corpus,
    a text, or an iterable of texts. Raises `BadInput` if there is none, or if the tokenizer has no
    `<|endoftext|>`.

    >>> from tandem_edu.data.tokenizer import train_tokenizer
    >>> encode(train_tokenizer("", vocab_size=257), ["!", '"']).tolist()
    [1, 0, 2, 0]
    """
    return np.concatenate(list(_encoded(tokenizer, documents)))


@dataclass(frozen=True, eq=False)
class Batches:
    """Random windows of a row of tokens: `batches(step)` is int32[batch_size, seq_len + 1].

    A pure function of (seed, step): the pair is the key of a counter-based generator (Philox;
    Salmon et al. 2011), so there is no state to save, a resumed run sees what it would have seen,
    and any worker can make any batch.

    Raises `BadInput` for sizes below 1, for negative seeds or steps, and if `tokens` are fewer
    than one window.

    >>> batches = Batches(np.arange(100), batch_size=2, seq_len=4)
    >>> batches(7).shape, bool((batches(7) == batches(7)).all())
    ((2, 5), True)
    """

    tokens: np.ndarray = field(repr=False)
    batch_size: int
    seq_len: int
    seed: int = 0

    def __post_init__(self):
        at_least(1, self.batch_size, "batch_size", _WHOLE)
        at_least(1, self.seq_len, "seq_len", _WHOLE)
        _draw(self.seed, 0, 0)
        _check_tokens(self.tokens, self.seq_len)

    def __call__(self, step: int) -> np.ndarray:
        n_starts = len(self.tokens) - self.seq_len
        starts = _draw(self.seed, step, self.batch_size) % np.uint64(n_starts)
        return _gather(self.tokens, starts.astype(np.int64), self.seq_len)


def windows(tokens: np.ndarray, seq_len: int, limit: int | None = None) -> np.ndarray:
    """Consecutive windows, int32[n, seq_len + 1]; `limit` keeps so many, spread evenly over the text.

    Neighbours share one token, the last target of one and the first input of the next, so each
    target is counted exactly once. Up to `seq_len - 1` tokens at the end are left over.

    >>> windows(np.arange(8), seq_len=3).tolist()
    [[0, 1, 2, 3], [3, 4, 5, 6]]
    >>> windows(np.arange(13), seq_len=3, limit=2).tolist()
    [[0, 1, 2, 3], [6, 7, 8, 9]]
    """
    at_least(1, seq_len, "seq_len", _WHOLE)
    at_least(1, 1 if limit is None else limit, "limit", _WHOLE)
    _check_tokens(tokens, seq_len)
    count = (len(tokens) - 1) // seq_len
    kept = count if limit is None else min(count, limit)
    return _gather(tokens, np.arange(kept) * count // kept * seq_len, seq_len)


def prompts(
    corpus: Iterable[str], tokenizer: Tokenizer, length: int, count: int, seed: int = 0
) -> list[np.ndarray]:
    """`count` prompts of exactly `length` tokens, each int32[length], from random places.

    Each comes from another document while there are enough that are long enough; after that, each
    of these gives another window, and windows repeat only when all have been given. Take them from
    the validation corpus, which the model has not seen. Deterministic in `seed`.

    Raises `BadInput` if no document has `length` tokens.
    """
    at_least(1, length, "length", _WHOLE)
    at_least(1, count, "count", _WHOLE)
    documents = list(dict.fromkeys(documents_of(corpus)))
    order = np.argsort(_draw(seed, 0, len(documents)), kind="stable")
    shuffled = (encode(tokenizer, [documents[index]])[:-1] for index in order)
    usable = list(islice((ids for ids in shuffled if len(ids) >= length), count))
    fix = "use a smaller length or longer documents"
    got = f"{len(documents)} shorter ones"
    require(bool(usable), f"a document of at least {length} tokens", got, fix)
    pools = [_shuffled_windows(ids, length, seed, n) for n, ids in enumerate(usable, start=1)]
    return [next(pool) for pool in islice(cycle(pools), count)]


def _shuffled_windows(ids: np.ndarray, length: int, seed: int, stream: int) -> Iterator[np.ndarray]:
    """Every window of one document in random order, again and again."""
    starts = np.argsort(_draw(seed, stream, len(ids) - length + 1), kind="stable")
    for start in cycle(starts):
        yield ids[start : start + length].astype(np.int32)


def _encoded(tokenizer: Tokenizer, documents: Iterable[str]) -> Iterator[np.ndarray]:
    """The row of ids, a chunk of whole documents at a time."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    fix = "use a tokenizer from train_tokenizer"
    require(end is not None, f"a tokenizer with {END_OF_TEXT}", "one without it", fix)
    dtype = _dtype(tokenizer)
    chunks = 0
    for chunk in _chunks(documents):
        rows = (encoding.ids for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False))
        yield np.concatenate([np.array([*ids, end], dtype) for ids in rows])
        chunks += 1
    require(chunks > 0, "at least one document", "none", "pass a corpus or a list of texts")


def _chunks(documents: Iterable[str]) -> Iterator[list[str]]:
    chunk, size = [], 0
    for document in documents_of(documents) if isinstance(documents, str) else documents:
        chunk.append(document)
        size += len(document)
        if size >= _CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _dtype(tokenizer: Tokenizer) -> np.dtype:
    return np.dtype("<u2" if tokenizer.get_vocab_size() <= 2**16 else "<u4")


def _draw(seed: int, stream: int, count: int) -> np.ndarray:
    """`count` random uint64, a pure function of (seed, stream).

    The generator's raw output, since NumPy promises that and not its distributions to be the same
    in all versions to come.
    """
    key = [at_least(0, seed, "seed", _WHOLE), at_least(0, stream, "step", _WHOLE)]
    require(max(key) < 2**64, "seed and step below 2**64", max(key), "take smaller ones")
    return np.random.Philox(key=np.array(key, np.uint64)).random_raw(count)


def _gather(tokens: np.ndarray, starts: np.ndarray, seq_len: int) -> np.ndarray:
    return np.asarray(tokens[starts[:, None] + np.arange(seq_len + 1)], dtype=np.int32)


def _check_tokens(tokens: np.ndarray, seq_len: int) -> None:
    shape, dtype = np.shape(tokens), getattr(tokens, "dtype", None)
    row = dtype is not None and np.issubdtype(dtype, np.integer) and len(shape) == 1
    got = f"{dtype or type(tokens).__name__} of shape {shape}"
    require(row, "tokens as a one-dimensional integer array", got, "use encode")
    least = f"at least seq_len + 1 = {seq_len + 1} tokens"
    require(shape[0] > seq_len, least, shape[0], "use a longer text or a smaller seq_len")
