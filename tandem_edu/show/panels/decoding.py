"""Panels on decoded texts: what the block length γ changes, and what a router's threshold τ changes."""

from collections.abc import Sequence
from functools import lru_cache, partial
from html import escape

import ipywidgets as widgets
from tokenizers import Tokenizer

from tandem_edu.errors import require
from tandem_edu.measure import Comparison
from tandem_edu.measure.thresholds import Threshold
from tandem_edu.show.panels.core import choice, panel, stops
from tandem_edu.show.plots import acceptance_by_position, thresholds, tokens_per_call
from tandem_edu.show.tables import decoding_rows, html_table
from tandem_edu.show.tokens import legend, token_view


def gamma_panel(comparison: Comparison, tokenizer: Tokenizer) -> widgets.VBox:
    """Choose γ and a prompt: which drafts of each drafter are accepted, in text and in numbers?"""
    lengths = comparison.block_lens
    slider = stops("γ", [(str(one), one) for one in lengths], lengths[len(lengths) // 2])
    prompts = choice("prompt", [(str(index + 1), index) for index in range(len(comparison.prompts))])
    draw = partial(gamma_view, comparison, tokenizer)
    return panel(draw, {"block_len": slider, "prompt": prompts})


def gamma_view(comparison: Comparison, tokenizer: Tokenizer, block_len: int, prompt: int = 0) -> str:
    """The panel at one setting as HTML: one prompt token by token, then all prompts together."""
    views = [legend()]
    for drafter in comparison.drafters:
        out = comparison.run(drafter, block_len).outputs[prompt]
        title = f"{drafter}: {int(out.length)} tokens in {int(out.trace.cycles)} calls of the primary"
        text = token_view(tokenizer, comparison.prompts[prompt], out, f"Prompt {prompt + 1}, {title}")
        views += [f"<h4>{escape(title)}</h4>", text]
    return "".join(views) + _all_prompts(comparison, block_len)


@lru_cache(maxsize=32)  # the pictures take longest, and are the same for every prompt
def _all_prompts(comparison: Comparison, block_len: int) -> str:
    table = html_table(decoding_rows(comparison, block_len), f"All prompts, γ = {block_len}")
    several = len(comparison.block_lens) > 1
    picture = tokens_per_call(comparison, block_len).html() if several else ""
    return picture + table + acceptance_view(comparison, block_len)


def acceptance_view(comparison: Comparison, block_len: int) -> str:
    """The panel's part on acceptance by position: a picture and a table, as HTML."""
    picture = acceptance_by_position(comparison, block_len)
    return picture.html() + html_table(picture.rows, f"Accepted, of those reached, γ = {block_len}")


def router_panel(sweep: Sequence[Threshold]) -> widgets.VBox:
    """Choose a threshold of `measure.sweep_thresholds`. Raises `BadInput` for an empty sweep."""
    require(len(sweep) > 0, "at least one threshold", "none", "sweep some")
    options = [(f"{one.threshold:g}", index) for index, one in enumerate(sweep)]
    return panel(lambda index: router_view(sweep, index), {"index": stops("τ", options, len(sweep) // 2)})


def router_view(sweep: Sequence[Threshold], index: int) -> str:
    """The panel at one threshold as HTML: draft length, wasted drafts and speed."""
    picture = thresholds(sweep, index)
    return picture.html() + html_table(picture.rows, "At each threshold")
