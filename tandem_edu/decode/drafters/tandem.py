"""The tandem as a drafter: it sees the past through the primary's representations (arXiv:2402.08644).

When the primary has read a block, its projected representations overwrite that block in the drafter's
cache. So each draft begins with what the primary makes of the text, not with what the drafter does.
"""

from jaxtyping import Array, Int

from tandem_edu.decode.drafters.plain import catch_up
from tandem_edu.decode.drafters.protocol import Draft, Drafter, PrimaryOutput
from tandem_edu.model import Cache, Tandem, TandemCache


class TandemDrafter(Drafter):
    """A `Tandem` that drafts."""

    model: Tandem

    def start(self, reading: PrimaryOutput, width: int, block_len: Int[Array, ""]) -> TandemCache:
        capacity = reading.cache.capacity
        return self.model.prefill(reading.tokens, reading.hidden, reading.length, capacity, block_len)

    def step(self, token: Int[Array, ""], state: TandemCache, cache: Cache) -> Draft:
        logits, hidden, state = self.model.extend(token[None], state, return_hidden=True)
        return Draft(logits[0], state, hidden[-1, 0])

    def commit(self, state: TandemCache, reading: PrimaryOutput) -> TandemCache:
        if self.model.own_history:
            state = catch_up(self, state, reading)
        return self.model.commit(reading.hidden, state, reading.start, reading.length)
