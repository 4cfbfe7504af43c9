"""Drafters: whatever guesses the next few tokens, behind one small protocol.

A decoding cycle asks a drafter for three things: *start* from the primary's reading of the prompt,
*step* once for every drafted token, and *commit* what the primary has read and accepted. Each drafter
keeps a state of its own.

The block that the primary reads in a cycle is the pending token (emitted, but not yet read by anyone)
and the drafts after it.
"""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tandem_edu.model import Cache


class PrimaryOutput(eqx.Module):
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


class Draft(eqx.Module):
    """What a drafter says after reading one token."""

    logits: Float[Array, " vocab"]
    """Of the next token."""
    state: Any
    hidden: Float[Array, " d_model"]
    """Its last hidden state, which a router may look at; empty if there is none."""
    ready: Bool[Array, ""]
    """`False`: it has no guess, and drafting ends here."""

    def __init__(self, logits, state, hidden=None, ready=None):
        self.logits, self.state = logits, state
        self.hidden = jnp.zeros(0) if hidden is None else hidden
        self.ready = jnp.array(True) if ready is None else ready


class Drafter(eqx.Module):
    """The protocol: implement these three to compare an idea of your own with the tandem.

    In a batch a row may be stepped on after its drafting has ended: the last draft is read again then.
    What a state holds beyond `reading.length` tokens must not matter after `commit`.
    """

    @abc.abstractmethod
    def start(self, reading: PrimaryOutput, width: int, block_len: Int[Array, ""]) -> Any:
        """The state after the prompt, with room for `reading.cache.capacity` tokens.

        A cycle steps at most `width` = γ_max + 1 times; `block_len` is γ.
        """

    @abc.abstractmethod
    def step(self, token: Int[Array, ""], state: Any, cache: Cache) -> Draft:
        """Read one token and guess the next. `cache` is the primary's, up to the pending token."""

    @abc.abstractmethod
    def commit(self, state: Any, reading: PrimaryOutput) -> Any:
        """The state after the primary's verdict: exactly `reading.length` tokens are read."""
