"""A router at several thresholds τ: how long its blocks are, what is wasted, what that buys.

A higher τ asks for more confidence and ends blocks earlier: fewer drafts are wasted, and fewer tokens come
out of each call of the primary. The best τ is where the two costs balance, and depends on the machine.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tandem_edu.decode import LearnedRouter
from tandem_edu.decode.trace import summarise
from tandem_edu.drafters import Drafter, PrimaryReader
from tandem_edu.errors import require
from tandem_edu.measure.decoding import ALONE, decoded_in_turns, speculating
from tandem_edu.model import Transformer


class Threshold(NamedTuple):
    """One τ over all prompts. The means are per cycle."""

    threshold: float
    drafted: float
    accepted: float
    wasted: float
    """Share of the drafts that were not accepted."""
    tokens_per_call: float
    speedup: np.ndarray
    """float[repetitions], over the primary alone in the same round."""


def sweep_thresholds(
    primary: Transformer,
    drafter: Transformer | PrimaryReader | Drafter,
    prompts: Sequence[np.ndarray],
    router: LearnedRouter,
    thresholds: Sequence[float],
    block_len: int = 8,
    repetitions: int = 3,
    progress: bool = False,
    **settings: Any,
) -> list[Threshold]:
    """Decode every prompt at every τ (0 is a constant γ = `block_len`), in turns with the primary alone.

    τ is a traced value, so all share one program. `settings` are those of `generate`. Raises `BadInput` for
    no τ or no prompt, and what `speculate` raises.
    """
    for name, given in (("threshold", thresholds), ("prompt", prompts)):
        require(len(given) > 0, f"at least one {name}", "none", "pass one")
    decoders = {
        tau: speculating(primary, drafter, block_len, router=router.with_threshold(tau)) for tau in thresholds
    }
    seconds, outputs = decoded_in_turns(primary, decoders, prompts, settings, repetitions, progress)
    sweep = []
    for tau in thresholds:
        counts = summarise([out.trace for out in outputs[tau]])
        wasted = 1 - counts["accepted"] / max(1, counts["drafted"])
        means = counts["mean_drafted"], counts["mean_accepted"], wasted, counts["block_efficiency"]
        sweep.append(Threshold(tau, *means, seconds[ALONE] / seconds[tau]))
    return sweep
