"""How long one step takes: the primary reads some tokens, or a drafter drafts one.

Many steps run inside one compiled loop, each on what the step before it wrote: Python's dispatch does not
count, and no step leaves the loop. Only a CPU's kernels stop at the cache's `length`; XLA reads all slots.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from tandem_edu.decode.speculative import as_drafter
from tandem_edu.drafters import Drafter, PrimaryOutput
from tandem_edu.errors import require
from tandem_edu.kernels import argmax
from tandem_edu.measure.timing import Work
from tandem_edu.model import Transformer


def read_steps(
    model: Transformer, width: int = 1, length: int = 128, capacity: int = 256, steps: int = 64
) -> Work:
    """`steps` times, `model` reads `width` new tokens: 1 is a decode step, γ + 1 a verification.

    Each step starts one token later, after the cache's end at `length`. Raises `BadInput` if nothing fits.
    """
    cache = _prompt(model, length, width, capacity).cache
    # All widths take turns at the same lengths: 16 new tokens fit at each of them, where the cache allows.
    count = max(1, capacity - length - max(width, 16) + 1)
    block = jnp.arange(width, dtype=jnp.int32) % model.config.vocab_size
    return Work(partial(_read, model, block, cache, length, count, steps), steps)


def draft_steps(
    primary: Transformer, drafter: Transformer | Drafter, length: int = 128, capacity: int = 256
) -> Work:
    """`drafter` drafts `capacity - length` tokens, without `commit`. Raises `BadInput` if nothing fits."""
    prompt = _prompt(primary, length, 1, capacity)
    drafter, steps = as_drafter(drafter, primary), capacity - length
    state = drafter.start(prompt, steps, jnp.int32(steps))
    return Work(partial(_draft, primary, drafter, state, prompt.cache, steps), steps)


def _prompt(primary: Transformer, length: int, width: int, capacity: int) -> PrimaryOutput:
    """The primary has read a text of `length` tokens; `width` more fit into its cache."""
    got = f"{length} + {width} of {capacity}"
    require(1 <= width <= capacity - length, "length and width within the capacity", got, "raise capacity")
    tokens = jnp.arange(length, dtype=jnp.int32) % primary.config.vocab_size
    return PrimaryOutput(tokens, *primary.prefill(tokens, length, capacity), jnp.int32(0))


@partial(jax.jit, static_argnames=("length", "count", "steps"))
def _read(model, block, cache, length, count, steps):
    def step(i, carry):
        block, cache = carry
        logits, _, cache = model.extend(block, cache.with_length(length + i % count))
        return argmax(logits), cache

    return lax.fori_loop(0, steps, step, (block, cache))[0]


@partial(jax.jit, static_argnames="steps")
def _draft(primary, drafter, state, cache, steps):
    def step(_, carry):
        draft = drafter.step(*carry, primary, cache)
        return argmax(draft.logits), draft.state

    return lax.fori_loop(0, steps, step, (jnp.int32(1), state))[0]
