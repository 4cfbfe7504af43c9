"""What a router's threshold does: draft length, waste and speed against τ."""

from collections.abc import Sequence

import numpy as np

from tandem_edu.measure import spread
from tandem_edu.measure.thresholds import Threshold
from tandem_edu.show.picture import BLACK, BLUE, GREEN, ORANGE, PINK, Picture, canvases, legend, primary_alone


def thresholds(sweep: Sequence[Threshold], mark: float | None = None) -> Picture:
    """Three pictures side by side over the same τ; `mark` draws a line at one."""
    figure, (length, waste, speed) = canvases(
        ["Drafts a block", "Wasted drafts", "Times as fast"],
        "threshold τ",
        width=9.6,
        height=3.4,
        room=(0.5, 0.6),
        between=0.5,
    )
    taus = [one.threshold for one in sweep]
    length.plot(taus, [one.drafted for one in sweep], color=ORANGE, marker="s", ls="--", label="drafted")
    length.plot(taus, [one.accepted for one in sweep], color=GREEN, marker="o", label="accepted")
    waste.plot(taus, [one.wasted for one in sweep], color=PINK, marker="D", ls=":")
    waste.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
    for axes in (length, speed):
        axes.locator_params(axis="y", nbins=4)
    medians, lows, highs = zip(*(spread(one.speedup) for one in sweep), strict=True)
    speed.plot(taus, medians, color=BLUE, marker="^", label="median")
    speed.fill_between(taus, lows, highs, color=BLUE, alpha=0.2, label="quartiles")
    primary_alone(speed)
    for axes in (length, waste, speed):
        axes.set_ylim(bottom=0)
        axes.set_xticks([0, 0.5, 1])
        if mark is not None:
            axes.axvline(mark, color=BLACK, linewidth=1, linestyle="--", label=f"τ = {mark:g}")
    legend(length)
    legend(speed, loc="lower right")
    best = sweep[int(np.argmax(medians))]
    told = "; ".join(
        f"τ = {one.threshold:g}: {one.drafted:.1f} drafts, {one.wasted:.0%} wasted, {fast:.2f} times as fast"
        for one, fast in zip(sweep, medians, strict=True)
    )
    marked = "" if mark is None else f" Marked: {mark:g}."
    return Picture(
        figure, f"Line charts against the threshold, fastest at {best.threshold:g}.{marked} {told}."
    )
