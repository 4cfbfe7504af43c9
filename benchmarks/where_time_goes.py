"""Where a step's time goes, operation by operation, and what other chips should make of the same steps.

    python benchmarks/where_time_goes.py                      # a decode step, and a verification of 5 tokens
    TANDEM_EDU_NARROW=0 python benchmarks/where_time_goes.py  # the same on XLA alone

The profile is JAX's own (XProf), which lengthens what it looks at: read the shares, not the sums. The second
table is no measurement: it is the roofline (`tandem_edu.measure.roofline`) at the chips' data sheets, for a
pair of the paper's size (PaLM2-Bison's is not public; 8 B and 0.8 B weights here) and for the shipped one.
"""

import argparse
import re
import tempfile
from collections import defaultdict
from pathlib import Path

import common

STEPS = 16
KINDS = (
    (r"ffi_call|custom-call", "narrow C: products and attention"),
    (r"ynn|dot", "products, by XLA"),
    (r"dynamic-update-slice", "writing the cache"),
    (r"gather", "embedding"),
    (r"concatenate", "rotary embedding"),
    (r"fusion|wrapped|copy|reduce|iota", "elementwise, sums"),
)
PAIRS = {"paper-sized, 8 B and 0.8 B": (8e9, 0.8e9), "shipped": None}


def profiled(width: int) -> dict[str, tuple[float, float]]:
    """Operations a step and microseconds a step, by kind."""
    import jax

    import tandem_edu as te
    from tandem_edu.measure.steps import Stepping

    stepping = Stepping(te.load_pair().primary, width=width)
    stepping.run(STEPS)
    jax.block_until_ready(stepping.run(STEPS))
    options = jax.profiler.ProfileOptions()
    options.host_tracer_level, options.python_tracer_level = 3, 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            jax.block_until_ready(stepping.run(STEPS))
        (file,) = Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(file)).planes
        events = [event for plane in planes for line in plane.lines for event in line.events]
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in events:
        if kind := kind_of(event.name):
            found[kind][0] += 1 / STEPS
            found[kind][1] += event.duration_ns / 1e3 / STEPS
    return {kind: (count, took) for kind, (count, took) in found.items()}


def kind_of(name: str) -> str | None:
    """Of an event that is an operation of XLA's; `None` for all others."""
    if not re.fullmatch(r"[a-z][\w-]*(\.\d+)*", name) or name.startswith(("while", "call", "stage", "end")):
        return None
    return next((kind for pattern, kind in KINDS if re.search(pattern, name)), None)


def expected(weights: tuple[float, float], block_len: int, tokens: float) -> list[dict]:
    """For each chip: a decode step; verification and draft in units of it; the speedup."""
    from tandem_edu.measure.roofline import PRESETS, read_time, ridge
    from tandem_edu.measure.speedup import wall_clock_factor

    rows = []
    for chip in PRESETS:
        step = read_time(chip, weights[0], 1)
        verify = read_time(chip, weights[0], block_len + 1) / step
        draft = read_time(chip, weights[1], 1) / step
        rows.append(
            {
                "chip": chip.name,
                "decode step": f"{1e3 * step:.3g} ms",
                f"verify {block_len + 1}": f"{verify:.2f} x",
                "draft": f"{draft:.3f} x",
                "ridge": f"{ridge(chip):.0f} tokens",
                "speedup": f"{wall_clock_factor(tokens, block_len, draft, verify):.2f}",
            }
        )
    return rows


def main() -> None:
    """Profile, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--tokens", type=float, default=2.5, help="tokens per call, for the expected speedups"
    )
    parser.add_argument("--block-len", type=int, default=4)
    options = parser.parse_args()
    machine = common.say_machine()
    import jax

    import tandem_edu as te
    from tandem_edu.show import text_table

    profiles = {}
    for width in (1, options.block_len + 1):
        profiles[width] = found = profiled(width)
        total = sum(took for _, took in found.values())
        rows = [
            {"kind": kind, "operations": f"{n:.0f}", "us": f"{took:.0f}", "share": f"{took / total:.0%}"}
            for kind, (n, took) in sorted(found.items(), key=lambda item: -item[1][1])
        ]
        print(f"\nthe shipped primary reads {width} of the tokens at once: {total:.0f} us, profiled")
        print(text_table(rows))
    pair = te.load_pair()
    sizes = [sum(x.size for x in jax.tree.leaves(model)) for model in (pair.primary, pair.tandem)]
    chips = {}
    for name, weights in PAIRS.items():
        chips[name] = expected(weights or (sizes[0], sizes[1]), options.block_len, options.tokens)
        print(f"\nby the roofline, {name}: γ = {options.block_len}, {options.tokens} tokens a call")
        print(text_table(chips[name]))
    record = {"machine": machine, "profiles": profiles, "expected": chips}
    print("written:", common.write("where_time_goes", record))


if __name__ == "__main__":
    main()
