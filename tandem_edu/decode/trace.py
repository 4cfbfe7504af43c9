"""What happened in each decoding cycle, and the standard measures of it."""

import json
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from tandem_edu.errors import require


class Trace(eqx.Module):
    """One entry a cycle; a cycle is one call of the primary after the prompt.

    The prompt's last token is read in the first cycle, so every new token comes out of some cycle:
    `sum(emitted)` is the number of new tokens. Entries from `cycles` on are empty. The trace of a batch
    has a leading axis `rows`.
    """

    cycles: Int[Array, "*rows"]
    drafted: Int[Array, "*rows entries"]
    accepted: Int[Array, "*rows entries"]
    """Drafts accepted; the primary's own token is not among them."""
    emitted: Int[Array, "*rows entries"]
    """accepted + 1, unless a stop token cut the cycle short; without a free token, accepted."""
    draft_ids: Int[Array, "*rows entries block"]
    """The drafted tokens, -1 where nothing was drafted."""
    acceptance_prob: Float[Array, "*rows entries block"]
    """β = Σ_v min(p, q) at each draft's position."""
    confidence: Float[Array, "*rows entries block"]
    """The router's estimate, before verification, that the draft would be accepted; 1 without a router."""

    @classmethod
    def empty(cls, entries: int, block: int) -> "Trace":
        """No cycle yet, and room for `entries` of at most `block` drafts."""
        zeros, floats = jnp.zeros(entries, jnp.int32), jnp.zeros((entries, block))
        ids = jnp.full((entries, block), -1, jnp.int32)
        return cls(jnp.int32(0), zeros, zeros, zeros, ids, floats, floats)

    @classmethod
    def of_single_tokens(cls, cycles: Int[Array, ""], rows: int) -> "Trace":
        """Each cycle emits one token; nothing is drafted."""
        trace = cls.empty(rows, 0)
        emitted = (jnp.arange(rows) < cycles).astype(jnp.int32)
        return eqx.tree_at(lambda t: (t.cycles, t.emitted), trace, (cycles, emitted))

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
        at = jnp.where(skip, self.drafted.shape[0], self.cycles)  # beyond the end: nothing is written
        there = jnp.arange(draft_ids.shape[0]) < drafted
        new = (drafted, accepted, emitted)
        new += tuple(
            jnp.where(there, x, blank)
            for x, blank in ((draft_ids, -1), (acceptance_prob, 0.0), (confidence, 0.0))
        )
        old = jax.tree.leaves(self)[1:]
        entries = [x.at[at].set(y, mode="drop") for x, y in zip(old, new, strict=True)]
        return Trace(self.cycles + jnp.where(skip, 0, 1), *entries)

    def per_text(self) -> list["Trace"]:
        """The trace of each row, as NumPy arrays; of a single text, that one."""
        host = jax.tree.map(np.asarray, self)
        if np.ndim(host.cycles) == 0:
            return [host]
        rows = np.ndindex(host.cycles.shape)
        return [jax.tree.map(lambda x, row=row: x[row], host) for row in rows]

    def to_records(self) -> list[dict[str, Any]]:
        """The cycles as JSON-able dicts, a table a data frame reads directly."""
        parts = self.per_text()
        name = {} if np.ndim(self.cycles) == 0 else {"row": 0}
        return [
            {**dict.fromkeys(name, row), **_entry(part, cycle)}
            for row, part in enumerate(parts)
            for cycle in range(int(part.cycles))
        ]

    def to_dict(self) -> dict[str, list[Any]]:
        """`rows` by column: `pandas.DataFrame(trace.to_dict())`."""
        rows = self.to_records()
        return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}

    def to_json(self) -> str:
        """The summary and the cycles."""
        return json.dumps({"summary": self.summary(), "cycles": self.to_records()})

    def summary(self) -> dict[str, Any]:
        """The measures, with the field's names; of a batch, of all its rows together.

        - `block_efficiency` = emitted / cycles, the primary's own tokens counted, at most γ + 1;
        - `mean_accepted` = accepted / cycles, the primary's own tokens not counted;
        - `mean_drafted` = drafted / cycles, `acceptance_rate` = accepted / drafted;
        - `acceptance_by_position`: α_i, the share of drafts at position i accepted among those whose
          predecessors were all accepted (a block cut short at the end of the text is counted as far
          as it went); `None` where no draft was reached;
        - `reached_by_position`: of how many drafts that is the share.
        """
        return summarise([self])


def records_of_one_text(trace: Trace) -> list[dict[str, Any]]:
    """`trace.to_records()` where it must be of a single text. Raises `BadInput` for a batch's."""
    one = np.ndim(trace.cycles) == 0
    require(one, "the trace of one text", "a batch's", "decode one prompt, or take trace.per_text()[row]")
    return trace.to_records()


def summarise(traces: Sequence[Trace]) -> dict[str, Any]:
    """`Trace.summary` of several texts together: every cycle counts alike."""
    parts = [part for trace in traces for part in trace.per_text()]
    columns = [[np.asarray(x)[: int(t.cycles)] for x in (t.drafted, t.accepted, t.emitted)] for t in parts]
    drafted, accepted, emitted = (np.concatenate(column) for column in zip(*columns, strict=True))
    # A stop token among the drafts ends the text there: the drafts behind it were not rejected.
    judged = np.where(emitted > accepted, drafted, accepted)
    return {
        "cycles": len(emitted),
        "emitted": int(emitted.sum()),
        "drafted": int(drafted.sum()),
        "accepted": int(accepted.sum()),
        "block_efficiency": _ratio(emitted.sum(), len(emitted)),
        "mean_accepted": _ratio(accepted.sum(), len(emitted)),
        "mean_drafted": _ratio(drafted.sum(), len(emitted)),
        "acceptance_rate": _ratio(accepted.sum(), drafted.sum()),
        "acceptance_by_position": acceptance_by_position(judged, accepted),
        "reached_by_position": reached_by_position(judged, accepted),
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
