"""What happened in each decoding cycle, and the standard measures of it."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int

from tandem_edu.errors import require


class Trace(eqx.Module):
    """One row a cycle; a cycle is one call of the primary after the prompt.

    The prompt's last token is read in the first cycle, so every new token comes out of some cycle:
    `sum(emitted)` is the number of new tokens. Rows from `cycles` on are empty.
    """

    cycles: Int[Array, ""]
    drafted: Int[Array, " rows"]
    accepted: Int[Array, " rows"]
    """Drafts accepted; the primary's own token is not among them."""
    emitted: Int[Array, " rows"]
    """accepted + 1, unless a stop token cut the cycle short."""
    draft_ids: Int[Array, "rows block"]
    """The drafted tokens, -1 where nothing was drafted."""
    overlap: Float[Array, "rows block"]
    """β = Σ_v min(p, q) at each draft's position."""

    def rows(self) -> list[dict[str, Any]]:
        """The cycles as JSON-able dicts, a table a data frame reads directly."""
        cycles, host = _cycles(self), jax.tree.map(np.asarray, self)
        return [
            {
                "cycle": i,
                "drafted": int(host.drafted[i]),
                "accepted": int(host.accepted[i]),
                "emitted": int(host.emitted[i]),
                "draft_ids": host.draft_ids[i, : host.drafted[i]].tolist(),
                "overlap": host.overlap[i, : host.drafted[i]].tolist(),
            }
            for i in range(cycles)
        ]

    def summary(self) -> dict[str, Any]:
        """The measures, with the field's names.

        - `block_efficiency` = emitted / cycles, the primary's own tokens counted, at most γ + 1;
        - `mean_accepted` = accepted / cycles, the primary's own tokens not counted;
        - `acceptance_by_position`: α_i, the share of drafts at position i accepted among those whose
          predecessors were all accepted (a block cut short at the end of the text is counted as far
          as it went); `None` where no draft was reached.
        """
        return summarise([self])


def summarise(traces: Sequence[Trace]) -> dict[str, Any]:
    """`Trace.summary` of several texts together: every cycle counts alike."""
    columns = [(trace.drafted, trace.accepted, trace.emitted) for trace in traces]
    cut = [[np.asarray(c)[: _cycles(t)] for c in cs] for t, cs in zip(traces, columns, strict=True)]
    drafted, accepted, emitted = (np.concatenate(column) for column in zip(*cut, strict=True))
    # A stop token among the drafts ends the text there: the drafts behind it were not rejected.
    judged = np.where(emitted > accepted, drafted, accepted)
    cycles = len(emitted)
    return {
        "cycles": cycles,
        "emitted": int(emitted.sum()),
        "drafted": int(drafted.sum()),
        "accepted": int(accepted.sum()),
        "block_efficiency": float(emitted.mean()) if cycles else float("nan"),
        "mean_accepted": float(accepted.mean()) if cycles else float("nan"),
        "acceptance_by_position": acceptance_by_position(judged, accepted),
    }


def _cycles(trace: Trace) -> int:
    several = f"{trace.cycles.shape} of them"
    mend = "take one with jax.tree.map(lambda x: x[i], trace)"
    require(trace.cycles.ndim == 0, "the trace of one text", several, mend)
    return int(trace.cycles)


def acceptance_by_position(drafted: np.ndarray, accepted: np.ndarray) -> list[float | None]:
    """α_i = #(accepted > i) / #(drafted > i and accepted ≥ i), i = 0 .. max(drafted) - 1.

    >>> acceptance_by_position(np.array([2, 2, 2, 1]), np.array([2, 1, 0, 1]))
    [0.75, 0.5]
    """
    alphas = []
    for i in range(int(drafted.max(initial=0))):
        reached = int(np.sum((drafted > i) & (accepted >= i)))
        alphas.append(int(np.sum(accepted > i)) / reached if reached else None)
    return alphas
