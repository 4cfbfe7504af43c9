"""The commands of the command line."""

import argparse
from typing import NoReturn

from tandem_edu.cli.decoding import add_generate, add_speculate
from tandem_edu.cli.training import add_train

COMMANDS = {
    "train": (add_train, "Train a model or a router. A model's training continues where it was stopped."),
    "generate": (add_generate, "Continue a text with one model alone."),
    "speculate": (add_speculate, "Continue a text with a primary and a drafter: the primary's text, faster."),
}


class _Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"tandem-edu: {message}: see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The parser of `tandem-edu`."""
    whole = _Parser(prog="tandem-edu", description="Tandem Transformers, to train and to decode with.")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    for name, (add_flags, text) in COMMANDS.items():
        add_flags(commands.add_parser(name, help=text, description=text))
    return whole
