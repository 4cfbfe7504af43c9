"""Pictures, tables and token views: correct numbers, an alternative text, and nothing that could run."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from tandem_edu import show
from tandem_edu.data import train_tokenizer
from tandem_edu.decode import generate, speculate
from tandem_edu.errors import BadInput
from tandem_edu.measure import PRESETS, Span, Threshold, calibration, compare
from tandem_edu.show.palette import ACCEPTED, PRIMARY, REJECTED, series
from tandem_edu.show.tokens import marked_tokens, printable

PROMPT = np.array([1, 2, 3], np.int32)
SPEED = np.array([0.9, 1.0, 1.1])
SPANS = [Span("drafter", 0, 0.4, 0), Span("primary", 0.4, 1.8, 3), Span("primary", 1.8, 3.2, 12)]
HISTORY = [{"step": 1, "valid_loss": 3.5}, {"step": 2, "valid_loss": 2.25}]


@pytest.fixture(scope="module")
def comparison(tiny_primary, tiny_secondary, tiny_tandem):
    drafters = {"plain": tiny_secondary, "tandem": tiny_tandem}
    return compare(tiny_primary, drafters, [PROMPT, PROMPT[::-1]], 8, block_lens=(1, 3), repetitions=2)


@pytest.fixture(scope="module")
def out(tiny_primary):
    return generate(tiny_primary, PROMPT, 4)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("", vocab_size=257)


class Checker(HTMLParser):
    """Counts tags; an unescaped name would be one."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


CALIBRATION = calibration(np.array([0.9, 0.9, 0.1]), np.array([1.0, 1.0, 0.0]), bins=5)
SWEEP = [Threshold(tau, 4 - 3 * tau, 1.0, 1 - tau, 2.0, SPEED + tau) for tau in (0.0, 1.0)]
LONG = "a drafter with a $very long$ name"
TIMES = {1: np.array([1e-3, 2e-3]), 4: np.array([2e-3, 2e-3])}
QUALITY = {"tandem": 2.5, "primary": 2.0}, {"tandem": 0.5, "primary": 1.0}
PICTURES = {
    "loss": (lambda c: show.loss_curves({"tandem": HISTORY}), "tandem ends at 2.25 after 2 steps"),
    "acceptance": (lambda c: show.acceptance_by_position(c, 3), r"positions 1 to 3, .* tandem \d+% of \d+"),
    "reliability": (lambda c: show.reliability({"a": CALIBRATION}), "a: expected calibration error 0.100"),
    "tokens": (lambda c: show.tokens_per_call(c), "γ = 1, 3"),
    "speedups": (lambda c: show.speedups(c), "γ = 1, 3"),
    "mask": (lambda c: show.block_mask(24, 4, token=9), "Token 9 attends"),
    "roofline": (lambda c: show.roofline(PRESETS[-1], 8e9), "8 B weights"),
    "curve": (lambda c: show.speedup_curve(0.99, 0.05, 1.0, measured=c), r"tandem measured .* at 1, .* at 3"),
    "thresholds": (lambda c: show.thresholds(SWEEP, 0), "τ = 1: 1.0 drafts, 0% wasted, speedup 2.00"),
    "timeline": (lambda c: show.timelines({LONG: SPANS, "b": SPANS}), "b: 15 tokens in 3.2 steps"),
    "width": (lambda c: show.time_against_width(TIMES, "Product"), "1: 1.5 ms, 4: 2 ms"),
    "quality": (lambda c: show.quality_against_time(*QUALITY), "tandem 0.50 ms, 2.50; primary 1.00 ms, 2.00"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_an_image_with_all_its_labels_that_says_what_it_shows(name, comparison):
    draw, words = PICTURES[name]
    picture = draw(comparison)
    assert re.search(words, picture.alt)
    ((tag, attributes),) = Checker(picture.html()).tags
    assert tag == "img" and attributes["alt"] == picture.alt
    image = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"))
    assert image.startswith(b"\x89PNG") and len(image) > 5_000
    box, (width, height) = picture.figure.get_tightbbox(), picture.figure.get_size_inches()
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


def test_a_name_keeps_its_colour_and_no_drafter_has_one_of_the_palette():
    assert series(["x", "tandem"])["tandem"] == series(["tandem"])["tandem"]
    assert series(["primary", "x"])["x"] == series(["x"])["x"]
    styles = series(["primary", "tandem", *"abcde"])
    for kind in ("color", "marker"):
        assert len({style[kind] for style in styles.values()}) == 7
    assert styles.pop("primary")["color"] == PRIMARY
    assert not {PRIMARY, ACCEPTED, REJECTED} & {style["color"] for style in styles.values()}


def test_every_token_is_shown_once(tiny_primary, tiny_secondary):
    out = speculate(tiny_primary, tiny_secondary, PROMPT, 12, block_len=3)
    pairs = list(marked_tokens(PROMPT, out))
    assert [token for kind, token in pairs if kind == "prompt"] == PROMPT.tolist()
    written = [token for kind, token in pairs if kind in ("accepted", "primary")]
    assert written == np.asarray(out.tokens).tolist()
    kinds = [kind for kind, _ in pairs]
    assert kinds.count("accepted") == out.trace.summary()["accepted"]
    rejecting = [row for row in out.trace.to_records() if row["accepted"] < row["drafted"]]
    assert kinds.count("rejected") == len(rejecting)


def test_text_without_a_drafter_is_the_primarys(out):
    assert [kind for kind, _ in marked_tokens(PROMPT, out)] == ["prompt"] * 3 + ["primary"] * 4


def test_text_that_looks_like_html_arrives_as_text(tokenizer, out):
    prompt = tokenizer.encode("<script>alert(1)</script>&\n").ids
    named = show.token_view(tokenizer, prompt, out, meanings={"primary": "by <us>"})
    assert "written by the primary" not in named and "4 by &lt;us&gt;" in named
    page = Checker(show.token_view(tokenizer, prompt, out, label='"><script>'))
    table = {"details", "summary", "table", "caption", "tr", "th", "td"}
    assert {tag for tag, _ in page.tags} == {"div", "span", *table}
    assert "".join(page.text).startswith("<script>alert(1)</script>&⏎\n")
    assert page.tags[0][1]["aria-label"] == '"><script>: 4 primary'


def test_no_text_can_command_the_terminal(tokenizer, out):
    prompt = tokenizer.encode("a\x1b[31m\x07b").ids
    assert "\x1b" not in show.terminal_view(tokenizer, prompt, out, colour=False)
    coloured = show.terminal_view(tokenizer, prompt, out)
    assert "\x07" not in coloured
    assert "\x1b" not in re.sub(r"\x1b\[(0|2|32;4|34|31;9)m", "", coloured)
    assert printable("tab\tline\nbell\x07") == "tab\tline\nbell�"


def test_characters_of_several_tokens_are_whole_in_the_terminal(tokenizer, out):
    shown = show.terminal_view(tokenizer, tokenizer.encode("é 🙂").ids, out)
    assert shown.startswith("\x1b[2mé 🙂\x1b[0m")
    assert show.terminal_view(tokenizer, tokenizer.encode("é").ids[:1], out).startswith("\x1b[2m\\xc3\x1b")


def test_tables_escape_and_align():
    rows = [{"drafter": "<b>", "γ": 4}, {"drafter": "tandem", "γ": 16}]
    assert "<b>" not in show.html_table(rows, "<i>").replace("&lt;b&gt;", "")
    assert "<i>" not in show.html_table(rows, "<i>")
    assert show.text_table(rows).splitlines()[2:] == ["<b>      4", "tandem   16"]
