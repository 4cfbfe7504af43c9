"""What a bad input gets: one line that says what was expected."""

import pytest

from tandem_edu.errors import BadInput


def refuses(says: str, call, /, *arguments, **more) -> str:
    """`call` raises `BadInput` with one line in which the pattern `says` is found; gives that line."""
    with pytest.raises(BadInput, match=says) as caught:
        call(*arguments, **more)
    line = str(caught.value)
    del caught  # its traceback knows this frame: a cycle, which would keep sockets open
    assert "\n" not in line
    return line
