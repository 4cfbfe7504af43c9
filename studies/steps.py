"""Steps and texts on JAX alone: decode, verify, draft, many samples; a larger model; a longer context.

Everything is timed in two processes, one with the C kernels and one without: `TANDEM_EDU_KERNELS=0` holds
for a whole process, and there XLA does it all.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import tandem_edu as te
from studies.race import Worker, race
from studies.table import Lab, Row, Table, timing_rows
from tandem_edu.measure import Work, draft_steps, read_steps, spread

LARGE = {"d_model": 512, "n_layers": 8, "n_heads": 8, "n_kv_heads": 8, "d_ff": 1536}
LONG = {"d_model": 256, "n_layers": 4, "n_heads": 8, "n_kv_heads": 8, "d_ff": 512}
CONTEXTS = (128, 256, 512, 1024, 2048)
WIDTHS = (2, 3, 5, 9)
SUM, DECODE, ALONE = "sum of as many bytes", "decode step", "primary alone, 128 tokens"
SAMPLES = ", 16 samples"
DRAFTERS = ("tandem", "distilled")
AGAINST = {
    DECODE: SUM,
    **{f"verify {width}": DECODE for width in WIDTHS},
    **{f"draft step, {name}": DECODE for name in DRAFTERS},
    **{f"speculation, {name}": ALONE for name in DRAFTERS},
    **{f"{name}{SAMPLES}": name for name in (ALONE, "speculation, tandem")},
}


def study(lab: Lab) -> list[Table]:
    """The shipped pair, a large primary, and long contexts."""
    return [_raced(name, lab.repetitions) for name in ("steps", "steps-large", "steps-context")]


def shipped() -> dict[str, Work]:
    """Steps of the shipped pair; 128 tokens by the primary alone and by speculation with γ = 4."""
    pair = te.load_pair()
    prompt = pair.tokenizer.encode("Return the number of").ids
    drafters = {name: getattr(pair, name) for name in DRAFTERS}
    ways = {ALONE: partial(te.generate, pair.primary)}
    for name, drafter in drafters.items():
        how = {"block_len": 4, "max_draft_len": 4}
        ways[f"speculation, {name}"] = partial(te.speculate, pair.primary, drafter, **how)
    write = lambda way, **how: way(prompt=prompt, max_new_tokens=128, **how).tokens
    sampled = {"num_samples": 16, "sampling": te.Sampling(temperature=1.0), "key": jax.random.key(0)}
    return (
        _reading(pair.primary)
        | {f"draft step, {name}": draft_steps(pair.primary, drafter) for name, drafter in drafters.items()}
        | {name: Work(partial(write, way)) for name, way in ways.items()}
        | {
            f"{name}{SAMPLES}": Work(partial(write, ways[name], **sampled))
            for name in (ALONE, "speculation, tandem")
        }
    )


def large() -> dict[str, Work]:
    """A primary that no cache of the processor holds."""
    return _reading(_random_model(LARGE))


def context() -> dict[str, Work]:
    """A decode step with a cache of each size, nearly full."""
    model = _random_model(LONG, max_len=max(CONTEXTS))
    steps = {
        f"context {size}": read_steps(model, length=size - 32, capacity=size, steps=128) for size in CONTEXTS
    }
    per_token = 2 * 4 * LONG["n_layers"] * LONG["d_model"]  # bytes of keys and values
    return {SUM: summing(per_token * max(CONTEXTS)), **steps}


def summing(n_bytes: int, times: int = 16) -> Work:
    """A plain sum over an array of so many bytes, so many times: how fast memory can be read.

    It has 512 columns and is summed along them, so that several cores can share the work.
    """
    return Work(partial(_sums, jnp.ones((max(1, n_bytes // 2048), 512)), times), times)


@partial(jax.jit, static_argnames="times")
def _sums(x: jax.Array, times: int) -> jax.Array:
    def once(_, total):
        # As if `x` depended on the last sum; else it would be summed once.
        x_again, total = lax.optimization_barrier((x, total))
        return jnp.sum(x_again, axis=1) + total

    return jnp.sum(lax.fori_loop(0, times, once, jnp.zeros(x.shape[0])))


def _random_model(sizes: dict[str, int], max_len: int = 512) -> te.Transformer:
    config = te.TransformerConfig(vocab_size=1024, max_len=max_len, **sizes)
    return te.Transformer(config, key=jax.random.key(0))


def _reading(primary: te.Transformer) -> dict[str, Work]:
    """The sum, the decode step and the verifications of one primary."""
    n_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(primary))
    verifications = {f"verify {width}": read_steps(primary, width) for width in WIDTHS}
    return {SUM: summing(n_bytes), DECODE: read_steps(primary), **verifications}


def _raced(name: str, repetitions: int) -> Table:
    maker = {"steps": "shipped", "steps-large": "large", "steps-context": "context"}[name]
    workers = {
        process: Worker(f"steps:{maker}", {}, TANDEM_EDU_KERNELS=switch)
        for process, switch in (("C", "1"), ("XLA", "0"))
    }
    seconds, first = race(workers, repetitions)
    ours, xla = ({what: s for (one, what), s in seconds.items() if one == process} for process in workers)
    rows = timing_rows(
        ours,
        {what: first["C", what] for what in ours},
        {what: other for what, other in AGAINST.items() if what in ours and other in ours},
    )
    if name == "steps-context":
        rows += _slopes(ours, xla)
    for row in rows:
        what = row[""]
        row["XLA alone, times as long"] = spread(xla[what] / ours[what]) if what in ours else None
    return Table(name, rows)


def _slopes(ours: dict[str, np.ndarray], xla: dict[str, np.ndarray]) -> list[Row]:
    """The line through a round's times over the contexts, per 1,000 tokens, and its ratio to the sum."""
    rows: list[Row] = []
    explained = ours[SUM] / max(CONTEXTS)
    for name, seconds in (("slope, C", ours), ("slope, XLA alone", xla)):
        slopes = np.polyfit(CONTEXTS, np.stack([seconds[f"context {size}"] for size in CONTEXTS]), 1)[0]
        cells: dict[str, Any] = {
            "milliseconds": spread(1e6 * slopes),
            "times as long": spread(slopes / explained),
        }
        rows.append({"": name, **cells, "as": f"the {SUM}", "first call, seconds": None})
    return rows
