"""Compare drafters: the same prompts, the same primary, every drafter at every block length.

The baseline is the primary alone on the same prompts in the same rounds. Times are of whole requests at
batch 1, with the prompt and without compilation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np

from tandem_edu.decode import Output, Sampling, generate, speculate
from tandem_edu.decode.request import check_key
from tandem_edu.decode.trace import summarise
from tandem_edu.drafters import Drafter, PrimaryReader
from tandem_edu.errors import BadInput, require
from tandem_edu.measure.timing import timed
from tandem_edu.model import Transformer

ALONE = "primary alone"


@dataclass(frozen=True, eq=False)
class Run:
    """One drafter at one block length, with one output per prompt."""

    drafter: str
    block_len: int
    outputs: tuple[Output, ...] = field(repr=False)
    seconds: np.ndarray
    """float[repetitions], of all prompts together."""
    speedup: np.ndarray
    """float[repetitions]: seconds of the primary alone in the same round, divided by `seconds`."""

    @property
    def summary(self) -> dict[str, Any]:
        """`Trace.summary` over all prompts."""
        return summarise([out.trace for out in self.outputs])


@dataclass(frozen=True, eq=False)
class Comparison:
    """All runs, with the primary alone as the baseline."""

    prompts: tuple[np.ndarray, ...]
    primary_outputs: tuple[Output, ...] = field(repr=False)
    primary_seconds: np.ndarray
    runs: tuple[Run, ...]
    greedy: bool

    @property
    def drafters(self) -> list[str]:
        """The drafters' names, in the order given."""
        return list(dict.fromkeys(run.drafter for run in self.runs))

    @property
    def block_lens(self) -> list[int]:
        """The block lengths compared, in increasing order."""
        return sorted({run.block_len for run in self.runs})

    def of(self, drafter: str) -> list[Run]:
        """One drafter's runs, by block length."""
        return sorted((run for run in self.runs if run.drafter == drafter), key=lambda run: run.block_len)

    def run(self, drafter: str, block_len: int) -> Run:
        """One run. Raises `BadInput` for a drafter or a block length that was not compared."""
        for run in self.of(drafter):
            if run.block_len == block_len:
                return run
        known = f"one of {', '.join(self.drafters)} at γ = {', '.join(map(str, self.block_lens))}"
        raise BadInput(known, f"{drafter} at γ = {block_len}", "add it to the comparison")

    def fastest(self, drafter: str) -> Run:
        """The drafter's run with the highest median speedup."""
        return max(self.of(drafter), key=lambda run: float(np.median(run.speedup)))


def compare(
    primary: Transformer,
    drafters: Mapping[str, Transformer | PrimaryReader | Drafter],
    prompts: Sequence[np.ndarray],
    max_new_tokens: int,
    block_lens: Sequence[int] = (1, 2, 3, 4, 6, 8),
    sampling: Sampling | None = None,
    key: jax.Array | None = None,
    repetitions: int = 5,
    progress: bool = False,
    num_samples: int | None = None,
    **options: Any,
) -> Comparison:
    """Decode every prompt with the primary alone and with every drafter at every block length, in turns.

    Prompt i is continued with the key `jax.random.fold_in(key, i)`, whatever the drafter. With
    `num_samples`, each request asks for that many continuations. `options` go to `speculate`:
    `verification="block"`, a `router`, or one `max_draft_len` for all (by default each γ has its own).

    Raises `BadInput` for no drafter, no prompt or no block length, and whatever `speculate` raises.
    """
    for name, given in (("drafter", drafters), ("prompt", prompts), ("block length", block_lens)):
        require(len(given) > 0, f"at least one {name}", "none", "pass one")
    decoders = {
        (name, block_len): speculating(primary, drafter, block_len, **options)
        for name, drafter in drafters.items()
        for block_len in block_lens
    }
    settings = {
        "max_new_tokens": max_new_tokens,
        "sampling": sampling,
        "key": key,
        "num_samples": num_samples,
    }
    seconds, outputs = decoded_in_turns(primary, decoders, prompts, settings, repetitions, progress)
    alone = seconds[ALONE]
    runs = tuple(Run(*of, outputs[of], seconds[of], alone / seconds[of]) for of in decoders)
    return Comparison(tuple(prompts), outputs[ALONE], alone, runs, sampling is None or sampling.greedy)


def speculating(primary: Transformer, drafter: Any, block_len: int, **options: Any) -> Callable[..., Output]:
    """`speculate` with its own compiled program, in which the primary reads γ + 1 tokens per call."""
    return partial(speculate, primary, drafter, block_len=block_len, **{"max_draft_len": block_len} | options)


def decoded_in_turns(
    primary: Transformer,
    decoders: Mapping[Any, Callable[..., Output]],
    prompts: Sequence[np.ndarray],
    settings: Mapping[str, Any],
    repetitions: int,
    progress: bool = False,
) -> tuple[dict[Any, np.ndarray], dict[Any, tuple[Output, ...]]]:
    """Decode every prompt with each decoder and with the primary alone (`ALONE`), in turns.

    A decoder is called with `prompt` and `settings`. Each prompt has its own key, the same for all decoders.
    Returns seconds, float[repetitions], of all prompts together, and outputs, one per prompt, by decoder.
    """
    key, latest = settings.get("key"), {}
    if key is not None:
        check_key(key)
    keys = [key if key is None else jax.random.fold_in(key, i) for i in range(len(prompts))]

    def decode(name: Any, decoder: Callable[..., Output]) -> tuple[Output, ...]:
        pairs = zip(prompts, keys, strict=True)
        latest[name] = tuple(decoder(prompt=prompt, **{**settings, "key": key}) for prompt, key in pairs)
        return latest[name]

    contenders = {ALONE: partial(generate, primary), **decoders}
    calls = {name: partial(decode, name, decoder) for name, decoder in contenders.items()}
    return timed(calls, repetitions, progress)[0], latest
