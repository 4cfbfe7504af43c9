"""A figure with its interval: quartiles of repeated timings, and the 95 % interval of a share."""

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A figure and its interval.

    >>> f"{Interval(0.5, 0.42, 0.57):.2f}"
    '0.50 [0.42, 0.57]'
    """

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
