"""Timing side by side: contenders take turns, so that whatever slows the machine slows them all."""

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

    The order is A B C A B C ..., so the ratio of two contenders is taken repetition by repetition.
    Results that are JAX arrays are waited for. `progress` shows a bar. `pause` is a wait before each turn,
    in seconds. Raises `BadInput` for `repetitions` below 1.

    >>> add = lambda: sum(range(10))
    >>> seconds, first = timed({"a call": add, "a step": Work(add, units=2)}, repetitions=3)
    >>> seconds["a step"].shape, list(first)
    ((3,), ['a call', 'a step'])
    """
    at_least(1, repetitions, "repetitions", "5 shows the spread")
    works = {name: one if isinstance(one, Work) else Work(one) for name, one in contenders.items()}
    rounds: list[dict[Any, float]] = [{} for _ in range(repetitions + 1)]
    turns = [(seconds, name) for seconds in rounds for name in works]
    for seconds, name in progress_bar(turns, show=progress, desc="measuring", unit=" runs"):
        time.sleep(pause)
        began = time.perf_counter()
        jax.block_until_ready(works[name].run())
        seconds[name] = time.perf_counter() - began
    first, *others = rounds
    return {name: np.array([one[name] for one in others]) / works[name].units for name in works}, first
