"""How long one step takes: a decode step, a verification, a draft; and a sum, to compare them with.

Many steps run inside one compiled loop, each on what the one before it wrote. So Python's dispatch does
not count, and the compiler can move nothing of a step out of the loop. XLA attends to all slots of the
cache, `tandem_edu.model.narrow` to those that hold something: both length and capacity are given here.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tandem_edu.decode import generate, speculate
from tandem_edu.decode.sampling import argmax
from tandem_edu.errors import require
from tandem_edu.measure.ratios import Work
from tandem_edu.model import Tandem, TandemCache, Transformer


class Stepping:
    """`steps` steps of `width` new tokens each, in one compiled loop.

    Width 1 is a decode step (of a drafter: a draft), width γ + 1 a verification. Each advances the text
    by one token, from `length` on; at the end of the cache (`capacity` slots) it starts again there, so
    that steps of different widths meet the same lengths. Keys and values are random.

    Raises `BadInput` if the widest write does not fit.
    """

    def __init__(self, model: Transformer | Tandem, width: int = 1, length: int = 128, capacity: int = 256):
        fits = 1 <= width <= capacity - length
        got = f"{length} + {width} of {capacity}"
        require(fits, "length and width within the capacity", got, "raise capacity")
        self.model, self.length = model, length
        block = jnp.arange(width, dtype=jnp.int32) % model.config.vocab_size
        self.carry = block, _rewound(_filled(model.init_cache(capacity), length), length)

    def run(self, steps: int) -> jax.Array:
        """Take so many steps; the last prediction. The cache's memory is handed from call to call."""
        self.carry = _steps(self.model, self.carry, length=self.length, steps=steps)
        return self.carry[0]

    def compiled_text(self, steps: int = 64) -> str:
        """The optimised HLO of the loop."""
        lowered = _steps.lower(self.model, self.carry, length=self.length, steps=steps)
        return lowered.compile().as_text() or ""

    def work(self, steps: int = 64) -> Work:
        """So many steps to be timed."""
        return Work(partial(self.run, steps), steps)


@partial(jax.jit, static_argnames=("length", "steps"), donate_argnames="carry")
def _steps(model, carry, length: int, steps: int):
    block, cache = carry
    capacity = (cache.own if isinstance(cache, TandemCache) else cache).capacity
    # All widths take turns at the same lengths, hence room for 16 new tokens where there is.
    room = max(1, capacity - length - max(block.shape[0], 16) + 1)

    def step(i, carry):
        block, cache = carry
        logits, cache = model.extend(block, _rewound(cache, length + i % room))
        return argmax(logits), cache

    return lax.fori_loop(0, steps, step, (block, cache))


def _rewound(cache, length):
    if isinstance(cache, TandemCache):
        return TandemCache(cache.own.with_length(length), cache.primary)
    return cache.with_length(length)


def _filled(cache, length: int):
    """Random keys and values; also the lengths, of which a tandem's primary side keeps its own."""
    leaves, tree = jax.tree.flatten(cache)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [
        jax.random.normal(key, leaf.shape) if leaf.ndim else jnp.int32(length)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, drawn)


def size_in_bytes(tree: Any) -> int:
    """Bytes of all arrays in `tree`. A decode step of a model with a tied head reads each of its bytes once.

    >>> size_in_bytes({"a": jnp.zeros((2, 3)), "b": 1})
    24
    """
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array))


def summing(n_bytes: int, times: int = 16) -> Work:
    """A plain sum over an array of so many bytes, so many times: the reading that memory allows.

    It has 512 columns and is summed along them, so that several cores can share the work.
    """
    x = jnp.ones((max(1, n_bytes // 2048), 512))
    return Work(lambda: _sums(x, times), times)


@partial(jax.jit, static_argnames="times")
def _sums(x, times: int):
    def once(_, total):
        # As if `x` depended on the last sum; else it would be summed once.
        x_again, total = lax.optimization_barrier((x, total))
        return jnp.sum(x_again, axis=1) + total

    return lax.fori_loop(0, times, once, jnp.zeros(x.shape[0]))


def short_set(
    primary: Transformer,
    drafters: Mapping[str, Transformer | Tandem],
    prompt: Sequence[int],
    new: int = 128,
    capacity: int = 256,
) -> tuple[dict[str, Work], dict[str, str]]:
    """What `tandem-edu bench` times, and what each is set against: steps and whole texts, γ = 4."""
    sums, decode, alone = "a sum over as many bytes", "decode step", f"primary alone, {new} tokens"
    where = {"length": capacity // 2, "capacity": capacity}
    work = {sums: summing(size_in_bytes(primary)), decode: Stepping(primary, **where).work()}
    work["verification of 5 tokens"] = Stepping(primary, width=5, **where).work()
    against = {decode: sums, "verification of 5 tokens": decode}
    for name, drafter in drafters.items():
        work[f"draft step, {name}"] = Stepping(drafter, **where).work(256)
        against[f"draft step, {name}"] = decode
    work[alone] = Work(lambda: generate(primary, prompt, new).tokens)
    for name, drafter in drafters.items():
        how = {"block_len": 4, "max_block_len": 4}
        text = partial(speculate, primary, drafter, prompt, new, **how)
        work[f"speculation, {name}"] = Work(lambda text=text: text().tokens)
        against[f"speculation, {name}"] = alone
    return work, against
