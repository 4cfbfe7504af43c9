"""Panels on decoded texts: what the block length γ changes, and what a router's threshold τ changes."""

from collections.abc import Sequence
from functools import partial
from html import escape

import ipywidgets as widgets
from tokenizers import Tokenizer

from tandem_edu.measure import Comparison, Threshold
from tandem_edu.show.panels.core import choice, panel, stops
from tandem_edu.show.picture import html_table
from tandem_edu.show.plots import acceptance_by_position, decoding_rows, thresholds, tokens_per_call
from tandem_edu.show.tokens import legend, token_view


def gamma_panel(comparison: Comparison, tokenizer: Tokenizer) -> widgets.VBox:
    """Choose γ and a prompt: which drafts of each drafter are accepted, in text and in numbers?"""
    lengths = comparison.block_lens
    gamma = stops("γ", [(str(one), one) for one in lengths], lengths[len(lengths) // 2])
    prompts = choice("prompt", [(str(index + 1), index) for index in range(len(comparison.prompts))])
    return panel(partial(gamma_view, comparison, tokenizer), {"block_len": gamma, "prompt": prompts})


def gamma_view(comparison: Comparison, tokenizer: Tokenizer, block_len: int, prompt: int = 0) -> str:
    """The panel at one setting as HTML: one prompt token by token, then all prompts together."""
    views = [legend()]
    for drafter in comparison.drafters:
        out = comparison.run(drafter, block_len).outputs[prompt]
        title = f"{drafter}: {int(out.length)} tokens in {int(out.trace.cycles)} calls of the primary"
        text = token_view(tokenizer, comparison.prompts[prompt], out, f"Prompt {prompt + 1}, {title}")
        views += [f"<h4>{escape(title)}</h4>", text]
    if len(comparison.block_lens) > 1:
        views.append(tokens_per_call(comparison, block_len).html())
    views.append(html_table(decoding_rows(comparison, block_len), f"All prompts, γ = {block_len}"))
    return "".join(views) + acceptance_view(comparison, block_len)


def acceptance_view(comparison: Comparison, block_len: int) -> str:
    """The panel's part on acceptance by position: a picture and a table, as HTML."""
    picture = acceptance_by_position(comparison, block_len)
    return picture.with_table(f"Accepted, of those reached, γ = {block_len}")


def router_panel(sweep: Sequence[Threshold]) -> widgets.VBox:
    """Choose a threshold of `measure.sweep_thresholds`."""
    options = [(f"{one.threshold:g}", index) for index, one in enumerate(sweep)]
    return panel(partial(router_view, sweep), {"index": stops("τ", options, len(sweep) // 2)})


def router_view(sweep: Sequence[Threshold], index: int) -> str:
    """The panel at one threshold as HTML: draft length, wasted drafts and speed."""
    return thresholds(sweep, index).with_table("At each threshold")
