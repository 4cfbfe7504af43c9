"""The γ panel: what each drafter got accepted at a block length, token by token."""

from html import escape

import ipywidgets as widgets
from tokenizers import Tokenizer

from tandem_edu.errors import require
from tandem_edu.measure import Comparison
from tandem_edu.show.panels.acceptance import acceptance_view
from tandem_edu.show.panels.core import choice, panel
from tandem_edu.show.plots import tokens_per_call
from tandem_edu.show.tables import decoding_rows, html_table
from tandem_edu.show.tokens import legend, token_view


def gamma_panel(comparison: Comparison, tokenizer: Tokenizer) -> widgets.VBox:
    """A slider for γ: what each drafter got accepted at that block length, token by token.

    Raises `BadInput` for a comparison without drafters.
    """
    require(len(comparison.runs) > 0, "a comparison with drafters", "none", "pass them to compare")
    pictures = {block_len: _pictures(comparison, block_len) for block_len in comparison.block_lens}
    prompts = [(str(index + 1), index) for index in range(len(comparison.prompts))]
    controls = {
        "block_len": widgets.SelectionSlider(
            options=comparison.block_lens,
            value=comparison.block_lens[len(comparison.block_lens) // 2],
            description="γ",
            continuous_update=False,
        ),
        "prompt": choice("prompt", prompts),
    }
    return panel(
        lambda block_len, prompt: _texts(comparison, tokenizer, block_len, prompt) + pictures[block_len],
        controls,
    )


def gamma_view(comparison: Comparison, tokenizer: Tokenizer, block_len: int, prompt: int = 0) -> str:
    """What `gamma_panel` shows at one γ, as HTML: readers without a kernel see this."""
    return _texts(comparison, tokenizer, block_len, prompt) + _pictures(comparison, block_len)


def _texts(comparison: Comparison, tokenizer: Tokenizer, block_len: int, prompt: int) -> str:
    """One prompt, continued with each drafter, token by token."""
    views = [legend()]
    for run in comparison.runs:
        if run.block_len == block_len:
            out, beginning = run.outputs[prompt], comparison.prompts[prompt]
            calls = out.trace.summary()["cycles"]
            told = f"{run.drafter}: {int(out.length)} tokens in {calls} calls of the primary"
            label = f"Prompt {prompt + 1}, {told}"
            views += [f"<h4>{escape(told)}</h4>", token_view(tokenizer, beginning, out, label)]
    return "".join(views)


def _pictures(comparison: Comparison, block_len: int) -> str:
    """All prompts together: what is drawn takes longest, so a panel draws it once for each γ."""
    table = html_table(decoding_rows(comparison, [block_len]), f"All prompts, γ = {block_len}")
    several = len(comparison.block_lens) > 1  # else there is no line to draw
    picture = tokens_per_call(comparison, block_len).html() if several else ""
    return picture + table + acceptance_view(comparison, block_len)
