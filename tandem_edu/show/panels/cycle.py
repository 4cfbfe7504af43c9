"""The cycle explorer: one speculative text, cycle by cycle, in three steps: draft, verify, accept."""

from html import escape

import ipywidgets as widgets
import numpy as np
from tokenizers import Tokenizer

from tandem_edu.data import token_strings
from tandem_edu.decode import Output
from tandem_edu.decode.trace import records_of_one_text
from tandem_edu.errors import require
from tandem_edu.show.panels.core import choice, panel, whole
from tandem_edu.show.tables import html_table
from tandem_edu.show.tokens import BOX, KINDS, STYLES, legend, visible

STAGES = {
    "draft": ("draft",),
    "verify": ("accepted", "rejected", "draft"),
    "accept": ("accepted", "primary"),
}
"""The kinds of token each of them shows."""


def cycle_panel(tokenizer: Tokenizer, prompt, output: Output) -> widgets.VBox:
    """A slider over the cycles of `output` (one text of `speculate`) and a choice of the step.

    Raises `BadInput` for a batch, or a text without a cycle.
    """
    cycles = _cycles(output)

    def draw(cycle: int, stage: str) -> str:
        return cycle_view(tokenizer, prompt, output, cycle - 1, stage)

    return panel(draw, {"cycle": whole("cycle", 1, len(cycles), 1), "stage": choice("step", tuple(STAGES))})


def cycle_view(tokenizer: Tokenizer, prompt, output: Output, cycle: int, stage: str = "accept") -> str:
    """One cycle (counted from 0) at one step, as HTML: the text, words and a table."""
    cycles = _cycles(output)
    require(0 <= cycle < len(cycles), f"a cycle in 0..{len(cycles) - 1}", cycle, "take one of them")
    require(stage in STAGES, f"a step among {', '.join(STAGES)}", repr(stage), "pick one")
    row, text = cycles[cycle], np.asarray(output.tokens)
    before = sum(earlier["emitted"] for earlier in cycles[:cycle])
    emitted = text[before : before + row["emitted"]].tolist()
    written = tokenizer.decode([*np.asarray(prompt).tolist(), *text[:before].tolist()])
    drafts = token_strings(tokenizer, row["draft_ids"])
    new = token_strings(tokenizer, emitted)
    spans = [f'<span style="{STYLES["prompt"]}">{visible(written)}</span>']
    spans += [_span(kind, string) for kind, string in _shown(stage, row, drafts, new)]
    head = f"Cycle {cycle + 1} of {len(cycles)}, {stage}"
    box = f'<div role="group" aria-label="{escape(head)}" style="{BOX}">{"".join(spans)}</div>'
    table = html_table(_rows(stage, row, drafts), "The drafts of this cycle") if drafts else ""
    marks = legend({kind: KINDS[kind] for kind in STAGES[stage]})
    words = escape(_words(stage, row, drafts, new))
    return f"{marks}<p><strong>{escape(head)}</strong></p>{box}<p>{words}</p>{table}"


def _cycles(output: Output) -> list[dict]:
    rows = records_of_one_text(output.trace)
    require(bool(rows), "a text of at least one cycle", "none", "decode some tokens")
    return rows


def _shown(stage: str, row: dict, drafts: list[str], new: list[str]) -> list[tuple[str, str]]:
    """Kind and string of what stands behind the text so far."""
    if stage == "draft":
        return [("draft", string) for string in drafts]
    kept = min(row["accepted"], len(new))
    accepted = [("accepted", string) for string in new[:kept]]
    if stage == "verify":
        behind, judged = drafts[row["accepted"] :], 0 if _ended(row) else 1
        rejected = [("rejected", string) for string in behind[:judged]]
        return accepted + rejected + [("draft", string) for string in behind[judged:]]
    return accepted + [("primary", string) for string in new[kept:]]


def _ended(row: dict) -> bool:
    """Whether an accepted draft ended the text: those behind it are judged by nobody."""
    return row["emitted"] == row["accepted"]


def _words(stage: str, row: dict, drafts: list[str], new: list[str]) -> str:
    if stage == "draft":
        return f"The drafter writes {len(drafts)} tokens, one by one. The primary is idle."
    accepted = row["accepted"]
    if stage == "verify":
        read = f"the pending token and the {len(drafts)} drafts"
        told = f"The primary reads {read} in one call and keeps {accepted}."
        return told + (" The others go." if accepted < len(drafts) else "")
    if _ended(row):
        return f"The text grows by {accepted} and ends here."
    own = repr(new[-1])
    why = "in the place of the first rejected draft" if accepted < len(drafts) else "behind the last draft"
    return f"The primary's own token {own} comes {why}: the text grows by {row['emitted']} in one call."


def _rows(stage: str, row: dict, drafts: list[str]) -> list[dict[str, str]]:
    """One row a draft: once the primary has read it, was it kept, and how likely that was."""
    if stage == "draft":
        return [{"place": str(place), "draft": repr(string)} for place, string in enumerate(drafts, start=1)]
    first_behind = [] if _ended(row) else ["rejected"]
    verdicts = ["accepted"] * row["accepted"] + first_behind + ["not judged"] * len(drafts)
    judged = zip(drafts, verdicts, row["acceptance_prob"], strict=False)
    return [
        {
            "place": str(place),
            "draft": repr(string),
            "verdict": verdict,
            "Σ min(p, q)": f"{acceptance_prob:.2f}",
        }
        for place, (string, verdict, acceptance_prob) in enumerate(judged, start=1)
    ]


def _span(kind: str, string: str) -> str:
    return f'<span style="{STYLES[kind]}" title="{kind}">{visible(string)}</span>'
