"""Drafters side by side: the same prompts, the same primary, each drafter at each block length.

The yardstick is the primary alone, decoding the same prompts in the same rounds. Times are of whole
requests at batch 1, prompt included, compilation excluded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np

from tandem_edu.decode import Drafter, Output, Sampling, generate, speculate
from tandem_edu.decode.request import check_key
from tandem_edu.decode.trace import summarise
from tandem_edu.errors import BadInput, require
from tandem_edu.measure.timing import interleaved, spread
from tandem_edu.model import PrimaryReader, Transformer


@dataclass(frozen=True, eq=False)
class Run:
    """One drafter at one block length over all prompts."""

    drafter: str
    block_len: int
    outputs: tuple[Output, ...] = field(repr=False)
    """One a prompt."""
    seconds: np.ndarray
    """float[repetitions]: of all prompts together."""
    speedup: np.ndarray
    """float[repetitions]: seconds of the primary alone in the same round, divided by `seconds`."""

    @property
    def summary(self) -> dict[str, Any]:
        """`Trace.summary` over all prompts."""
        return summarise([out.trace for out in self.outputs])


@dataclass(frozen=True, eq=False)
class Comparison:
    """All runs, and the primary alone beside them."""

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
        """The block lengths compared."""
        return sorted({run.block_len for run in self.runs})

    @property
    def identical(self) -> bool:
        """Whether every run wrote what the primary alone wrote, token for token (greedy only)."""
        return all(
            np.array_equal(mine.tokens, theirs.tokens)
            for run in self.runs
            for mine, theirs in zip(run.outputs, self.primary_outputs, strict=True)
        )

    def of(self, drafter: str) -> list[Run]:
        """One drafter's runs, by block length."""
        return sorted((run for run in self.runs if run.drafter == drafter), key=lambda run: run.block_len)

    def run(self, drafter: str, block_len: int) -> Run:
        """One run. Raises `BadInput` for a drafter or a block length that was not compared."""
        found = next((run for run in self.of(drafter) if run.block_len == block_len), None)
        if found is None:
            known = f"one of {', '.join(self.drafters)} at γ = {', '.join(map(str, self.block_lens))}"
            raise BadInput(known, f"{drafter} at γ = {block_len}", "add it to what is compared")
        return found

    def fastest(self, drafter: str) -> Run:
        """The drafter's run of the highest median speedup."""
        return max(self.of(drafter), key=lambda run: float(np.median(run.speedup)))

    def typical_prompt(self, block_len: int, tokens: int) -> int:
        """Which prompt's first `tokens` new ones took the drafters most nearly their mean number of calls."""
        away = np.zeros(len(self.prompts))
        for run in (self.run(drafter, block_len) for drafter in self.drafters):
            for i, out in enumerate(run.outputs):
                emitted = np.array([row["emitted"] for row in out.trace.to_records()])
                calls = np.sum(np.cumsum(emitted) - emitted < tokens)
                away[i] += abs(calls - tokens / run.summary["block_efficiency"])
        return int(np.argmin(away))

    def table(self) -> list[dict[str, Any]]:
        """One JSON-able row a run."""
        return [_row(run) for run in self.runs]


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
    **how: Any,
) -> Comparison:
    """Decode every prompt with the primary alone and with every drafter at every block length, in turns.

    Prompt i is continued with the key `jax.random.fold_in(key, i)`, whatever the drafter. With
    `num_samples` each request is for so many continuations. `how` goes to `speculate`:
    `verification="block"`, a `router`, or a `max_block_len` for all, where each γ has its own otherwise.

    Raises `BadInput` for no drafter, no prompt or no block length, and whatever `speculate` raises.
    """
    for name, given in (("drafter", drafters), ("prompt", prompts), ("block length", block_lens)):
        require(len(given) > 0, f"at least one {name}", "none", "pass one")
    settings = {
        "max_new_tokens": max_new_tokens,
        "sampling": sampling,
        "key": key,
        "num_samples": num_samples,
    }
    ways = {
        (drafter, block_len): speculating(primary, drafters[drafter], block_len, **how)
        for drafter in drafters
        for block_len in block_lens
    }
    seconds, outputs = decoded_in_turns(primary, ways, prompts, settings, repetitions, progress)
    alone = seconds.pop(ALONE)
    runs = [
        Run(drafter, block_len, outputs[drafter, block_len], taken, alone / taken)
        for (drafter, block_len), taken in seconds.items()
    ]
    greedy = sampling is None or sampling.greedy
    return Comparison(tuple(prompts), outputs[ALONE], alone, tuple(runs), greedy)


ALONE = "primary alone"


def speculating(primary: Transformer, drafter: Any, block_len: int, **how: Any) -> Callable[..., Output]:
    """`speculate` for `decoded_in_turns`, in a program of its own: the primary reads γ + 1 tokens a call."""
    how.setdefault("max_block_len", block_len)
    return partial(speculate, primary, drafter, block_len=block_len, **how)


def decoded_in_turns(
    primary: Transformer,
    ways: Mapping[Any, Callable[..., Output]],
    prompts: Sequence[np.ndarray],
    settings: dict[str, Any],
    repetitions: int,
    progress: bool = False,
) -> tuple[dict[Any, np.ndarray], dict[Any, tuple[Output, ...]]]:
    """Every prompt decoded in each of the `ways`, and by the primary alone (`ALONE`), taking turns.

    A way is called with `prompt` and the `settings`, of which each prompt has a `key` of its own: the same in
    all ways, which are compared with each other, and another for the next prompt, whose text is to be
    independent. Gives the seconds of all prompts together, float[repetitions], and the outputs, one a
    prompt; both by the name of the way.
    """
    latest: dict[Any, tuple[Output, ...]] = {}
    keys = [settings["key"]] * len(prompts)
    if settings["key"] is not None:
        check_key(settings["key"])
        keys = [jax.random.fold_in(key, i) for i, key in enumerate(keys)]

    def decode(name: Any, one: Callable[..., Output]) -> tuple[Output, ...]:
        given = zip(prompts, keys, strict=True)
        latest[name] = tuple(one(prompt=prompt, **settings | {"key": own}) for prompt, own in given)
        return latest[name]

    contenders = {ALONE: partial(generate, primary), **ways}
    seconds, _ = interleaved(
        {name: partial(decode, name, one) for name, one in contenders.items()}, repetitions, progress
    )
    return seconds, latest


def _row(run: Run) -> dict[str, Any]:
    median, low, high = spread(run.speedup)
    measures = ("block_efficiency", "mean_accepted", "acceptance_by_position")
    return {
        "drafter": run.drafter,
        "block_len": run.block_len,
        **{name: run.summary[name] for name in measures},
        "speedup": median,
        "speedup_quartiles": [low, high],
        "tokens_per_second": run.summary["emitted"] / float(np.median(run.seconds)),
    }
