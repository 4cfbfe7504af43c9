"""The cycle explorer: one speculative text, cycle by cycle, in three steps: draft, verify, accept."""

from html import escape

import ipywidgets as widgets
import numpy as np
from tokenizers import Tokenizer

from tandem_edu.data import text_of, token_strings
from tandem_edu.decode import Output
from tandem_edu.decode.trace import records_of_one_text
from tandem_edu.errors import require
from tandem_edu.show.panels.core import choice, int_slider, panel
from tandem_edu.show.tables import html_table
from tandem_edu.show.tokens import KINDS, boxed, legend, span

STAGES = {
    "draft": ("draft",),
    "verify": ("accepted", "rejected", "draft"),
    "accept": ("accepted", "primary"),
}
"""The kinds of token that each stage shows."""


def cycle_panel(tokenizer: Tokenizer, prompt, output: Output) -> widgets.VBox:
    """Choose a cycle of `output` (one text of `speculate`) and a stage.

    Raises `BadInput` for a batch, or a text without a cycle.
    """
    count = len(_cycles(output))
    return panel(
        lambda cycle, stage: cycle_view(tokenizer, prompt, output, cycle - 1, stage),
        {"cycle": int_slider("cycle", 1, count, 1), "stage": choice("stage", tuple(STAGES))},
    )


def cycle_view(tokenizer: Tokenizer, prompt, output: Output, cycle: int, stage: str = "accept") -> str:
    """One cycle (counted from 0) at one stage as HTML: the text, a sentence and a table."""
    cycles = _cycles(output)
    require(0 <= cycle < len(cycles), f"a cycle in 0..{len(cycles) - 1}", cycle, "take one of them")
    require(stage in STAGES, f"a stage among {', '.join(STAGES)}", repr(stage), "pick one")
    row, text = cycles[cycle], np.asarray(output.tokens).tolist()
    start = sum(earlier["emitted"] for earlier in cycles[:cycle])
    drafts = token_strings(tokenizer, row["draft_ids"])
    new = token_strings(tokenizer, text[start : start + row["emitted"]])
    # A stop token among the drafts ends the text; later drafts are not verified.
    rejected = [] if row["emitted"] == row["accepted"] else ["rejected"]
    kinds = (["accepted"] * row["accepted"] + rejected + ["draft"] * len(drafts))[: len(drafts)]
    rows = [{"position": str(i), "draft": repr(string)} for i, string in enumerate(drafts, start=1)]
    if stage == "draft":
        tokens = [("draft", string) for string in drafts]
    else:
        tokens = list(zip(kinds, drafts, strict=True))
        for one, kind, prob in zip(rows, kinds, row["acceptance_prob"], strict=True):
            one |= {"result": "not verified" if kind == "draft" else kind, "Σ min(p, q)": f"{prob:.2f}"}
    if stage == "accept":
        tokens = [("accepted" if i < row["accepted"] else "primary", string) for i, string in enumerate(new)]
    written = text_of(tokenizer, [*np.asarray(prompt).tolist(), *text[:start]])
    spans = [span("prompt", written, "prompt"), *(span(kind, string, kind) for kind, string in tokens)]
    head = f"Cycle {cycle + 1} of {len(cycles)}, {stage}"
    marks = legend({kind: KINDS[kind] for kind in STAGES[stage]})
    words = escape(_words(stage, row, new))
    table = html_table(rows, "The drafts of this cycle")
    return f"{marks}<p><strong>{escape(head)}</strong></p>{boxed(spans, head)}<p>{words}</p>{table}"


def _cycles(output: Output) -> list[dict]:
    rows = records_of_one_text(output.trace)
    require(bool(rows), "a text of at least one cycle", "none", "decode some tokens")
    return rows


def _words(stage: str, row: dict, new: list[str]) -> str:
    drafted, accepted = row["drafted"], row["accepted"]
    if stage == "draft":
        return f"The drafter writes {drafted} tokens, one by one. The primary is idle."
    if stage == "verify":
        read = f"the pending token and the {drafted} drafts"
        words = f"The primary reads {read} in one call and accepts {accepted}."
        return words + (" The others are discarded." if accepted < drafted else "")
    if row["emitted"] == accepted:
        return f"The text grows by {accepted} and ends here."
    where = "replaces the first rejected draft" if accepted < drafted else "follows the last draft"
    return f"The primary's own token {new[-1]!r} {where}. The text grows by {row['emitted']} in one call."
