"""Early exit: the primary drafts for itself, with its first layers only (arXiv:2404.16710, 2404.18911).

It needs no second model and no second cache: of the past it sees what those layers have already written
into the primary's. See `tandem_edu.model.early_exit`.
"""

from jaxtyping import Array, Int

from tandem_edu.decode.drafters.protocol import Draft, Drafter, PrimaryOutput
from tandem_edu.model import Cache, EarlyExit, Transformer


class EarlyExitDrafter(Drafter):
    """An `EarlyExit` that drafts with the layers of `primary`."""

    model: EarlyExit
    primary: Transformer

    def start(self, reading: PrimaryOutput, width: int, block_len: Int[Array, ""]) -> Cache:
        return self.model.init_block(width)

    def step(self, token: Int[Array, ""], state: Cache, cache: Cache) -> Draft:
        logits, hidden, state = self.model.step(self.primary, token, state, cache)
        return Draft(logits, state, hidden)

    def commit(self, state: Cache, reading: PrimaryOutput) -> Cache:
        return state.with_length(0)
