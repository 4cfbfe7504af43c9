"""A report that is one file: text, tables, pictures and token views, with no need of a network.

A page is made of sections; a section of a heading and pieces, each a string of HTML or a `Picture`.
"""

from collections.abc import Iterable
from html import escape

from tandem_edu.show.picture import Picture

_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.55 system-ui,sans-serif;max-width:860px;margin:2rem auto;padding:0 1rem;
background:#fff;color:#1b1b1b}
h1{font-size:1.7rem;line-height:1.2}h2{margin-top:2.2rem;font-size:1.25rem}
img{display:block;margin:1rem 0;background:#fff;border-radius:6px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;margin:1rem 0;font-size:.88rem}
caption{text-align:left;padding:.3rem 0;font-weight:600}
th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid #ccc}
th:first-child,th[scope=row]{text-align:left;font-weight:500}
code{font-family:ui-monospace,monospace;font-size:.9em}
.key{font-size:1.15rem;border-left:5px solid #009E73;padding:.2rem 0 .2rem 1rem}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#e8e8e8}th,td{border-color:#444}}
"""


def paragraph(text: str, kind: str = "") -> str:
    """Escaped text as a paragraph."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def page(title: str, sections: Iterable[tuple[str, Iterable[str | Picture]]]) -> str:
    """The whole page. Headings and title are escaped here; pieces of HTML must be safe already."""
    body = "".join(
        f"<section><h2>{escape(heading)}</h2>{''.join(map(_piece, pieces))}</section>"
        for heading, pieces in sections
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>\n"
    )


def _piece(piece: str | Picture) -> str:
    if isinstance(piece, Picture):
        return piece.html()
    return f'<div class="scroll">{piece}</div>' if piece.startswith("<table") else piece
