"""The one exception a person can cause.

Every message has three parts: what was expected, what came, and how to mend it. The command line
prints it as one line and exits with status 2; anything else that is raised is a defect of ours.
"""

import operator


class BadInput(ValueError):
    """Input that cannot be used.

    >>> raise BadInput("block_len of at least 1", "0", "pass block_len=4")
    Traceback (most recent call last):
    ...
    tandem_edu.errors.BadInput: expected block_len of at least 1, got 0: pass block_len=4
    """

    def __init__(self, expected: str, got: object, mend: str):
        super().__init__(f"expected {expected}, got {got}: {mend}")


def require(condition: bool, expected: str, got: object, mend: str) -> None:
    """Raise `BadInput` unless `condition` holds."""
    if not condition:
        raise BadInput(expected, got, mend)


def at_least(least: int, number: object, name: str, mend: str) -> None:
    """Raise `BadInput` unless `number` is a whole number of at least `least`.

    >>> at_least(1, 2.5, "block_len", "try 4")
    Traceback (most recent call last):
    ...
    tandem_edu.errors.BadInput: expected block_len of at least 1, got 2.5: try 4
    """
    whole = hasattr(number, "__index__") and operator.index(number) >= least  # pyright: ignore
    require(whole, f"{name} of at least {least}", number, mend)
