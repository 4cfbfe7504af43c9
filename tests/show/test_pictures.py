"""Pictures, tables and token views: correct numbers, an alternative text, and nothing that could run."""

import base64
import re
from xml.etree import ElementTree

import jax.numpy as jnp
import numpy as np
import pytest
from refusal import refuses

from tandem_edu import measure, show
from tandem_edu.data import train_tokenizer
from tandem_edu.decode import Trace, generate, speculate
from tandem_edu.errors import BadInput
from tandem_edu.measure import PRESETS, Hardware, Span, Threshold, calibration, compare
from tandem_edu.show.palette import ACCEPTED, PRIMARY, REJECTED, label_of, series
from tandem_edu.show.tokens import marked_tokens, printable

PROMPT = np.array([1, 2, 3], np.int32)
SPEED = np.array([0.9, 1.0, 1.1])
SPANS = [Span("drafter", 0, 0.4, 0), Span("primary", 0.4, 1.8, 3), Span("primary", 1.8, 3.2, 12)]
P, Q = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.25, 0.25, 0.25, 0.25])
STRINGS = ["<script>", "$x$", "\n", "d"]
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


CALIBRATION = calibration(np.array([0.9, 0.9, 0.1]), np.array([1.0, 1.0, 0.0]), bins=5)
SWEEP = [Threshold(tau, 4 - 3 * tau, 1.0, 1 - tau, 2.0, SPEED + tau) for tau in (0.0, 1.0)]
LONG = "a drafter with a $very long$ name"
TIMES = {1: np.array([1e-3, 2e-3]), 4: np.array([2e-3, 2e-3])}
ALIKE = "p 50.0%, 30.0%, 20.0%, 0.0%; drawn 25.0%, 25.0%"
QUALITY = {"tandem": 2.5, "primary": 2.0}, {"tandem": 0.5, "primary": 1.0}
PICTURES = {
    "loss": (lambda c: show.loss_curves({"tandem": HISTORY}), "tandem ends at 2.25 after 2 steps"),
    "acceptance": (lambda c: show.acceptance_by_position(c, 3), r"positions 1 to 3, .* tandem \d+% of \d+"),
    "reliability": (lambda c: show.reliability({"a": CALIBRATION}), "a: expected calibration error 0.100"),
    "tokens": (lambda c: show.tokens_per_call(c), "γ = 1, 3"),
    "speedups": (lambda c: show.speedups(c), "γ = 1, 3"),
    "shares": (lambda c: show.frequencies(P, {"drawn": Q}, STRINGS), ALIKE),
    "overlap": (lambda c: show.acceptance_prob(P, Q, STRINGS), "70% are in both"),
    "mask": (lambda c: show.block_mask(24, 4, token=9), "tokens 0 to 7 and to its own of tokens 8 to 9"),
    "first token": (lambda c: show.block_mask(4, 2, token=0), "of no token and to its own of token 0"),
    "sketch": (lambda c: show.sketch_mask(24, 4, token=10), "both halves read tokens 0 to 7, and .* 8 to 9"),
    "small roofline": (lambda c: show.roofline(PRESETS[0], 135e6), "135 M weights"),
    "roofline": (lambda c: show.roofline(PRESETS[-1], 8e9), "8 B weights"),
    # α = 0.5, c = 0.5: (1 + α) / (1 + c) = 1 at γ = 1, and less for a larger γ.
    "formula": (lambda c: show.speedup_curve(0.5, 0.5, 1.0), "best at γ = 1 with speedup 1.00"),
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
    tag = ElementTree.fromstring(f"{picture.html()}</img>")
    assert tag.get("alt") == picture.alt
    image = base64.b64decode(tag.attrib["src"].removeprefix("data:image/png;base64,"))
    assert image.startswith(b"\x89PNG") and len(image) > 5_000
    box, (width, height) = picture.figure.get_tightbbox(), picture.figure.get_size_inches()
    assert 0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height


@pytest.mark.parametrize("repeat", [1, 5])
def test_the_common_area_is_one_minus_tv_and_the_bars_hold_all_of_p_and_q(repeat):
    p, q = np.tile(P, repeat) / repeat, np.tile(Q, repeat) / repeat
    (axes,) = show.acceptance_prob(p, q, STRINGS * repeat).figure.axes
    accepted, residual, rejected = (sum(bar.get_height() for bar in part) for part in axes.containers)
    assert accepted == pytest.approx(1 - np.abs(P - Q).sum() / 2)
    assert accepted + residual == pytest.approx(1) and accepted + rejected == pytest.approx(1)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert len(labels) == min(len(p), 12) + 1 and labels[-1] == "others"


@pytest.mark.parametrize(("string", "label"), [("$a$", r"\$a\$"), ("\x00", "�"), (" if\n", "·if⏎")])
def test_labels_show_white_space_and_no_control_characters(string, label):
    assert label_of(string) == label


def test_a_token_outside_the_mask_cannot_be_marked():
    refuses(r"a token in 0\.\.7 to mark, got 9", show.block_mask, 8, 4, token=9)


def test_the_roofline_bends_at_its_ridge():
    chip = Hardware("round numbers", peak=1e12, bandwidth=1e11, bytes_per_weight=4)
    assert measure.ridge(chip) == 20
    assert measure.read_time(chip, 1e9, 1) == measure.read_time(chip, 1e9, 20) == 0.04
    assert measure.read_time(chip, 1e9, 40) == 2 * measure.read_time(chip, 1e9, 20)
    assert all(1 < measure.ridge(chip) < 1000 for chip in PRESETS)
    refuses("tokens above 0", measure.read_time, chip, 1e9, 0)


def test_a_timeline_adds_up():
    cycles = [jnp.array(x, jnp.int32) for x in ([3, 0, 0], [2, 0, 0], [3, 1, 0])]
    blank = jnp.zeros((3, 4))
    trace = Trace(jnp.int32(2), *cycles, jnp.full((3, 4), -1, jnp.int32), blank, blank)
    spans = measure.timeline(trace, draft_cost=0.25, verify_cost=1.5)
    assert spans == [("drafter", 0, 0.75, 0), ("primary", 0.75, 2.25, 3), ("primary", 2.25, 3.75, 1)]
    alt = show.timelines({"tandem": spans, "nothing": []}).alt
    assert "tandem: 4 tokens in 3.8 steps" in alt and "nothing: 0 tokens" in alt


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


def test_text_that_looks_like_html_arrives_as_text(tokenizer, out):
    prompt = tokenizer.encode("<script>alert(1)</script>&\n").ids
    named = show.token_view(tokenizer, prompt, out, meanings={"primary": "by <us>"})
    assert "written by the primary" not in named and "4 by &lt;us&gt;" in named
    view = show.token_view(tokenizer, prompt, out, label='"><script>')
    page = ElementTree.fromstring(f"<page>{view}</page>")
    table = {"details", "summary", "table", "caption", "tr", "th", "td"}
    assert {tag.tag for tag in page.iter()} == {"page", "div", "span", *table}
    assert "".join(page.itertext()).startswith("<script>alert(1)</script>&⏎\n")
    assert page[0].get("aria-label") == '"><script>: 4 written by the primary itself'


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


def test_tables_escape():
    table = ElementTree.fromstring(show.html_table([{"<u>": "<b>", "γ": 4}], "<i>"))
    assert {tag.tag for tag in table.iter()} == {"table", "caption", "tr", "th", "td"}
