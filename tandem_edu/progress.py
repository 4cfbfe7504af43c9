"""Progress bars that look right in a terminal and in a notebook alike."""

import sys
from collections.abc import Iterable
from typing import Any

# Not tqdm.auto: in a notebook without ipywidgets that one warns; this one works everywhere.
from tqdm import tqdm


def progress_bar(of: Iterable[Any] | None = None, *, show: bool = True, **settings: Any) -> tqdm:
    """`tqdm(of, **settings)`, silent unless `show`.

    On standard error, as is usual; but a notebook prints that on a red ground, as if something were
    wrong, so there it goes to standard output.
    """
    in_notebook = type(sys.stderr).__module__.startswith("ipykernel")
    return tqdm(of, file=sys.stdout if in_notebook else sys.stderr, disable=not show, **settings)
