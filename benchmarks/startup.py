"""From a new process to the first tokens: `import tandem_edu; te.load_pair(); te.speculate(...)`.

    python benchmarks/startup.py                # ten new processes of each kind
    python benchmarks/startup.py --processes 2

Three kinds take turns:

- cold: nothing compiled is kept, but the library of `tandem_edu.model.narrow` is in the user's cache folder;
- very first: that has to be compiled as well, as on the day of installation;
- warm: JAX's persistent compilation cache has everything (JAX_COMPILATION_CACHE_DIR, thresholds 0).

`te.speculate` hands over its 64 tokens together, so what is called the first token here is all of them. The
cores are those of `--threads`; Python's bytecode and the files are in the operating system's cache.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

CHILD = Path(__file__).with_name("first_token.py")
STAGES = (
    "import",
    "load",
    "compile and first text",
    "to the first text",
    "whole process",
    "the same text again",
)


def environments(folder: str) -> dict[str, dict[str, str]]:
    """What each kind adds to the environment. The user's own settings of JAX's cache must not meddle."""
    warm = {
        "JAX_COMPILATION_CACHE_DIR": f"{folder}/jax",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return {"cold": {}, "very first": {"XDG_CACHE_HOME": f"{folder}/new"}, "warm": warm}


def once(extra: dict[str, str], threads: int) -> dict:
    """One new process: seconds of its stages, and of the whole as its parent sees it."""
    kept = {name: value for name, value in os.environ.items() if "CACHE" not in name or "JAX" not in name}
    if "XDG_CACHE_HOME" in extra:
        extra = extra | {"XDG_CACHE_HOME": tempfile.mkdtemp(dir=Path(extra["XDG_CACHE_HOME"]).parent)}
    start = time.perf_counter()
    run = subprocess.run(
        [sys.executable, str(CHILD), str(threads)],
        env=kept | extra,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    whole = time.perf_counter() - start
    said = json.loads(run.stdout.splitlines()[-1])
    if not said["same"]:
        raise SystemExit("the second text is not the first: that must not be")
    # The second text is no part of what a user waits for.
    again = said["seconds"]["the same text again"]
    return said["seconds"] | {"to the first text": said["to_first_text"], "whole process": whole - again}


def table(seconds: dict[str, list[dict]]) -> dict[str, dict]:
    """Print and return the quartiles of each stage."""
    rows = {
        name: {stage: common.quartiles([turn[stage] for turn in turns]) for stage in STAGES}
        for name, turns in seconds.items()
    }
    for name, row in rows.items():
        print(f"\n{name}, {len(seconds[name])} processes: seconds, quartiles")
        for stage, q in row.items():
            print(f"  {stage:24} {q['median']:7.3f}  {q['q1']:7.3f} to {q['q3']:.3f}")
    return rows


def main() -> None:
    """Read the options, start processes, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--processes", type=int, default=10, help="of each kind, after one that does not count"
    )
    parser.add_argument("--threads", type=int, default=common.cores())
    options = parser.parse_args()
    machine = common.say_machine()
    with tempfile.TemporaryDirectory() as folder:
        kinds = environments(folder)
        # Fills the caches: JAX's, the narrow C's, the operating system's.
        filling = {name: once(extra, options.threads) for name, extra in kinds.items()}
        seconds = {name: [] for name in kinds}
        for _ in range(options.processes):
            for name, extra in kinds.items():
                time.sleep(common.PAUSE)
                seconds[name].append(once(extra, options.threads))
        kept = sorted(path.stat().st_size for path in Path(folder, "jax").glob("*"))
    rows = table(seconds)
    print(f"\nJAX's persistent cache: {len(kept)} files, {sum(kept) / 1e6:.1f} MB")
    record = {"machine": machine, "settings": vars(options), "filling": filling, "seconds": seconds}
    print("written:", common.write("startup", record | {"summary": rows, "cache_bytes": kept}))


if __name__ == "__main__":
    main()
