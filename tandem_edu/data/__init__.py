"""Text, tokens and batches, in NumPy only: nothing here knows of models or of JAX."""

from tandem_edu.data.batches import Batches, encode, prompts, windows
from tandem_edu.data.corpus import CORPORA, Corpus, load_text
from tandem_edu.data.tokenizer import (
    END_ID,
    END_OF_TEXT,
    load_tokenizer,
    save_tokenizer,
    text_of,
    token_strings,
    train_tokenizer,
)
