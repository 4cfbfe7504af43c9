"""The pictures: each takes what was measured and draws it. Nothing is computed here but a label."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tandem_edu.errors import require
from tandem_edu.measure import Calibration, Comparison, Run, spread
from tandem_edu.show.picture import BLACK, GREEN, Picture, canvas, legend, primary_alone, series, untypeset


def loss_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Picture:
    """Held-out loss against training steps, one line a model; `histories` as `TrainResult.history`.

    Raises `BadInput` for a history without an evaluation.
    """
    unevaluated = ", ".join(name for name, history in histories.items() if not history)
    fix = "train it with valid_tokens"
    require(not unevaluated, "an evaluation of each model", f"none of {unevaluated}", fix)
    figure, axes = canvas("Held-out loss while training", "training step", "cross-entropy (nats per token)")
    ends = []
    for (name, history), (colour, marker, line) in zip(histories.items(), series(histories), strict=True):
        steps = [entry["step"] for entry in history]
        losses = [entry["valid_loss"] for entry in history]
        axes.plot(
            steps, losses, color=colour, marker=marker, linestyle=line, markersize=4, label=untypeset(name)
        )
        ends.append(f"{name} ends at {losses[-1]:.2f} after {steps[-1]} steps")
    legend(axes)
    return Picture(figure, f"Line chart of the held-out loss: {'; '.join(ends)}.")


def acceptance_by_position(comparison: Comparison, block_len: int) -> Picture:
    """α_i, the share accepted of the drafts at position i that were reached, at one block length.

    Bars for up to three drafters, lines for more; faint where fewer than `FEW` drafts were reached.
    """
    how = "greedy" if comparison.greedy else "sampled"
    title = f"Acceptance by position in the block (γ = {block_len}, {how})"
    axis = f"position in the block (faint: fewer than {FEW} drafts reached)"
    figure, axes = canvas(title, axis, "accepted, of those reached", room=(0.8, 0.1))
    drafters, told = comparison.drafters, []
    draw = _bars if len(drafters) <= 3 else _lines
    for index, (drafter, style) in enumerate(zip(drafters, series(drafters), strict=True)):
        summary = comparison.run(drafter, block_len).summary
        counts = [count for count in summary["reached_by_position"] if count]
        heights = summary["acceptance_by_position"][: len(counts)]  # no place behind one that none reached
        solid = [count >= FEW for count in counts]
        draw(axes, heights, solid, untypeset(drafter), style, index, len(drafters))
        told.append(f"{drafter} {', '.join(f'{a:.0%} of {n}' for a, n in zip(heights, counts, strict=True))}")
    axes.set_ylim(0, 1.25 if len(drafters) <= 3 else 1.4)
    axes.set_yticks(np.linspace(0, 1, 6), [f"{share:.0%}" for share in np.linspace(0, 1, 6)])
    axes.set_xticks(range(1, block_len + 1))
    axes.set_xlim(0.4, block_len + 0.6)
    legend(axes, loc="upper right", ncols=3)
    return Picture(figure, f"Chart of acceptance at positions 1 to {block_len}, {how}: {'; '.join(told)}.")


FEW = 20
"""Drafts: a share of fewer says little."""


def _bars(axes, heights, solid, label: str, style, index: int, count: int) -> None:
    width = 0.8 / count
    x = [i + 1 + (index - (count - 1) / 2) * width for i in range(len(heights))]
    bars = axes.bar(x, heights, width, color=style[0], label=label, hatch=HATCHES[index % len(HATCHES)])
    for bar, enough in zip(bars, solid, strict=True):
        bar.set_alpha(None if enough else 0.35)
    axes.bar_label(bars, [f"{100 * alpha:.0f}" for alpha in heights], fontsize=9, padding=1)


def _lines(axes, heights, solid, label: str, style, index: int, count: int) -> None:
    colour, marker, line = style
    x, enough = np.arange(1, len(heights) + 1), sum(solid)
    axes.plot(x[:enough], heights[:enough], color=colour, marker=marker, linestyle=line, label=label)
    faint = {"color": colour, "linestyle": line, "alpha": 0.35, "marker": marker, "markerfacecolor": "white"}
    axes.plot(x[max(0, enough - 1) :], heights[max(0, enough - 1) :], zorder=1, **faint)


def tokens_per_call(comparison: Comparison, mark: int | None = None) -> Picture:
    """Block efficiency against γ; `mark` draws a line at one γ."""
    figure, axes = canvas("Tokens per call of the primary", "block length γ", "tokens emitted per call")
    primary_alone(axes)
    told, top = [], 1.0
    for drafter, (colour, marker, line) in zip(comparison.drafters, series(comparison.drafters), strict=True):
        runs = comparison.of(drafter)
        heights = [run.summary["block_efficiency"] for run in runs]
        gammas = [run.block_len for run in runs]
        axes.plot(gammas, heights, color=colour, marker=marker, linestyle=line, label=untypeset(drafter))
        told.append(f"{drafter} {', '.join(f'{height:.2f}' for height in heights)}")
        top = max(top, *heights)
    _mark(axes, mark)
    top = 1.05 * top + 0.1
    ceiling = [block_len + 1 for block_len in comparison.block_lens]
    if ceiling[0] < top:  # else it is out of the picture
        axes.plot(comparison.block_lens, ceiling, color="#777777", lw=1, ls=":", label="all accepted")
    axes.set_ylim(0.9, top)
    axes.set_xticks(comparison.block_lens)
    legend(axes, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4)
    gammas = ", ".join(map(str, comparison.block_lens))
    return Picture(figure, f"Line chart of tokens per primary call at γ = {gammas}: {'; '.join(told)}.")


def speedups(comparison: Comparison, mark: int | None = None) -> Picture:
    """Wall-clock speedup over the primary alone against γ: median and quartiles of the repetitions."""
    axis = "times as fast (median, quartiles)"
    figure, axes = canvas("Speed against the primary alone", "block length γ", axis)
    primary_alone(axes)
    told, middle = [], (len(comparison.drafters) - 1) / 2
    for index, (drafter, style) in enumerate(
        zip(comparison.drafters, series(comparison.drafters), strict=True)
    ):
        runs = comparison.of(drafter)
        aside = 0.3 / len(comparison.drafters) * (index - middle)
        _line_with_spread(axes, runs, aside, style, untypeset(drafter))
        told.append(f"{drafter} {', '.join(f'{spread(run.speedup)[0]:.2f}' for run in runs)}")
    _mark(axes, mark)
    axes.set_ylim(bottom=0)
    axes.set_xticks(comparison.block_lens)
    legend(axes, loc="lower right")
    gammas = ", ".join(map(str, comparison.block_lens))
    return Picture(figure, f"Line chart of median wall-clock speedup at γ = {gammas}: {'; '.join(told)}.")


def reliability(calibrations: Mapping[str, Calibration]) -> Picture:
    """Share of drafts accepted against the confidence a router had in them; on the diagonal it is right."""
    axis = "confidence (a larger mark: more drafts)"
    figure, axes = canvas("Is the confidence right?", axis, "share accepted")
    axes.plot([0, 1], [0, 1], color=BLACK, linewidth=1, linestyle=":", label="calibrated")
    told = []
    for (name, found), (colour, marker, line) in zip(calibrations.items(), series(calibrations), strict=True):
        bins = [row for row in found.table() if row["drafts"]]
        x, y = ([row[which] for row in bins] for which in ("confidence", "accepted"))
        # A bin's mark is as large as it is full.
        sizes = [20 + 200 * row["drafts"] / sum(found.counts) for row in bins]
        axes.plot(x, y, color=colour, linestyle=line, label=f"{untypeset(name)} (ECE {found.error:.3f})")
        axes.scatter(x, y, s=sizes, color=colour, marker=marker)
        points = ", ".join(f"{share:.0%} at {confidence:.0%}" for confidence, share in zip(x, y, strict=True))
        told.append(f"{name}: expected calibration error {found.error:.3f}, accepted {points}")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    legend(axes, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    return Picture(figure, f"Reliability diagram, accepted against confidence. {'; '.join(told)}.")


HATCHES = ["", "///", "...", "xxx", "\\\\\\"]


def _line_with_spread(axes, runs: Sequence[Run], aside: float, style, label: str) -> None:
    """`aside`: so far from its place, that no bar hides another."""
    colour, marker, line = style
    median, low, high = np.array([spread(run.speedup) for run in runs]).T
    x = [run.block_len + aside for run in runs]
    axes.errorbar(
        x, median, [median - low, high - median],
        color=colour, marker=marker, linestyle=line, capsize=3, label=label,
    )  # fmt: skip


def _mark(axes, block_len: int | None) -> None:
    if block_len is not None:
        axes.axvline(block_len, color="#bbbbbb", linewidth=6, alpha=0.5, zorder=0)


def time_against_width(seconds: Mapping[int, np.ndarray], title: str) -> Picture:
    """Time of one call against how many tokens it reads; the dotted line is one after the other."""
    figure, axes = canvas(title, "tokens (or vectors) at once", "milliseconds")
    widths = sorted(seconds)
    medians, lows, highs = zip(*(spread(1e3 * seconds[width]) for width in widths), strict=True)
    axes.loglog(widths, medians, color=series(["primary"])[0][0], marker="^", label="at once, measured")
    axes.fill_between(widths, lows, highs, color=series(["primary"])[0][0], alpha=0.2, label="quartiles")
    alone = [medians[0] * width / widths[0] for width in widths]
    axes.loglog(widths, alone, color="#777777", linestyle=":", label="one after the other")
    axes.set_xticks(widths, [str(width) for width in widths])
    low, high = axes.get_ylim()
    steps = [step * 10.0**power for power in range(-4, 5) for step in (1, 2, 5)]
    axes.set_yticks([step for step in steps if low <= step <= high])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    legend(axes, loc="upper left")
    told = ", ".join(f"{width}: {time:.3g} ms" for width, time in zip(widths, medians, strict=True))
    return Picture(figure, f"{title}, time against width: {told}.")


def quality_against_time(cross_entropy: Mapping[str, float], milliseconds: Mapping[str, float]) -> Picture:
    """One point a model: how long a token takes, and how well it is predicted. Lower left is better."""
    title = "Quality against time: lower left is better"
    figure, axes = canvas(title, "milliseconds per token", "cross-entropy (nats per token)")
    tandems = [name for name in cross_entropy if name.startswith("tandem")]
    line = [[of[name] for name in tandems] for of in (milliseconds, cross_entropy)]
    axes.plot(*line, color=GREEN, zorder=1)
    for name, (colour, marker, _) in zip(cross_entropy, series(cross_entropy), strict=True):
        colour, marker = (GREEN, "o") if name in tandems else (colour, marker)
        x, y = milliseconds[name], cross_entropy[name]
        axes.plot(x, y, color=colour, marker=marker, linestyle="none", markersize=9)
        below = name in tandems and tandems.index(name) % 2 == 0  # neighbours on their line not both
        at = (-8, -4, "right", "top") if below else (8, 4, "left", "bottom")
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        label = axes.annotate(
            untypeset(name), (x, y), at[:2], textcoords="offset points", fontsize=9, bbox=box
        )
        label.set(ha=at[2], va=at[3])
    if "primary" in cross_entropy:
        dotted = {"color": "#777777", "linewidth": 1, "linestyle": ":", "zorder": 0}
        axes.axvline(milliseconds["primary"], label="the primary's", **dotted)
        axes.axhline(cross_entropy["primary"], **dotted)
        legend(axes, loc="upper right")
    axes.margins(x=0.25, y=0.15)
    axes.set_xlim(left=0)
    told = (f"{name} {milliseconds[name]:.2f} ms, {loss:.2f}" for name, loss in cross_entropy.items())
    return Picture(figure, f"Cross-entropy against time per token: {'; '.join(told)}.")
