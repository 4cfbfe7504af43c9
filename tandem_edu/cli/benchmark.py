"""`tandem-edu bench`: how long the shipped pair's steps take here, in half a minute."""

import argparse
import json
from pathlib import Path


def add_bench(command: argparse.ArgumentParser) -> None:
    """The flags of `bench`."""
    command.set_defaults(run=_bench)
    command.add_argument("--out", metavar="FILE", help="write all that was measured as JSON, too")
    command.add_argument(
        "--repetitions", type=int, default=9, metavar="N", help="rounds, after one to warm up"
    )


def _bench(options: argparse.Namespace) -> None:
    from tandem_edu.errors import at_least
    from tandem_edu.files import written_whole
    from tandem_edu.measure import machine, ratio_rows, readable, short_set, timed
    from tandem_edu.show import text_table
    from tandem_edu.zoo import load_pair

    at_least(1, options.repetitions, "repetitions", "9 shows the spread")
    pair = load_pair()
    prompt = pair.tokenizer.encode("Return the number of").ids
    work, against = short_set(pair.primary, {"tandem": pair.tandem, "secondary": pair.secondary}, prompt)
    seconds, first = timed(work, options.repetitions, progress=True)
    rows = ratio_rows(seconds, first, against)
    print(text_table(readable(rows)))
    print("Medians of rounds. The first call compiles and is not counted. More: benchmarks/README.md")
    if options.out:
        raw = {name: taken.tolist() for name, taken in seconds.items()}
        facts = {"machine": machine(), "repetitions": options.repetitions, "threads": machine()["cores"]}
        with written_whole(Path(options.out)) as part:
            part.write_text(json.dumps(facts | {"rows": rows, "seconds": raw}, indent=2) + "\n", "utf-8")
        print(f"written: {options.out}")
