"""What training a tandem costs beside its parts, and the memory of a training step. JAX alone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import tandem_edu as te
from studies.table import Lab, Row, Table, timing_rows
from tandem_edu.measure import timed
from tandem_edu.train import Objective, recipe
from tandem_edu.train.step import init_state, partition, train_step

FORWARD, PLAIN, TANDEM, BOTH = "primary, forward", "secondary", "tandem", "secondary + primary, forward"
AGAINST = {TANDEM: BOTH, f"{TANDEM}, the paper's form": BOTH, f"{TANDEM}, distilled": f"{PLAIN}, distilled"}
BATCH, SEQ = 8, 256
SIZES = {"batch_size": BATCH, "seq_len": SEQ}


def study(lab: Lab) -> list[Table]:
    """Steps beside the sum of their parts, and memory."""
    pair, batch = lab.pair, jax.random.randint(jax.random.key(0), (BATCH, SEQ + 1), 0, 1024)
    paper = te.Tandem(pair.secondary, pair.primary.config, key=jax.random.key(0))
    reads = {"primary": pair.primary, "block_lens": (2,), **SIZES}
    steps = {
        PLAIN: stepper(pair.secondary, **SIZES),
        TANDEM: stepper(pair.tandem, **reads),
        f"{TANDEM}, the paper's form": stepper(paper, **reads),
        f"{PLAIN}, distilled": stepper(pair.secondary, pair.primary, kl=0.5, **SIZES),
        f"{TANDEM}, distilled": stepper(pair.tandem, kl=0.5, **reads),
        "primary": stepper(pair.primary, **SIZES),
    }
    works = {FORWARD: _forward(pair.primary, batch)} | {
        name: partial(step, batch) for name, step in steps.items()
    }
    seconds, first = timed(works, lab.repetitions, progress=True)
    seconds[BOTH], first[BOTH] = seconds[PLAIN] + seconds[FORWARD], first[PLAIN] + first[FORWARD]
    return [Table("training", timing_rows(seconds, first, AGAINST)), _memory(pair, batch)]


def stepper(model: Any, primary: te.Transformer | None = None, kl: float = 0.0, **changes: Any) -> Callable:
    """A function that takes one training step on a batch and returns the loss, CE + `kl` · KL."""
    settings, objective = recipe("secondary", **changes), Objective(ce=1.0, kl=kl)
    states, frozen = {"": init_state(model, settings)}, {"": partition(model)[1]}

    def step(batch):
        nonlocal states
        states, losses = train_step((frozen, primary, batch), states, {"": settings}, {"": objective})
        return jax.block_until_ready((losses[""], states))[0]

    return step


def _forward(primary: te.Transformer, batch: jax.Array) -> Callable:
    """The primary's states over the batch, a quarter at a time as in training; summed, to be small."""
    windows = batch[:, :-1].reshape(4, -1, batch.shape[1] - 1)
    read = lambda primary, part: jnp.sum(primary(part, return_hidden=True)[1])
    # The weights are an argument: as constants the compiler would work on them.
    compiled = jax.jit(lambda primary, windows: jax.lax.map(lambda part: read(primary, part), windows))
    return lambda: compiled(primary, windows)


def _memory(pair: Any, batch: jax.Array) -> Table:
    """XLA's account of a compiled step: the whole batch at once, and in four parts."""
    rows: list[Row] = []
    for name, model in (("primary", pair.primary), ("secondary", pair.secondary)):
        for parts in (1, 4):
            settings = recipe("secondary", **SIZES, micro_batches=parts)
            states, frozen = {"": init_state(model, settings)}, {"": partition(model)[1]}
            lowered = train_step.lower((frozen, None, batch), states, {"": settings}, {"": Objective(ce=1.0)})
            sizes = lowered.compile().compiled.memory_analysis()
            of = lambda kind, sizes=sizes: getattr(sizes, f"{kind}_size_in_bytes") / 1e6
            whole = of("argument") + of("output") - of("alias") + of("temp")
            rows.append({"": f"{name}, micro_batches={parts}", "all": whole, "temporaries": of("temp")})
    return Table("memory", rows)
