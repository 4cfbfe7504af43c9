"""The plain drafter: an ordinary small language model, SPEED's drafter in the paper.

It knows of the primary only what the text tells. It keeps a key/value cache of its own, and forgets
rejected drafts by shortening it (Leviathan et al., arXiv:2211.17192; Chen et al., arXiv:2302.01318).
"""

from jax import lax
from jaxtyping import Array, Int

from tandem_edu.decode.drafters.protocol import Draft, Drafter, PrimaryOutput
from tandem_edu.model import Cache, Transformer


class PlainDrafter(Drafter):
    """A `Transformer` that drafts."""

    model: Transformer

    def start(self, reading: PrimaryOutput, width: int, block_len: Int[Array, ""]) -> Cache:
        return self.model.prefill(reading.tokens, reading.length, reading.cache.capacity)[1]

    def step(self, token: Int[Array, ""], state: Cache, cache: Cache) -> Draft:
        logits, hidden, state = self.model.extend(token[None], state, return_hidden=True)
        return Draft(logits[0], state, hidden[-1, 0])

    def commit(self, state: Cache, reading: PrimaryOutput) -> Cache:
        return catch_up(self, state, reading).with_length(reading.length)


def catch_up(drafter: Drafter, state, reading: PrimaryOutput):
    """Read the accepted tokens that the drafter has drafted but not read: the last one, if all were kept."""
    return lax.while_loop(
        lambda state: state.length < reading.length,
        lambda state: drafter.step(reading.tokens[state.length - reading.start], state, reading.cache).state,
        state,
    )
