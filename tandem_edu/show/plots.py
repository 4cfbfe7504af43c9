"""Pictures of measurements. Each draws what was measured and computes only its labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tandem_edu.errors import require
from tandem_edu.measure import Calibration, Comparison, share_interval, spread
from tandem_edu.measure.thresholds import Threshold
from tandem_edu.show.palette import ACCEPTED, BLACK, GREY, PRIMARY, REJECTED, TANDEM, plain, series
from tandem_edu.show.picture import (
    Picture,
    canvas,
    canvases,
    error_bars,
    legend,
    log_scales,
    primary_alone,
    shifts,
)
from tandem_edu.show.tables import speedup_cell

BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16)}
"""A legend's position under the axes."""


def loss_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Picture:
    """Held-out loss against training steps, one line per model; `histories` as `TrainResult.history`.

    Raises `BadInput` for a history without an evaluation.
    """
    missing = ", ".join(name for name, history in histories.items() if not history)
    require(not missing, "an evaluation of each model", f"none of {missing}", "train it with valid_tokens")
    figure, axes = canvas("Held-out loss during training", "training step", "cross-entropy (nats per token)")
    ends = []
    for name, style in series(histories).items():
        steps = [entry["step"] for entry in histories[name]]
        losses = [entry["valid_loss"] for entry in histories[name]]
        axes.plot(steps, losses, **style, markersize=4, label=plain(name))
        ends.append(f"{name} ends at {losses[-1]:.2f} after {steps[-1]} steps")
    legend(axes)
    return Picture(figure, f"Line chart of the held-out loss: {'; '.join(ends)}.")


def acceptance_by_position(comparison: Comparison, block_len: int) -> Picture:
    """α_i with 95 % intervals: the share accepted of the drafts at position i that were reached.

    The intervals treat drafts as independent.
    """
    mode = "greedy" if comparison.greedy else "sampled"
    title = f"Acceptance by position in the block (γ = {block_len}, {mode})"
    figure, axes = canvas(title, "position in the block (bars: 95 % intervals)", "accepted, of those reached")
    rows, parts = [{"position": str(i + 1)} for i in range(block_len)], []
    shift = shifts(comparison.drafters, 0.5)
    for drafter, style in series(comparison.drafters).items():
        summary = comparison.run(drafter, block_len).summary
        counts = [count for count in summary["reached_by_position"] if count]  # later ones are 0 as well
        pairs = list(zip(summary["acceptance_by_position"], counts, strict=False))
        intervals = np.array([share_interval(*pair) for pair in pairs]).reshape(-1, 3).T
        x = np.arange(1, len(pairs) + 1) + shift[drafter]
        error_bars(axes, x, *intervals, **style, label=plain(drafter))
        cells = [f"{share:.0%} of {count}" for share, count in pairs]
        parts.append(f"{drafter} {', '.join(cells)}")
        cells += ["–"] * (block_len - len(cells))
        rows = [row | {drafter: cell} for row, cell in zip(rows, cells, strict=True)]
    ticks = np.linspace(0, 1, 6)
    axes.set_yticks(ticks, [f"{share:.0%}" for share in ticks])
    axes.set(xticks=range(1, block_len + 1), xlim=(0.4, block_len + 0.6), ylim=(0, 1.05))
    legend(axes, **BELOW, ncols=4)
    alt = f"Chart of acceptance at positions 1 to {block_len}, {mode}: {'; '.join(parts)}."
    return Picture(figure, alt, rows)


def tokens_per_call(comparison: Comparison, mark: int | None = None) -> Picture:
    """Block efficiency against γ; `mark` highlights one γ."""
    figure, axes = canvas("Tokens per call of the primary", "block length γ", "tokens emitted per call")
    if mark is not None:
        axes.axvline(mark, color="#bbbbbb", linewidth=6, alpha=0.5, zorder=0)
    gammas, heights = comparison.block_lens, {}
    for drafter, style in series(comparison.drafters).items():
        heights[drafter] = [run.summary["block_efficiency"] for run in comparison.of(drafter)]
        axes.plot(gammas, heights[drafter], **style, label=plain(drafter))
    top = 1.05 * max(map(max, heights.values())) + 0.1
    if gammas[0] + 1 < top:
        axes.plot(gammas, np.add(gammas, 1), color=GREY, lw=1, ls=":", label="all accepted")
    axes.set_ylim(0.9, top)
    legend(axes, **BELOW, ncols=4)
    return _against_gamma("tokens per primary call", figure, gammas, heights)


def speedups(comparison: Comparison) -> Picture:
    """Measured speedup over the primary alone against γ: median and quartiles of the repetitions."""
    figure, axes = canvas("Measured speedup", "block length γ", "speedup (median, quartiles)")
    gammas, medians, shift = comparison.block_lens, {}, shifts(comparison.drafters, 0.3)
    for drafter, style in series(comparison.drafters).items():
        medians[drafter], low, high = np.array([spread(run.speedup) for run in comparison.of(drafter)]).T
        x = np.array(gammas) + shift[drafter]
        error_bars(axes, x, medians[drafter], low, high, **style, label=plain(drafter))
    axes.set_ylim(bottom=0)
    legend(axes, loc="lower right")
    return _against_gamma("median measured speedup", figure, gammas, medians)


def _against_gamma(what: str, figure: Figure, gammas: list[int], heights: Mapping[str, Any]) -> Picture:
    """The picture, with the primary alone and the numbers in words."""
    figure.axes[0].set_xticks(gammas)
    primary_alone(figure.axes[0])
    parts = [f"{name} {', '.join(f'{height:.2f}' for height in of)}" for name, of in heights.items()]
    alt = f"Line chart of {what} at γ = {', '.join(map(str, gammas))}: {'; '.join(parts)}."
    return Picture(figure, alt)


def reliability(calibrations: Mapping[str, Calibration]) -> Picture:
    """Share of drafts accepted against confidence; a calibrated router is on the diagonal."""
    axis = "confidence (a larger mark: more drafts)"
    figure, axes = canvas("Is the confidence calibrated?", axis, "share accepted")
    axes.plot([0, 1], [0, 1], color=BLACK, linewidth=1, linestyle=":", label="calibrated")
    parts = []
    for name, style in series(calibrations).items():
        one = calibrations[name]
        counts, x, y = zip(*(bin for bin in zip(*one, strict=True) if bin[0]), strict=True)
        colour, marker = style["color"], style["marker"]
        axes.plot(x, y, color=colour, ls=style["linestyle"], label=f"{plain(name)} (ECE {one.error:.3f})")
        axes.scatter(x, y, s=[20 + 200 * n / sum(counts) for n in counts], color=colour, marker=marker)
        points = ", ".join(f"{accepted:.0%} at {sure:.0%}" for sure, accepted in zip(x, y, strict=True))
        parts.append(f"{name}: expected calibration error {one.error:.3f}, accepted {points}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    legend(axes, **BELOW, ncols=3)
    return Picture(figure, f"Reliability diagram. {'; '.join(parts)}.")


def thresholds(sweep: Sequence[Threshold], chosen: int) -> Picture:
    """Drafts per block, wasted drafts and speedup against a router's threshold τ; one is `chosen`."""
    titles = ["Drafts per block", "Wasted drafts", "Speedup"]
    figure, (length, waste, speed) = canvases(titles, "threshold τ", width=9.6, height=3.4)
    taus, drafted, accepted, wasted, _, speedup = zip(*sweep, strict=True)
    length.plot(taus, drafted, color=BLACK, marker="s", ls="--", label="drafted")
    length.plot(taus, accepted, color=ACCEPTED, marker="o", label="accepted")
    waste.plot(taus, wasted, color=REJECTED, marker="D", ls=":")
    waste.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
    medians, lows, highs = np.array([spread(one) for one in speedup]).T
    speed.plot(taus, medians, color=BLACK, marker="^", label="median")
    speed.fill_between(taus, lows, highs, color=BLACK, alpha=0.2, label="quartiles")
    primary_alone(speed)
    label = f"τ = {taus[chosen]:g}"
    for axes in (length, waste, speed):
        axes.axvline(taus[chosen], color=GREY, linewidth=1, linestyle="--", label=label)
        axes.set(xticks=[0, 0.5, 1], ylim=(0, None))
    legend(length)
    legend(speed, loc="lower right")
    rows = [
        {
            "τ": f"{one.threshold:g}{' (chosen)' if i == chosen else ''}",
            "drafts per block": f"{one.drafted:.2f}",
            "accepted": f"{one.accepted:.2f}",
            "wasted": f"{one.wasted:.0%}",
            "tokens per call": f"{one.tokens_per_call:.2f}",
            "speedup (quartiles)": speedup_cell(one.speedup),
        }
        for i, one in enumerate(sweep)
    ]
    parts = [
        f"τ = {one.threshold:g}: {one.drafted:.1f} drafts, {one.wasted:.0%} wasted, speedup {fast:.2f}"
        for one, fast in zip(sweep, medians, strict=True)
    ]
    best = f"fastest at τ = {taus[int(np.argmax(medians))]:g}, chosen {taus[chosen]:g}"
    return Picture(figure, f"Line charts against the threshold, {best}. {'; '.join(parts)}.", rows)


def time_against_width(seconds: Mapping[int, np.ndarray], title: str) -> Picture:
    """Time of one call against the number of tokens it reads; the dotted line is one token per call."""
    figure, axes = canvas(title, "tokens (or vectors) per call", "milliseconds")
    widths = sorted(seconds)
    medians, lows, highs = np.array([spread(1e3 * seconds[width]) for width in widths]).T
    axes.loglog(widths, medians, color=PRIMARY, marker="^", label="in one call, measured")
    axes.fill_between(widths, lows, highs, color=PRIMARY, alpha=0.2, label="quartiles")
    one_by_one = medians[0] * np.array(widths) / widths[0]
    axes.loglog(widths, one_by_one, color=GREY, linestyle=":", label="one by one")
    low, high = axes.get_ylim()
    steps = [step * 10.0**power for power in range(-4, 5) for step in (1, 2, 5)]
    axes.set(xticks=widths, yticks=[step for step in steps if low <= step <= high])
    log_scales(axes)
    legend(axes, loc="upper left")
    parts = [f"{width}: {time:.3g} ms" for width, time in zip(widths, medians, strict=True)]
    return Picture(figure, f"{title}, time against width: {', '.join(parts)}.")


def quality_against_time(cross_entropy: Mapping[str, float], milliseconds: Mapping[str, float]) -> Picture:
    """One point per model: time per token and cross-entropy. Lower left is better."""
    title = "Quality against time: lower left is better"
    figure, axes = canvas(title, "milliseconds per token", "cross-entropy (nats per token)")
    tandems = [name for name in cross_entropy if name.startswith("tandem")]
    line = ([values[name] for name in tandems] for values in (milliseconds, cross_entropy))
    axes.plot(*line, color=TANDEM, zorder=1)
    for name, style in series(cross_entropy).items():
        at = (milliseconds[name], cross_entropy[name])
        style |= {"color": TANDEM, "marker": "o"} if name in tandems else {}
        axes.plot(*at, color=style["color"], marker=style["marker"], markersize=9)
        below = name in tandems and tandems.index(name) % 2 == 0  # neighbours on the line alternate
        shift, ha, va = ((-8, -4), "right", "top") if below else ((8, 4), "left", "bottom")
        label = {"fontsize": 9, "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1}}
        axes.annotate(plain(name), at, shift, textcoords="offset points", ha=ha, va=va, **label)
    if "primary" in cross_entropy:
        dotted = {"color": GREY, "linewidth": 1, "linestyle": ":", "zorder": 0}
        axes.axvline(milliseconds["primary"], label="the primary's", **dotted)
        axes.axhline(cross_entropy["primary"], **dotted)
        legend(axes, loc="upper right")
    axes.margins(x=0.25, y=0.15)
    axes.set_xlim(left=0)
    parts = [f"{name} {milliseconds[name]:.2f} ms, {loss:.2f}" for name, loss in cross_entropy.items()]
    return Picture(figure, f"Cross-entropy against time per token: {'; '.join(parts)}.")
