"""The plain drafter: an ordinary small language model, the paper's baseline for speculative decoding.

It sees only the text, and forgets rejected drafts by shortening its cache (arXiv:2211.17192, 2302.01318).
"""

from collections.abc import Callable
from typing import Any

from jax import lax
from jaxtyping import Array, Float, Int

from tandem_edu.drafters.protocol import Draft, Drafter, PrimaryOutput, check_same_vocabulary
from tandem_edu.model import Cache, LanguageModel, Transformer


class Plain(Drafter):
    """A language model that drafts, such as a `Transformer` or a `DeepTandem`."""

    model: LanguageModel

    def start(self, output: PrimaryOutput, max_draft_len: int, block_len: Int[Array, ""]) -> Any:
        return self.model.prefill(output.tokens, output.length, output.cache.capacity)[1]

    def step(self, token: Int[Array, ""], state: Any, primary: Transformer, cache: Cache) -> Draft:
        logits, hidden, state = self.model.extend(token[None], state)
        return Draft(logits[0], state, hidden[-1, 0])

    def commit(self, state: Any, output: PrimaryOutput) -> Any:
        read = lambda token, state: self.model.extend(token[None], state)[2]
        return catch_up(read, state, state.length, output).with_length(output.length)

    def embed(self, tokens: Int[Array, " k"], primary: Transformer) -> Float[Array, "k d_embed"]:
        return self.model.embed(tokens)

    def check_primary(self, primary: Transformer) -> None:
        check_same_vocabulary(primary.config, self.model.config)


def catch_up(
    read: Callable[[Int[Array, ""], Any], Any], state: Any, length: Int[Array, ""], output: PrimaryOutput
) -> Any:
    """Let `state`, of `length` tokens, `read` the accepted drafts that it has not read: the last, if any."""

    def next_token(carry):
        state, length = carry
        return read(output.tokens[length - output.start], state), length + 1

    state, _ = lax.while_loop(lambda carry: carry[1] < output.length, next_token, (state, length))
    return state
