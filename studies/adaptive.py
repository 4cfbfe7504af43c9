"""Tables 5, 6 and 8 of the paper: ending a block early, before a draft that would hardly be accepted."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from studies.bootstrap import bootstrap
from studies.decoding import CHOOSING, MODES, REPETITIONS, TIMED_TOKENS
from studies.plan import ROUTER_LEN, SEED
from studies.prompts import prompts_of_kinds
from studies.table import Lab, Row, Table
from tandem_edu.decode import ConfidenceRule, Output, Router, Sampling
from tandem_edu.decode.trace import summarise
from tandem_edu.measure import spread
from tandem_edu.measure.decoding import ALONE, decoded_in_turns, speculating
from tandem_edu.zoo.shipped import Pair

CONSTANT = (1, 2, 3, 4, 5, 6, 8)
THRESHOLDS = (0.2, 0.35, 0.5, 0.65, 0.8)
LONGEST = (4, ROUTER_LEN)
"""γ_max of blocks that end by the drafter's own probability; the router was trained with one γ_max."""
PROMPTS = 12
Way = tuple[int, Router | None]
"""γ_max and router."""


def study(lab: Lab) -> list[Table]:
    """A constant γ, a threshold on the drafter's own probability, and the learned router."""
    pair, families = lab.pair, _families(lab.pair)
    chosen = prompts_of_kinds(pair.tokenizer, lab.parts, "dev", PROMPTS)
    rows = []
    for kind, prompts in prompts_of_kinds(pair.tokenizer, lab.parts, "test", PROMPTS).items():
        for mode, sampling in MODES.items():
            lab.say(f"  {kind}, {mode}")
            best = {name: fastest(pair, ways, chosen[kind], sampling) for name, ways in families.items()}
            ways = {name: families[name][how] for name, how in best.items()}
            seconds, outputs = decoded_ways(pair, ways, prompts, sampling, REPETITIONS)
            for name, how in best.items():
                row = {"prompts": kind, "mode": mode, "block length": f"{name} ({how})"}
                rows.append(row | figures(name, seconds, outputs))
    return [Table("adaptive", rows)]


def _families(pair: Pair) -> dict[str, dict[str, Way]]:
    """Ways to set the block's length, by family and setting."""
    return {
        "constant": {f"γ = {block_len}": (block_len, None) for block_len in CONSTANT},
        "own probability": {
            f"γ ≤ {longest}, τ = {tau}": (longest, ConfidenceRule(tau))
            for longest in LONGEST
            for tau in THRESHOLDS
        },
        "router": {
            f"γ ≤ {ROUTER_LEN}, τ = {tau}": (ROUTER_LEN, pair.router.with_threshold(tau))
            for tau in THRESHOLDS
        },
    }


def decoded_ways(pair: Pair, ways: Mapping[str, Way], prompts, sampling: Sampling | None, repetitions: int):
    """`decoded_in_turns` with the tandem, its block length set in several ways."""
    settings = {"max_new_tokens": TIMED_TOKENS, "sampling": sampling, "key": jax.random.key(SEED)}
    speculated = {
        name: speculating(pair.primary, pair.tandem, block_len, router=router)
        for name, (block_len, router) in ways.items()
    }
    return decoded_in_turns(pair.primary, speculated, prompts, settings, repetitions)


def fastest(pair: Pair, ways: Mapping[str, Way], prompts, sampling: Sampling | None) -> str:
    """The name of the way that takes the least time."""
    seconds, _ = decoded_ways(pair, ways, prompts, sampling, CHOOSING)
    return min(ways, key=lambda name: float(np.median(seconds[name])))


def figures(name: str, seconds: Mapping[Any, np.ndarray], outputs: Mapping[Any, Sequence[Output]]) -> Row:
    """Columns of one way, beside the one that is called "constant"."""
    summary = summarise([out.trace for out in outputs[name]])
    sums = [out.trace.summary() for out in outputs[name]]
    units = np.array([[s["emitted"], s["cycles"]] for s in sums], float)
    return {
        "primary's runs a text": summary["cycles"] / len(sums),
        "tandem's runs a text": summary["drafted"] / len(sums),
        "drafts per block": summary["mean_drafted"],
        "wasted": 1 - (summary["accepted"] / max(1, summary["drafted"])),
        "tokens per call": bootstrap(lambda s: s[..., 0] / s[..., 1], units),
        "speedup": spread(seconds[ALONE] / seconds[name]),
        "against constant": spread(seconds["constant"] / seconds[name]),
    }
