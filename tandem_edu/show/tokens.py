"""Text whose every token shows where it came from: the drafter, the primary, or the bin.

Everything a model or a person wrote is escaped here before it becomes part of a page.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from itertools import groupby

import numpy as np
from tokenizers import Tokenizer

from tandem_edu.data import token_strings
from tandem_edu.decode import Output
from tandem_edu.decode.trace import records_of_one_text
from tandem_edu.show.tables import html_table

KINDS = {
    "prompt": "prompt",
    "accepted": "drafted, and accepted by the primary",
    "primary": "written by the primary itself",
    "rejected": "drafted, but rejected",
    "draft": "drafted, and not judged yet",
}
STYLES = {
    "prompt": "color:#595959",
    "accepted": "background:#bfe8d9;color:#000;border-bottom:3px solid #009E73;margin-right:1px",
    "primary": "background:#fff;color:#000;outline:1px solid #0072B2;outline-offset:-1px",
    "rejected": "background:#f6d3c0;color:#7a2e00;text-decoration:line-through;margin-right:1px",
    "draft": "background:#e8e8e8;color:#000;border-bottom:3px dotted #595959;margin-right:1px",
}
BOX = (
    "font-family:ui-monospace,monospace;font-size:14px;line-height:1.9;white-space:pre-wrap;"
    "overflow-wrap:anywhere;background:#fff;border:1px solid #ccc;border-radius:6px;padding:8px 12px"
)
_ANSI = {"prompt": "2", "accepted": "32;4", "primary": "34", "rejected": "31;9"}


def marked_tokens(prompt, out: Output) -> Iterator[tuple[str, int]]:
    """Each token with its kind (see `KINDS`), in reading order.

    Of the rejected drafts only the first of a block is told, just before the primary's own token in
    its place: those after it were drafted on a wrong path. Raises `BadInput` for a batch.
    """
    rows = records_of_one_text(out.trace)
    for token in np.asarray(prompt):
        yield "prompt", int(token)
    text, at = np.asarray(out.tokens), 0
    for row in rows:
        accepted, emitted = row["accepted"], row["emitted"]
        for token in text[at : at + accepted]:
            yield "accepted", int(token)
        if accepted < row["drafted"] and emitted > accepted:
            yield "rejected", row["draft_ids"][accepted]
        for token in text[at + accepted : at + emitted]:
            yield "primary", int(token)
        at += emitted


def token_view(
    tokenizer: Tokenizer,
    prompt,
    out: Output,
    label: str = "Decoded text",
    meanings: Mapping[str, str] | None = None,
) -> str:
    """The text as HTML, each token in its kind's style, with its kind and id on hover; then as a table.

    `meanings` by kind, where they are not those of `KINDS`: nobody verifies what a tandem writes alone.
    A space is shown as itself, a line's end as ⏎.
    """
    told = {**KINDS, **(meanings or {})}
    before = tokenizer.decode(np.asarray(prompt).tolist())  # as a whole: some characters take several tokens
    pairs = [pair for pair in marked_tokens(prompt, out) if pair[0] != "prompt"]
    strings = token_strings(tokenizer, [token for _, token in pairs])
    spans = [
        f'<span style="{STYLES["prompt"]}" title="{escape(told["prompt"])}">{visible(before)}</span>'
    ] + [
        f'<span style="{STYLES[kind]}" title="{escape(told[kind])} (id {token})">{visible(string)}</span>'
        for (kind, token), string in zip(pairs, strings, strict=True)
    ]
    counts = Counter(kind for kind, _ in pairs)
    names = {kind: kind for kind in KINDS} | dict(meanings or {})
    summary = f"{label}: {', '.join(f'{count} {names[kind]}' for kind, count in counts.items())}"
    rows = [
        {"": str(place), "token": repr(string), "it is": told[kind]}
        for place, ((kind, _), string) in enumerate(zip(pairs, strings, strict=True), start=1)
    ]
    box = f'<div role="group" aria-label="{escape(summary)}" style="{BOX}">{"".join(spans)}</div>'
    return box + html_table(rows, "Token by token", folded=True)


def legend(meanings: Mapping[str, str] | None = None) -> str:
    """What the styles of `token_view` mean, as HTML: `meanings` by kind, else those of decoded text."""
    meanings = meanings or {kind: KINDS[kind] for kind in ("accepted", "primary", "rejected")}
    entries = (
        f'<span style="{STYLES[kind]};padding:0 4px">{escape(meaning)}</span>'
        for kind, meaning in meanings.items()
    )
    box = "font-size:13px;background:#fff;color:#000;padding:4px 12px"
    return f'<div style="{box}">{" &nbsp; ".join(entries)}</div>'


def terminal_view(tokenizer: Tokenizer, prompt, out: Output, colour: bool = True) -> str:
    """The same for a terminal: underlined green, blue, struck-out red; without colour the plain text."""
    pairs = list(marked_tokens(prompt, out))
    if not colour:
        return printable(tokenizer.decode([token for kind, token in pairs if kind != "rejected"]))
    groups = ((kind, [token for _, token in group]) for kind, group in groupby(pairs, lambda pair: pair[0]))
    return "".join(
        f"\x1b[{_ANSI[kind]}m{printable(_joined(tokenizer, tokens))}\x1b[0m" for kind, tokens in groups
    )


def _joined(tokenizer: Tokenizer, tokens: list[int]) -> str:
    """Their text; token by token where a character lacks bytes, which a neighbour of another kind has."""
    text = tokenizer.decode(tokens, skip_special_tokens=False)
    return text if "�" not in text else "".join(token_strings(tokenizer, tokens))


def visible(string: str) -> str:
    """Escaped, a line's end shown as ⏎."""
    return escape(string).replace("\r", "␍").replace("\n", "⏎\n")


def printable(string: str) -> str:
    """No control character of a model's text may reach the terminal, but a line's end and a tab."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "�" for sign in string)
