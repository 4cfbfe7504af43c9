"""Prompt lookup: no model; it proposes what followed the same words last time (Saxena 2023).

It finds the latest earlier position at which the text ends as it does now, by up to `ngram` tokens, and
proposes the token that came next. It costs almost nothing, and is hard to beat where the answer repeats the
prompt: summaries, edits, code. Where nothing matches it proposes nothing.
"""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from tandem_edu.drafters.protocol import Draft, Drafter, PrimaryOutput
from tandem_edu.errors import at_least
from tandem_edu.model import Cache, Transformer
from tandem_edu.model.masks import positions


class Lookup(eqx.Module):
    """The text so far."""

    text: Int[Array, " capacity"]
    length: Int[Array, ""]


class PromptLookup(Drafter):
    """Proposes the continuation of the longest match of 1 to `ngram` tokens.

    Its distribution has one token, so a draft is accepted with probability p(draft).
    Raises `BadInput` for an `ngram` below 1.
    """

    vocab_size: int = eqx.field(static=True)
    ngram: int = eqx.field(static=True)

    def __init__(self, vocab_size: int, ngram: int = 3):
        self.ngram = at_least(1, ngram, "ngram", "usual values are 2 and 3 tokens")
        self.vocab_size = vocab_size

    def start(self, output: PrimaryOutput, max_draft_len: int, block_len: Int[Array, ""]) -> Lookup:
        text = jnp.zeros(output.cache.capacity, jnp.int32)
        return self.commit(Lookup(text, jnp.int32(0)), output)

    def step(self, token: Int[Array, ""], state: Lookup, primary: Transformer, cache: Cache) -> Draft:
        text = state.text.at[state.length].set(token)
        next_position, matches = latest_match(text, state.length + 1, self.ngram)
        is_next = positions(self.vocab_size) == text[next_position]
        logits = jnp.where(is_next, jnp.float32(0), -jnp.inf)
        return Draft(logits, Lookup(text, state.length + 1), has_draft=matches)

    def commit(self, state: Lookup, output: PrimaryOutput) -> Lookup:
        return Lookup(lax.dynamic_update_slice(state.text, output.tokens, (output.start,)), output.length)


def latest_match(
    text: Int[Array, " capacity"], length: Int[Array, ""], ngram: int
) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """The position after the longest match (the latest of equally long ones), and whether there is one.

    >>> text = jnp.array([5, 6, 7, 1, 6, 7, 2, 6, 7, 0])
    >>> [int(x) for x in latest_match(text, jnp.int32(9), ngram=3)]  # 6 7 was last followed by 2
    [6, 1]
    """
    position = positions(text.shape[0])
    match_len = jnp.zeros_like(position)
    matches = jnp.full(position.shape, True)
    for back in range(1, ngram + 1):
        # Is the token `back` before this position the same as the token `back` before the end?
        same = jnp.roll(text, back) == text[jnp.maximum(length - back, 0)]
        matches = matches & same & (position >= back) & (length >= back)
        match_len = match_len + matches.astype(match_len.dtype)
    match_len = jnp.where(position < length, match_len, 0)
    longest = jnp.max(match_len)
    return jnp.max(jnp.where(match_len == longest, position, 0)), longest > 0
