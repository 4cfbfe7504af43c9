"""Contenders in processes of their own, each asked for one repetition in turn.

Two numerical libraries in one process share its cores even when they take turns: the threads of an OpenMP
pool spin for a while after their work, and allocators and settings are common to both. So each process
computes with one library, stays warm, and sleeps on a pipe while another one works.

A process is started for a *maker*, `module:function` of this folder: called with the settings, it returns
its contenders by name. What a contender returns is kept, to check that all did the same work.
"""

import json
import os
import subprocess
import sys
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from tandem_edu.measure import Work, timed

PAUSE = 0.05
"""Seconds between two turns, in which the threads of the last one fall asleep."""


class Worker:
    """A process with some contenders, at the other end of a pipe."""

    def __init__(self, maker: str, settings: dict[str, Any], **environment: str):
        command = [sys.executable, "-m", "studies.race", maker, json.dumps(settings)]
        pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=os.environ | environment, **pipe)
        self.units: dict[str, int] = self._answer()
        self.results: dict[str, list[Any]] = {name: [] for name in self.units}

    def contenders(self) -> dict[str, Work]:
        """Its contenders for `timed`."""
        return {name: Work(partial(self._run, name), units) for name, units in self.units.items()}

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()

    def _run(self, name: str) -> None:
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        self.results[name].append(self._answer())

    def _answer(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a contender ended early with status {self.process.wait()}; see above")
        return json.loads(line)


def race(
    workers: dict[str, Worker], repetitions: int
) -> tuple[dict[tuple[str, str], np.ndarray], dict[tuple[str, str], float]]:
    """`timed` for all contenders of all workers, by (worker, contender). The processes end."""
    contenders = {
        (process, name): work
        for process, worker in workers.items()
        for name, work in worker.contenders().items()
    }
    result = timed(contenders, repetitions, progress=True, pause=PAUSE)
    for worker in workers.values():
        worker.close()
    return result


def serve(maker: str, settings: dict[str, Any]) -> None:
    """Be a worker: say what there is to run and its units, then run what is asked for."""
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not get into the pipe
    module, function = maker.split(":")
    made = getattr(import_module(f"studies.{module}"), function)(**settings)
    works = {name: one if isinstance(one, Work) else Work(one) for name, one in made.items()}
    answer = lambda value: print(
        json.dumps(value, default=lambda array: array.tolist()), file=pipe, flush=True
    )
    answer({name: work.units for name, work in works.items()})
    for line in sys.stdin:
        answer(works[line.rstrip("\n")].run())


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]))
