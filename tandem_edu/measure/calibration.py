"""Is a router's confidence what it says it is? Reliability and expected calibration error.

A router is *calibrated* if, of the drafts it gives 70 %, 70 % are accepted. Only judged drafts count:
those behind a rejected one were never put to the primary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from tandem_edu.decode import Trace
from tandem_edu.errors import require


@dataclass(frozen=True)
class Calibration:
    """Drafts in bins of equal width by their confidence; of an empty bin the means are None."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    confidence: tuple[float | None, ...]
    """Mean confidence in each bin."""
    accepted: tuple[float | None, ...]
    """Share accepted in each bin."""

    @property
    def error(self) -> float:
        """ECE = Σ_b n_b / n · |accepted_b - confidence_b| (Naeini et al. 2015)."""
        gaps = [
            count * abs(a - c)
            for count, a, c in zip(self.counts, self.accepted, self.confidence, strict=True)
            if a is not None and c is not None
        ]
        return sum(gaps) / sum(self.counts)

    def table(self) -> list[dict[str, Any]]:
        """One JSON-able row a bin."""
        return [
            {"from": low, "to": high, "drafts": n, "confidence": c, "accepted": a}
            for low, high, n, c, a in zip(
                self.edges, self.edges[1:], self.counts, self.confidence, self.accepted, strict=False
            )
        ]


def calibration(
    confidence: Float[np.ndarray, " n"], accepted: Float[np.ndarray, " n"], bins: int = 10
) -> Calibration:
    """Sort drafts into `bins` by confidence. Raises `BadInput` for no drafts or no bins.

    >>> found = calibration(np.array([0.95, 0.9, 0.25, 0.25]), np.array([1.0, 1.0, 0.0, 1.0]), bins=2)
    >>> found.counts, found.accepted, round(found.error, 4)  # (2 · |0.5 - 0.25| + 2 · |1 - 0.925|) / 4
    ((2, 2), (0.5, 1.0), 0.1625)
    """
    require(len(confidence) > 0, "at least one judged draft", "none", "decode more text")
    require(bins >= 1, "at least one bin", bins, "take 10")
    confidence, accepted = np.asarray(confidence, np.float64), np.asarray(accepted, np.float64)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    inside = [place == b for b in range(bins)]
    return Calibration(
        edges=tuple(b / bins for b in range(bins + 1)),
        counts=tuple(int(mask.sum()) for mask in inside),
        confidence=tuple(float(confidence[mask].mean()) if mask.any() else None for mask in inside),
        accepted=tuple(float(accepted[mask].mean()) if mask.any() else None for mask in inside),
    )


def judged_drafts(traces: Sequence[Trace]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Confidence and verdict (1 accepted, 0 not) of every draft that was judged in these traces.

    A draft behind a stop token is not counted, nor is one behind a rejected draft.
    """
    confidence, verdict = [], []
    for trace in (part for several in traces for part in several.per_text()):
        for row in trace.to_records():
            cut = row["emitted"] <= row["accepted"]
            judged = row["accepted"] if cut else min(row["accepted"] + 1, row["drafted"])
            confidence += row["confidence"][:judged]
            verdict += [float(i < row["accepted"]) for i in range(judged)]
    return np.array(confidence), np.array(verdict)
