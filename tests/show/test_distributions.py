"""Pictures of distributions: the share they name is 1 - TV, and labels cannot be typeset."""

import numpy as np
import pytest

from tandem_edu.show import acceptance_prob, frequencies, quality_against_time, time_against_width
from tandem_edu.show.distributions import label_of

P, Q = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.25, 0.25, 0.25, 0.25])
STRINGS = ["<script>", "$x$", "\n", "d"]


def test_the_overlap_is_one_minus_tv():
    picture = acceptance_prob(P, Q, STRINGS)
    kept = 1 - np.abs(P - Q).sum() / 2
    assert f"{kept:.0%} are in both" in picture.alt and "<script" not in picture.html()
    assert picture.png()[:4] == b"\x89PNG"


def test_the_bars_of_the_overlap_hold_all_of_p_and_q():
    for most in (2, 12):
        (axes,) = acceptance_prob(P, Q, STRINGS, most).figure.axes
        kept, residual, rejected = (sum(bar.get_height() for bar in part) for part in axes.containers)
        assert kept + residual == pytest.approx(1) and kept + rejected == pytest.approx(1)
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert len(labels) == min(most, 4) + (most < 4) and (labels[-1] == "others") == (most < 4)


def test_frequencies_are_told():
    picture = frequencies(P, {"drawn": Q}, STRINGS)
    assert "p 50.0%, 30.0%, 20.0%, 0.0%; drawn 25.0%, 25.0%" in picture.alt
    assert len(picture.png()) > 1000


@pytest.mark.parametrize(("string", "label"), [("$a$", r"\$a\$"), ("\x00", "�"), (" if", "·if")])
def test_labels_show_white_space_and_nothing_else_of_it(string, label):
    assert label_of(string) == label


def test_measured_against_width_and_time():
    picture = time_against_width({1: np.array([1e-3, 2e-3]), 4: np.array([2e-3, 2e-3])}, "Product")
    assert "1: 1.5 ms, 4: 2 ms" in picture.alt and picture.png()
    picture = quality_against_time({"tandem": 2.5, "primary": 2.0}, {"tandem": 0.5, "primary": 1.0})
    assert "tandem 0.50 ms, 2.50; primary 1.00 ms, 2.00" in picture.alt and picture.png()
