"""Several kinds of work timed in turns, and each set against another of the same round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tandem_edu.measure.timing import interleaved, spread


@dataclass(frozen=True)
class Work:
    """Something to time: seconds of `run` are divided by `units`, the steps it takes."""

    run: Callable[[], Any]
    units: int = 1


def timed(
    work: Mapping[str, Work], repetitions: int = 5, progress: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Seconds a unit of each, float[repetitions], taking turns; and of the first call, which compiles.

    >>> seconds, first = timed({"sum": Work(lambda: sum(range(10)), units=2)}, repetitions=3)
    >>> seconds["sum"].shape, list(first)
    ((3,), ['sum'])
    """
    seconds, first = interleaved({name: one.run for name, one in work.items()}, repetitions, progress)
    return {name: taken / work[name].units for name, taken in seconds.items()}, first


def ratio_rows(
    seconds: Mapping[str, np.ndarray], first: Mapping[str, float], against: Mapping[str, str]
) -> list[dict[str, Any]]:
    """JSON-able rows: milliseconds, and how many times as long as another within the same round.

    >>> seconds = {"one": np.array([1.0, 2.0]), "two": np.array([2.0, 4.0])}
    >>> ratio_rows(seconds, {"one": 5.0, "two": 5.0}, {"two": "one"})[1]["times"]
    2.0
    """
    rows = []
    for name, taken in seconds.items():
        median, low, high = spread(1e3 * taken)
        row = {"what": name, "ms": median, "ms_quartiles": [low, high], "first_call_s": first[name]}
        if name in against:
            median, low, high = spread(taken / seconds[against[name]])
            row |= {"times": median, "times_quartiles": [low, high], "against": against[name]}
        rows.append(row)
    return rows


def readable(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The rows for `show.text_table`."""
    return [_readable(row) for row in rows]


def _readable(row: Mapping[str, Any]) -> dict[str, str]:
    within = lambda pair: f"{pair[0]:.3f} to {pair[1]:.3f}"
    compared = "times" in row
    return {
        "": row["what"],
        "ms": f"{row['ms']:.3f}",
        "quartiles": within(row["ms_quartiles"]),
        "× as long": f"{row['times']:.3f}" if compared else "",
        "quartiles ": within(row["times_quartiles"]) if compared else "",
        "as": row.get("against", ""),
        "first call": f"{row['first_call_s']:.2f} s",
    }
