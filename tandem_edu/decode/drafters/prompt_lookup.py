"""Prompt lookup: no model at all; what followed these words last time will follow them again.

It finds the latest earlier place in the text that ends like the text does, by up to `ngram` tokens, and
drafts what came after it (Saxena 2023, "Prompt Lookup Decoding"). Free of cost, and hard to beat where
the answer repeats the prompt: summaries, edits, code. Where nothing matches it drafts nothing.
"""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from tandem_edu.decode.drafters.protocol import Draft, Drafter, PrimaryOutput
from tandem_edu.errors import at_least, require
from tandem_edu.model import Cache


class Lookup(eqx.Module):
    """The text so far."""

    text: Int[Array, " capacity"]
    length: Int[Array, ""]


class PromptLookup(Drafter):
    """Drafts the continuation of the longest match of at most `ngram` and at least `least` tokens.

    Its distribution is certain of one token, so a draft is accepted with probability p(draft).
    Raises `BadInput` for an `ngram` below 1, or `least` outside 1..ngram.
    """

    vocab_size: int = eqx.field(static=True)
    ngram: int = eqx.field(static=True)
    least: int = eqx.field(static=True)

    def __init__(self, vocab_size: int, ngram: int = 3, least: int = 1):
        at_least(1, ngram, "ngram", "the usual ones are 2 and 3 tokens")
        require(1 <= least <= ngram, f"least in 1..{ngram}", least, "leave it out")
        self.vocab_size, self.ngram, self.least = vocab_size, ngram, least

    def start(self, reading: PrimaryOutput, width: int, block_len: Int[Array, ""]) -> Lookup:
        text = jnp.zeros(reading.cache.capacity, jnp.int32)
        return self.commit(Lookup(text, jnp.int32(0)), reading)

    def step(self, token: Int[Array, ""], state: Lookup, cache: Cache) -> Draft:
        text = state.text.at[state.length].set(token)
        following, found = latest_match(text, state.length + 1, self.ngram, self.least)
        logits = jnp.where(jnp.arange(self.vocab_size) == text[following], 0.0, -jnp.inf)
        return Draft(logits, Lookup(text, state.length + 1), ready=found)

    def commit(self, state: Lookup, reading: PrimaryOutput) -> Lookup:
        return Lookup(lax.dynamic_update_slice(state.text, reading.tokens, (reading.start,)), reading.length)


def latest_match(
    text: Int[Array, " capacity"], length: Int[Array, ""], ngram: int, least: int
) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """Where the continuation of the longest match starts (of equals the latest), and if there is one.

    >>> text = jnp.array([5, 6, 7, 1, 6, 7, 2, 6, 7, 0])
    >>> [int(x) for x in latest_match(text, jnp.int32(9), ngram=3, least=1)]  # 6 7 was last followed by 2
    [6, 1]
    """
    place = jnp.arange(text.shape[0])
    matched = jnp.zeros_like(place)
    run = jnp.full(place.shape, True)
    for back in range(1, ngram + 1):
        # `place` is a candidate for what comes next: is the token `back` before it the text's own?
        same = jnp.roll(text, back) == text[jnp.maximum(length - back, 0)]
        run = run & same & (place >= back) & (length >= back)
        matched = matched + run.astype(matched.dtype)
    matched = jnp.where(place < length, matched, 0)
    best = jnp.max(matched)
    return jnp.max(jnp.where(matched == best, place, 0)), best >= least
