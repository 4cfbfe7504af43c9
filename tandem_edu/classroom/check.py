"""How an answer is judged: a function of the student's is called and compared with a model solution.

An exercise is a list of cases, each worth some points and with a hint for whoever fails it. Whatever the
student's function does, judging it goes on: an exception is a failed case and its message is shown.
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
    """One call that must come out right."""

    what: str
    """What it shows, in words."""
    arguments: tuple
    hint: str
    points: int = 1


class Finding(NamedTuple):
    """What came of one case."""

    case: Case
    fine: bool
    said: str
    """Empty where it is fine, else what was expected and what came."""


@dataclass(frozen=True)
class Report:
    """An exercise judged; it prints itself, in a notebook as a table.

    `points` of `out_of`: as the last expression of an nbgrader test cell, `report.points` is the mark.
    """

    exercise: str
    findings: tuple[Finding, ...]

    @property
    def points(self) -> int:
        """Earned."""
        return sum(finding.case.points for finding in self.findings if finding.fine)

    @property
    def out_of(self) -> int:
        """To be earned."""
        return sum(finding.case.points for finding in self.findings)

    def __str__(self) -> str:
        lines = [f"{self.exercise}: {self.points} of {self.out_of} points"]
        for case, fine, said in self.findings:
            lines.append(f"  {'right' if fine else 'wrong'}  {case.what} ({_points(case.points)})")
            if not fine:
                lines += [f"         {said}", f"         hint: {case.hint}"]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td>{"✓ right" if fine else "✗ wrong"}</td><td style="text-align:left">{escape(case.what)}'
            + ("" if fine else f"<br>{escape(said)}<br><em>Hint: {escape(case.hint)}</em>")
            + f"</td><td>{case.points if fine else 0} of {case.points}</td></tr>"
            for case, fine, said in self.findings
        )
        head = f"{escape(self.exercise)}: {self.points} of {self.out_of} points"
        return f'<table><caption style="text-align:left"><b>{head}</b></caption>{rows}</table>'


@dataclass(frozen=True)
class Exercise:
    """A function to write: the model solution, whose name and docstring say what it is asked to do, and
    the cases it is tried on.
    """

    solution: Callable[..., Any]
    cases: tuple[Case, ...]
    notebook: str = ""
    """The notebook that explains what it asks."""

    @property
    def name(self) -> str:
        """What the function is called."""
        return self.solution.__name__

    @property
    def asks(self) -> str:
        """What it is given and what it must give, in words."""
        return " ".join((self.solution.__doc__ or "").split())

    def judge(self, answer: Callable[..., Any]) -> Report:
        """Try `answer` on every case. Raises `BadInput` where it is no function at all."""
        fix = f"write `def {self.name}(...)` and pass {self.name} itself, without brackets"
        require(callable(answer), f"a function for {self.name}", type(answer).__name__, fix)
        return Report(self.name, tuple(self._tried(answer, case) for case in self.cases))

    def _tried(self, answer: Callable[..., Any], case: Case) -> Finding:
        wanted = self.solution(*deepcopy(case.arguments))
        try:
            # nbgrader takes all points for a word on stderr, be it numpy's warning of an overflow.
            with redirect_stderr(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                got = answer(*deepcopy(case.arguments))
                fine = _same(got, wanted)
        except (Exception, SystemExit) as error:
            return Finding(case, False, f"expected {_shown(wanted)}, but it raised {error!r}")
        if got is None and wanted is not None:
            return Finding(
                case, False, f"expected {_shown(wanted)}, but nothing came: is the return missing?"
            )
        return Finding(case, fine, "" if fine else _difference(got, wanted))


def _same(got: Any, wanted: Any) -> bool:
    """Equal, numbers up to rounding in float32; arrays in shape, too, and of a like kind."""
    if wanted is None or isinstance(wanted, str):
        return isinstance(got, str | None) and got == wanted
    if isinstance(got, str):
        return False
    try:
        if np.iscomplexobj(got):
            return False
        mine, theirs = np.asarray(got, float), np.asarray(wanted, float)
    except Exception:  # an object of the student's may refuse to be a number in any way
        return False
    return mine.shape == theirs.shape and bool(np.allclose(mine, theirs, rtol=1e-4, atol=1e-6))


def _difference(got: Any, wanted: Any) -> str:
    said = f"expected {_shown(wanted)}, got {_shown(got)}"
    shapes = [getattr(value, "shape", ()) for value in (wanted, got)]
    return f"{said} (shapes {shapes[0]} and {shapes[1]})" if shapes[0] != shapes[1] else said


def _shown(value: Any) -> str:
    """A value in at most a line."""
    if isinstance(value, str) or value is None:
        return repr(value)
    try:
        text = np.array2string(np.asarray(value), precision=4, separator=", ", threshold=12)
    except Exception:  # an object of the student's may refuse to be shown
        text = type(value).__name__
    text = " ".join(text.split())
    return text if len(text) <= 120 else f"{text[:119]}…"


def _points(count: int) -> str:
    return "1 point" if count == 1 else f"{count} points"
