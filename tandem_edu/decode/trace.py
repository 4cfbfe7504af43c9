"""What happened in each decoding cycle, and the usual measures of it."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tandem_edu.errors import require
from tandem_edu.model.masks import positions


class Trace(eqx.Module):
    """One entry for each cycle, that is for each forward pass of the primary; empty from `cycles` on."""

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

    def record(self, skip, drafted, accepted, emitted, draft_ids, acceptance_prob, confidence) -> "Trace":
        """One more entry of these fields, unless `skip`."""
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
        batched = np.ndim(self.cycles) > 0
        return [
            ({"row": row} if batched else {}) | _entry(part, cycle)
            for row, part in enumerate(self.per_text())
            for cycle in range(int(part.cycles))
        ]

    def summary(self) -> dict[str, Any]:
        """The measures over all cycles, of all texts of a batch together.

        - `block_efficiency` = emitted / cycles, the primary's own tokens counted, at most γ + 1;
        - `mean_accepted` = accepted / cycles, the primary's own tokens not counted;
        - `mean_drafted` = drafted / cycles, `acceptance_rate` = accepted / drafted;
        - `acceptance_by_position`: α_i = #(accepted > i) / #(drafted > i and accepted ≥ i), the share of
          drafts at position i that were accepted, of those whose predecessors all were; `None` for 0 / 0;
        - `reached_by_position`: the denominator of each α_i.
        """
        return summarise([self])


def records_of_one_text(trace: Trace) -> list[dict[str, Any]]:
    """`trace.to_records()` of a single text. Raises `BadInput` for the trace of a batch."""
    fix = "decode one prompt, or take trace.per_text()[row]"
    require(np.ndim(trace.cycles) == 0, "the trace of one text", "that of a batch", fix)
    return trace.to_records()


def summarise(traces: Sequence[Trace]) -> dict[str, Any]:
    """`Trace.summary` of several traces together; every cycle has the same weight."""
    parts = [part for trace in traces for part in trace.per_text()]
    columns = [[np.asarray(x)[: int(t.cycles)] for x in (t.drafted, t.accepted, t.emitted)] for t in parts]
    drafted, accepted, emitted = (np.concatenate(column) for column in zip(*columns, strict=True))
    # A stop token among the drafts ends the text there: the drafts after it were not rejected.
    verified = np.where(emitted > accepted, drafted, accepted)
    reached = [int(np.sum((verified > i) & (accepted >= i))) for i in range(verified.max(initial=0))]
    return {
        "cycles": len(emitted),
        "emitted": int(emitted.sum()),
        "drafted": int(drafted.sum()),
        "accepted": int(accepted.sum()),
        "block_efficiency": _ratio(emitted.sum(), len(emitted)),
        "mean_accepted": _ratio(accepted.sum(), len(emitted)),
        "mean_drafted": _ratio(drafted.sum(), len(emitted)),
        "acceptance_rate": _ratio(accepted.sum(), drafted.sum()),
        "acceptance_by_position": [_ratio(np.sum(accepted > i), n) for i, n in enumerate(reached)],
        "reached_by_position": reached,
    }


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def _entry(trace: Trace, cycle: int) -> dict[str, Any]:
    counts = {name: int(getattr(trace, name)[cycle]) for name in ("drafted", "accepted", "emitted")}
    per_draft = ("draft_ids", "acceptance_prob", "confidence")
    drafts = {name: getattr(trace, name)[cycle, : counts["drafted"]].tolist() for name in per_draft}
    return {"cycle": cycle, **counts, **drafts}
