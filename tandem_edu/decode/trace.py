"""What happened in each decoding cycle, and the usual measures of it."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from tandem_edu.errors import require
from tandem_edu.model.masks import positions


class Trace(eqx.Module):
    """One entry per cycle. A cycle is one forward pass of the primary after the prompt.

    The prompt's last token is read in the first cycle, so every new token belongs to a cycle: `sum(emitted)`
    is the number of new tokens. Entries from `cycles` on are empty. The trace of a batch has a leading axis
    `batch`.
    """

    cycles: Int[Array, "*batch"]
    drafted: Int[Array, "*batch entries"]
    accepted: Int[Array, "*batch entries"]
    """Drafts accepted, the primary's own token not counted."""
    emitted: Int[Array, "*batch entries"]
    """accepted + 1, unless a stop token cut the cycle short; without a free token, accepted."""
    draft_ids: Int[Array, "*batch entries block"]
    """The drafted tokens, -1 where nothing was drafted."""
    acceptance_prob: Float[Array, "*batch entries block"]
    """β = Σ_v min(p, q) at each draft's position."""
    confidence: Float[Array, "*batch entries block"]
    """The router's estimate, before verification, that the draft would be accepted; 1 without a router."""

    @classmethod
    def empty(cls, entries: int, block: int) -> "Trace":
        """No cycle yet, with room for `entries` cycles of at most `block` drafts."""
        zeros, floats = jnp.zeros(entries, jnp.int32), jnp.zeros((entries, block), jnp.float32)
        ids = jnp.full((entries, block), -1, jnp.int32)
        return cls(jnp.int32(0), zeros, zeros, zeros, ids, floats, floats)

    @classmethod
    def of_single_tokens(cls, cycles: Int[Array, ""], entries: int) -> "Trace":
        """Each cycle emits one token; nothing is drafted."""
        emitted = (positions(entries) < cycles).astype(jnp.int32)
        return eqx.tree_at(lambda t: (t.cycles, t.emitted), cls.empty(entries, 0), (cycles, emitted))

    def record(
        self,
        skip: Bool[Array, ""],
        drafted: Int[Array, ""],
        accepted: Int[Array, ""],
        emitted: Int[Array, ""],
        draft_ids: Int[Array, " block"],
        acceptance_prob: Float[Array, " block"],
        confidence: Float[Array, " block"],
    ) -> "Trace":
        """One more entry, unless `skip`."""
        at = jnp.where(skip, self.drafted.shape[0], self.cycles)  # beyond the end nothing is written
        in_block = positions(draft_ids.shape[0]) < drafted
        per_draft = ((draft_ids, -1), (acceptance_prob, 0.0), (confidence, 0.0))
        new = (drafted, accepted, emitted, *(jnp.where(in_block, x, blank) for x, blank in per_draft))
        old = jax.tree.leaves(self)[1:]
        entries = [x.at[at].set(y, mode="drop") for x, y in zip(old, new, strict=True)]
        return Trace(self.cycles + jnp.where(skip, 0, 1), *entries)

    def per_text(self) -> list["Trace"]:
        """The traces of a batch, one per text, as NumPy arrays."""
        host = jax.tree.map(np.asarray, self)
        if np.ndim(host.cycles) == 0:
            return [host]
        return [jax.tree.map(lambda x, i=i: x[i], host) for i in np.ndindex(host.cycles.shape)]

    def to_records(self) -> list[dict[str, Any]]:
        """The cycles as JSON-able dicts, as `pandas.DataFrame` reads them; of a batch with the `row`."""
        parts = self.per_text()
        name = {} if np.ndim(self.cycles) == 0 else {"row": 0}
        return [
            {**dict.fromkeys(name, row), **_entry(part, cycle)}
            for row, part in enumerate(parts)
            for cycle in range(int(part.cycles))
        ]

    def summary(self) -> dict[str, Any]:
        """The measures over all cycles, of all texts of a batch together.

        - `block_efficiency` = emitted / cycles, the primary's own tokens counted, at most γ + 1;
        - `mean_accepted` = accepted / cycles, the primary's own tokens not counted;
        - `mean_drafted` = drafted / cycles, `acceptance_rate` = accepted / drafted;
        - `acceptance_by_position`: α_i, the share of drafts at position i that were accepted, among those
          whose predecessors were all accepted; `None` where there is none. A block that the end of the
          text cuts short counts as far as it went;
        - `reached_by_position`: the number of drafts behind each α_i.
        """
        return summarise([self])


def records_of_one_text(trace: Trace) -> list[dict[str, Any]]:
    """`trace.to_records()` of a single text. Raises `BadInput` for the trace of a batch."""
    single = np.ndim(trace.cycles) == 0
    fix = "decode one prompt, or take trace.per_text()[row]"
    require(single, "the trace of one text", "that of a batch", fix)
    return trace.to_records()


def summarise(traces: Sequence[Trace]) -> dict[str, Any]:
    """`Trace.summary` of several traces together; every cycle has the same weight."""
    parts = [part for trace in traces for part in trace.per_text()]
    columns = [[np.asarray(x)[: int(t.cycles)] for x in (t.drafted, t.accepted, t.emitted)] for t in parts]
    drafted, accepted, emitted = (np.concatenate(column) for column in zip(*columns, strict=True))
    # A stop token among the drafts ends the text there: the drafts after it were not rejected.
    verified = np.where(emitted > accepted, drafted, accepted)
    return {
        "cycles": len(emitted),
        "emitted": int(emitted.sum()),
        "drafted": int(drafted.sum()),
        "accepted": int(accepted.sum()),
        "block_efficiency": _ratio(emitted.sum(), len(emitted)),
        "mean_accepted": _ratio(accepted.sum(), len(emitted)),
        "mean_drafted": _ratio(drafted.sum(), len(emitted)),
        "acceptance_rate": _ratio(accepted.sum(), drafted.sum()),
        "acceptance_by_position": acceptance_by_position(verified, accepted),
        "reached_by_position": reached_by_position(verified, accepted),
    }


def acceptance_by_position(drafted: np.ndarray, accepted: np.ndarray) -> list[float | None]:
    """α_i = #(accepted > i) / #(drafted > i and accepted ≥ i), i = 0 .. max(drafted) - 1.

    >>> acceptance_by_position(np.array([2, 2, 2, 1]), np.array([2, 1, 0, 1]))
    [0.75, 0.5]
    """
    reached = reached_by_position(drafted, accepted)
    return [int(np.sum(accepted > i)) / count if count else None for i, count in enumerate(reached)]


def reached_by_position(drafted: np.ndarray, accepted: np.ndarray) -> list[int]:
    """Drafts at position i whose predecessors were all accepted, i = 0 .. max(drafted) - 1.

    >>> reached_by_position(np.array([2, 2, 2, 1]), np.array([2, 1, 0, 1]))
    [4, 2]
    """
    return [int(np.sum((drafted > i) & (accepted >= i))) for i in range(int(drafted.max(initial=0)))]


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def _entry(trace: Trace, cycle: int) -> dict[str, Any]:
    drafted = int(trace.drafted[cycle])
    return {
        "cycle": cycle,
        "drafted": drafted,
        "accepted": int(trace.accepted[cycle]),
        "emitted": int(trace.emitted[cycle]),
        **{
            name: getattr(trace, name)[cycle, :drafted].tolist()
            for name in ("draft_ids", "acceptance_prob", "confidence")
        },
    }
