"""What people look at: the right numbers in it, an alternative text, and nothing that could run."""

import base64
import dataclasses
import re
from html.parser import HTMLParser

import ipywidgets
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tandem_edu import show
from tandem_edu.data import train_tokenizer
from tandem_edu.decode import generate, speculate
from tandem_edu.errors import BadInput
from tandem_edu.measure import PRESETS, Span, Threshold, calibration, compare
from tandem_edu.show.adaptive import thresholds
from tandem_edu.show.attention import attention_head
from tandem_edu.show.ideas import roofline, speedup_curve, timelines
from tandem_edu.show.panels import gamma_panel, gamma_view
from tandem_edu.show.picture import SERIES, series
from tandem_edu.show.tokens import marked_tokens, printable

PROMPT = np.array([1, 2, 3], np.int32)
SPEED = np.array([0.9, 1.0, 1.1])
SPANS = [Span("drafter", 0, 0.4, 0), Span("primary", 0.4, 1.8, 3), Span("primary", 1.8, 3.2, 12)]
HISTORY = [{"step": 1, "valid_loss": 3.5}, {"step": 2, "valid_loss": 2.25}]


@pytest.fixture(scope="module")
def comparison(tiny_primary, tiny_secondary, tiny_tandem):
    drafters = {"<script>plain": tiny_secondary, "tandem": tiny_tandem}
    return compare(tiny_primary, drafters, [PROMPT, PROMPT[::-1]], 8, block_lens=(1, 3), repetitions=2)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("", vocab_size=257)


class Checker(HTMLParser):
    """Counts tags; an unescaped name would be one."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


CALIBRATION = calibration(np.array([0.9, 0.9, 0.1]), np.array([1.0, 1.0, 0.0]), bins=5)


def many_drafters(comparison):
    """The same runs under more names: too many for bars."""
    names = ("second", "third", "fourth")
    copies = [dataclasses.replace(run, drafter=name) for name in names for run in comparison.of("tandem")]
    return dataclasses.replace(comparison, runs=(*comparison.runs, *copies))


@pytest.mark.parametrize(
    ("draw", "figures"),
    [
        (lambda c: show.loss_curves({"tandem": HISTORY}), ["2.25 after 2 steps"]),
        (lambda c: show.acceptance_by_position(c, 3), ["positions 1 to 3", "%"]),
        (lambda c: show.acceptance_by_position(many_drafters(c), 3), ["positions 1 to 3", "fourth"]),
        (lambda c: show.reliability({"tandem": CALIBRATION}), ["tandem: expected calibration error 0.100"]),
        (lambda c: show.tokens_per_call(c), ["γ = 1, 3"]),
        (lambda c: show.speedups(c, mark=3), ["γ = 1, 3"]),
    ],
)
def test_a_picture_is_an_image_that_says_what_it_shows(draw, figures, comparison):
    picture = draw(comparison)
    page = Checker(picture.html())
    ((tag, attributes),) = page.tags
    assert tag == "img"
    assert attributes["alt"] == picture.alt
    assert "tandem" in picture.alt
    for figure in figures:
        assert figure in picture.alt
    image = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"))
    assert image.startswith(b"\x89PNG")
    assert len(image) > 5_000


ROOMS = {
    "mask": lambda c: show.block_mask(24, 4, token=9),
    "roofline": lambda c: roofline(PRESETS[-1], 8e9),
    "speedup": lambda c: speedup_curve(0.99, 0.05, 1.0, measured={"tandem": [(4, 2.2, 2.1, 2.3)]}),
    "thresholds": lambda c: thresholds(
        [Threshold(t, 4 - 3 * t, 1.0, 1 - t, 2.0, SPEED + t) for t in (0.0, 1.0)]
    ),
    "acceptance": lambda c: show.acceptance_by_position(many_drafters(c), 3),
    "attention": lambda c: attention_head(np.full((1, 1, 24, 2, 24), 0.1), ["W" * 20] * 24, 0, 0, 3),
    "few tokens": lambda c: attention_head(np.full((1, 1, 3, 2, 3), 0.1), ["a", "b", "c"], 0, 0),
    "timeline": lambda c: timelines({"a drafter with a $long$ name": SPANS, "tandem": SPANS, "third": SPANS}),
    "long timeline": lambda c: timelines({"W" * 40: SPANS}),
}


@pytest.mark.parametrize("name", ROOMS)
def test_what_lays_itself_out_leaves_nothing_outside(name, comparison):
    """Where the room is given and not measured, every label must still be in the picture."""
    figure = ROOMS[name](comparison).figure
    assert figure.get_layout_engine() is None
    FigureCanvasAgg(figure).draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    if name == "long timeline":  # a name may be cut, what it is the name of may not
        box = figure.axes[0].get_window_extent().transformed(figure.dpi_scale_trans.inverted())
    assert 0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height


def test_there_is_no_curve_without_an_evaluation():
    with pytest.raises(BadInput, match="an evaluation of each model, got none of secondary, other: train it"):
        show.loss_curves({"tandem": HISTORY, "secondary": [], "other": []})


def test_the_lines_show_the_measured_numbers(comparison):
    axes = show.tokens_per_call(comparison).figure.axes[0]
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    for drafter in comparison.drafters:
        expected = [run.summary["block_efficiency"] for run in comparison.of(drafter)]
        np.testing.assert_array_equal(drawn[drafter], expected)


def test_a_name_keeps_its_colour_among_others():
    assert series(["x", "tandem"])[1] == series(["tandem"])[0]
    assert series(["primary", "x"])[1] == series(["x"])[0] == SERIES[0]
    assert len(set(series(["primary", "a", "b", "c", "tandem"]))) == 5


def test_every_token_is_told_once(tiny_primary, tiny_secondary):
    out = speculate(tiny_primary, tiny_secondary, PROMPT, 12, block_len=3)
    pairs = list(marked_tokens(PROMPT, out))
    assert [token for kind, token in pairs if kind == "prompt"] == PROMPT.tolist()
    written = [token for kind, token in pairs if kind in ("accepted", "primary")]
    assert written == np.asarray(out.tokens).tolist()
    summary = out.trace.summary()
    assert sum(kind == "accepted" for kind, _ in pairs) == summary["accepted"]
    rows = out.trace.to_records()
    assert sum(kind == "rejected" for kind, _ in pairs) == sum(
        row["accepted"] < row["drafted"] for row in rows
    )


def test_text_without_a_drafter_is_the_primarys(tiny_primary):
    out = generate(tiny_primary, PROMPT, 4)
    assert [kind for kind, _ in marked_tokens(PROMPT, out)] == ["prompt"] * 3 + ["primary"] * 4


def test_text_that_looks_like_html_arrives_as_text(tokenizer, tiny_primary):
    out = generate(tiny_primary, PROMPT, 4)
    prompt = tokenizer.encode("<script>alert(1)</script>&\n").ids
    named = show.token_view(tokenizer, prompt, out, meanings={"primary": "by <us>"})
    assert "written by the primary" not in named and "4 by &lt;us&gt;" in named
    page = Checker(show.token_view(tokenizer, prompt, out, label='"><script>'))
    table = {"details", "summary", "table", "caption", "tr", "th", "td"}
    assert {tag for tag, _ in page.tags} == {"div", "span", *table}
    assert "".join(page.text).startswith("<script>alert(1)</script>&⏎\n")
    assert page.tags[0][1]["aria-label"] == '"><script>: 4 primary'


def test_no_text_can_command_the_terminal(tokenizer, tiny_primary):
    out = generate(tiny_primary, PROMPT, 4)
    prompt = tokenizer.encode("a\x1b[31m\x07b").ids
    assert "\x1b" not in show.terminal_view(tokenizer, prompt, out, colour=False)
    coloured = show.terminal_view(tokenizer, prompt, out)
    assert "\x07" not in coloured
    assert "\x1b" not in re.sub(r"\x1b\[(0|2|32;4|34|31;9)m", "", coloured)
    assert printable("tab\tline\nbell\x07") == "tab\tline\nbell�"


def test_characters_of_several_tokens_are_whole_in_the_terminal(tokenizer, tiny_primary):
    out = generate(tiny_primary, PROMPT, 4)
    shown = show.terminal_view(tokenizer, tokenizer.encode("é 🙂").ids, out)
    assert shown.startswith("\x1b[2mé 🙂\x1b[0m")
    assert show.terminal_view(tokenizer, tokenizer.encode("é").ids[:1], out).startswith("\x1b[2m\\xc3\x1b")


def test_tables_escape_and_align():
    rows = [{"drafter": "<b>", "γ": 4}, {"drafter": "tandem", "γ": 16}]
    assert "<b>" not in show.html_table(rows, "<i>").replace("&lt;b&gt;", "")
    assert "<i>" not in show.html_table(rows, "<i>")
    assert show.text_table(rows).splitlines()[2:] == ["<b>      4", "tandem   16"]


def test_a_page_stands_alone(comparison):
    page = show.page("<T>", [("<H>", [show.paragraph("<p>"), show.tokens_per_call(comparison)])])
    checked = Checker(page)
    assert not {"script", "link", "t", "h"} & {tag for tag, _ in checked.tags}
    assert all(attributes.get("src", "data:").startswith("data:") for _, attributes in checked.tags)
    assert "http" not in page
    assert checked.tags[0] == ("html", {"lang": "en"})


def test_the_slider_changes_picture_and_alternative_text(comparison, tokenizer):
    panel = gamma_panel(comparison, tokenizer)
    controls, view = panel.children
    slider, prompt = controls.children
    assert isinstance(view, ipywidgets.HTML)
    assert slider.continuous_update is False
    seen = set()
    for block_len in comparison.block_lens:
        slider.value = block_len
        assert view.value == gamma_view(comparison, tokenizer, block_len, 0)
        assert f"γ = {block_len}" in view.value
        seen.add(view.value)
    prompt.value = 1
    assert view.value == gamma_view(comparison, tokenizer, block_len, 1)
    assert len({*seen, view.value}) == 3
    assert "script" not in {tag for tag, _ in Checker(view.value).tags}
