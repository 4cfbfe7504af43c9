"""The text of the shipped pair: what every Python carries with it, split by file into three parts.

Split by the files' names, a file stays on its side whichever Python reads it.
"""

from typing import NamedTuple

from tandem_edu.data import Corpus, load_text


class Texts(NamedTuple):
    """One corpus in three parts."""

    train: Corpus
    """About nine tenths of the files: what the models have seen."""
    dev: Corpus
    """To choose by."""
    test: Corpus
    """To report on: no choice has looked at it."""


def texts() -> Texts:
    """The standard library's topics and source files (`load_text("stdlib")`) in three parts.

    Raises `BadInput` where Python was installed without its source files.
    """
    train, held_out = load_text("stdlib").train_valid(0.1, seed=0)
    test, dev = held_out.train_valid(0.5, seed=1)
    return Texts(train, dev, test)


def held_out_text() -> Corpus:
    """Text that no model of the shipped pair has seen, to play with: the development part."""
    return texts().dev
