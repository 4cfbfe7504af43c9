"""The shipped models: their sizes, their text, and how each is trained.

All speak through the primary's embedding and head. The text is what every Python carries with it
(`data.load_text("stdlib")`), split by document into three parts: to train on, to choose by (*dev*), and
to report on (*test*, which no choice has looked at).
"""

from typing import NamedTuple

from tandem_edu import data
from tandem_edu.data.corpus import Corpus
from tandem_edu.model import TransformerConfig
from tandem_edu.train import Recipe, recipe

VOCAB, CONTEXT = 1024, 512

PRIMARY = TransformerConfig(
    vocab_size=VOCAB, d_model=256, n_layers=8, n_heads=8, n_kv_heads=2, d_ff=640, max_len=CONTEXT
)


class Texts(NamedTuple):
    """One corpus in three parts."""

    train: Corpus
    dev: Corpus
    test: Corpus


def texts() -> Texts:
    """80 % or more of the documents to train on; the rest in halves."""
    train, held_out = data.load_text("stdlib").train_valid(0.1, seed=0)
    test, dev = held_out.train_valid(0.5, seed=1)
    return Texts(train, dev, test)


def primary_recipe() -> Recipe:
    """About ten times through the text."""
    return recipe("primary", steps=15_000, learning_rate=2e-3, eval_every=500, eval_windows=400)
