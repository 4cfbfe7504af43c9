"""Single steps on JAX alone: decode, verify, draft; longer contexts; many samples; a sweep over γ.

    python benchmarks/steps.py                              # everything
    python benchmarks/steps.py --only shipped --repetitions 3

| section | question |
|---|---|
| large | more than 40 MB: a decode step against reading the weights; 2, 3, 5, 9 tokens against 1 |
| shipped | the same with the shipped primary, and a draft step of its tandem and its secondary |
| context | does a step's time grow linearly with the cache, as reading keys and values explains? |
| samples | `num_samples` = 16 against one text |
| in-place | does the compiled loop copy the cache? (nothing is timed) |
| sweep | γ = 1..8 against γ = 4: programs compiled and the time it takes, in new processes |

The first four are raced by two processes: one with the compiled C of `tandem_edu.model.narrow`, one with
`TANDEM_EDU_NARROW=0`, where XLA does it all. In each turn a process does
every kind of work once, so what is set against one another was measured within the same seconds.

All steps run inside one compiled `fori_loop` of many, each on what the one before it wrote: the dispatch
from Python does not count, and the compiler can take nothing of a step out of the loop.
"""

import argparse
import os
import time
from functools import partial

import common
import numpy as np

LARGE = {"d_model": 512, "n_layers": 8, "n_heads": 8, "n_kv_heads": 8, "d_ff": 1536}
LONG = {"d_model": 256, "n_layers": 4, "n_heads": 8, "n_kv_heads": 8, "d_ff": 512}
CONTEXTS = (128, 256, 512, 1024, 2048)
WIDTHS = (2, 3, 5, 9)
SUM, DECODE, ONE, MANY = "sum of as many bytes", "decode step", "one text", "num_samples = 16"
KV_SUM = "sum of the keys' and values' bytes"
AGAINST = {
    DECODE: SUM,
    **{f"verify {width}": DECODE for width in WIDTHS},
    "draft step, tandem": DECODE,
    "draft step, secondary": DECODE,
    f"generate, {MANY}": f"generate, {ONE}",
    f"speculate, {MANY}": f"speculate, {ONE}",
}


def random_model(sizes: dict, max_len: int = 512):
    """A primary with random weights."""
    import jax

    from tandem_edu.model import Transformer, TransformerConfig

    config = TransformerConfig(vocab_size=1024, max_len=max_len, **sizes)
    return Transformer(config, key=jax.random.key(0))


def reading(primary, steps: int) -> dict:
    """The sum, the decode step and the verifications of one primary."""
    from tandem_edu.measure import Stepping, size_in_bytes, summing

    work = {SUM: summing(size_in_bytes(primary)), DECODE: Stepping(primary).work(steps)}
    return work | {f"verify {width}": Stepping(primary, width).work(steps) for width in WIDTHS}


def large() -> dict:
    """A primary that no cache of the processor holds."""
    return reading(random_model(LARGE), steps=16)


def shipped() -> dict:
    """The shipped pair."""
    import tandem_edu as te
    from tandem_edu.measure import Stepping

    pair = te.load_pair()
    drafts = {f"draft step, {name}": getattr(pair, name) for name in ("tandem", "secondary")}
    work = reading(pair.primary, steps=64)
    return work | {name: Stepping(drafter).work(256) for name, drafter in drafts.items()}


def context() -> dict:
    """A decode step with a cache of each size, nearly full."""
    from tandem_edu.measure import Stepping, summing

    model = random_model(LONG, max_len=max(CONTEXTS))
    work = {KV_SUM: summing(kv_bytes() * max(CONTEXTS))}
    for size in CONTEXTS:
        stepping = Stepping(model, length=size - 32, capacity=size)
        work[f"context {size}"] = stepping.work(32)
    return work


def kv_bytes() -> int:
    """Bytes that one more token of context adds to what a step reads."""
    return 2 * 4 * LONG["n_layers"] * LONG["n_kv_heads"] * LONG["d_model"] // LONG["n_heads"]


def samples() -> dict:
    """64 tokens at temperature 1, once and 16 times."""
    import jax

    import tandem_edu as te
    from tandem_edu.measure import Work

    pair = te.load_pair()
    prompt = pair.tokenizer.encode("Return the number of").ids
    how = {"sampling": te.Sampling(temperature=1.0), "key": jax.random.key(0)}
    ways = {
        "generate": partial(te.generate, pair.primary, prompt, 64, **how),
        "speculate": partial(te.speculate, pair.primary, pair.tandem, prompt, 64, max_block_len=4, **how),
    }
    return {
        f"{name}, {label}": Work(lambda way=way, n=n: way(num_samples=n).tokens)
        for name, way in ways.items()
        for label, n in ((ONE, None), (MANY, 16))
    }


TIMED = {"large": large, "shipped": shipped, "context": context, "samples": samples}


def contender(settings: dict, narrow: bool):
    """All the work of a section, with or without the narrow C."""
    _choose(narrow)
    import jax

    from tandem_edu.measure.timing import stopwatch
    from tandem_edu.model.narrow import available

    work = TIMED[settings["section"]]()
    units = {name: one.units for name, one in work.items()}
    run = lambda: {name: stopwatch(one.run) for name, one in work.items()}
    return run, {"jax": jax.__version__, "narrow": available(), "units": units}


def _choose(narrow: bool) -> None:
    """Before tandem_edu first multiplies."""
    os.environ["TANDEM_EDU_NARROW"] = str(int(narrow))


def in_place(settings: dict, narrow: bool):
    """What the compiled loops do with the cache: a loop of steps, `te.generate` and `te.speculate`."""
    _choose(narrow)
    import hlo

    import tandem_edu as te
    from tandem_edu.decode import autoregressive, cycle
    from tandem_edu.decode.request import make_request
    from tandem_edu.decode.speculative import VERIFICATIONS
    from tandem_edu.measure import Stepping
    from tandem_edu.model.narrow import available

    def run():
        pair = te.load_pair()
        config = pair.primary.config
        # 250 slots: a length that nothing else in the program has.
        loops = {"decode step": pair.primary, "draft step of the tandem": pair.tandem}
        found = {
            name: hlo.loop_report(
                Stepping(model, capacity=250).compiled_text(),
                (model.config.n_kv_heads, 250, model.config.head_dim),
            )
            for name, model in loops.items()
        }
        request = make_request(config, list(range(1, 65)), 150, None, None, None)
        drafter = te.decode.drafters.as_drafter(pair.tandem, pair.primary)
        decoder = cycle.Decoder(
            pair.primary,
            drafter,
            None,
            request.sampling,
            request.stop_token,
            np.int32(4),
            4,
            VERIFICATIONS["token"],
        )
        programs = {
            "te.generate": (autoregressive._generate.lower(pair.primary, request), 0),
            "te.speculate": (cycle.decode.lower(decoder, request), decoder.max_block_len + 1),
        }
        for name, (lowered, wider) in programs.items():
            shape = (config.n_kv_heads, request.row.text.shape[-1] + wider, config.head_dim)
            found[name] = hlo.loop_report(lowered.compile().compiled.as_text(), shape)
        return found

    return run, {"narrow": available()}


def sweep(settings: dict, gammas: tuple[int, ...]):
    """First calls of `te.speculate` with each γ, and what they compile."""
    import jax

    import tandem_edu as te

    pair = te.load_pair()
    prompt = pair.tokenizer.encode("Return the number of").ids
    compiled = []

    def listen(event: str, seconds: float, **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(seconds)

    def decode_all() -> float:
        start = time.perf_counter()
        for gamma in gammas:
            jax.block_until_ready(te.speculate(pair.primary, pair.tandem, prompt, 64, block_len=gamma).tokens)
        return time.perf_counter() - start

    def run():
        jax.monitoring.register_event_duration_secs_listener(listen)
        first, programs, xla = decode_all(), len(compiled), sum(compiled)
        again = decode_all()
        # What the second pass takes is decoding; the rest is tracing, lowering and compiling.
        return {
            "programs": programs,
            "compiled_again": len(compiled) - programs,
            "xla_seconds": xla,
            "compile_seconds": first - again,
            "decode_seconds": again,
        }

    return run, {"jax": jax.__version__}


RACERS = {
    "narrow": partial(contender, narrow=True),
    "XLA alone": partial(contender, narrow=False),
}
INSPECTED = {
    "in place, narrow": partial(in_place, narrow=True),
    "in place, XLA alone": partial(in_place, narrow=False),
}
SWEEPS = {"γ = 4": partial(sweep, gammas=(4,)), "γ = 1..8": partial(sweep, gammas=tuple(range(1, 9)))}


def race_section(section: str, settings: dict, repetitions: int) -> dict:
    """Race with and without the narrow C at a section's work; print what each took and how they compare."""
    from tandem_edu.measure import ratio_rows

    raced = common.race(__file__, list(RACERS), settings | {"section": section}, repetitions)
    record, seconds = {"section": section, "raced": raced, "rows": {}}, {}
    for name, one in raced.items():
        first, *rounds = one["results"]
        kept = rounds[-repetitions:]
        units = one["facts"]["units"]
        seconds[name] = {what: np.array([r[what] for r in kept]) / n for what, n in units.items()}
        against = {what: other for what, other in AGAINST.items() if what in units and other in units}
        record["rows"][name] = rows = ratio_rows(seconds[name], first, against)
        here = "" if one["facts"]["narrow"] == (name == "narrow") else " (NO C COMPILER: XLA here as well)"
        show(f"{section}, {name}{here}", rows)
        report(section, record, name, seconds[name])
    record["xla_against_narrow"] = compared(seconds)
    return record


def compared(seconds: dict[str, dict[str, np.ndarray]]) -> dict[str, dict]:
    """How many times as long XLA alone takes, round by round."""
    ours, theirs = (seconds[name] for name in RACERS)
    found = {what: common.quartiles(theirs[what] / ours[what]) for what in ours}
    print("\nXLA alone takes x times as long as with the narrow C, within a round (quartiles)")
    for what, q in found.items():
        print(f"{what:36} {q['median']:6.2f} ({q['q1']:.2f} to {q['q3']:.2f})")
    return found


def report(section: str, record: dict, name: str, seconds: dict[str, np.ndarray]) -> None:
    """What follows from a section's times: the share of the bandwidth, or the slope over the context."""
    if DECODE in seconds:
        share = common.quartiles(seconds[SUM] / seconds[DECODE])
        record.setdefault("share_of_bandwidth", {})[name] = share
        print(f"a decode step reaches {_percent(share)} of the bandwidth of the sum")
    if section == "context":
        record.setdefault("slope", {})[name] = found = slope(seconds)
        print(f"microseconds a step for each 1000 tokens of context: {_said(found['us_per_1000_tokens'])}")
        print(f"  reading their keys and values as the sum does: {_said(found['explained'])}")
        print(f"  the slope is {_said(found['ratio'])} times that")
        print(f"  farthest from the line, relative: {_percent(found['off_the_line'])}")


def slope(seconds: dict[str, np.ndarray]) -> dict[str, dict]:
    """The line through a round's times over the contexts, and what reading keys and values explains."""
    times = np.stack([seconds[f"context {size}"] for size in CONTEXTS])
    slopes, starts = np.polyfit(CONTEXTS, times, 1)
    fitted = np.outer(CONTEXTS, slopes) + starts
    explained = seconds[KV_SUM] / max(CONTEXTS)
    return {
        "us_per_1000_tokens": common.quartiles(1e9 * slopes),
        "explained": common.quartiles(1e9 * explained),
        "ratio": common.quartiles(slopes / explained),
        "off_the_line": common.quartiles(np.max(np.abs(times - fitted) / fitted, axis=0)),
    }


def _percent(q: dict[str, float]) -> str:
    return f"{q['median']:.0%} ({q['q1']:.0%} to {q['q3']:.0%})"


def _said(q: dict[str, float]) -> str:
    return f"{q['median']:.2f} ({q['q1']:.2f} to {q['q3']:.2f})"


def show(title: str, rows: list[dict]) -> None:
    """A table."""
    from tandem_edu.measure import readable
    from tandem_edu.show import text_table

    print(f"\n{title}\n{text_table(readable(rows))}")


def inspect(settings: dict) -> dict:
    """Print what the compiled loops do with the cache."""
    print("\nArrays of the cache's shape made in the compiled program, by the operation that makes them")
    found = {name: common.once(__file__, name, settings)["result"] for name in INSPECTED}
    for name, programs in found.items():
        for program, report in programs.items():
            print(f"{name}: {program}, {report['shape']}")
            print(f"    in loops {report['in_loops'] or 'none'}, outside {report['outside'] or 'none'}")
            new = report["whole_new_in_loops"]
            said = (
                f"NOT ONLY in place: {new} whole new arrays in the loops" if new else "in place, nothing else"
            )
            print(f"    {said}; outputs that share an input's memory: {report['aliased_outputs']}")
    return found


def race_sweep(settings: dict, processes: int) -> dict:
    """New processes in turns; print programs and seconds."""
    turns = [
        {name: common.once(__file__, name, settings)["result"] for name in SWEEPS} for _ in range(processes)
    ]
    print(f"\nFirst calls of te.speculate in {processes} new processes each")
    for name in SWEEPS:
        counts = sorted({turn[name]["programs"] for turn in turns})
        taken = common.quartiles([turn[name]["compile_seconds"] for turn in turns])
        print(f"{name:10} programs compiled {counts}, tracing and compiling {_said(taken)} s")
    one, all_ = SWEEPS
    ratio = common.quartiles([turn[all_]["compile_seconds"] / turn[one]["compile_seconds"] for turn in turns])
    print(f"the sweep takes {_said(ratio)} times as long to compile")
    return {"turns": turns, "ratio": ratio}


def main() -> None:
    """Read the options, measure, print and write."""
    sections = [*TIMED, "in-place", "sweep"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--processes", type=int, default=5, help="new ones for each kind of sweep")
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--only", choices=sections, nargs="+", default=sections)
    options = parser.parse_args()
    settings = {"threads": options.threads}
    record = {"machine": common.say_machine(), "settings": vars(options), "sections": {}}
    for section in options.only:
        if section in TIMED:
            found = race_section(section, settings, options.repetitions)
        else:
            found = inspect(settings) if section == "in-place" else race_sweep(settings, options.processes)
        record["sections"][section] = found
    print("written:", common.write("steps", record))


if __name__ == "__main__":
    common.serve(RACERS | INSPECTED | SWEEPS)
    main()
