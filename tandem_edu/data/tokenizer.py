r"""Byte-level byte-pair encoding: from text to token ids and back without loss.

Training starts from the 256 bytes and repeatedly merges the most frequent pair of neighbours into a new
token, until the vocabulary is full (Sennrich et al. 2016, arXiv:1508.07909; on bytes: Radford et al. 2019).

    id 0           <|endoftext|>, after each document
    ids 1 to 256   the bytes
    other ids      merged pairs, the most frequent first
"""

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tandem_edu.data.corpus import documents_of
from tandem_edu.errors import BadInput, at_least, require
from tandem_edu.files import FilePath, read_utf8, written_whole

END_OF_TEXT = "<|endoftext|>"
END_ID = 0

# How the library writes bytes: a visible byte as itself, the other bytes in turn from U+0100 on.
_SIGNS = sorted(pre_tokenizers.ByteLevel.alphabet())
_BYTE_OF = dict(zip(_SIGNS, sorted(range(256), key=lambda byte: chr(byte) not in _SIGNS), strict=True))


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> Tokenizer:
    r"""Train a byte-level BPE tokenizer of exactly `vocab_size` tokens on a corpus or on texts.

    Decoding undoes encoding for any text, and `<|endoftext|>` in a text is ordinary characters. Raises
    `BadInput` if `vocab_size` is below 257, or if the text has too few repeated pairs to fill it.

    >>> tokenizer = train_tokenizer(["the cat, the hat, the bat"] * 2, vocab_size=262)
    >>> token_strings(tokenizer, tokenizer.encode("the\r\nhats").ids)
    ['the', '\r', '\n', 'h', 'at', 's']
    """
    trainer = trainers.BpeTrainer(
        vocab_size=at_least(257, vocab_size, "vocab_size", "try vocab_size=1024"),
        min_frequency=2,  # a pair seen once is no pattern
        special_tokens=[END_OF_TEXT],
        initial_alphabet=_SIGNS,
        show_progress=False,
    )
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # Training takes quadratic time in the length of a word, so it reads long ones in parts.
    parts = pre_tokenizers.Split(Regex(".{1000}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, parts])  # pyright: ignore
    tokenizer.train_from_iterator(documents_of(texts), trainer)
    tokenizer.pre_tokenizer = words  # pyright: ignore
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    reached = tokenizer.get_vocab_size()
    text = f"text with enough repeated pairs for vocab_size={vocab_size}"
    fix = f"ask for a smaller vocab_size (at most {reached}) or train on more text"
    require(reached == vocab_size, text, f"text enough for {reached} tokens", fix)
    return _without_special_tokens(tokenizer)


def save_tokenizer(tokenizer: Tokenizer, path: FilePath) -> None:
    """Write the tokenizer as JSON. Raises `BadInput` if it cannot be written."""
    with written_whole(path) as part:
        part.write_text(tokenizer.to_str(pretty=True), "utf-8")


def load_tokenizer(path: FilePath) -> Tokenizer:
    """Read a tokenizer that `save_tokenizer` wrote. Raises `BadInput` for any other file, and for none."""
    expected = f"a tokenizer written by save_tokenizer at {Path(path)}"
    text = read_utf8(path, "tokenizer file")
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises this bare class
        fix = "the file is cut short or of another kind: save it again"
        raise BadInput(expected, f"unreadable JSON ({error})", fix) from error
    byte_level = "ByteLevel" in json.dumps(json.loads(text)["decoder"])
    got = f"another kind, not byte-level with {END_OF_TEXT} as id {END_ID}"
    same_kind = byte_level and tokenizer.token_to_id(END_OF_TEXT) == END_ID
    require(same_kind, expected, got, "train one with train_tokenizer")
    return _without_special_tokens(tokenizer)


def text_of(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray) -> str:
    """The text of a sequence of ids: `tokenizer.decode`, with an id without a token (padding) as `[id]`.

    >>> text_of(train_tokenizer("", vocab_size=257), [66, 300, 67])
    'b[300]c'
    """
    runs = groupby(np.asarray(ids).tolist(), lambda token: _name(tokenizer, token) is not None)
    texts = (tokenizer.decode([*run]) if known else "".join(map("[{}]".format, run)) for known, run in runs)
    return "".join(texts)


def token_strings(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray) -> list[str]:
    r"""The visible text of each token on its own.

    Bytes that are no whole character by themselves appear as `\xe2`, an id without a token as `[id]`.

    >>> tokenizer = train_tokenizer("", vocab_size=257)
    >>> token_strings(tokenizer, [*tokenizer.encode("é!").ids, 300])
    ['\\xc3', '\\xa9', '!', '[300]']
    """
    names = (_name(tokenizer, token) or f"[{token}]" for token in np.asarray(ids).tolist())
    decoded = lambda name: bytes(_BYTE_OF[sign] for sign in name).decode("utf-8", "backslashreplace")
    # A tokenizer that is not byte-level uses other signs.
    return [decoded(name) if _BYTE_OF.keys() >= set(name) else name for name in names]


def _name(tokenizer: Tokenizer, token: int) -> str | None:
    return tokenizer.id_to_token(token) if 0 <= token < 2**32 else None


def _without_special_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, which never reads its special tokens in a text and leaves them out in decoding."""
    state = json.loads(tokenizer.to_str())
    special = {token["content"]: token["id"] for token in state["added_tokens"] if token["special"]}
    if not special:
        return tokenizer
    state["added_tokens"] = [token for token in state["added_tokens"] if not token["special"]]
    state["model"]["vocab"] = special | state["model"]["vocab"]
    hidden = [{"type": "Replace", "pattern": {"String": name}, "content": ""} for name in special]
    state["decoder"] = {"type": "Sequence", "decoders": [*hidden, state["decoder"]]}
    return Tokenizer.from_str(json.dumps(state))
