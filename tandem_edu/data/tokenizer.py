r"""Byte-level byte-pair encoding: from text to token ids and back without a loss.

Text is first a row of UTF-8 bytes. Training starts from the 256 bytes and merges, again and again,
the pair of neighbours that occurs most often in the text into a new token, until the vocabulary is
full (Sennrich et al. 2016, arXiv:1508.07909; on bytes: Radford et al. 2019). Frequent words become
one token, rare ones a few, and no text is ever unknown.

    id 0           <|endoftext|>, after each document
    ids 1 to 256   the bytes
    the others     merged pairs, the most frequent first
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tandem_edu.data.corpus import documents_of
from tandem_edu.data.files import read_utf8
from tandem_edu.errors import BadInput, require
from tandem_edu.files import written_whole

END_OF_TEXT = "<|endoftext|>"
END_ID = 0
SMALLEST_VOCAB = 257  # the bytes and `END_OF_TEXT`
_VISIBLE_BYTES = (*range(33, 127), *range(161, 173), *range(174, 256))


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> Tokenizer:
    r"""Train a byte-level BPE tokenizer of exactly `vocab_size` tokens on a corpus or on texts.

    Decoding undoes encoding for any text; the characters `<|endoftext|>` in a text are ordinary
    characters. The same texts give the same tokenizer. 2 MB take about two seconds.

    Raises `BadInput` if `vocab_size` is below 257, or if the text has too few repeated pairs to
    fill it: models are sized by `vocab_size`, so a smaller one must be asked for by name.

    >>> tokenizer = train_tokenizer(["the cat, the hat, the bat"] * 2, vocab_size=262)
    >>> ids = tokenizer.encode("the\r\nhats").ids
    >>> token_strings(tokenizer, ids)
    ['the', '\r', '\n', 'h', 'at', 's']
    >>> tokenizer.decode(ids)
    'the\r\nhats'
    """
    whole = isinstance(vocab_size, int | np.integer)
    least = f"vocab_size of at least {SMALLEST_VOCAB}, 256 bytes and {END_OF_TEXT}"
    require(whole and vocab_size >= SMALLEST_VOCAB, least, vocab_size, "try vocab_size=1024")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(documents_of(texts), _trainer(int(vocab_size)))
    reached = tokenizer.get_vocab_size()
    text = f"text with enough repeated pairs for vocab_size={vocab_size}"
    fix = f"ask for a smaller vocab_size (at most {reached}) or train on more text"
    require(reached == vocab_size, text, f"text enough for {reached} tokens", fix)
    return _literal(tokenizer)


def save_tokenizer(tokenizer: Tokenizer, path: str | os.PathLike[str]) -> None:
    """Write the tokenizer as JSON, whole or not at all. `BadInput` if it cannot be written."""
    with written_whole(path) as part:
        part.write_text(tokenizer.to_str(pretty=True), "utf-8")


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Read a tokenizer that `save_tokenizer` wrote.

    Raises `BadInput` if there is none, it is cut short, or it is not byte-level with id 0 for
    `<|endoftext|>`.
    """
    expected = f"a tokenizer written by save_tokenizer at {Path(path)}"
    text = read_utf8(path, "tokenizer file")
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises this bare class
        fix = "the file is cut short or of another kind: save it again"
        raise BadInput(expected, f"unreadable JSON ({error})", fix) from error
    ours = tokenizer.token_to_id(END_OF_TEXT) == END_ID
    ours = ours and isinstance(tokenizer.decoder, decoders.ByteLevel)
    got = f"another kind, not byte-level with {END_OF_TEXT} as id {END_ID}"
    require(ours, expected, got, "train one with train_tokenizer")
    return _literal(tokenizer)


def token_strings(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray) -> list[str]:
    r"""The visible text of each token on its own, for showing tokens side by side.

    Bytes that are no whole character by themselves appear as `\xe2`; newlines and tabs stay.
    `ids` is a list or an array of integers. Raises `BadInput` for an id outside the vocabulary.

    >>> tokenizer = train_tokenizer("", vocab_size=257)
    >>> token_strings(tokenizer, tokenizer.encode("é!").ids)
    ['\\xc3', '\\xa9', '!']
    """
    return [_token_string(tokenizer, int(token)) for token in np.asarray(ids).tolist()]


def _token_string(tokenizer: Tokenizer, token: int) -> str:
    name = tokenizer.id_to_token(token) if 0 <= token < 2**32 else None
    if name is None:
        vocab = f"a token id below {tokenizer.get_vocab_size()}"
        raise BadInput(vocab, token, "use the tokenizer that made the ids")
    if not all(sign in _BYTE_OF for sign in name):
        return name  # of another kind of tokenizer, spelt as it is
    return bytes(_BYTE_OF[sign] for sign in name).decode("utf-8", "backslashreplace")


def _trainer(vocab_size: int) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,  # a pair seen once is no pattern
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )


def _literal(tokenizer: Tokenizer) -> Tokenizer:
    """Read `<|endoftext|>` inside a text as characters, so that no text can end a document."""
    tokenizer.encode_special_tokens = True  # not part of the JSON, hence set again after loading
    return tokenizer


def _sign_to_byte() -> dict[str, int]:
    """How byte-level tokens are spelt: a visible byte as itself, the others from U+0100 on."""
    hidden = [byte for byte in range(256) if byte not in _VISIBLE_BYTES]
    shifted = {chr(256 + place): byte for place, byte in enumerate(hidden)}
    return {chr(byte): byte for byte in _VISIBLE_BYTES} | shifted


_BYTE_OF = _sign_to_byte()
