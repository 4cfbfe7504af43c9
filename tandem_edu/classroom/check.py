"""Check an answer: compare what a student's function returns, or raises, with a model solution."""

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tandem_edu.errors import require


class Case(NamedTuple):
    """One call whose result must be correct; `what` says in words what it tests."""

    what: str
    arguments: tuple
    hint: str
    points: int = 1


@dataclass(frozen=True)
class Report:
    """The results of an exercise. In an nbgrader test cell, `report.points` in the last line is the mark."""

    exercise: str
    results: tuple[tuple[Case, str], ...]
    """Each case with what was expected and what was returned; empty if the case is passed."""

    @property
    def points(self) -> int:
        """Points earned."""
        return sum(case.points for case, message in self.results if not message)

    @property
    def out_of(self) -> int:
        """Points available."""
        return sum(case.points for case, _ in self.results)

    def __repr__(self) -> str:
        lines = [f"{self.exercise}: {self.points} of {self.out_of} points"]
        for case, message in self.results:
            lines.append(f"  {'✗ failed' if message else '✓ passed'}  {case.what} (points: {case.points})")
            if message:
                lines += [f"            {message}", f"            hint: {case.hint}"]
        return "\n".join(lines)


@dataclass(frozen=True)
class Exercise:
    """A function to write, and its cases. The model solution's name and docstring are the task."""

    solution: Callable[..., Any]
    cases: tuple[Case, ...]
    notebook: str = ""
    """The one that explains the task."""

    @property
    def name(self) -> str:
        """The function's name."""
        return self.solution.__name__

    @property
    def task(self) -> str:
        """What the function takes and must return, in words."""
        return " ".join((self.solution.__doc__ or "").split())

    def check(self, answer: Callable[..., Any]) -> Report:
        """Try `answer` on every case. Raises `BadInput` if it is not a function."""
        fix = f"write `def {self.name}(...)` and pass {self.name} itself, without brackets"
        require(callable(answer), f"a function for {self.name}", type(answer).__name__, fix)
        return Report(self.name, tuple((case, self._try(answer, case)) for case in self.cases))

    def _try(self, answer: Callable[..., Any], case: Case) -> str:
        expected = self.solution(*deepcopy(case.arguments))
        message = f"expected {_text(expected)}"
        try:
            # nbgrader gives no points for a cell that writes to stderr, even a NumPy warning.
            with redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore"):
                got = answer(*deepcopy(case.arguments))
                if _same(got, expected):
                    return ""
                missing = ": is the return missing?" if got is None else ""
                return f"{message}, got {_text(got)}{missing}"
        except (Exception, SystemExit) as error:  # also of an object that is neither number nor text
            return f"{message}, but it raised {error!r}"


def _same(got: Any, expected: Any) -> bool:
    """Equal, numbers up to rounding in float32; arrays also in shape."""
    if isinstance(expected, str | None) or isinstance(got, str | None):
        return isinstance(got, type(expected)) and got == expected
    a, b = np.asarray(got), np.asarray(expected, float)
    if a.shape != b.shape or np.iscomplexobj(a):
        return False
    return np.allclose(a.astype(float), b, rtol=1e-4, atol=1e-6)


def _text(value: Any) -> str:
    """A value in at most one line."""
    if isinstance(value, str | None):
        return repr(value)
    text = np.array2string(np.asarray(value), precision=4, separator=", ", threshold=12)
    text = " ".join(text.split())
    return text if len(text) <= 120 else f"{text[:119]}…"
