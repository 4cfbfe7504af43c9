"""Confidence intervals by resampling documents (Efron 1979, the percentile bootstrap).

Tokens of one document are alike, so tokens are no independent draws; documents come nearer to that.
Each figure here is a function of sums over documents, such as

    agreement = Σ_d hits_d / Σ_d tokens_d,

and its interval is that of the same function of sums over documents drawn with replacement. Figures of
two models that are computed from one draw are compared on the same documents.

Axis names: `units` documents or prompts, `sums` whatever is added up over them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from tandem_edu.errors import require


class Interval(NamedTuple):
    """A figure, and where 95 % of the resampled ones lie.

    >>> f"{Interval(0.5, 0.42, 0.57):.2f}"
    '0.50 [0.42, 0.57]'
    """

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def bootstrap(
    figure: Callable[[Any], Any],
    units: Float[np.ndarray, "units sums"],
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """`figure(sums)` and its 95 % interval over resampled `units`.

    `figure` takes an array whose last axis is `sums`, and works along it. Raises `BadInput` for fewer
    than two units.

    >>> units = np.array([[1.0, 2.0], [3.0, 4.0], [2.0, 4.0]])
    >>> bootstrap(lambda sums: sums[..., 0] / sums[..., 1], units).value
    0.6
    """
    count = len(units)
    require(count >= 2, "at least two units to draw from", count, "use more documents or prompts")
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    low, high = np.quantile(figure(draws @ units), [0.025, 0.975])
    return Interval(float(figure(units.sum(0))), float(low), float(high))
