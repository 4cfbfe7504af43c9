"""Cross-attending: queries into the primary's own cache (GLIDE, arXiv:2402.02082).

All it remembers is the current block; the past lies in the primary's keys and values, ready to be looked
at. So there is nothing to commit. See `tandem_edu.model.cross_attending`.
"""

from jaxtyping import Array, Int

from tandem_edu.decode.drafters.protocol import Draft, Drafter, PrimaryOutput
from tandem_edu.model import Cache, Glide


class GlideDrafter(Drafter):
    """A `Glide` that drafts."""

    model: Glide

    def start(self, reading: PrimaryOutput, width: int, block_len: Int[Array, ""]) -> Cache:
        return self.model.init_block(width)

    def step(self, token: Int[Array, ""], state: Cache, cache: Cache) -> Draft:
        logits, hidden, state = self.model.step(token, state, cache)
        return Draft(logits, state, hidden)

    def commit(self, state: Cache, reading: PrimaryOutput) -> Cache:
        return state.with_length(0)
