"""Pictures of distributions: the areas are probabilities, and labels are not typeset."""

import numpy as np
import pytest

from tandem_edu.show import acceptance_prob, frequencies
from tandem_edu.show.distributions import label_of

P, Q = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.25, 0.25, 0.25, 0.25])
STRINGS = ["<script>", "$x$", "\n", "d"]


@pytest.mark.parametrize("limit", [2, 12])
def test_the_common_area_is_one_minus_tv_and_the_bars_hold_all_of_p_and_q(limit):
    picture = acceptance_prob(P, Q, STRINGS, limit)
    assert f"{1 - np.abs(P - Q).sum() / 2:.0%} are in both" in picture.alt
    assert "<script" not in picture.html()
    (axes,) = picture.figure.axes
    accepted, residual, rejected = (sum(bar.get_height() for bar in part) for part in axes.containers)
    assert accepted + residual == pytest.approx(1) and accepted + rejected == pytest.approx(1)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert len(labels) == (3 if limit == 2 else 4) and (labels[-1] == "others") == (limit == 2)


def test_the_shares_are_in_the_alternative_text():
    picture = frequencies(P, {"drawn": Q}, STRINGS)
    assert "p 50.0%, 30.0%, 20.0%, 0.0%; drawn 25.0%, 25.0%" in picture.alt
    assert len(picture.png()) > 1000


@pytest.mark.parametrize(("string", "label"), [("$a$", r"\$a\$"), ("\x00", "�"), (" if\n", "·if⏎")])
def test_labels_show_white_space_and_no_control_characters(string, label):
    assert label_of(string) == label
