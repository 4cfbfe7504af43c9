"""The command line: each subcommand a few lines around what the rooms below offer.

A mistake of the person at the keyboard is answered with one line and exit status 2, never a traceback.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tandem_edu.cli.benchmark import add_bench
from tandem_edu.cli.decoding import add_generate, add_speculate
from tandem_edu.cli.training import add_train
from tandem_edu.errors import BadInput


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except BadInput as error:
        print(f"tandem-edu: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        trains = hasattr(options, "resumes") and getattr(options, "recipe", "") != "router"
        told = "; the same command takes up a training where its last checkpoint is" if trains else ""
        print(f"tandem-edu: stopped{told}", file=sys.stderr)
        return 130
    return 0


def _demo(options: argparse.Namespace) -> None:
    from tandem_edu.demo import demo

    demo(Path(options.out), quick=options.quick, from_scratch=options.from_scratch)


def _reproduce(options: argparse.Namespace) -> None:
    from tandem_edu.reproduce import reproduce

    page = reproduce(options.stage, Path(options.out), Path(options.work))
    print(f"the results: {page}")


class _Parser(argparse.ArgumentParser):
    """Mistakes in one line, as everywhere else."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"tandem-edu: {message}: see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tandem-edu", description="Tandem Transformers, to train and to decode with.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    texts = {
        "demo": "Train a tandem and its control on the shipped primary, write a report (5 minutes).",
        "train": "Train one model, or a router; killed, a model goes on where it was.",
        "generate": "Continue a text with one model alone.",
        "speculate": "Continue a text with a primary and a drafter: the primary's own text, faster.",
        "bench": "Time the shipped pair's steps on this machine, side by side (half a minute).",
        "reproduce": "Measure the shipped pair: the paper's tables, with ours beside them.",
    }
    adders = (_add_demo, add_train, add_generate, add_speculate, add_bench, _add_reproduce)
    for name, add in zip(texts, adders, strict=True):
        add(commands.add_parser(name, help=texts[name], description=texts[name], formatter_class=_Help))
    return parser


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells defaults, but not that a flag is False or an option None."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def _add_demo(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=_demo, resumes=True)
    how = command.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="fewer steps and prompts, in a minute")
    how.add_argument("--from-scratch", action="store_true", help="train a small primary first")
    command.add_argument("--out", default="demo", metavar="FOLDER", help="where report.html goes")


def _add_reproduce(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=_reproduce, resumes=True)
    command.add_argument(
        "--stage",
        nargs="+",
        metavar="STAGE",
        default=["quality", "decoding", "weights", "adaptive", "standalone"],
        help="what to measure; also zoo, which trains the pair anew, and the ablations: states, "
        "states-longer, heads, readers, history, vocabulary, loss, own-text, blocks-in-training, size, "
        "frozen, deep-tandem, block-prediction",
    )
    command.add_argument("--out", default="results", metavar="FOLDER", help="where the tables go")
    command.add_argument("--work", default="runs", metavar="FOLDER", help="where trainings keep checkpoints")
