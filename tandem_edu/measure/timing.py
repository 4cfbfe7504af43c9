"""Timing side by side: contenders take turns, so that whatever slows the machine slows them all."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tandem_edu.errors import require
from tandem_edu.progress import progress_bar


def interleaved(
    contenders: Mapping[Any, Callable[[], object]], repetitions: int = 5, progress: bool = False
) -> tuple[dict[Any, np.ndarray], dict[Any, float]]:
    """Seconds of each contender, float[repetitions], and of its first call, which compiles.

    The order is A B C A B C ..., so the ratio of two contenders is taken repetition by repetition.
    Results that are JAX arrays are waited for. `progress` shows a bar.

    >>> seconds, first = interleaved({"sum": lambda: sum(range(10))}, repetitions=3)
    >>> seconds["sum"].shape, first["sum"] > 0
    ((3,), True)
    """
    require(repetitions >= 1, "repetitions of at least 1", repetitions, "5 shows the spread")
    rounds: list[dict[Any, float]] = [{} for _ in range(repetitions + 1)]
    turns = [(times, name) for times in rounds for name in contenders]
    for times, name in progress_bar(turns, show=progress, desc="measuring", unit=" runs"):
        times[name] = stopwatch(contenders[name])
    first, *others = rounds
    return {name: np.array([times[name] for times in others]) for name in contenders}, first


def stopwatch(contender: Callable[[], object]) -> float:
    """Seconds until the result of one call is there."""
    began = time.perf_counter()
    jax.block_until_ready(contender())
    return time.perf_counter() - began


def spread(values: np.ndarray) -> tuple[float, float, float]:
    """Median, lower and upper quartile.

    >>> spread(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    (3.0, 2.0, 4.0)
    """
    median, low, high = np.quantile(values, [0.5, 0.25, 0.75])
    return float(median), float(low), float(high)


def machine() -> dict[str, str | int]:
    """What the figures were measured on, for a reader to compare with."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
