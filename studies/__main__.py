"""`python -m studies NAME...`: train the shipped pair, measure the paper's tables, time steps and texts.

Each study writes its tables as JSON as soon as it has them. The page of results is made from all tables in
the folder, so studies may be run one at a time, in any order, and again.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from studies.page import RESULTS, check_free, write_page
from studies.table import Lab, Table, save_table
from tandem_edu.errors import BadInput, at_least, require
from tandem_edu.zoo import load_pair, texts

PAPER = (
    *("quality", "decoding", "weights", "adaptive", "routers", "standalone"),
    *("deep-tandem", "paper-training"),
)
ABLATIONS = (
    *("states", "states-longer", "heads", "readers", "history", "vocabulary", "loss", "own-text"),
    *("blocks-in-training", "size"),
)
TIMINGS = ("steps", "startup", "training", "where-time-goes", "peers")
NAMES = ("zoo", *PAPER, *ABLATIONS, *TIMINGS)
TABLES = ("quality", "positions", "blocks", "speed", *PAPER[2:], *ABLATIONS)
"""In the order of the page."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the studies that are named; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        run(options.names, Path(options.out), Path(options.work), options.repetitions)
    except BadInput as error:
        print(f"studies: {error}", file=sys.stderr)
        return 2
    return 0


def run(names: Sequence[str], out: Path, work: Path, repetitions: int = 20) -> None:
    """Write the paper's tables to `out`, those of timings to `work`, where trainings keep checkpoints too.

    Raises `BadInput` for an unknown name, and where another README than ours is in `out`.
    """
    for name in names:
        require(name in NAMES, f"studies among {', '.join(NAMES)}", repr(name), "pick some")
    at_least(1, repetitions, "repetitions", "20 shows the spread")
    check_free(out)
    for name in names:
        print(name)
        if name == "zoo":
            import_module("studies.zoo").make_pair(work / "zoo")
            continue
        folder = work / "timings" if name in TIMINGS else out
        for table in tables(name, work, repetitions):
            save_table(table, folder)
            print(table.markdown())
        print(f"written to {folder if name in TIMINGS else write_page(out, TABLES)}")


def tables(name: str, work: Path, repetitions: int) -> list[Table]:
    """The tables of one study."""
    lab = Lab(load_pair(), texts(), work, repetitions)
    if name in ABLATIONS:
        return import_module("studies.ablations").study(name, lab)
    return import_module(f"studies.{name.replace('-', '_')}").study(lab)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m studies", description=__doc__.partition("\n")[0])
    say = lambda names: ", ".join(names)
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help=f"zoo trains the shipped pair anew. The paper's tables: {say(PAPER)}. One choice at a time: "
        f"{say(ABLATIONS)}. Timings: {say(TIMINGS)}.",
    )
    parser.add_argument("--out", default=RESULTS, metavar="FOLDER", help="for the paper's tables")
    parser.add_argument("--work", default="runs", metavar="FOLDER", help="for checkpoints and timings")
    parser.add_argument("--repetitions", type=int, default=20, metavar="N", help="rounds of a timing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
