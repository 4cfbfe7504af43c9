"""What training a tandem costs beside what it consists of, and the memory of a training step. JAX alone.

    python benchmarks/tandem_step.py
    python benchmarks/tandem_step.py --repetitions 3

A tandem's step is a primary's forward pass and a secondary's step. Set against one another within a round:
the tandem's step, and the plain secondary's step plus one forward pass of the primary over the same batch in
the same parts. With distillation a plain secondary's step has the primary's forward pass in it already.

Memory is what XLA reports of the compiled step, beside parameters + gradients + Adam's state + activations
by formula (`formula`).
"""

import argparse

import common
import numpy as np

PRIMARY, PLAIN, TANDEM = "primary, forward", "secondary, step", "tandem, step"
PAPER, DISTILLED, DISTILLING = "tandem of the paper, step", "secondary, distilled", "tandem, distilled"
KEEPING, AGAIN = "primary, step", "primary, step with remat"


def models() -> dict:
    """The shipped models by what is done with them, and the paper's form of the tandem."""
    import jax

    import tandem_edu as te

    pair = te.load_pair()
    paper = te.Tandem(pair.secondary, pair.primary.config, key=jax.random.key(0))
    plain, tandem = pair.secondary, pair.tandem
    return {
        "primary": pair.primary,
        PLAIN: plain,
        TANDEM: tandem,
        PAPER: paper,
        DISTILLED: plain,
        DISTILLING: tandem,
        KEEPING: pair.primary,
        AGAIN: pair.primary,
    }


def prepared(model, primary, batch, distils: bool = False, **changes):
    """The arguments of a training step of one model: what stays, its state, its recipe, its objective."""
    from tandem_edu.train.losses import Objective
    from tandem_edu.train.recipes import recipe
    from tandem_edu.train.step import init_state, split

    windows, seq = batch.shape[0], batch.shape[1] - 1
    settings = recipe("secondary", batch_size=windows, seq_len=seq, **changes)
    objective = Objective(ce=1.0, kl=0.5) if distils else Objective(ce=1.0)
    given = ((split(model)[1],), primary, batch)
    return given, (init_state(model, settings),), (settings,), (objective,)


def stepping(name: str, model, primary, batch):
    """A function that takes one training step."""
    from tandem_edu.train.step import train_step

    distils, is_tandem = name in (DISTILLED, DISTILLING), name in (TANDEM, PAPER, DISTILLING)
    read = primary if distils or is_tandem else None
    blocks = (2,) if is_tandem else ()
    given, states, *how = prepared(model, read, batch, distils, block_lens=blocks, remat=name == AGAIN)

    def run():
        nonlocal states
        states, losses = train_step(given, states, *how)
        return losses, states

    return run


def forward(primary, batch, parts: int):
    """The primary's states over the batch, as many windows at a time as in training; summed, to be small."""
    import jax
    import jax.numpy as jnp

    windows = batch[:, :-1].reshape(parts, -1, batch.shape[1] - 1)
    # The weights are an argument: as constants the compiler would work on them.
    compiled = jax.jit(
        lambda primary, windows: jax.lax.map(lambda w: jnp.sum(primary(w, return_hidden=True)[1]), windows)
    )
    return lambda: compiled(primary, windows)


def formula(config, trained: int, windows: int, seq: int) -> dict[str, int]:
    """Bytes in float32, of a plain transformer's step with `trained` parameters, `windows` at a time.

    Parameters P, gradients P, Adam's opt_state 2 P. Activations kept for the gradient, a token and layer:
    both residual states and their norms 4 d, queries, keys and values d + 2 kv, the heads' mixture d,
    gate, up and their product 3 d_ff, and the attention weights n_heads · seq / 2; in the end the last
    state and its norm 2 d and the logits and their gradient 2 vocab.
    """
    kv = config.n_kv_heads * config.head_dim
    layer = 6 * config.d_model + 2 * kv + 3 * config.d_ff + config.n_heads * seq // 2
    tail = 2 * config.d_model + 2 * config.vocab_size
    activations = 4 * windows * seq * (config.n_layers * layer + tail)
    known = {"parameters": 4 * trained, "gradients": 4 * trained, "adam": 8 * trained}
    return known | {"activations": activations, "total": 16 * trained + activations}


def memory(name: str, model, batch) -> dict:
    """XLA's account of a compiled step, beside the formula: whole, in four parts, and with `remat`."""
    import jax

    from tandem_edu.train.step import train_step

    found = {}
    for parts, remat in ((1, False), (4, False), (1, True), (4, True)):
        arguments = prepared(model, None, batch, micro_batches=parts, remat=remat)
        account = account_of(train_step.lower(*arguments).compile().compiled.memory_analysis())
        trained = sum(leaf.size for leaf in jax.tree.leaves(arguments[1][0].trained))
        expected = formula(model.config, trained, batch.shape[0] // parts, batch.shape[1] - 1)
        ratio = account["peak"] / expected["total"]
        found[f"{name}, micro_batches={parts}{', remat' if remat else ''}"] = {
            "xla": account,
            "formula": expected,
            "ratio": ratio,
        }
    return found


def account_of(analysis) -> dict[str, int]:
    """Bytes: what goes in, what comes out and is not the same memory, what is needed in between."""
    names = ("argument", "output", "alias", "temp")
    sizes = {name: int(getattr(analysis, f"{name}_size_in_bytes")) for name in names}
    return sizes | {"peak": sizes["argument"] + sizes["output"] - sizes["alias"] + sizes["temp"]}


def say_memory(found: dict[str, dict]) -> None:
    """A table in MB."""
    print("\nmemory of a training step, MB")
    print(f"{'':44} {'XLA':>7} {'(temporary)':>11} {'formula':>8} {'(activations)':>13} {'ratio':>6}")
    for name, one in found.items():
        xla, expected = one["xla"], one["formula"]
        figures = (xla["peak"], xla["temp"], expected["total"], expected["activations"])
        peak, temporary, total, activations = (n / 1e6 for n in figures)
        print(f"{name:44} {peak:7.1f} {temporary:11.1f} {total:8.1f} {activations:13.1f} {one['ratio']:6.2f}")


def against_sums(seconds: dict[str, np.ndarray]) -> dict[str, dict]:
    """Each tandem's step ÷ the sum of what it consists of, round by round; printed and returned."""
    sums = {
        TANDEM: (PLAIN, PRIMARY),
        PAPER: (PLAIN, PRIMARY),
        DISTILLING: (DISTILLED,),
    }
    found = {}
    print()
    for name, parts in sums.items():
        found[name] = q = common.quartiles(seconds[name] / sum(seconds[part] for part in parts))
        print(f"{name} ÷ ({' + '.join(parts)}): {q['median']:.3f} ({q['q1']:.3f} to {q['q3']:.3f})")
    return found


def main() -> None:
    """Read the options, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seq", type=int, default=256)
    options = parser.parse_args()
    common.bind(options.threads)
    machine = common.say_machine()
    import jax

    from tandem_edu.measure import Work, ratio_rows, readable, timed
    from tandem_edu.show import text_table

    given = models()
    primary = given.pop("primary")
    batch = jax.random.randint(jax.random.key(0), (options.batch, options.seq + 1), 0, 1024)
    steps = {name: stepping(name, model, primary, batch) for name, model in given.items()}
    work = {name: Work(run) for name, run in ({PRIMARY: forward(primary, batch, parts=4)} | steps).items()}
    seconds, first = timed(work, options.repetitions, progress=True)
    against = {name: PLAIN for name in work if name != PLAIN} | {AGAIN: KEEPING}
    rows = ratio_rows(seconds, first, against)
    print(text_table(readable(rows)))
    sums = against_sums(seconds)
    used = memory("shipped primary", primary, batch) | memory("shipped secondary", given[PLAIN], batch)
    say_memory(used)
    raw = {name: taken.tolist() for name, taken in seconds.items()}
    record = {"machine": machine, "settings": vars(options), "rows": rows, "seconds": raw}
    print("written:", common.write("tandem_step", record | {"against_sums": sums, "memory": used}))


if __name__ == "__main__":
    main()
