"""What happened in each decoding cycle, and the standard measures of it."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int


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
        host = jax.tree.map(np.asarray, self)
        return [
            {
                "cycle": i,
                "drafted": int(host.drafted[i]),
                "accepted": int(host.accepted[i]),
                "emitted": int(host.emitted[i]),
                "draft_ids": host.draft_ids[i, : host.drafted[i]].tolist(),
                "overlap": host.overlap[i, : host.drafted[i]].tolist(),
            }
            for i in range(int(host.cycles))
        ]

    def summary(self) -> dict[str, Any]:
        """The measures, with the field's names.

        - `block_efficiency` = emitted / cycles, the primary's own tokens counted, at most γ + 1;
        - `mean_accepted` = accepted / cycles, the primary's own tokens not counted;
        - `acceptance_by_position`: α_i, the share of drafts at position i accepted among those whose
          predecessors were all accepted (a block cut short at the end of the text is counted as far
          as it went); `None` where no draft was reached.
        """
        cycles = int(self.cycles)
        drafted, accepted, emitted = (
            np.asarray(column)[:cycles] for column in (self.drafted, self.accepted, self.emitted)
        )
        total = int(emitted.sum())
        return {
            "cycles": cycles,
            "emitted": total,
            "drafted": int(drafted.sum()),
            "accepted": int(accepted.sum()),
            "block_efficiency": total / cycles if cycles else float("nan"),
            "mean_accepted": float(accepted.mean()) if cycles else float("nan"),
            "acceptance_by_position": acceptance_by_position(drafted, accepted),
        }


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
