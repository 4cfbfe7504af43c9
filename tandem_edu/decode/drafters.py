"""Drafters: whatever guesses the next few tokens, behind one small protocol.

A decoding cycle asks a drafter for three things: *start* from the primary's reading of the prompt,
*step* once for every drafted token, and *commit* what the primary has read and accepted. Each drafter
keeps a state of its own; a state knows how many tokens it has read.

The block that the primary reads in a cycle is the pending token (emitted, but not yet read by anyone)
and the drafts after it.
"""

import abc
from typing import Any

import equinox as eqx
from jax import lax
from jaxtyping import Array, Float, Int

from tandem_edu.errors import BadInput
from tandem_edu.model import Cache, Tandem, TandemCache, Transformer
from tandem_edu.model.tandem import check_same_vocabulary


class Reading(eqx.Module):
    """What the primary has just read, and what of it counts."""

    tokens: Int[Array, " width"]
    hidden: Float[Array, "depth width d_primary"]
    cache: Cache
    start: Int[Array, ""]
    """Position of `tokens[0]`."""

    @property
    def length(self) -> Int[Array, ""]:
        """Tokens of the text read so far; the rest of `tokens` is rejected or padding."""
        return self.cache.length


class Drafter(eqx.Module):
    """The protocol: implement these three to compare an idea of your own with the tandem."""

    @abc.abstractmethod
    def start(self, reading: Reading, capacity: int, block_len: Int[Array, ""]) -> Any:
        """The state after the prompt, with room for `capacity` tokens."""

    @abc.abstractmethod
    def step(self, token: Int[Array, ""], state: Any) -> tuple[Float[Array, " vocab"], Any]:
        """Read one token; the logits of the next."""

    @abc.abstractmethod
    def commit(self, state: Any, reading: Reading) -> Any:
        """The state after the primary's verdict: exactly `reading.length` tokens are read."""


class PlainDrafter(Drafter):
    """An ordinary small language model with a cache of its own (SPEED's drafter in the paper)."""

    model: Transformer

    def start(self, reading: Reading, capacity: int, block_len: Int[Array, ""]) -> Cache:
        return self.model.prefill(reading.tokens, reading.length, capacity)[1]

    def step(self, token: Int[Array, ""], state: Cache) -> tuple[Float[Array, " vocab"], Cache]:
        logits, state = self.model.extend(token[None], state)
        return logits[0], state

    def commit(self, state: Cache, reading: Reading) -> Cache:
        return catch_up(self, state, reading).with_length(reading.length)


class TandemDrafter(Drafter):
    """The tandem: at commit the primary's representations overwrite the block in the cache."""

    model: Tandem

    def start(self, reading: Reading, capacity: int, block_len: Int[Array, ""]) -> TandemCache:
        return self.model.prefill(reading.tokens, reading.hidden, reading.length, capacity, block_len)

    def step(self, token: Int[Array, ""], state: TandemCache) -> tuple[Float[Array, " vocab"], TandemCache]:
        logits, state = self.model.extend(token[None], state)
        return logits[0], state

    def commit(self, state: TandemCache, reading: Reading) -> TandemCache:
        if self.model.own_history:
            state = catch_up(self, state, reading)
        return self.model.commit(reading.hidden, state, reading.start, reading.length)


def catch_up(drafter: Drafter, state: Any, reading: Reading) -> Any:
    """Read the accepted tokens that the drafter has drafted but not read: the last one, if all were kept."""
    return lax.while_loop(
        lambda state: state.length < reading.length,
        lambda state: drafter.step(reading.tokens[state.length - reading.start], state)[1],
        state,
    )


def as_drafter(drafter: Transformer | Tandem | Drafter, primary: Transformer) -> Drafter:
    """The drafter for a model. Raises `BadInput` for another vocabulary or another primary's tandem."""
    if isinstance(drafter, Drafter):
        return drafter
    if not isinstance(drafter, Transformer | Tandem):
        raise BadInput("a Transformer, a Tandem or a te.Drafter", type(drafter).__name__, "pass one of these")
    check_same_vocabulary(primary.config, drafter.config)
    if isinstance(drafter, Transformer):
        return PlainDrafter(drafter)
    mine, theirs = primary.config, drafter.primary_config
    if (mine.n_layers, mine.d_model) != (theirs.n_layers, theirs.d_model):
        raise BadInput(
            f"a tandem made for a primary of {mine.n_layers} layers x {mine.d_model}",
            f"one for {theirs.n_layers} x {theirs.d_model}",
            "pass the primary it was trained with",
        )
    return TandemDrafter(drafter)
