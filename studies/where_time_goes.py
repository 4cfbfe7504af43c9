"""Where a step's time goes, operation by operation, by JAX's own profiler (XProf).

With the environment variable `TANDEM_EDU_KERNELS=0`, the same on XLA alone.
"""

import re
import tempfile
from collections import defaultdict
from pathlib import Path

import jax

from studies.table import Lab, Row, Table
from tandem_edu.measure import read_steps
from tandem_edu.model import Transformer

STEPS = 64
KINDS = (
    (r"ffi_call|custom-call", "C kernels: products and attention"),
    (r"ynn|dot", "products, by XLA"),
    (r"dynamic-update-slice", "writing the cache"),
    (r"copy", "copies"),
    (r"gather", "embedding"),
    (r"concatenate", "rotary embedding"),
    (r"fusion|wrapped|reduce|iota", "elementwise, sums"),
)


def study(lab: Lab) -> list[Table]:
    """A decode step and a verification of 5 tokens, of the shipped primary."""
    rows: list[Row] = []
    for width in (1, 5):
        profile = profiled(lab.pair.primary, width)
        total = sum(took for _, took in profile.values())
        for kind, (count, took) in sorted(profile.items(), key=lambda item: -item[1][1]):
            cells = {"operations": round(count), "microseconds": took, "share": took / total}
            rows.append({"tokens read": width, "kind": kind, **cells})
    return [Table("where-time-goes", rows)]


def profiled(primary: Transformer, width: int) -> dict[str, tuple[float, float]]:
    """Operations a step and microseconds a step, by kind."""
    run = read_steps(primary, width, steps=STEPS).run
    jax.block_until_ready(run())
    options = jax.profiler.ProfileOptions()
    options.host_tracer_level, options.python_tracer_level = 3, 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            jax.block_until_ready(run())
        (file,) = Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(file)).planes
        events = [event for plane in planes for line in plane.lines for event in line.events]
    profile: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in events:
        if kind := kind_of(event.name):
            profile[kind][0] += 1 / STEPS
            profile[kind][1] += event.duration_ns / 1e3 / STEPS
    return {kind: (count, took) for kind, (count, took) in profile.items()}


def kind_of(name: str) -> str | None:
    """Of an event that is an operation of XLA's; `None` for all others."""
    if not re.fullmatch(r"[a-z][\w-]*(\.\d+)*", name) or name.startswith(("while", "call", "stage", "end")):
        return None
    return next((kind for pattern, kind in KINDS if re.search(pattern, name)), None)
