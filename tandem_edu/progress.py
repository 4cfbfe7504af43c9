"""Progress bars for terminals and notebooks."""

import sys
from collections.abc import Iterable
from typing import Any

# Not tqdm.auto, which warns in a notebook without ipywidgets.
from tqdm import tqdm


def progress_bar(of: Iterable[Any] | None = None, *, show: bool = True, **settings: Any) -> tqdm:
    """`tqdm(of, **settings)`, silent unless `show`; in a notebook on standard output, as errors are red."""
    in_notebook = type(sys.stderr).__module__.startswith("ipykernel")
    return tqdm(of, file=sys.stdout if in_notebook else sys.stderr, disable=not show, **settings)
