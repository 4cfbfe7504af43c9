"""The pictures: each takes what was measured and draws it. Nothing is computed here but a label."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tandem_edu.measure import Calibration, Comparison, Run, spread
from tandem_edu.show.picture import BLACK, Picture, canvas, series, untypeset


def loss_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Picture:
    """Held-out loss against training steps, one line a model; `histories` as `TrainResult.history`."""
    figure, axes = canvas("Held-out loss while training", "training step", "cross-entropy (nats per token)")
    ends = []
    for (name, history), (colour, marker, line) in zip(histories.items(), series(histories), strict=True):
        steps = [entry["step"] for entry in history]
        losses = [entry["valid_loss"] for entry in history]
        axes.plot(
            steps, losses, color=colour, marker=marker, linestyle=line, markersize=4, label=untypeset(name)
        )
        ends.append(f"{name} ends at {losses[-1]:.2f} after {steps[-1]} steps")
    axes.legend(frameon=False)
    return Picture(figure, f"Line chart of the held-out loss: {'; '.join(ends)}.")


def acceptance_by_position(comparison: Comparison, block_len: int) -> Picture:
    """α_i, the share accepted of the drafts at position i that were reached, at one block length.

    Bars for up to three drafters, lines for more.
    """
    how = "greedy" if comparison.greedy else "sampled"
    title = f"Acceptance by position in the block (γ = {block_len}, {how})"
    figure, axes = canvas(title, "position in the block", "accepted, of those reached")
    drafters, told = comparison.drafters, []
    draw = _bars if len(drafters) <= 3 else _lines
    for index, (drafter, style) in enumerate(zip(drafters, series(drafters), strict=True)):
        alphas = comparison.run(drafter, block_len).summary["acceptance_by_position"]
        reached = [(i + 1, alpha) for i, alpha in enumerate(alphas) if alpha is not None]
        positions, heights = [i for i, _ in reached], [alpha for _, alpha in reached]
        draw(axes, positions, heights, untypeset(drafter), style, index, len(drafters))
        told.append(f"{drafter} {', '.join(f'{alpha:.0%}' for alpha in heights)}")
    axes.set_ylim(0, 1.25 if len(drafters) <= 3 else 1.4)
    axes.set_yticks(np.linspace(0, 1, 6), [f"{share:.0%}" for share in np.linspace(0, 1, 6)])
    axes.set_xticks(range(1, block_len + 1))
    axes.set_xlim(0.4, block_len + 0.6)
    axes.legend(frameon=False, loc="upper right", ncols=3)
    return Picture(figure, f"Chart of acceptance at positions 1 to {block_len}, {how}: {'; '.join(told)}.")


def _bars(axes, positions, heights, label: str, style, index: int, count: int) -> None:
    width = 0.8 / count
    x = [i + (index - (count - 1) / 2) * width for i in positions]
    bars = axes.bar(x, heights, width, color=style[0], label=label, hatch=HATCHES[index % len(HATCHES)])
    axes.bar_label(bars, [f"{alpha:.0%}" for alpha in heights], fontsize=8, padding=1)


def _lines(axes, positions, heights, label: str, style, index: int, count: int) -> None:
    colour, marker, line = style
    axes.plot(positions, heights, color=colour, marker=marker, linestyle=line, label=label)


def tokens_per_call(comparison: Comparison, mark: int | None = None) -> Picture:
    """Block efficiency against γ; `mark` draws a line at one γ."""
    figure, axes = canvas("Tokens per call of the primary", "block length γ", "tokens emitted per call")
    axes.axhline(1, color=BLACK, linewidth=1)
    told, top = [], 1.0
    for drafter, (colour, marker, line) in zip(comparison.drafters, series(comparison.drafters), strict=True):
        runs = comparison.of(drafter)
        heights = [run.summary["block_efficiency"] for run in runs]
        gammas = [run.block_len for run in runs]
        axes.plot(gammas, heights, color=colour, marker=marker, linestyle=line, label=untypeset(drafter))
        told.append(f"{drafter} {', '.join(f'{height:.2f}' for height in heights)}")
        top = max(top, *heights)
    _mark(axes, mark)
    several = len(comparison.drafters) > 3
    top = (1.35 if several else 1.15) * top + 0.1
    ceiling = [block_len + 1 for block_len in comparison.block_lens]
    if ceiling[0] < top:  # else it is out of the picture
        axes.plot(comparison.block_lens, ceiling, color="#777777", lw=1, ls=":", label="all accepted")
    axes.set_ylim(0.9, top)
    axes.set_xticks(comparison.block_lens)
    axes.legend(frameon=False, loc="upper left", ncols=2 if several else 1)
    gammas = ", ".join(map(str, comparison.block_lens))
    return Picture(figure, f"Line chart of tokens per primary call at γ = {gammas}: {'; '.join(told)}.")


def speedups(comparison: Comparison, mark: int | None = None) -> Picture:
    """Wall-clock speedup over the primary alone against γ: median and quartiles of the repetitions."""
    figure, axes = canvas("Speed against the primary alone", "block length γ", "times as fast (measured)")
    axes.axhline(1, color=BLACK, linewidth=1)
    axes.annotate(
        "primary alone",
        (1, 1),
        (0, 3),
        textcoords="offset points",
        fontsize=8,
        xycoords=("axes fraction", "data"),
        ha="right",
    )
    told = []
    for drafter, (colour, marker, line) in zip(comparison.drafters, series(comparison.drafters), strict=True):
        runs = comparison.of(drafter)
        _line_with_spread(axes, runs, colour, marker, line, untypeset(drafter))
        told.append(f"{drafter} {', '.join(f'{spread(run.speedup)[0]:.2f}' for run in runs)}")
    _mark(axes, mark)
    axes.set_ylim(bottom=0)
    axes.set_xticks(comparison.block_lens)
    axes.legend(frameon=False, loc="lower right")
    gammas = ", ".join(map(str, comparison.block_lens))
    return Picture(figure, f"Line chart of median wall-clock speedup at γ = {gammas}: {'; '.join(told)}.")


def reliability(calibrations: Mapping[str, Calibration]) -> Picture:
    """Share of drafts accepted against the confidence a router had in them; on the diagonal it is right."""
    figure, axes = canvas("Is the confidence right?", "confidence of the router", "share accepted")
    axes.plot([0, 1], [0, 1], color=BLACK, linewidth=1, linestyle=":", label="calibrated")
    told = []
    for (name, found), (colour, marker, line) in zip(calibrations.items(), series(calibrations), strict=True):
        bins = [row for row in found.table() if row["drafts"]]
        x, y = ([row[which] for row in bins] for which in ("confidence", "accepted"))
        # A bin's mark is as large as it is full.
        sizes = [20 + 200 * row["drafts"] / sum(found.counts) for row in bins]
        axes.plot(x, y, color=colour, linestyle=line, label=f"{untypeset(name)} (ECE {found.error:.3f})")
        axes.scatter(x, y, s=sizes, color=colour, marker=marker)
        told.append(f"{name}: expected calibration error {found.error:.3f}")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, loc="upper left")
    return Picture(figure, f"Reliability diagram, accepted against confidence. {'; '.join(told)}.")


HATCHES = ["", "///", "...", "xxx", "\\\\\\"]


def _line_with_spread(axes, runs: Sequence[Run], colour: str, marker: str, line: str, label: str) -> None:
    median, low, high = np.array([spread(run.speedup) for run in runs]).T
    x = [run.block_len for run in runs]
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
    axes.fill_between(widths, lows, highs, color=series(["primary"])[0][0], alpha=0.2)
    alone = [medians[0] * width / widths[0] for width in widths]
    axes.loglog(widths, alone, color="#777777", linestyle=":", label="one after the other")
    axes.set_xticks(widths, [str(width) for width in widths])
    low, high = axes.get_ylim()
    steps = [step * 10.0**power for power in range(-4, 5) for step in (1, 2, 5)]
    axes.set_yticks([step for step in steps if low <= step <= high])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.legend(frameon=False, loc="upper left")
    told = ", ".join(f"{width}: {time:.3g} ms" for width, time in zip(widths, medians, strict=True))
    return Picture(figure, f"{title}, time against width: {told}.")


def quality_against_time(cross_entropy: Mapping[str, float], milliseconds: Mapping[str, float]) -> Picture:
    """One point a model: how long a token takes, and how well it is predicted. Lower left is better."""
    figure, axes = canvas("Quality against time", "milliseconds per token", "cross-entropy (nats per token)")
    for name, (colour, marker, _) in zip(cross_entropy, series(cross_entropy), strict=True):
        x, y = milliseconds[name], cross_entropy[name]
        axes.plot(x, y, color=colour, marker=marker, linestyle="none", markersize=9, label=untypeset(name))
    axes.margins(x=0.1, y=0.15)
    axes.set_xlim(left=0)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    told = (f"{name} {milliseconds[name]:.2f} ms, {loss:.2f}" for name, loss in cross_entropy.items())
    return Picture(figure, f"Cross-entropy against time per token: {'; '.join(told)}.")
