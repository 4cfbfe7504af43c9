"""A race between contenders, side by side, each in a process of its own.

Two numerical libraries in one process share its cores even when they take turns: the threads of an
OpenMP pool go on spinning for a while after their work, and allocators and thread settings are common to
both. So each contender lives in a process that imports only what it needs, stays alive and warm, and
sleeps on a pipe while another one runs. The parent asks them in turn, A B C A B C, for one repetition
each: whatever else the machine does meets all of them, and a ratio is taken within each round.

A contender is a function `settings -> (run, facts)`: it prepares, then returns a function that does one
repetition to the very end, and a dict of facts for the record (versions, ...). The first call of `run`
compiles; it is reported apart. What `run` returns (JSON) is kept, to check that all did the same work.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

OUT = Path(__file__).parent / "out"
PAUSE = 0.05  # seconds between two turns, for the last one's threads to fall asleep

Run = Callable[[], object]
Contender = Callable[[dict], tuple[Run, dict]]


class Worker:
    """A contender in its own process, at the other end of a pipe."""

    def __init__(self, script: str, name: str, settings: dict):
        command = [sys.executable, script, "--worker", name, json.dumps(settings)]
        env = os.environ | {"OMP_NUM_THREADS": str(settings["threads"]), "TOKENIZERS_PARALLELISM": "false"}
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        self.facts = self._answer()

    def turn(self) -> dict:
        """Seconds and result of one repetition."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended early with status {self.process.wait()}; see above")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def serve(contenders: dict[str, Contender]) -> None:
    """Be a worker, if this process was started as one; then never return."""
    if sys.argv[1:2] != ["--worker"]:
        return
    name, settings = sys.argv[2], json.loads(sys.argv[3])
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not get into the pipe
    bind(settings["threads"])
    run, facts = contenders[name](settings)
    print(json.dumps(facts), file=pipe, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "result": result}), file=pipe, flush=True)
    sys.exit()


def bind(threads: int) -> None:
    """Bind this process to so many cores: the one limit on threads that every library obeys."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def once(script: str, name: str, settings: dict) -> dict:
    """A contender's one turn in a process of its own, which ends after it: facts, seconds, result."""
    worker = Worker(script, name, settings)
    turn = worker.turn()
    worker.close()
    return {"facts": worker.facts, **turn}


def race(script: str, names: list[str], settings: dict, repetitions: int, warmup: int = 2) -> dict[str, dict]:
    """Run all contenders in turn. For each: facts, first call, seconds and result of every repetition."""
    workers = [Worker(script, name, settings) for name in names]
    first = {worker.name: worker.turn() for worker in workers}
    rounds = []
    for number in range(warmup + repetitions):
        rounds.append({})
        # Every second round backwards, so that nobody always comes after the same neighbour.
        for worker in workers[:: -1 if number % 2 else 1]:
            time.sleep(PAUSE)
            rounds[-1][worker.name] = worker.turn()
    for worker in workers:
        worker.close()
    return {
        worker.name: {
            "facts": worker.facts,
            "first_call_seconds": first[worker.name]["seconds"],
            "seconds": [turns[worker.name]["seconds"] for turns in rounds[warmup:]],
            "results": [first[worker.name]["result"], *(turns[worker.name]["result"] for turns in rounds)],
        }
        for worker in workers
    }


def quartiles(values) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = np.quantile(np.asarray(values, float), (0.25, 0.5, 0.75))
    return {"q1": float(low), "median": float(median), "q3": float(high)}


def summary(raced: dict[str, dict], tokens: int, ours: str) -> dict[str, dict]:
    """Tokens per second of each, and how many times as fast `ours` is, round by round."""
    mine = np.array(raced[ours]["seconds"])
    return {
        name: {
            "tokens_per_second": quartiles(tokens / np.array(one["seconds"])),
            "ours_is_faster_by": quartiles(np.array(one["seconds"]) / mine),
            "first_call_seconds": one["first_call_seconds"],
        }
        for name, one in raced.items()
    }


def table(title: str, rows: dict[str, dict]) -> str:
    """A summary as text: median and quartiles."""
    head = f"{'':28} {'tokens/s':>9} {'quartiles':>17} {'ours is x':>10} {'quartiles':>13} {'first call':>11}"
    lines = [title, head]
    for name, row in rows.items():
        speed, ratio = row["tokens_per_second"], row["ours_is_faster_by"]
        lines.append(
            f"{name:28} {speed['median']:9.0f} {speed['q1']:8.0f}-{speed['q3']:<8.0f}"
            f" {ratio['median']:10.2f} {ratio['q1']:6.2f}-{ratio['q3']:<6.2f}"
            f" {row['first_call_seconds']:9.1f} s"
        )
    return "\n".join(lines)


def machine() -> dict:
    """What the numbers depend on."""
    packages = ("tandem-edu", "jax", "jaxlib", "equinox", "optax", "torch", "transformers", "numpy")
    return {
        "cpu": _cpu_model(),
        "cores": len(_cores()),
        "load_before": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: found for name in packages if (found := _version(name))},
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def say_machine() -> dict:
    """Print what the numbers depend on, and whether they can be trusted at all; return it."""
    facts = machine()
    print(json.dumps(facts))
    if facts["load_before"] and facts["load_before"][0] > 0.3:
        # Threads that wait for one another, as OpenMP's do, suffer far more than those that do not.
        print("WARNING: other work is running, so neither speeds nor ratios mean anything", file=sys.stderr)
    return facts


def write(name: str, record: dict) -> Path:
    """Put a record into `benchmarks/out/`."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return path


def cores() -> int:
    """Cores that this process may use."""
    return len(_cores())


def _cores() -> set[int]:
    known = hasattr(os, "sched_getaffinity")
    return os.sched_getaffinity(0) if known else set(range(os.cpu_count() or 1))


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
