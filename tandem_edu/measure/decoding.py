"""Compare drafters at several γ, or a router at several τ, with the primary alone, in the same rounds.

Times are of whole requests at batch 1, with the prompt and without compilation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from tandem_edu.decode import Output, Router, Sampling, generate, speculate
from tandem_edu.decode.request import check_key
from tandem_edu.decode.trace import summarise
from tandem_edu.drafters import Drafter
from tandem_edu.errors import require
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
    runs: tuple[Run, ...]
    drafters: list[str]
    block_lens: list[int]
    greedy: bool

    def of(self, drafter: str) -> list[Run]:
        """One drafter's runs, by block length."""
        return sorted((run for run in self.runs if run.drafter == drafter), key=lambda run: run.block_len)

    def run(self, drafter: str, block_len: int) -> Run:
        """One run. Raises `BadInput` for a drafter or a block length that was not compared."""
        runs = [run for run in self.of(drafter) if run.block_len == block_len]
        known = f"one of {', '.join(self.drafters)} at γ = {', '.join(map(str, self.block_lens))}"
        require(bool(runs), known, f"{drafter} at γ = {block_len}", "add it to the comparison")
        return runs[0]

    def fastest(self, drafter: str) -> Run:
        """The drafter's run with the highest median speedup."""
        return max(self.of(drafter), key=lambda run: float(np.median(run.speedup)))


def compare(
    primary: Transformer,
    drafters: Mapping[str, Transformer | Drafter],
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

    Prompt i has the key `jax.random.fold_in(key, i)`, whatever the drafter, and `num_samples` continuations.
    `options` go to `speculate`, such as one `max_draft_len` for all (by default each γ has its own).
    Raises `BadInput` for no drafter, no prompt or no block length, and whatever `speculate` raises.
    """
    for name, given in (("drafter", drafters), ("prompt", prompts), ("block length", block_lens)):
        require(len(given) > 0, f"at least one {name}", "none", "pass one")
    decoders = {
        (name, block_len): speculating(primary, drafter, block_len, **options)
        for name, drafter in drafters.items()
        for block_len in block_lens
    }
    settings = {"max_new_tokens": max_new_tokens, "sampling": sampling, "key": key}
    settings |= {"num_samples": num_samples}
    seconds, outputs = decoded_in_turns(primary, decoders, prompts, settings, repetitions, progress)
    runs = tuple(Run(*of, outputs[of], seconds[of], seconds[ALONE] / seconds[of]) for of in decoders)
    compared, greedy = (list(drafters), sorted(set(block_lens))), sampling is None or sampling.greedy
    return Comparison(tuple(prompts), outputs[ALONE], runs, *compared, greedy)


class Threshold(NamedTuple):
    """A router at one τ, over all prompts. The means are per cycle."""

    threshold: float
    drafted: float
    accepted: float
    wasted: float
    """Share of the drafts that were not accepted."""
    tokens_per_call: float
    speedup: np.ndarray
    """float[repetitions], over the primary alone in the same round."""


def sweep_thresholds(
    primary: Transformer,
    drafter: Transformer | Drafter,
    prompts: Sequence[np.ndarray],
    router: Router,
    thresholds: Sequence[float],
    block_len: int = 8,
    repetitions: int = 3,
    progress: bool = False,
    **settings: Any,
) -> list[Threshold]:
    """Decode every prompt at every τ (0 is a constant γ = `block_len`), in turns with the primary alone.

    A higher τ ends blocks earlier: fewer drafts are wasted, and fewer tokens come out of each call.
    `settings` are those of `generate`. Raises `BadInput` for no τ or no prompt, and what `speculate` raises.
    """
    for name, given in (("threshold", thresholds), ("prompt", prompts)):
        require(len(given) > 0, f"at least one {name}", "none", "pass one")
    decoders = {
        tau: speculating(primary, drafter, block_len, router=router.with_threshold(tau)) for tau in thresholds
    }
    seconds, outputs = decoded_in_turns(primary, decoders, prompts, settings, repetitions, progress)
    sweep = []
    for tau in thresholds:
        counts = summarise([out.trace for out in outputs[tau]])
        wasted = 1 - counts["accepted"] / max(1, counts["drafted"])
        means = counts["mean_drafted"], counts["mean_accepted"], wasted, counts["block_efficiency"]
        sweep.append(Threshold(tau, *means, seconds[ALONE] / seconds[tau]))
    return sweep


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

    A decoder is called with `prompt`, `settings` and the prompt's own key. Returns by decoder seconds,
    float[repetitions], of all prompts together, and outputs, one per prompt.
    """
    key, latest = settings.get("key"), {}
    if key is not None:
        check_key(key)
    keys = [key if key is None else jax.random.fold_in(key, i) for i in range(len(prompts))]
    requests = [{**settings, "prompt": prompt, "key": own} for prompt, own in zip(prompts, keys, strict=True)]

    def decode(name: Any, decoder: Callable[..., Output]) -> tuple[Output, ...]:
        latest[name] = tuple(decoder(**request) for request in requests)
        return latest[name]

    contenders = {ALONE: partial(generate, primary), **decoders}
    calls = {name: partial(decode, name, decoder) for name, decoder in contenders.items()}
    return timed(calls, repetitions, progress)[0], latest
