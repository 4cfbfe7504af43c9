"""EAGLE: one small layer fed with tokens and the primary's features (arXiv:2401.15077, 2503.01840).

The features say what the primary thought when it read the token before; while drafting, the drafter's
own top state stands in for what the primary has not read yet. See `tandem_edu.model.eagle`.
"""

from jaxtyping import Array, Int

from tandem_edu.decode.drafters.protocol import Draft, Drafter, PrimaryOutput
from tandem_edu.model import Cache, Eagle, EagleState


class EagleDrafter(Drafter):
    """An `Eagle` that drafts."""

    model: Eagle

    def start(self, reading: PrimaryOutput, width: int, block_len: Int[Array, ""]) -> EagleState:
        return self.model.prefill(reading.tokens, reading.hidden, reading.length, reading.cache.capacity)

    def step(self, token: Int[Array, ""], state: EagleState, cache: Cache) -> Draft:
        logits, hidden, state = self.model.step(token, state)
        return Draft(logits, state, hidden)

    def commit(self, state: EagleState, reading: PrimaryOutput) -> EagleState:
        return self.model.commit(reading.tokens, reading.hidden, state, reading.start, reading.length)
