"""The one exception that a user can cause: what was expected, what was passed, how to fix it.

Any other exception is a bug of this package.
"""

import math
import operator


class BadInput(ValueError):
    """Input that cannot be used.

    >>> raise BadInput("block_len of at least 1", "0", "pass block_len=4")
    Traceback (most recent call last):
    ...
    tandem_edu.errors.BadInput: expected block_len of at least 1, got 0: pass block_len=4
    """

    def __init__(self, expected: str, got: object, fix: str):
        super().__init__(f"expected {expected}, got {got}: {fix}")


def require(condition: bool, expected: str, got: object, fix: str) -> None:
    """Raise `BadInput` unless `condition` holds."""
    if not condition:
        raise BadInput(expected, got, fix)


def at_least(least: int, number: object, name: str, fix: str) -> int:
    """`number` as an `int`. Raises `BadInput` unless it is a whole number, no bool, of at least `least`."""
    try:
        whole = operator.index(number)  # pyright: ignore
    except TypeError:
        whole = least - 1
    if isinstance(number, bool) or whole < least:
        raise BadInput(f"{name} of at least {least}", repr(number), fix)
    return whole


def positive(number: object, name: str, fix: str) -> float:
    """`number` as a `float`. Raises `BadInput` unless it is finite and above 0."""
    if isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < math.inf:
        return float(number)
    raise BadInput(f"{name} above 0", repr(number), fix)
