"""Check an answer: call the student's function and compare the result with a model solution.

An exercise is a list of cases, each worth some points and with a hint. Checking continues whatever the
student's function does: an exception fails that case, and its message is shown.
"""

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from copy import deepcopy
from dataclasses import dataclass
from html import escape
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
    """The results of an exercise; it prints itself, in a notebook as a table.

    In an nbgrader test cell, `report.points` as the last expression is the mark.
    """

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

    def __str__(self) -> str:
        lines = [f"{self.exercise}: {self.points} of {self.out_of} points"]
        for case, message in self.results:
            unit = "point" if case.points == 1 else "points"
            lines.append(f"  {'failed' if message else 'passed'}  {case.what} ({case.points} {unit})")
            if message:
                lines += [f"          {message}", f"          hint: {case.hint}"]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = ""
        for case, message in self.results:
            more = f"<br>{escape(message)}<br><em>Hint: {escape(case.hint)}</em>" if message else ""
            rows += f"<tr><td>{'✗ failed' if message else '✓ passed'}</td>"
            rows += f'<td style="text-align:left">{escape(case.what)}{more}</td>'
            rows += f"<td>{0 if message else case.points} of {case.points}</td></tr>"
        head = f"{escape(self.exercise)}: {self.points} of {self.out_of} points"
        return f'<table><caption style="text-align:left"><b>{head}</b></caption>{rows}</table>'


@dataclass(frozen=True)
class Exercise:
    """A function to write, and its cases. The model solution's name and docstring are the task."""

    solution: Callable[..., Any]
    cases: tuple[Case, ...]
    notebook: str = ""
    """The notebook that explains the task."""

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
            with redirect_stderr(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                got = answer(*deepcopy(case.arguments))
                if _same(got, expected):
                    return ""
        except (Exception, SystemExit) as error:
            return f"{message}, but it raised {error!r}"
        if got is None:
            return f"{message}, got None: is the return missing?"
        shapes = [getattr(value, "shape", ()) for value in (expected, got)]
        more = f" (shapes {shapes[0]} and {shapes[1]})" if shapes[0] != shapes[1] else ""
        return f"{message}, got {_text(got)}{more}"


def _same(got: Any, expected: Any) -> bool:
    """Equal, numbers up to rounding in float32; arrays also in shape."""
    if isinstance(expected, str | None) or isinstance(got, str):
        return isinstance(got, str | None) and got == expected
    try:
        if np.iscomplexobj(got):
            return False
        a, b = np.asarray(got, float), np.asarray(expected, float)
    except Exception:  # an object of the student's may raise anything
        return False
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-4, atol=1e-6))


def _text(value: Any) -> str:
    """A value in at most one line."""
    if isinstance(value, str | None):
        return repr(value)
    try:
        text = np.array2string(np.asarray(value), precision=4, separator=", ", threshold=12)
    except Exception:  # an object of the student's may raise anything
        text = type(value).__name__
    text = " ".join(text.split())
    return text if len(text) <= 120 else f"{text[:119]}…"
