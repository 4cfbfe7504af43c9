"""Text with each token marked: accepted draft, rejected draft, or written by the primary. All is escaped."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from itertools import groupby

import numpy as np
from tokenizers import Tokenizer

from tandem_edu.data import END_ID, text_of, token_strings
from tandem_edu.decode import Output
from tandem_edu.decode.trace import records_of_one_text
from tandem_edu.show.picture import html_table

KINDS = {
    "prompt": "prompt",
    "accepted": "drafted and accepted by the primary",
    "primary": "written by the primary itself",
    "rejected": "drafted and rejected",
    "draft": "drafted, not verified",
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

    Of a block's rejected drafts only the first is there, before the primary's own. `BadInput` for a batch.
    """
    rows = records_of_one_text(out.trace)
    yield from (("prompt", int(token)) for token in np.asarray(prompt))
    text, at = np.asarray(out.tokens).tolist(), 0
    for row in rows:
        accepted, emitted = row["accepted"], row["emitted"]
        yield from (("accepted", token) for token in text[at : at + accepted])
        if accepted < row["drafted"] and emitted > accepted:
            yield "rejected", row["draft_ids"][accepted]
        yield from (("primary", token) for token in text[at + accepted : at + emitted])
        at += emitted


def token_view(
    tokenizer: Tokenizer, prompt, out: Output, label: str = "Decoded text", meanings: dict[str, str] = KINDS
) -> str:
    """The text as HTML, each token in its kind's style, kind (by `meanings`) and id on hover; and a table."""
    meaning = KINDS | meanings
    pairs = [pair for pair in marked_tokens(prompt, out) if pair[0] != "prompt"]
    strings = token_strings(tokenizer, [token for _, token in pairs])
    # The prompt as a whole: some characters take several tokens.
    spans, rows = [span("prompt", text_of(tokenizer, prompt), meaning["prompt"])], []
    for (kind, token), string in zip(pairs, strings, strict=True):
        spans.append(span(kind, string, f"{meaning[kind]} (id {token})"))
        rows.append({"": str(len(spans) - 1), "token": repr(string), "kind": meaning[kind]})
    counts = Counter(meaning[kind] for kind, _ in pairs)
    summary = f"{label}: {', '.join(f'{count} {name}' for name, count in counts.items())}"
    return boxed(spans, summary) + html_table(rows, "Token by token", folded=True)


def span(kind: str, string: str, title: str) -> str:
    """One token or text in its kind's style, escaped, with line breaks shown as ⏎."""
    visible = escape(string).replace("\r", "␍").replace("\n", "⏎\n")
    return f'<span style="{STYLES[kind]}" title="{escape(title)}">{visible}</span>'


def boxed(spans: Iterable[str], label: str) -> str:
    """A text of spans in a box; `label` is read to those who cannot see it."""
    return f'<div role="group" aria-label="{escape(label)}" style="{BOX}">{"".join(spans)}</div>'


def legend(meanings: Mapping[str, str] | None = None) -> str:
    """The styles of `token_view` and their `meanings` by kind, as HTML."""
    meanings = meanings or {kind: KINDS[kind] for kind in ("accepted", "primary", "rejected")}
    style = {kind: f"{STYLES[kind]};padding:0 4px" for kind in meanings}
    entries = [f'<span style="{style[kind]}">{escape(meaning)}</span>' for kind, meaning in meanings.items()]
    box = "font-size:13px;background:#fff;color:#000;padding:4px 12px"
    return f'<div style="{box}">{" &nbsp; ".join(entries)}</div>'


def terminal_view(tokenizer: Tokenizer, prompt, out: Output, colour: bool = True) -> str:
    """The text for a terminal: underlined green, blue, struck-out red; plain without `colour`."""
    pairs, view = list(marked_tokens(prompt, out)), ""
    if not colour:
        return printable(text_of(tokenizer, [token for kind, token in pairs if kind != "rejected"]))
    for kind, group in groupby(pairs, lambda pair: pair[0]):
        tokens = [token for _, token in group]
        text = text_of(tokenizer, tokens)
        if "�" in text or END_ID in tokens:  # only some bytes of a character, or the end of a text
            text = "".join(token_strings(tokenizer, tokens))
        view += f"\x1b[{_ANSI[kind]}m{printable(text)}\x1b[0m"
    return view


def printable(string: str) -> str:
    """Replace every control character except line breaks and tabs."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in string)
