"""Panels on what was decoded and trained: a control changes picture and words; nothing in them can run."""

import re

import ipywidgets
import jax
import numpy as np
import pytest

from tandem_edu.data import train_tokenizer
from tandem_edu.decode import speculate
from tandem_edu.errors import BadInput
from tandem_edu.measure import attention_maps, compare, sweep_thresholds
from tandem_edu.show.attention import primary_shares
from tandem_edu.show.panels import (
    acceptance_panel,
    attention_panel,
    cycle_panel,
    cycle_view,
    measured_speedups,
    router_panel,
    speedup_panel,
    timeline_panel,
    training_dashboard,
)
from tandem_edu.show.tokens import token_view

PROMPT = np.array([1, 2, 3], np.int32)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("", vocab_size=257)


@pytest.fixture(scope="module")
def out(tiny_primary, tiny_tandem):
    return speculate(tiny_primary, tiny_tandem, PROMPT, 12, block_len=3)


def shown(panel) -> str:
    return panel.children[1].value


def controls(panel) -> list:
    return list(panel.children[0].children)


def alt(html: str) -> str:
    return re.search('alt="([^"]*)"', html).group(1)


def test_the_cycle_panel_steps_through_draft_verify_accept(tokenizer, out):
    panel = cycle_panel(tokenizer, PROMPT, out)
    cycle, stage = controls(panel)
    assert cycle.max == int(out.trace.cycles)
    seen = {}
    for name in ("draft", "verify", "accept"):
        stage.value = name
        seen[name] = shown(panel)
    assert "one by one" in seen["draft"] and "in one call and keeps" in seen["verify"]
    assert "the text grows by" in seen["accept"]
    for stage_name, html in seen.items():  # nobody has read the drafts when they are drafted
        assert ("min(p, q)" in html) == (stage_name != "draft")
    before = shown(panel)
    cycle.value = 2
    assert shown(panel) != before and "Cycle 2 of" in shown(panel)


def test_every_cycle_tells_what_the_trace_holds(tokenizer, out):
    text, at = np.asarray(out.tokens), 0
    for row in out.trace.to_records():
        html = cycle_view(tokenizer, PROMPT, out, row["cycle"], "accept")
        assert html.count('title="accepted"') == row["accepted"]
        assert html.count('title="primary"') == row["emitted"] - row["accepted"]
        html = cycle_view(tokenizer, PROMPT, out, row["cycle"], "verify")
        behind = row["drafted"] - row["accepted"]
        assert html.count('title="rejected"') == min(1, behind)
        assert html.count('title="draft"') == html.count("not judged</td>") == max(0, behind - 1)
        at += row["emitted"]
    assert at == len(text)


def test_a_tokens_text_arrives_escaped(out):
    hostile = train_tokenizer("<script>alert(1)</script> " * 50, vocab_size=265)
    ids = hostile.encode("<script>").ids
    html = cycle_view(hostile, ids, out, 0, "accept")
    assert "<script" not in html and "&lt;script" in html


def test_drafts_behind_an_accepted_stop_token_are_judged_by_nobody(tokenizer, tiny_primary):
    """A primary that drafts for itself: all is accepted, and the text ends inside the first block."""
    free = speculate(tiny_primary, tiny_primary, PROMPT, 12, block_len=5)
    stop = int(free.tokens[1])
    ended = speculate(tiny_primary, tiny_primary, PROMPT, 12, block_len=5, stop_token=stop)
    (row, *_) = ended.trace.to_records()
    assert row["emitted"] == row["accepted"] < row["drafted"]
    html = cycle_view(tokenizer, PROMPT, ended, 0, "verify")
    assert "rejected</td>" not in html and 'title="rejected"' not in html
    assert html.count("not judged</td>") == row["drafted"] - row["accepted"]


def test_views_of_one_text_say_so(tokenizer, tiny_primary, tiny_tandem):
    two = speculate(tiny_primary, tiny_tandem, [[1, 2], [3]], 6, block_len=2)
    with pytest.raises(BadInput, match="the trace of one text, got a batch's"):
        token_view(tokenizer, PROMPT, two)
    with pytest.raises(BadInput, match="the trace of one text, got a batch's"):
        timeline_panel({"tandem": two.trace}, {"tandem": 0.1}, 1.5)


def test_the_acceptance_panel(tiny_primary, tiny_tandem):
    found = compare(tiny_primary, {"<script>": tiny_tandem}, [PROMPT], 8, block_lens=(1, 3), repetitions=1)
    panel = acceptance_panel(found)
    before = shown(panel)
    controls(panel)[0].value = 1
    assert alt(shown(panel)) != alt(before) and "γ = 1" in shown(panel)
    assert "<script" not in before


def test_the_timeline_panel_follows_the_costs(out):
    panel = timeline_panel({"tandem": out.trace}, {"tandem": 0.1}, 1.5, tokens=8)
    before = alt(shown(panel))
    controls(panel)[0].value = 3.0
    assert alt(shown(panel)) != before
    assert "primary alone: 8 tokens in 8.0 steps" in before
    with pytest.raises(BadInput, match="a draft cost for each trace, got none for tandem"):
        timeline_panel({"tandem": out.trace}, {}, 1.5)


def test_the_attention_panel(tiny_primary, tiny_tandem):
    maps = attention_maps(tiny_primary, tiny_tandem, np.array([3, 1, 4, 1, 5, 9], np.int32), 2)
    panel = attention_panel(maps, ["<script>", "$x$", "\n", "d", "é", "f"])
    assert "<script" not in shown(panel)
    _, head, token = controls(panel)
    before = shown(panel)
    token.value = 1
    assert alt(shown(panel)) != alt(before) and "at token 1: 0% to the primary" in shown(panel)
    head.value = 1
    assert "Head 1" in shown(panel)
    assert primary_shares(maps, 2).alt.startswith("Share of attention")
    with pytest.raises(BadInput, match="6 strings"):
        attention_panel(maps, ["one"])


def test_the_dashboard_follows_trainings_one_after_the_other():
    dashboard = training_dashboard(["distilled", "tandem"])
    assert isinstance(dashboard, ipywidgets.HTML)
    entry = {"step": 1, "tokens": 64, "seconds": 0.5, "valid_loss": 3.5, "valid_accuracy": 0.1}
    dashboard.follow("distilled")(entry)
    before = dashboard.value
    dashboard.follow("tandem")({**entry, "valid_agreement": 0.25})
    assert alt(before) != alt(dashboard.value)
    assert "25.0%" in dashboard.value and dashboard.picture().alt.count("ends at") == 2
    dashboard.follow("tandem")(entry)
    assert len(dashboard.histories["tandem"]) == 1  # its cell was run again
    with pytest.raises(BadInput, match="a name among distilled, tandem"):
        dashboard.follow("other")


def test_the_dashboard_follows_trainings_side_by_side():
    dashboard = training_dashboard(["distilled", "tandem"])
    entry = {"step": 10, "tokens": 20480, "seconds": 3.0, "valid_loss": 2.5, "valid_accuracy": 0.5}
    for _ in range(2):  # the second time as if the cell were run again
        hear = dashboard.follow_all()
        hear("tandem", entry)
        hear("distilled", entry)
        once = dashboard.value
        hear("tandem", {**entry, "step": 20, "valid_agreement": 0.25})
        assert dashboard.value == once  # drawn when both have had their evaluation
        hear("distilled", {**entry, "step": 20})
        assert [len(history) for history in dashboard.histories.values()] == [2, 2]
        assert "25.0%" in dashboard.value and dashboard.picture().alt.count("after 20 steps") == 2
    dashboard.follow_all()("tandem", entry)  # the other is not trained this time
    assert alt(dashboard.value).count("ends at") == 1
    with pytest.raises(BadInput, match="a name among distilled, tandem"):
        hear("other", entry)


def test_the_router_panel(tiny_primary, tiny_tandem):
    from tandem_edu.train import train_router

    prompts = [PROMPT, PROMPT[::-1]]
    given = {"max_new_tokens": 8, "steps": 5, "rows": 2, "progress": False}
    router, _ = train_router(tiny_primary, tiny_tandem, prompts, 3, key=jax.random.key(0), **given)
    settings = {"block_len": 3, "max_new_tokens": 8, "repetitions": 1}
    sweep = sweep_thresholds(tiny_primary, tiny_tandem, prompts, router, (0.0, 0.5, 1.0), **settings)
    assert sweep[0].drafted >= sweep[1].drafted >= sweep[2].drafted
    constant = compare(tiny_primary, {"t": tiny_tandem}, prompts, 8, block_lens=(3,), repetitions=1)
    assert sweep[0].drafted == constant.runs[0].summary["mean_drafted"]
    assert sweep[0].tokens_per_call == constant.runs[0].summary["block_efficiency"]
    assert sweep[0].to_dict()["speedup"] > 0
    panel = router_panel(sweep)
    before = shown(panel)
    controls(panel)[0].value = 2
    assert alt(shown(panel)) != alt(before) and '<th scope="row">1 (chosen)</th>' in shown(panel)
    with pytest.raises(BadInput, match="at least one threshold"):
        router_panel([])
    with pytest.raises(BadInput, match="at least one prompt"):
        sweep_thresholds(tiny_primary, tiny_tandem, [], router, (0.5,))


def test_measured_points_stand_beside_the_formula(tiny_primary, tiny_tandem):
    found = compare(tiny_primary, {"tandem": tiny_tandem}, [PROMPT], 8, block_lens=(1, 3), repetitions=2)
    panel = speedup_panel(measured=measured_speedups(found))
    median = np.median(found.run("tandem", 3).speedup)
    assert f"{median:.2f} at 3" in alt(shown(panel))
    hostile = speedup_panel(verify_cost=0.2, slope=0.1, measured={"<script>": [(1, 1.0, 0.9, 1.1)]})
    assert "<script" not in shown(hostile)
    assert "verification 0.50 and 0.10 per draft" in alt(shown(hostile))
