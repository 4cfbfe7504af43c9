"""The site: `make site`. Notebooks appear as they were executed; nothing is run and nothing is fetched."""

import re
import shutil
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

HERE = Path(__file__).parent
COPIES = HERE / "notebooks"

# Sphinx reads only what is below its own folder.
shutil.rmtree(COPIES, ignore_errors=True)
COPIES.mkdir()
for notebook in (HERE.parent / "notebooks").glob("*.ipynb"):
    shutil.copy2(notebook, COPIES)

project = "tandem_edu"
author = "The tandem_edu founders"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "tandem_edu"
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False
maximum_signature_line_length = 88
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
default_role = "code"  # docstrings say `name`, as Markdown does
autodoc_default_options = {"members": True, "imported-members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True


def setup(app) -> None:
    """Formulas as MathML, which browsers show by themselves: MathJax would have to be fetched."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    app.connect("autodoc-process-docstring", _as_restructured_text)
    app.connect("autodoc-process-signature", _as_written)


def _inline(writer, node: nodes.math) -> None:
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _display(writer, node: nodes.math_block) -> None:
    writer.body.append(f"<div>{tex2mathml(node.astext(), as_block=True)}</div>")
    raise nodes.SkipNode


def _as_written(app, what, name, thing, options, arguments: str | None, result: str | None):
    """Shapes as the source has them: jaxtyping spells out which array class, and every form of a key."""

    def shorter(text: str | None) -> str | None:
        text = re.sub(r"~?(jaxtyping|jaxlib\.[\w.]+)\.(?=[A-Z])", "", text or "")
        return (
            text.replace("Key[Array, ''] | UInt32[Array, '2'] | UInt32[Array, '4']", "PRNGKeyArray") or None
        )

    return shorter(arguments), shorter(result)


def _as_restructured_text(app, what, name, thing, options, lines: list[str]) -> None:
    """Docstrings are Markdown, autodoc reads reStructuredText: tables and |x| are where they differ."""
    groups = groupby(lines, key=lambda line: line.startswith("|"))
    lines[:] = [line for table, group in groups for line in (_list_table if table else _escaped)(group)]


def _escaped(lines: Iterable[str]) -> Iterator[str]:
    """Bars outside of `code` would be substitutions."""
    for line in lines:
        yield re.sub(r"(`[^`]*`)|\|", lambda found: found[1] or r"\|", line)


def _list_table(rows: Iterable[str]) -> Iterator[str]:
    """A Markdown table, its second row the ruler."""
    yield from [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        if not set(row) <= set("|-: "):
            first, *others = (cell.strip() for cell in row.strip("|").split("|"))
            yield f"   * - {first}"
            yield from (f"     - {cell}" for cell in others)
