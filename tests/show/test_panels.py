"""Every panel: a control changes picture and words, hostile names stay text, numbers are the trace's."""

import re

import ipywidgets
import numpy as np
import pytest
from refusal import refuses

from tandem_edu.data import train_tokenizer
from tandem_edu.decode import speculate
from tandem_edu.errors import BadInput
from tandem_edu.measure import Threshold, compare
from tandem_edu.show import panels
from tandem_edu.show.tokens import token_view

PROMPTS = [np.array([1, 2, 3], np.int32), np.array([7, 2], np.int32)]
HOSTILE = r"<script>$\bad$"
"""It must neither run nor be typeset."""


def pictures(html: str) -> list[str]:
    """The images of a page, and its texts in boxes."""
    box = r'<div role="group" aria-label="[^"]*"(.*?)</div>'
    return re.findall(r'src="([^"]*)"', html) + re.findall(box, html, re.DOTALL)


def words(html: str) -> list[str]:
    """What describes them."""
    return re.findall(r' (?:alt|aria-label)="([^"]*)"', html)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("<script> " * 50, vocab_size=263)


@pytest.fixture(scope="module")
def out(tiny_primary, tiny_tandem):
    return speculate(tiny_primary, tiny_tandem, PROMPTS[0], 40, block_len=3)


@pytest.fixture(scope="module")
def comparison(tiny_primary, tiny_secondary, tiny_tandem):
    drafters = {HOSTILE: tiny_secondary, "tandem": tiny_tandem}
    return compare(tiny_primary, drafters, PROMPTS, 12, block_lens=(1, 3, 5), repetitions=2)


@pytest.fixture(scope="module")
def shown(tokenizer, out, comparison):
    """All panels by name, the largest that they get."""
    speed = np.array([0.9, 1.0, 1.1])
    sweep = [Threshold(tau, 4 - 3 * tau, 1.0, 1 - tau, 2.0, speed + tau) for tau in (0.0, 0.5, 1.0)]
    return {
        "mask": panels.mask_panel(24),
        "sketch": panels.sketch_panel(24),
        "roofline": panels.roofline_panel(),
        "speedup": panels.speedup_panel(0.7, 0.1, 1.5, 0.1, comparison),
        "cycle": panels.cycle_panel(tokenizer, tokenizer.encode("<script>").ids, out),
        "gamma": panels.gamma_panel(comparison, tokenizer),
        "router": panels.router_panel(sweep),
        "timeline": panels.timeline_panel({HOSTILE: out.trace}, {HOSTILE: 0.2}, 1.5, tokens=32),
    }


NAMES = ("mask", "sketch", "roofline", "speedup", "cycle", "gamma", "router", "timeline")


def parts(panel) -> tuple:
    """A panel's controls and its HTML widget."""
    return panel.children[0].children, panel.children[1]


def other_value(control):
    """A value that the control does not have yet: one step away."""
    if hasattr(control, "options"):
        values = [option[1] if isinstance(option, tuple) else option for option in control.options]
        return values[values.index(control.value) - 1]
    step = control.step if control.value + control.step <= control.max else -control.step
    return control.value + step


@pytest.mark.parametrize("name", NAMES)
def test_each_control_changes_the_picture_and_its_words(shown, name):
    controls, view = parts(shown[name])
    assert isinstance(view, ipywidgets.HTML)
    for control in controls:
        assert control.description
        before, now = view.value, control.value
        control.value = other_value(control)
        assert pictures(view.value) != pictures(before), control.description
        assert words(view.value) != words(before), control.description
        control.value = now
    assert "<script" not in view.value and "<iframe" not in view.value
    assert pictures(view.value) and words(view.value) and "<table" in view.value


def test_the_masks_sliders_end_where_the_mask_does():
    (seq, gamma, offset, token), _ = parts(panels.mask_panel(12))
    token.value = token.max
    seq.value = 6
    assert (token.value, token.max) == (5, 5)
    gamma.value = 1
    assert (offset.value, offset.max, offset.disabled) == (0, 0, True)
    gamma.value = 8
    assert (offset.max, offset.disabled) == (7, False)


def test_the_tables_hold_what_the_pictures_do(shown):
    tables = {name: shown[name].children[1].value for name in NAMES}
    assert tables["mask"].count('<th scope="row">') == 24
    assert tables["speedup"].count('<th scope="row">') == 16
    assert tables["speedup"].count("<td>–</td>") == 2 * 13  # two drafters measured at 3 of 16 lengths
    assert tables["router"].count('<th scope="row">') == 3
    assert '<th scope="row">0.5 (chosen)</th>' in tables["router"]
    assert '<th scope="row">256</th>' in tables["roofline"]
    assert "Accepted, of those reached" in tables["gamma"] and "Token by token" in tables["gamma"]


def test_the_gamma_panel_at_a_setting_is_its_view(comparison, tokenizer):
    (slider, prompt), view = parts(panels.gamma_panel(comparison, tokenizer))
    assert slider.continuous_update is False
    for block_len, index in ((1, 0), (5, 1)):
        slider.value, prompt.value = block_len, index
        assert view.value == panels.gamma_view(comparison, tokenizer, block_len, index)


def test_the_cycle_panel_steps_through_draft_verify_accept(tokenizer, out):
    (cycle, stage), view = parts(panels.cycle_panel(tokenizer, PROMPTS[0], out))
    assert cycle.max == int(out.trace.cycles)
    said = {"draft": "one by one", "verify": "in one call and accepts", "accept": "The text grows by"}
    for name, sentence in said.items():
        stage.value = name
        assert sentence in view.value
        assert ("min(p, q)" in view.value) == (name != "draft")  # the primary has not read them yet
    cycle.value = 2
    assert "Cycle 2 of" in view.value


def test_every_cycle_shows_what_the_trace_holds(tokenizer, out):
    for row in out.trace.to_records():
        html = panels.cycle_view(tokenizer, PROMPTS[0], out, row["cycle"], "accept")
        assert html.count('title="accepted"') == row["accepted"]
        assert html.count('title="primary"') == row["emitted"] - row["accepted"]
        html = panels.cycle_view(tokenizer, PROMPTS[0], out, row["cycle"], "verify")
        after = row["drafted"] - row["accepted"]
        assert html.count('title="accepted"') == row["accepted"]
        assert html.count('title="rejected"') == min(1, after)
        assert html.count('title="draft"') == html.count("not verified</td>") == max(0, after - 1)


def test_a_cycle_without_a_draft_says_so(tokenizer, tiny_primary):
    out = speculate(tiny_primary, tiny_primary, PROMPTS[0], 1, block_len=3)  # no draft before a last token
    assert "is written without a draft" in panels.cycle_view(tokenizer, PROMPTS[0], out, 0, "accept")


def test_drafts_after_an_accepted_stop_token_are_not_verified(tokenizer, tiny_primary):
    """A primary that drafts for itself: all is accepted, and the text ends inside the first block."""
    free = speculate(tiny_primary, tiny_primary, PROMPTS[0], 12, block_len=5)
    stop = int(free.tokens[1])
    ended = speculate(tiny_primary, tiny_primary, PROMPTS[0], 12, block_len=5, stop_token=stop)
    (row, *_) = ended.trace.to_records()
    assert row["emitted"] == row["accepted"] < row["drafted"]
    html = panels.cycle_view(tokenizer, PROMPTS[0], ended, 0, "verify")
    assert "rejected</td>" not in html and 'title="rejected"' not in html
    assert html.count("not verified</td>") == row["drafted"] - row["accepted"]


def test_the_timeline_shows_as_many_tokens_as_asked(out):
    view = panels.timeline_view({"tandem": out.trace}, {"tandem": 0.1}, 1.5, tokens=8)
    assert "primary alone: 8 tokens in 8.0 steps" in words(view)[0]


def test_the_dashboard_follows_trainings_side_by_side():
    dashboard = panels.TrainingDashboard(["distilled", "tandem"])
    assert isinstance(dashboard, ipywidgets.HTML)
    entry = {"step": 10, "tokens": 20480, "seconds": 3.0, "valid_loss": 2.5, "valid_accuracy": 0.5}
    for _ in range(2):  # the second time as if the cell were run again
        on_eval = dashboard.follow()
        on_eval("tandem", entry)
        on_eval("distilled", entry)
        before = dashboard.value
        on_eval("tandem", {**entry, "step": 20, "valid_agreement": 0.25})
        assert dashboard.value == before  # it redraws when both have been evaluated
        on_eval("distilled", {**entry, "step": 20})
        assert words(dashboard.value) != words(before)
        assert [len(history) for history in dashboard.histories.values()] == [2, 2]
        assert "25.0%" in dashboard.value and dashboard.picture().alt.count("after 20 steps") == 2
    dashboard.follow()("tandem", entry)  # the other is not trained this time
    assert words(dashboard.value)[0].count("ends at") == 1


def test_measured_points_are_beside_the_formula(comparison):
    alt = words(parts(panels.speedup_panel(0.7, 0.1, 0.2, 0.1, comparison))[1].value)[0]
    assert f"{np.median(comparison.run('tandem', 3).speedup):.2f} at 3" in alt
    assert "verification 0.50 and 0.10 per draft" in alt


def test_a_batch_is_refused(tokenizer, tiny_primary, tiny_tandem):
    two = speculate(tiny_primary, tiny_tandem, [[1, 2], [3]], 6, block_len=2)
    refuses("trace of one text, got that of a batch", token_view, tokenizer, PROMPTS[0], two)
    with pytest.raises(BadInput, match="trace of one text, got that of a batch"):
        panels.timeline_panel({"t": two.trace}, {"t": 0.1}, 1.5)
