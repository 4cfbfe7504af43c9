"""Tables for a page and for a terminal, from the same rows."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from tandem_edu.measure import Comparison, spread

Rows = Sequence[Mapping[str, Any]]


def decoding_rows(comparison: Comparison, block_len: int) -> list[dict[str, str]]:
    """One row per drafter, formatted for a table."""
    rows = []
    for run in (comparison.run(drafter, block_len) for drafter in comparison.drafters):
        counts = run.summary
        first = next(iter(counts["acceptance_by_position"]), None)
        row = {
            "drafter": run.drafter,
            "γ": str(block_len),
            "tokens per primary call": f"{counts['block_efficiency']:.2f}",
            "drafts accepted per call": f"{counts['mean_accepted']:.2f}",
            "first draft accepted": "–" if first is None else f"{first:.0%}",
            "speedup (quartiles)": speedup_cell(run.speedup),
        }
        rows.append(row)
    return rows


def speedup_cell(speedup: np.ndarray) -> str:
    """Median and quartiles over the rounds; a single round has no quartiles."""
    median, low, high = spread(speedup)
    return f"{median:.2f} ({low:.2f} to {high:.2f})" if len(speedup) > 1 else f"{median:.2f} (one round)"


def html_table(rows: Rows, caption: str, folded: bool = False) -> str:
    """An HTML table with everything escaped; the first column holds the row headers. Empty for no rows.

    `folded` shows only the caption until it is opened, for a long table beside a picture of the same.
    """
    if not rows:
        return ""
    if folded:
        return f"<details><summary>{escape(caption)}</summary>{html_table(rows, caption)}</details>"
    body = "".join(f'<th scope="col">{escape(name)}</th>' for name in rows[0])
    for row in rows:
        first, *others = (escape(str(row[name])) for name in rows[0])
        body += f'</tr><tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others)
    title = f'<caption style="text-align:left">{escape(caption)}</caption>'
    return f'<table style="border-spacing:14px 3px;text-align:left">{title}<tr>{body}</tr></table>'


def text_table(rows: Rows) -> str:
    """The table in plain characters.

    >>> print(text_table([{"drafter": "tandem", "γ": 4}]))
    drafter  γ
    -------  -
    tandem   4
    """
    lines = [list(rows[0]), *([str(row[name]) for name in rows[0]] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
