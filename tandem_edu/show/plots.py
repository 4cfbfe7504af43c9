"""Pictures and rows of measurements. Each shows what was measured and computes only its labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from tandem_edu.errors import require
from tandem_edu.measure import Calibration, Comparison, Threshold, share_interval, spread
from tandem_edu.show import picture
from tandem_edu.show.palette import ACCEPTED, BLACK, GREY, PRIMARY, REJECTED, TANDEM, label_of, series
from tandem_edu.show.picture import Picture, canvas, legend

_EVALUATION = {
    "step": ("step", ","),
    "tokens": ("tokens", ","),
    "seconds": ("seconds", ".0f"),
    "held-out loss": ("valid_loss", ".3f"),
    "accuracy": ("valid_accuracy", ".1%"),
    "agreement with the primary": ("valid_agreement", ".1%"),
}
"""The columns of `loss_curves`: each with its name in a history, and its format."""


def loss_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Picture:
    """Held-out loss by training step; `histories` as in `TrainResult`. Raises `BadInput` for an empty one."""
    missing = ", ".join(name for name, history in histories.items() if not history)
    require(not missing, "an evaluation of each model", f"none of {missing}", "train it with valid_tokens")
    figure, axes = canvas("Held-out loss during training", "training step", "cross-entropy (nats per token)")
    ends, rows = [], []
    for name, style in series(histories).items():
        for entry in histories[name]:
            cells = {c: format(entry[key], f) if key in entry else "–" for c, (key, f) in _EVALUATION.items()}
            rows.append({"model": name, **cells})
        steps, losses = zip(*((entry["step"], entry["valid_loss"]) for entry in histories[name]), strict=True)
        axes.plot(steps, losses, **style, markersize=4)
        ends.append(f"{name} ends at {losses[-1]:.2f} after {steps[-1]} steps")
    legend(axes)
    return Picture(figure, f"Line chart of the held-out loss: {'; '.join(ends)}.", rows)


def acceptance_by_position(comparison: Comparison, block_len: int) -> Picture:
    """α_i: the share accepted of the drafts that were reached. 95 % intervals take them as independent."""
    mode = "greedy" if comparison.greedy else "sampled"
    title = f"Acceptance by position in the block (γ = {block_len}, {mode})"
    figure, axes = canvas(title, "position in the block (bars: 95 % intervals)", "accepted, of those reached")
    rows, parts = [{"position": str(i + 1)} for i in range(block_len)], []
    shift = picture.shifts(comparison.drafters, 0.5)
    for drafter, style in series(comparison.drafters).items():
        summary = comparison.run(drafter, block_len).summary
        counts = [count for count in summary["reached_by_position"] if count]  # later ones are 0 as well
        pairs = list(zip(summary["acceptance_by_position"], counts, strict=False))
        x = np.arange(1, len(pairs) + 1) + shift[drafter]
        picture.error_bars(axes, x, [share_interval(*pair) for pair in pairs], **style)
        cells = [f"{share:.0%} of {count}" for share, count in pairs]
        parts.append(f"{drafter} {', '.join(cells)}")
        for row, cell in zip(rows, cells + ["–"] * (block_len - len(cells)), strict=True):
            row[drafter] = cell
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set(xticks=range(1, block_len + 1), xlim=(0.4, block_len + 0.6), ylim=(0, 1.05))
    legend(figure, loc="outside lower center", ncols=4)
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
        axes.plot(gammas, heights[drafter], **style)
    top = 1.05 * max(map(max, heights.values())) + 0.1
    if gammas[0] + 1 < top:
        axes.plot(gammas, np.add(gammas, 1), color=GREY, lw=1, ls=":", label="all accepted")
    axes.set_ylim(0.9, top)
    legend(figure, loc="outside lower center", ncols=4)
    return _against_gamma("tokens per primary call", figure, gammas, heights)


def speedups(comparison: Comparison) -> Picture:
    """Measured speedup over the primary alone against γ: median and quartiles of the repetitions."""
    figure, axes = canvas("Measured speedup", "block length γ", "speedup (median, quartiles)")
    gammas, medians, shift = comparison.block_lens, {}, picture.shifts(comparison.drafters, 0.3)
    for drafter, style in series(comparison.drafters).items():
        spreads = [spread(run.speedup) for run in comparison.of(drafter)]
        picture.error_bars(axes, np.add(gammas, shift[drafter]), spreads, **style)
        medians[drafter] = [middle for middle, _, _ in spreads]
    axes.set_ylim(0, max(1.1, axes.get_ylim()[1]))
    legend(axes, loc="lower right")
    return _against_gamma("median measured speedup", figure, gammas, medians)


def _against_gamma(what: str, figure: Figure, gammas: list[int], heights: Mapping[str, Any]) -> Picture:
    """The picture, with the primary alone and the numbers in words."""
    figure.axes[0].set_xticks(gammas)
    picture.primary_alone(figure.axes[0])
    parts = [f"{name} {', '.join(f'{height:.2f}' for height in of)}" for name, of in heights.items()]
    return Picture(figure, f"Line chart of {what} at γ = {', '.join(map(str, gammas))}: {'; '.join(parts)}.")


def reliability(calibrations: Mapping[str, Calibration]) -> Picture:
    """Share of drafts accepted against confidence; a calibrated router is on the diagonal."""
    axis = "confidence (a larger mark: more drafts)"
    figure, axes = canvas("Is the confidence calibrated?", axis, "share accepted")
    axes.plot([0, 1], [0, 1], color=BLACK, linewidth=1, linestyle=":", label="calibrated")
    parts = []
    for name, style in series(calibrations).items():
        one = calibrations[name]
        counts, x, y = zip(*(bin for bin in zip(*one, strict=True) if bin[0]), strict=True)
        sizes = [20 + 200 * count / sum(counts) for count in counts]
        axes.scatter(x, y, sizes, color=style["color"], marker=style["marker"])
        style |= {"marker": "", "label": f"{style['label']} (ECE {one.error:.3f})"}
        axes.plot(x, y, **style)
        points = ", ".join(f"{accepted:.0%} at {sure:.0%}" for sure, accepted in zip(x, y, strict=True))
        parts.append(f"{name}: expected calibration error {one.error:.3f}, accepted {points}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    legend(figure, loc="outside lower center", ncols=4)
    return Picture(figure, f"Reliability diagram. {'; '.join(parts)}.")


def thresholds(sweep: Sequence[Threshold], chosen: int) -> Picture:
    """Drafts per block, wasted drafts and speedup against a router's threshold τ; one is `chosen`."""
    titles = ["Drafts per block", "Wasted drafts", "Speedup"]
    figure, (length, waste, speed) = picture.canvases(titles, "threshold τ", "", width=9.6, height=3.4)
    taus, drafted, accepted, wasted, _, speedup = zip(*sweep, strict=True)
    length.plot(taus, drafted, color=BLACK, marker="s", ls="--", label="drafted")
    length.plot(taus, accepted, color=ACCEPTED, marker="o", label="accepted")
    waste.plot(taus, wasted, color=REJECTED, marker="D", ls=":")
    waste.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
    spreads = [spread(one) for one in speedup]
    picture.error_bars(speed, taus, spreads, color=BLACK, marker="^", label="median, quartiles")
    picture.primary_alone(speed)
    for axes in (length, waste, speed):
        axes.axvline(taus[chosen], color=GREY, lw=1, ls="--", label=f"τ = {taus[chosen]:g}")
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
        f"τ = {one.threshold:g}: {one.drafted:.1f} drafts, {one.wasted:.0%} wasted, speedup {fast.value:.2f}"
        for one, fast in zip(sweep, spreads, strict=True)
    ]
    best = f"fastest at τ = {taus[spreads.index(max(spreads))]:g}, chosen {taus[chosen]:g}"
    return Picture(figure, f"Line charts against the threshold, {best}. {'; '.join(parts)}.", rows)


def frequencies(expected: np.ndarray, observed: Mapping[str, np.ndarray], strings: Sequence[str]) -> Picture:
    """Shares of the sampled tokens beside the distribution that they should follow."""
    figure, axes = canvas("Do the samples follow p?", "token", "share", 7.2, 3.6)
    x, shift = np.arange(len(strings)), picture.shifts(observed, 0.12 * len(observed))
    axes.bar(x, expected, color="#dddddd", edgecolor="#777777", label="p, exact")
    for name, style in series(observed).items():
        style["linestyle"] = "none"
        axes.plot(x + shift[name], observed[name], **style)
    axes.set_xticks(x, [label_of(string) for string in strings], fontsize=9)
    legend(axes)
    shares = {"p": expected, **observed}
    parts = [f"{name} {', '.join(f'{share:.1%}' for share in of)}" for name, of in shares.items()]
    return Picture(figure, f"Shares of {len(strings)} tokens: {'; '.join(parts)}.")


def time_against_width(seconds: Mapping[int, np.ndarray], title: str) -> Picture:
    """Time of one call against the number of tokens it reads; the dotted line is one token per call."""
    figure, axes = canvas(title, "tokens (or vectors) per call", "milliseconds")
    widths = sorted(seconds)
    spreads = [spread(1e3 * seconds[width]) for width in widths]
    style = {"color": PRIMARY, "marker": "^", "label": "in one call, measured (quartiles)"}
    picture.error_bars(axes, widths, spreads, **style)
    picture.one_by_one(axes, widths, spreads[0].value / widths[0])
    axes.set_xticks(widths)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    legend(axes, loc="upper left")
    parts = [f"{width}: {time.value:.3g} ms" for width, time in zip(widths, spreads, strict=True)]
    return Picture(figure, f"{title}, time against width: {', '.join(parts)}.")


def quality_against_time(cross_entropy: Mapping[str, float], milliseconds: Mapping[str, float]) -> Picture:
    """One point per model: time per token and cross-entropy. Lower left is better."""
    title = "Quality against time: lower left is better"
    figure, axes = canvas(title, "milliseconds per token", "cross-entropy (nats per token)")
    tandems = [name for name in cross_entropy if name.startswith("tandem")]
    line = ([values[name] for name in tandems] for values in (milliseconds, cross_entropy))
    axes.plot(*line, color=TANDEM, marker="o", markersize=9, zorder=1)
    for name, style in series(cross_entropy).items():
        at = (milliseconds[name], cross_entropy[name])
        if name not in tandems:
            axes.plot(*at, color=style["color"], marker=style["marker"], markersize=9)
        below = name in tandems and tandems.index(name) % 2 == 0  # neighbours on the line alternate
        shift, ha, va = ((-8, -4), "right", "top") if below else ((8, 4), "left", "bottom")
        label = {"fontsize": 9, "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1}}
        axes.annotate(style["label"], at, shift, textcoords="offset points", ha=ha, va=va, **label)
    if "primary" in cross_entropy:
        axes.axvline(milliseconds["primary"], color=GREY, lw=1, ls=":", zorder=0)
        axes.axhline(cross_entropy["primary"], color=GREY, lw=1, ls=":", zorder=0)
    axes.margins(x=0.25, y=0.15)
    axes.set_xlim(left=0)
    parts = [f"{name} {milliseconds[name]:.2f} ms, {loss:.2f}" for name, loss in cross_entropy.items()]
    return Picture(figure, f"Cross-entropy against time per token: {'; '.join(parts)}.")


def decoding_rows(comparison: Comparison, block_len: int) -> list[dict[str, str]]:
    """One row per drafter, formatted for a table."""
    rows = []
    for run in (comparison.run(drafter, block_len) for drafter in comparison.drafters):
        counts = run.summary
        first = next(iter(counts["acceptance_by_position"]), None)
        row = {
            "drafter": run.drafter,
            "γ": str(block_len),
            "tokens per primary call": f"{counts['block_efficiency']:.2f}",
            "drafts accepted per call": f"{counts['mean_accepted']:.2f}",
            "first draft accepted": "–" if first is None else f"{first:.0%}",
            "speedup (quartiles)": speedup_cell(run.speedup),
        }
        rows.append(row)
    return rows


def speedup_cell(speedup: np.ndarray) -> str:
    """Median and quartiles over the rounds; a single round has no quartiles."""
    median, low, high = spread(speedup)
    return f"{median:.2f} ({low:.2f} to {high:.2f})" if len(speedup) > 1 else f"{median:.2f} (one round)"
