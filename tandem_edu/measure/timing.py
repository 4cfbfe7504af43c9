"""Timing side by side, where contenders take turns; and the interval beside a figure."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from tandem_edu.errors import at_least
from tandem_edu.progress import progress_bar


class Work(NamedTuple):
    """Work of several equal steps: the seconds of `run` are divided by `units`."""

    run: Callable[[], Any]
    units: int = 1


def timed(
    contenders: Mapping[Any, Callable[[], Any] | Work],
    repetitions: int = 5,
    progress: bool = False,
    pause: float = 0.0,
) -> tuple[dict[Any, np.ndarray], dict[Any, float]]:
    """Seconds of each contender, float[repetitions], and seconds of its first call, which compiles.

    The order is A B C A B C ..., so that whatever slows the machine slows them all; take ratios repetition by
    repetition. Before each turn is a `pause` in seconds. Raises `BadInput` for `repetitions` below 1.

    >>> add = lambda: sum(range(10))
    >>> seconds, first = timed({"a call": add, "a step": Work(add, units=2)}, repetitions=3)
    >>> seconds["a step"].shape, list(first)
    ((3,), ['a call', 'a step'])
    """
    at_least(1, repetitions, "repetitions", "5 shows the spread")
    works = {name: one if isinstance(one, Work) else Work(one) for name, one in contenders.items()}
    seconds: dict[Any, list[float]] = {name: [] for name in works}
    turns = list(works) * (repetitions + 1)
    for name in progress_bar(turns, show=progress, desc="measuring", unit=" runs"):
        time.sleep(pause)
        began = time.perf_counter()
        jax.block_until_ready(works[name].run())
        seconds[name].append(time.perf_counter() - began)
    first = {name: each.pop(0) for name, each in seconds.items()}
    return {name: np.array(each) / works[name].units for name, each in seconds.items()}, first


class Interval(NamedTuple):
    """A figure and its interval."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def spread(values: np.ndarray) -> Interval:
    """Median, lower and upper quartile.

    >>> spread(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    Interval(value=3.0, low=2.0, high=4.0)
    """
    return Interval(*np.quantile(values, [0.5, 0.25, 0.75]).tolist())


def share_interval(share: float, count: int) -> Interval:
    """A share of `count` independent trials and its 95 % interval (Wilson 1927).

    >>> f"{share_interval(1.0, 10):.2f}"
    '1.00 [0.72, 1.00]'
    """
    z = 1.96
    middle, scale = share + z**2 / (2 * count), 1 + z**2 / count
    half = z * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return Interval(share, (middle - half) / scale, (middle + half) / scale)
