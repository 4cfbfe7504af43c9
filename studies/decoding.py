"""Tables 2 and 7 of the paper: what the tandem gains as the drafter of speculative decoding."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from studies.bootstrap import bootstrap
from studies.plan import SEED
from studies.prompts import prompts_of_kinds
from studies.table import Lab, Row, Table
from tandem_edu import measure, show
from tandem_edu.decode import Sampling
from tandem_edu.drafters import PrimaryReader, Tandem
from tandem_edu.measure import Comparison, Interval, Run, compare, spread
from tandem_edu.model import Transformer
from tandem_edu.zoo.shipped import Pair

BLOCK_LENS = (1, 2, 3, 4, 5, 6, 8)
SWEPT = {1: BLOCK_LENS, 4: (1, 2, 4)}
"""γ to choose from, by the number of samples."""
SHOWN = 5
"""γ of the table of accepted drafts."""
PROMPTS, TIMED_PROMPTS = 24, 8
"""Of each kind: to count drafts on, and to time."""
NEW_TOKENS, TIMED_TOKENS, REPETITIONS = 64, 128, 7
"""Counted on short texts, as greedy ones soon repeat themselves; timed on longer ones."""
CHOOSING = 2
"""Rounds in which all take turns, to choose γ: another prompt tells more than another round."""
MODES = {"greedy": None, "temperature 1": Sampling(temperature=1.0)}
DRAFTERS = ("secondary", "distilled", "tandem")

Drafters = Mapping[str, Transformer | PrimaryReader]


def study(lab: Lab) -> list[Table]:
    """Accepted drafts per block, with a picture for each kind of prompt and mode; and wall-clock."""
    pair = lab.pair
    drafters = {name: getattr(pair, name) for name in DRAFTERS}
    blocks, clock, pictures, images = [], [], {}, {}
    chosen = prompts_of_kinds(pair.tokenizer, lab.parts, "dev", TIMED_PROMPTS)
    for kind, prompts in prompts_of_kinds(pair.tokenizer, lab.parts, "test", PROMPTS).items():
        for mode, sampling in MODES.items():
            where = {"prompts": kind, "mode": mode}
            counted = counted_drafts(pair.primary, drafters, prompts, sampling)
            blocks.append({**where, **_blocks(counted, pair)})
            picture, file = show.tokens_per_call(counted), f"{kind}-{mode.replace(' ', '-')}.png"
            pictures[file], images[file] = f"{kind}, {mode}. {picture.alt}", picture.png()
            for samples in SWEPT:
                lab.say(f"  {kind}, {mode}, {samples} samples")
                timed = prompts[:TIMED_PROMPTS]
                best = fastest(pair.primary, drafters, chosen[kind], timed, sampling, samples)
                how = _how(sampling, samples) | {"max_new_tokens": 1, "repetitions": REPETITIONS}
                first = compare(pair.primary, drafters, timed, block_lens=(1,), **how)
                clock.append({**where, "samples": samples, **_clock(best, first)})
    return [Table("blocks", blocks, pictures, images), Table("speed", clock)]


def counted_drafts(
    primary: Transformer, drafters: Drafters, prompts: Sequence[np.ndarray], sampling: Sampling | None
) -> Comparison:
    """Short texts by each drafter at every γ of `BLOCK_LENS`, for what their traces count."""
    return compare(primary, drafters, prompts, NEW_TOKENS, BLOCK_LENS, sampling, jax.random.key(SEED), 1)


def fastest(
    primary: Transformer,
    drafters: Drafters,
    chosen: Sequence[np.ndarray],
    prompts: Sequence[np.ndarray],
    sampling: Sampling | None,
    samples: int = 1,
) -> dict[str, Run]:
    """Each drafter on `prompts` at the γ that was fastest on the prompts `chosen`, in turns."""
    timed = partial(compare, primary, drafters, **_how(sampling, samples))
    tried = timed(chosen, block_lens=SWEPT[samples], repetitions=CHOOSING)
    best = {name: tried.fastest(name).block_len for name in drafters}
    measured = timed(prompts, block_lens=sorted(set(best.values())), repetitions=REPETITIONS)
    return {name: measured.run(name, block_len) for name, block_len in best.items()}


def _how(sampling: Sampling | None, samples: int) -> dict[str, Any]:
    how = {"max_new_tokens": TIMED_TOKENS, "sampling": sampling, "key": jax.random.key(SEED)}
    return how | {"num_samples": None if samples == 1 else samples}


def accepted(run: Run) -> Interval:
    """Drafts accepted per cycle; the interval is over the prompts."""
    return bootstrap(_per_cycle, _accepted_and_cycles(run))


def accepted_ratio(run: Run, other: Run) -> Interval:
    """Drafts accepted per cycle, `run` divided by `other`, on the same prompts."""
    both = np.concatenate([_accepted_and_cycles(run), _accepted_and_cycles(other)], axis=1)
    ratio = lambda sums: _per_cycle(sums[..., :2]) / np.maximum(_per_cycle(sums[..., 2:]), 1e-9)
    return bootstrap(ratio, both)


def _clock(runs: Mapping[str, Run], first: Comparison) -> Row:
    """Speedups; decode only: without the time until the first token."""
    row: Row = {}
    for name, run in runs.items():
        row |= {name: spread(run.speedup), f"{name}'s γ": run.block_len}
    row["tandem / distilled"] = spread(runs["distilled"].seconds / runs["tandem"].seconds)
    rest = {name: run.seconds - np.median(first.run(name, 1).seconds) for name, run in runs.items()}
    tandem, prompt = runs["tandem"], first.run("tandem", 1)
    alone = tandem.speedup * tandem.seconds - np.median(prompt.speedup * prompt.seconds)
    row["tandem, decode only"] = spread(alone / rest["tandem"])
    return row | {"tandem / distilled, decode only": spread(rest["distilled"] / rest["tandem"])}


def _blocks(counted: Comparison, pair: Pair) -> Row:
    runs = {name: counted.run(name, SHOWN) for name in counted.drafters}
    row: dict[str, Any] = {name: accepted(run) for name, run in runs.items()}
    row["tandem / distilled"] = accepted_ratio(runs["tandem"], runs["distilled"])
    row["block efficiency (tandem)"] = runs["tandem"].summary["block_efficiency"]
    for name in ("distilled", "tandem"):
        row[f"{name} where v = 1"] = max(_where_reading_is_free(run, pair) for run in counted.of(name))
    texts = [np.asarray(out.tokens) for out in counted.primary_outputs]
    row["repetition rate"] = repetition_rate(texts)
    return row


def _where_reading_is_free(run: Run, pair: Pair) -> float:
    """Times as fast as the primary alone, if a call took as long as it takes to read its weights.

    By the roofline it does, while it reads few tokens at once. A draft reads the secondary and the head; a
    cycle also reads the primary and, of a tandem, the projections.
    """
    weights = lambda model: sum(leaf.size for leaf in jax.tree.leaves(model) if isinstance(leaf, jax.Array))
    model, primary = getattr(pair, run.drafter), weights(pair.primary)
    small = model.secondary if isinstance(model, Tandem) else model
    verify = 1 + (weights(model) - weights(small)) / primary
    tokens, draft = run.summary["block_efficiency"], weights(small) / primary
    return measure.wall_clock_factor(tokens, run.block_len, draft, verify)


def repetition_rate(texts: Sequence[np.ndarray], length: int = 8) -> float:
    """Share of positions whose last `length` tokens have occurred before in the same text.

    Small models repeat in greedy decoding, which helps every drafter.
    """
    repeated = total = 0
    for text in texts:
        ids, seen = np.asarray(text).ravel().tolist(), set()
        for end in range(length, len(ids) + 1):
            run = tuple(ids[end - length : end])
            repeated, total = repeated + (run in seen), total + 1
            seen.add(run)
    return repeated / total if total else 0.0


def _per_cycle(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _accepted_and_cycles(run: Run) -> np.ndarray:
    """float[prompts, 2]: drafts accepted, and cycles."""
    sums = [out.trace.summary() for out in run.outputs]
    return np.array([[s["accepted"], s["cycles"]] for s in sums], float)
