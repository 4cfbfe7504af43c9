"""Is a router's confidence calibrated, so that of the drafts with confidence 0.7 70 % are accepted?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tandem_edu.decode import Trace
from tandem_edu.errors import require


class Calibration(NamedTuple):
    """Drafts in bins of equal width by confidence: counts, mean confidence, share accepted; None if empty."""

    counts: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accepted: tuple[float | None, ...]

    @property
    def error(self) -> float:
        """ECE = Σ_b n_b / n · |accepted_b - confidence_b| (Naeini et al. 2015)."""
        gaps = [n * abs(a - c) for n, c, a in zip(*self, strict=True) if n]  # pyright: ignore
        return sum(gaps) / sum(self.counts)


def calibration(
    confidence: Float[np.ndarray, " n"], accepted: Float[np.ndarray, " n"], bins: int = 10
) -> Calibration:
    """Sort drafts into `bins` by confidence. Raises `BadInput` for no drafts.

    >>> result = calibration(np.array([0.95, 0.9, 0.25, 0.25]), np.array([1.0, 1.0, 0.0, 1.0]), bins=2)
    >>> result.counts, result.accepted, round(result.error, 4)  # (2 · |0.5 - 0.25| + 2 · |1 - 0.925|) / 4
    ((2, 2), (0.5, 1.0), 0.1625)
    """
    require(len(confidence) > 0, "at least one verified draft", "none", "decode more text")
    index = np.minimum((np.asarray(confidence, np.float64) * bins).astype(int), bins - 1)
    inside = [index == b for b in range(bins)]
    mean = lambda values: float(np.mean(values, dtype=np.float64)) if len(values) else None
    means = (tuple(mean(values[mask]) for mask in inside) for values in (confidence, accepted))
    return Calibration(tuple(int(mask.sum()) for mask in inside), *means)


def verified_drafts(traces: Sequence[Trace]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Confidence and result (1 accepted, 0 rejected) of each draft up to the first rejected or a stop."""
    confidence, result = [], []
    for row in (row for trace in traces for row in trace.to_records()):
        stopped = row["emitted"] <= row["accepted"]
        verified = row["accepted"] if stopped else min(row["accepted"] + 1, row["drafted"])
        confidence += row["confidence"][:verified]
        result += [float(i < row["accepted"]) for i in range(verified)]
    return np.array(confidence), np.array(result)
