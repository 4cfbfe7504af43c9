"""Tables 5, 6 and 8 of the paper: ending a block early where the next draft would hardly be kept."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tandem_edu.decode import ConfidenceRule, Output, Router, Sampling
from tandem_edu.decode.trace import summarise
from tandem_edu.measure import bootstrap
from tandem_edu.measure.decoding import ALONE, decoded_in_turns, speculating
from tandem_edu.reproduce.decoding import CHOOSING, MODES, REPETITIONS, TIMED_TOKENS
from tandem_edu.reproduce.plan import ROUTER_LEN, SEED
from tandem_edu.reproduce.prompts import prompts_of_kinds
from tandem_edu.reproduce.table import Table, quartiles
from tandem_edu.zoo.shipped import Pair
from tandem_edu.zoo.split import Texts

CONSTANT = (1, 2, 3, 4, 5, 6, 8)
THRESHOLDS = (0.2, 0.35, 0.5, 0.65, 0.8)
MOST = (4, ROUTER_LEN)
"""The longest blocks that the drafter's own probability may end; the router has learned with one."""
Way = tuple[int, Router | None]
"""γ_max and router."""


def adaptive_table(pair: Pair, parts: Texts, count: int = 12, say: Callable[[str], None] = print) -> Table:
    """A constant γ, a threshold on the drafter's own probability, and the learned router."""
    families = _families(pair)
    chosen = prompts_of_kinds(pair.tokenizer, parts, "dev", count)
    reported = prompts_of_kinds(pair.tokenizer, parts, "test", count)
    rows = []
    for kind, prompts in reported.items():
        for mode, sampling in MODES.items():
            say(f"  {kind}, {mode}")
            best = {name: _fastest(pair, ways, chosen[kind], sampling) for name, ways in families.items()}
            ways = {name: families[name][how] for name, how in best.items()}
            seconds, outputs = _decoded(pair, ways, prompts, sampling, REPETITIONS)
            for name, how in best.items():
                rows.append(
                    {
                        "prompts": kind,
                        "mode": mode,
                        "block length": f"{name} ({how})",
                        **_row(name, seconds, outputs),
                    }
                )
    note = (
        "The tandem with a constant γ, and with blocks of so many drafts at most that end after the first "
        "draft whose confidence is below τ: the drafter's own probability of it, or the router's estimate "
        "that it will be accepted, learned from sampled text with the longest blocks only. However early a "
        "block ends, the primary reads as many tokens as it could have had. γ and τ are those that were "
        "fastest on development prompts. Wasted: drafts made and not accepted, of those made. In brackets, "
        "of tokens per call: 95 % of 2,000 resamplings of the prompts; of speeds: the quartiles of the "
        "rounds. The paper: 1.04 to 1.09 times a constant γ."
    )
    return Table("adaptive", "Adaptive block length", note, rows)


def _families(pair: Pair) -> dict[str, dict[str, Way]]:
    """Ways to set the block's length, by family and setting."""
    return {
        "constant": {f"γ = {block_len}": (block_len, None) for block_len in CONSTANT},
        "own probability": {
            f"γ ≤ {most}, τ = {tau}": (most, ConfidenceRule(tau)) for most in MOST for tau in THRESHOLDS
        },
        "router": {
            f"γ ≤ {ROUTER_LEN}, τ = {tau}": (ROUTER_LEN, pair.router.with_threshold(tau))
            for tau in THRESHOLDS
        },
    }


def _decoded(pair: Pair, ways: Mapping[str, Way], prompts, sampling: Sampling | None, repetitions: int):
    """`decoded_in_turns` with the tandem."""
    settings = {"max_new_tokens": TIMED_TOKENS, "sampling": sampling, "key": jax.random.key(SEED)}
    speculated = {
        name: speculating(pair.primary, pair.tandem, block_len, router=router)
        for name, (block_len, router) in ways.items()
    }
    return decoded_in_turns(pair.primary, speculated, prompts, settings, repetitions)


def _fastest(pair: Pair, ways: Mapping[str, Way], prompts, sampling: Sampling | None) -> str:
    seconds, _ = _decoded(pair, ways, prompts, sampling, CHOOSING)
    return min(ways, key=lambda name: float(np.median(seconds[name])))


def _row(
    name: str, seconds: Mapping[str, np.ndarray], outputs: Mapping[str, Sequence[Output]]
) -> dict[str, Any]:
    summary = summarise([out.trace for out in outputs[name]])
    sums = [out.trace.summary() for out in outputs[name]]
    units = np.array([[s["emitted"], s["cycles"]] for s in sums], float)
    return {
        "drafts per block": summary["mean_drafted"],
        "wasted": 1 - (summary["accepted"] / max(1, summary["drafted"])),
        "tokens per call": bootstrap(lambda s: s[..., 0] / s[..., 1], units),
        "speedup": quartiles(seconds[ALONE] / seconds[name]),
        "against constant": quartiles(seconds["constant"] / seconds[name]),
    }
