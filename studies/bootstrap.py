"""Confidence intervals from resampled documents (percentile bootstrap, Efron 1979).

Tokens of one document are alike, so tokens are not independent draws, but documents nearly are. A figure is
a function of sums over documents, such as agreement = Σ_d hits_d / Σ_d tokens_d. Its interval is that of
the same function after drawing documents with replacement. Two models are compared on the same draws.

Axis names: `units` documents or prompts, `sums` what is added up over them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from tandem_edu.errors import require
from tandem_edu.measure import Interval


def bootstrap(
    figure: Callable[[Any], Any],
    units: Float[np.ndarray, "units sums"],
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """`figure(sums)` and its 95 % bootstrap interval; `figure` works along the last axis, `sums`.

    Raises `BadInput` for fewer than two units.
    """
    count = len(units)
    require(count >= 2, "at least two units to draw from", count, "use more documents or prompts")
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    low, high = np.quantile(figure(draws @ units), [0.025, 0.975])
    return Interval(float(figure(units.sum(0))), float(low), float(high))
