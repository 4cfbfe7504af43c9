"""Runs killed with SIGKILL, which no program can answer, end bit for bit as if they had not been."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import resumable
from small_runs import summary

from tandem_edu.train.checkpoint import NAME

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")


@contextmanager
def child(kind: str, folder, steps: int):
    """The run in a process of its own; killed at the end, whatever happens."""
    command = [sys.executable, str(Path(resumable.__file__)), kind, str(folder), str(steps)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_step(process, step: int) -> bool:
    """Read the child's evaluations up to that of `step`; False if it ended before."""
    return any(int(line) >= step for line in process.stdout)


# The tandem's phase changes at step 60.
@pytest.mark.parametrize(
    ("kind", "step"),
    [("plain", 8), *(pytest.param("tandem", n, marks=pytest.mark.slow) for n in (2, 60, 112))],
)
def test_a_killed_run_resumes_bit_for_bit(kind, step, tmp_path):
    with child(kind, tmp_path, 120) as process:
        assert wait_for_step(process, step)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    heard = []
    resumed = resumable.run(kind, 120, str(tmp_path), lambda entry: heard.append(entry["step"]))
    assert step < heard[0] < 120
    assert summary(resumed) == summary(resumable.run(kind, 120))


@pytest.mark.slow
def test_kills_at_any_moment(tmp_path):
    """Again and again, at random times, so that many fall into the writing of a checkpoint."""
    steps, kills, interrupted, chance = 150, 0, 0, random.Random(0)
    expected = summary(resumable.run("tandem", steps))
    for _ in range(6):
        with child("tandem", tmp_path, steps) as process:
            if not wait_for_step(process, 0) and process.wait() == 0:
                break
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
            process.wait()
        kills += 1
        interrupted += any(name != NAME for name in os.listdir(tmp_path))
    print(f"{kills} kills, {interrupted} of them while a checkpoint was being written")
    assert kills >= 5
    assert summary(resumable.run("tandem", steps, str(tmp_path))) == expected
    assert os.listdir(tmp_path) == [NAME]
