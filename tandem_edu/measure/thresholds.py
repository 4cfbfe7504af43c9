"""A router at several thresholds τ: how long its blocks are, what is wasted, what that buys.

A higher τ asks for more confidence and ends blocks earlier: fewer drafts are wasted, and fewer tokens come
out of each call of the primary. The best τ is where the two costs balance, and depends on the machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from tandem_edu.decode import Drafter, LearnedRouter, Output, Sampling
from tandem_edu.decode.trace import summarise
from tandem_edu.errors import require
from tandem_edu.measure.decoding import ALONE, decoded_in_turns, speculating
from tandem_edu.measure.timing import spread
from tandem_edu.model import PrimaryReader, Transformer


@dataclass(frozen=True, eq=False)
class Threshold:
    """One τ over all prompts."""

    threshold: float
    drafted: float
    """Mean drafts a cycle."""
    accepted: float
    """Mean drafts accepted a cycle."""
    wasted: float
    """Share of the drafts that were not accepted."""
    tokens_per_call: float
    speedup: np.ndarray
    """float[repetitions]: times as fast as the primary alone in the same round."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; the speedup as median and quartiles."""
        median, low, high = spread(self.speedup)
        plain = {k: v for k, v in vars(self).items() if k != "speedup"}
        return {**plain, "speedup": median, "speedup_quartiles": [low, high]}


def sweep_thresholds(
    primary: Transformer,
    drafter: Transformer | PrimaryReader | Drafter,
    prompts: Sequence[np.ndarray],
    router: LearnedRouter,
    thresholds: Sequence[float],
    block_len: int = 8,
    max_new_tokens: int = 64,
    sampling: Sampling | None = None,
    key: jax.Array | None = None,
    repetitions: int = 3,
    progress: bool = False,
) -> list[Threshold]:
    """Decode every prompt at every τ (0 is a constant γ = `block_len`), in turns with the primary alone.

    τ is a traced value, so all share one program. Raises `BadInput` for no τ or no prompt, and what
    `speculate` raises.
    """
    for name, given in (("threshold", thresholds), ("prompt", prompts)):
        require(len(given) > 0, f"at least one {name}", "none", "pass one")
    ways = {
        tau: speculating(primary, drafter, block_len, router=router.with_threshold(tau)) for tau in thresholds
    }
    settings = {"max_new_tokens": max_new_tokens, "sampling": sampling, "key": key}
    seconds, outputs = decoded_in_turns(primary, ways, prompts, settings, repetitions, progress)
    return [_threshold(tau, outputs[tau], seconds[ALONE] / seconds[tau]) for tau in thresholds]


def _threshold(tau: float, outputs: Sequence[Output], speedup: np.ndarray) -> Threshold:
    summary = summarise([out.trace for out in outputs])
    return Threshold(
        threshold=tau,
        drafted=summary["mean_drafted"],
        accepted=summary["mean_accepted"],
        wasted=1 - summary["accepted"] / max(1, summary["drafted"]),
        tokens_per_call=summary["block_efficiency"],
        speedup=speedup,
    )
