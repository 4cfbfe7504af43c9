"""The data room: text, tokens, batches. NumPy only; nothing here knows of models or of JAX."""

from tandem_edu.data.batches import Batches, encode, prompts, windows
from tandem_edu.data.corpus import CORPORA, Corpus, load_text
from tandem_edu.data.tokenizer import (
    END_ID,
    END_OF_TEXT,
    load_tokenizer,
    save_tokenizer,
    token_strings,
    train_tokenizer,
)

__all__ = [
    "CORPORA",
    "END_ID",
    "END_OF_TEXT",
    "Batches",
    "Corpus",
    "encode",
    "load_text",
    "load_tokenizer",
    "prompts",
    "save_tokenizer",
    "token_strings",
    "train_tokenizer",
    "windows",
]
