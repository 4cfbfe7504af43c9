"""From documents to token ids, and on to batches, windows (inputs `[:-1]`, targets `[1:]`) and prompts."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import cycle, islice

import numpy as np
from tokenizers import Tokenizer

from tandem_edu.data.corpus import documents_of
from tandem_edu.data.tokenizer import END_OF_TEXT
from tandem_edu.errors import at_least, require

_CHUNK = 64  # documents encoded at a time: the library's encodings are far larger than their ids
_WHOLE = "pass a whole number"


def encode(tokenizer: Tokenizer, documents: Iterable[str]) -> np.ndarray:
    """The ids of all documents in one array, each document followed by the end-of-text id.

    `documents` is a corpus, a text, or texts; the result uint16[n_tokens] if the vocabulary fits, else
    uint32. Raises `BadInput` without a document, or if the tokenizer has no `<|endoftext|>`.

    >>> from tandem_edu.data.tokenizer import train_tokenizer
    >>> encode(train_tokenizer("", vocab_size=257), ["!", '"']).tolist()
    [1, 0, 2, 0]
    """
    texts = documents_of(documents)
    require(bool(texts), "at least one document", "none", "pass a corpus or a list of texts")
    end = tokenizer.token_to_id(END_OF_TEXT)
    fix = "use a tokenizer from train_tokenizer"
    require(end is not None, f"a tokenizer with {END_OF_TEXT}", "one without it", fix)
    dtype = "<u2" if tokenizer.get_vocab_size() <= 2**16 else "<u4"
    chunks = (texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK))
    encoded = (tokenizer.encode_batch_fast(chunk, add_special_tokens=False) for chunk in chunks)
    return np.concatenate([np.array([*one.ids, end], dtype) for chunk in encoded for one in chunk])


@dataclass(frozen=True, eq=False)
class Batches:
    """Random windows of `tokens`, memory-mapped or not: `batches(step)` is int32[batch_size, seq_len + 1].

    A pure function of (seed, step), the key of a counter-based generator (Philox; Salmon et al. 2011): any
    worker can make any batch. Raises `BadInput` for sizes below 1, a negative seed or step, too few tokens.

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
        _random(self.seed, 0, 0)
        _check(self.tokens, self.seq_len)

    def __call__(self, step: int) -> np.ndarray:
        n_starts = np.uint64(len(self.tokens) - self.seq_len)
        starts = _random(self.seed, step, self.batch_size) % n_starts
        return _cut_out(self.tokens, starts.astype(np.int64), self.seq_len + 1)


def windows(tokens: np.ndarray, seq_len: int, limit: int | None = None) -> np.ndarray:
    """Consecutive windows, int32[n, seq_len + 1], at most `limit`, spread evenly over the text.

    Neighbours share one token, so each target is counted once. The last incomplete window is left out.

    >>> windows(np.arange(13), seq_len=3, limit=2).tolist()
    [[0, 1, 2, 3], [6, 7, 8, 9]]
    """
    _check(tokens, seq_len)
    count = (len(tokens) - 1) // seq_len
    kept = count if limit is None else min(count, at_least(1, limit, "limit", _WHOLE))
    return _cut_out(tokens, np.arange(kept) * count // kept * seq_len, seq_len + 1)


def prompts(
    corpus: Iterable[str], tokenizer: Tokenizer, length: int, count: int, seed: int = 0
) -> list[np.ndarray]:
    """`count` prompts, each int32[length] from a random position of a document.

    The documents of at least `length` tokens take turns, each with another window until all were used. Take
    the validation corpus, which the model has not seen. Raises `BadInput` if no document has `length` tokens.
    """
    at_least(1, length, "length", _WHOLE)
    at_least(1, count, "count", _WHOLE)
    documents = list(dict.fromkeys(documents_of(corpus)))
    order = np.argsort(_random(seed, 0, len(documents)), kind="stable")
    shuffled = (encode(tokenizer, [documents[index]])[:-1] for index in order)
    usable = list(islice((ids for ids in shuffled if len(ids) >= length), count))
    got, fix = f"{len(documents)} shorter ones", "use a smaller length or longer documents"
    require(bool(usable), f"a document of at least {length} tokens", got, fix)
    numbers = (_random(seed, stream, len(ids) - length + 1) for stream, ids in enumerate(usable, start=1))
    sources = zip(usable, [cycle(np.argsort(each, kind="stable")) for each in numbers], strict=True)
    return [_cut_out(ids, next(starts), length) for ids, starts in islice(cycle(sources), count)]


def _random(seed: int, stream: int, count: int) -> np.ndarray:
    """`count` raw uint64: NumPy promises these, but not its distributions, to stay the same."""
    key = [at_least(0, seed, "seed", _WHOLE), at_least(0, stream, "step", _WHOLE)]
    require(max(key) < 2**64, "seed and step below 2**64", max(key), "take smaller ones")
    return np.random.Philox(key=np.array(key, np.uint64)).random_raw(count)


def _cut_out(tokens: np.ndarray, starts: np.ndarray | int, length: int) -> np.ndarray:
    return np.asarray(tokens[np.add.outer(starts, np.arange(length))], dtype=np.int32)


def _check(tokens: np.ndarray, seq_len: int) -> None:
    at_least(1, seq_len, "seq_len", _WHOLE)
    integers = np.ndim(tokens) == 1 and np.issubdtype(getattr(tokens, "dtype", float), np.integer)
    got = f"{getattr(tokens, 'dtype', type(tokens).__name__)} of shape {np.shape(tokens)}"
    require(integers, "tokens as a one-dimensional integer array", got, "use encode")
    least = f"at least seq_len + 1 = {seq_len + 1} tokens"
    require(len(tokens) > seq_len, least, len(tokens), "use a longer text or a smaller seq_len")
