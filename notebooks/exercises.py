"""Set the course's exercises as a notebook: for students, or with answers for whoever grades.

python notebooks/exercises.py                    exercises.ipynb, as students get it, beside this file
python notebooks/exercises.py source/tandem      source/tandem/exercises.ipynb, with answers, for nbgrader

The second is what `nbgrader generate_assignment tandem` takes: it empties the answers again. Both hold the
same graded cells, so a sheet handed in from the first can be marked by `nbgrader autograde tandem`.
"""

import ast
import inspect
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tandem_edu.classroom import EXERCISES, Exercise

from links import BADGE, SETUP, address

HERE = Path(__file__).parent
NAME = "exercises"
TITLE = """\
# Exercises

{badge}

Eleven short functions, each from what a notebook of the course has explained. Write one, run its cell and the
one below it: it says which cases come out right, and gives a hint for those that do not. Try as often as you
like. Numbers are plain Python or numpy; an answer may call your earlier ones.
"""
IMPORTS = """\
import numpy as np
from IPython.display import HTML, display

from tandem_edu.classroom import check, scores
from tandem_edu.show import html_table"""
SUM = """\
rows = scores()
total = {
    "exercise": "all",
    "points": sum(row["points"] for row in rows),
    "out of": sum(row["out of"] for row in rows),
}
display(HTML(html_table([*rows, total], "Your best so far")))"""


def sheet(answers: bool = False) -> nbformat.NotebookNode:
    """The notebook, each answer a gap to fill or, for nbgrader's source, the model solution."""
    badge = _text(BADGE.format(owner=address().removeprefix("https://github.com/"), name=NAME))
    _, said, setup = SETUP.split("# %%")
    setup = setup.format(address=address()).replace("# %pip", "%pip").strip()
    cells = [
        new_markdown_cell(TITLE.format(badge=badge)),
        new_markdown_cell(_text(said.removeprefix(" [markdown]\n"))),
        new_code_cell(setup),
        new_code_cell(IMPORTS),
    ]
    for number, exercise in enumerate(EXERCISES.values(), 1):
        cells += _set(number, exercise, answers)
    cells += [new_markdown_cell("## Your points"), new_code_cell(SUM)]
    for index, cell in enumerate(cells):
        cell["id"] = f"cell-{index:02}"
        cell["source"] = cell.source.strip()
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _set(number: int, exercise: Exercise, answers: bool) -> list[nbformat.NotebookNode]:
    """Its question, its gap, and the cell that marks it."""
    name, notebook = exercise.name, exercise.notebook
    points = sum(case.points for case in exercise.cases)
    asked = (
        f"## {number} {name.replace('_', ' ')}\n\n{exercise.task}\n\n{_example(exercise)}\n\n"
        f"*{points} points. Explained in [{notebook}]({notebook}.ipynb).*"
    )
    marked = f'report = check("{name}", {name})\ndisplay(report)\nreport.points  # the mark'
    return [
        new_markdown_cell(asked),
        new_code_cell(_answer(exercise, answers), metadata=_graded(name, solution=True)),
        new_code_cell(marked, metadata=_graded(f"check_{name}", solution=False, points=points)),
    ]


def _example(exercise: Exercise) -> str:
    """Its first case, called."""
    arguments = exercise.cases[0].arguments
    result = exercise.solution(*arguments)
    if not isinstance(result, str):
        result = np.round(result, 4).tolist()
    typed = [_typed(argument) for argument in arguments]
    call = f"{exercise.name}({', '.join(typed)})"
    if len(call) > 100:
        call = "\n".join([f"{exercise.name}(", *(f"...     {one}," for one in typed), "... )"])
    return f"```python\n>>> {call}\n{result!r}\n```"


def _typed(argument: Any) -> str:
    """As one would type it after `import numpy as np`."""
    return f"np.array({argument.tolist()})" if isinstance(argument, np.ndarray) else repr(argument)


def _answer(exercise: Exercise, answers: bool) -> str:
    source = inspect.getsource(exercise.solution)
    _doc, first, *_ = ast.parse(source).body[0].body
    solution = source.splitlines()[first.lineno - 1 :]
    gap = ["    # YOUR CODE HERE", "    raise NotImplementedError()"]  # as nbgrader leaves it
    if answers:
        gap = ["    ### BEGIN SOLUTION", *solution, "    ### END SOLUTION"]
    return "\n".join([f"def {exercise.name}{inspect.signature(exercise.solution)}:", *gap])


def _graded(grade_id: str, solution: bool, points: int | None = None) -> dict:
    """nbgrader's metadata, of its third schema: an answer, or a test worth so many points."""
    graded = {"points": points} if points is not None else {}
    return {
        "nbgrader": {
            "schema_version": 3,
            "grade_id": grade_id,
            "grade": not solution,
            "locked": not solution,
            "solution": solution,
            "task": False,
            **graded,
        }
    }


def _text(commented: str) -> str:
    """Markdown out of a py:percent cell."""
    return "\n".join(line.removeprefix("# ") for line in commented.splitlines())


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1:] else HERE
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(sheet(answers=folder != HERE), folder / f"{NAME}.ipynb")
    print(folder / f"{NAME}.ipynb")
