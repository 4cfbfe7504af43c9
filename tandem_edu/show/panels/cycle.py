"""Panels on one text's cycles: each one in three steps (draft, verify, accept), and all on a time line."""

from collections.abc import Mapping
from html import escape
from itertools import accumulate

import ipywidgets as widgets
import numpy as np
from tokenizers import Tokenizer

from tandem_edu.data import text_of, token_strings
from tandem_edu.decode import Output, Trace
from tandem_edu.decode.trace import records_of_one_text
from tandem_edu.measure import Span, timeline
from tandem_edu.show import ideas
from tandem_edu.show.panels.core import choice, panel, slider
from tandem_edu.show.picture import html_table
from tandem_edu.show.tokens import KINDS, boxed, legend, span

STAGES = {"draft": ["draft"], "verify": ["accepted", "rejected", "draft"], "accept": ["accepted", "primary"]}
"""The kinds of token that each stage shows."""


def cycle_panel(tokenizer: Tokenizer, prompt, output: Output) -> widgets.VBox:
    """Choose a cycle of `output` (one text of `speculate`) and a stage. Raises `BadInput` for a batch."""
    count = len(records_of_one_text(output.trace))
    controls = {"cycle": slider("cycle", 1, count, 1), "stage": choice("stage", list(STAGES))}
    return panel(lambda cycle, stage: cycle_view(tokenizer, prompt, output, cycle - 1, stage), controls)


def cycle_view(tokenizer: Tokenizer, prompt, output: Output, cycle: int, stage: str = "accept") -> str:
    """One cycle (counted from 0) at one stage as HTML: the text, a sentence and a table."""
    cycles = records_of_one_text(output.trace)
    drafted, accepted, emitted = (cycles[cycle][name] for name in ("drafted", "accepted", "emitted"))
    text, start = np.asarray(output.tokens).tolist(), sum(one["emitted"] for one in cycles[:cycle])
    drafts = token_strings(tokenizer, cycles[cycle]["draft_ids"])
    own = token_strings(tokenizer, text[start + accepted : start + emitted])
    # After a stop token among the drafts there is no token of the primary's; later drafts are not verified.
    kinds = (["accepted"] * accepted + ["rejected"] * len(own) + ["draft"] * drafted)[:drafted]
    shown = list(zip(kinds, drafts, strict=True))
    rows = [{"position": str(i), "draft": repr(string)} for i, string in enumerate(drafts, 1)]
    if stage == "draft":
        shown = [("draft", string) for string in drafts]
        words = f"The drafter writes {drafted} tokens, one by one. The primary is idle."
    else:
        for row, kind, prob in zip(rows, kinds, cycles[cycle]["acceptance_prob"], strict=True):
            row |= {"result": "not verified" if kind == "draft" else kind, "Σ min(p, q)": f"{prob:.2f}"}
        read = f"the pending token and the {drafted} drafts"
        words = f"The primary reads {read} in one call and accepts {accepted}."
    if stage == "accept":
        shown = [*shown[:accepted], *(("primary", string) for string in own)]
        place = "replaces the first rejected draft" if accepted < drafted else "follows the last draft"
        where = place if drafted else "is written without a draft"
        last = f"The primary's own token {own[0]!r} {where}." if own else "The text ends here."
        words = f"The text grows by {emitted} in one call. {last}"
    written = text_of(tokenizer, [*np.asarray(prompt).tolist(), *text[:start]])
    spans = [span("prompt", written, "prompt"), *(span(kind, string, kind) for kind, string in shown)]
    head = f"Cycle {cycle + 1} of {len(cycles)}, {stage}"
    marks = legend({kind: KINDS[kind] for kind in STAGES[stage]})
    table = html_table(rows, "The drafts of this cycle")
    return f"{marks}<p><strong>{head}</strong></p>{boxed(spans, head)}<p>{escape(words)}</p>{table}"


def timeline_panel(
    traces: Mapping[str, Trace], draft_costs: Mapping[str, float], verify_cost: float, tokens: int = 32
) -> widgets.VBox:
    """Scale every drafter's measured cost c, choose v and how much is shown; arguments as `timeline_view`."""

    def draw(scale: float, **values) -> str:
        return timeline_view(traces, {name: cost * scale for name, cost in draft_costs.items()}, **values)

    controls = {
        "scale": slider("draft step, times measured", 0.1, 4.0, 1.0, 0.1),
        "verify_cost": slider("verification v", 1.0, 4.0, round(verify_cost, 1), 0.1),
        "tokens": slider("tokens shown", 4, 64, tokens),
    }
    return panel(draw, controls)


def timeline_view(
    traces: Mapping[str, Trace], draft_costs: Mapping[str, float], verify_cost: float, tokens: int = 32
) -> str:
    """The primary alone, and below it each drafter (one text each); costs in the primary's decoding steps."""
    spans_of = {"primary alone": [Span("primary", i, i + 1, 1) for i in range(tokens)]}
    for name, trace in traces.items():
        spans = timeline(trace, draft_costs[name], verify_cost)
        before = accumulate((span.tokens for span in spans), initial=0)
        spans_of[name] = [span for span, emitted in zip(spans, before, strict=False) if emitted < tokens]
    return ideas.timelines(spans_of).with_table("In decoding steps of the primary")
