"""Tables, once for a page and once for a terminal, from the same rows."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from tandem_edu.measure import Comparison, spread

Rows = Sequence[Mapping[str, Any]]


def decoding_rows(comparison: Comparison, block_lens: Sequence[int] | None = None) -> list[dict[str, str]]:
    """What each drafter did at each block length, ready to be read."""
    rows = [_alone(comparison)] if block_lens is None else []
    for run in comparison.runs:
        if block_lens is None or run.block_len in block_lens:
            row = {
                "drafter": run.drafter,
                "γ": str(run.block_len),
                "tokens per primary call": f"{run.summary['block_efficiency']:.2f}",
                "drafts accepted per call": f"{run.summary['mean_accepted']:.2f}",
                "first draft accepted": _share(next(iter(run.summary["acceptance_by_position"]), None)),
                "times as fast (quartiles)": speedup_cell(run.speedup),
            }
            rows.append(row)
    return rows


def speedup_cell(speedup: np.ndarray) -> str:
    """The rounds' median and quartiles; one round has none."""
    median, low, high = spread(speedup)
    return f"{median:.2f} ({low:.2f} to {high:.2f})" if len(speedup) > 1 else f"{median:.2f} (one round)"


def html_table(rows: Rows, caption: str, folded: bool = False) -> str:
    """An HTML table, everything in it escaped; the first column heads each row. Nothing for no rows.

    Its own style is for where tables have none, as in a widget; a page's style sheet has its way. `folded`
    shows the caption only, to be opened: for a long table beside the picture that says the same.
    """
    if not rows:
        return ""
    if folded:
        return f"<details><summary>{escape(caption)}</summary>{html_table(rows, caption)}</details>"
    names = list(rows[0])
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{escape(str(row[names[0]]))}</th>'
        + "".join(f"<td>{escape(str(row[name]))}</td>" for name in names[1:])
        + "</tr>"
        for row in rows
    )
    said = f'<caption style="text-align:left">{escape(caption)}</caption>'
    return f'<table style="border-spacing:14px 3px;text-align:left">{said}<tr>{head}</tr>{body}</table>'


def text_table(rows: Rows) -> str:
    """The same in plain characters.

    >>> print(text_table([{"drafter": "tandem", "γ": 4}]))
    drafter  γ
    -------  -
    tandem   4
    """
    names = list(rows[0])
    lines = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    lines.insert(1, ["-" * width for width in widths])
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def _alone(comparison: Comparison) -> dict[str, str]:
    return {
        "drafter": "none: primary alone",
        "γ": "–",
        "tokens per primary call": "1.00",
        "drafts accepted per call": "–",
        "first draft accepted": "–",
        "times as fast (quartiles)": "1.00",
    }


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"
