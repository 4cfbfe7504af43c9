"""The text of the shipped pair: documentation and source files that come with Python, in three parts."""

from typing import NamedTuple

from tandem_edu.data import Corpus, load_text


class Texts(NamedTuple):
    """One corpus in three parts."""

    train: Corpus
    """About nine tenths of the files; the models were trained on these."""
    dev: Corpus
    """For choices."""
    test: Corpus
    """For reports; no choice has used it."""


def texts() -> Texts:
    """The standard library's topics and source files (`load_text("stdlib")`) in three parts.

    A file is in the same part whichever Python reads it, because the split is by name. Raises `BadInput`
    where Python was installed without its source files.
    """
    train, held_out = load_text("stdlib").train_valid(0.1, seed=0)
    test, dev = held_out.train_valid(0.5, seed=1)
    return Texts(train, dev, test)


def held_out_text() -> Corpus:
    """Text that no model of the shipped pair was trained on: the development part."""
    return texts().dev
