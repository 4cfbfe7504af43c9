"""Pictures of ideas rather than of measurements: masks, rooflines, the speedup formula, who works when."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from tandem_edu.measure.roofline import Hardware, read_time, ridge
from tandem_edu.measure.speedup import tokens_per_call_iid, wall_clock_factor
from tandem_edu.measure.timeline import Span
from tandem_edu.model.masks import block_starts, tandem_masks
from tandem_edu.show.picture import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    Picture,
    canvas,
    legend,
    primary_alone,
    series,
    untypeset,
    widest,
)


def block_mask(seq: int, block_len: int, offset: int = 0, token: int | None = None) -> Picture:
    """Whose representations each token of the secondary sees; `token` marks one row and says it in words."""
    own, primary = _masks(seq, block_len, offset)
    title = f"Who sees what (γ = {block_len})"
    figure, axes = canvas(title, "token looked at", "token that looks", 5.6, 5.0, (0.65, 0.65))
    axes.grid(visible=False)
    colours = ListedColormap(["#ffffff", BLUE, GREEN])
    axes.imshow(primary + 2 * own, cmap=colours, vmin=0, vmax=2, interpolation="nearest")
    named = range(0, seq, 1 if seq <= 12 else 2)
    axes.set_xticks(named)
    axes.set_yticks(named)
    axes.tick_params(labelsize=9)
    edges = np.arange(seq + 1) - 0.5
    for lines in (axes.hlines, axes.vlines):
        lines(edges, edges[0], edges[-1], color="#dddddd", linewidth=0.5, zorder=0.5)
    queries, keys = np.nonzero(own)  # not by colour alone
    axes.plot(keys, queries, marker=".", linestyle="none", color=BLACK, markersize=4)
    patches = [
        Patch(color=BLUE, label="as the primary sees it"),
        Patch(color=GREEN, label="its own view (dot)"),
    ]
    legend(axes, handles=patches, loc="upper right")
    alt = f"Attention mask of {seq} tokens in blocks of {block_len} from token {offset}."
    if token is not None:
        axes.axhspan(token - 0.5, token + 0.5, fill=False, edgecolor=BLACK, linewidth=2)
        alt += " " + sees(own[token], primary[token], token)
    return Picture(figure, alt)


def _masks(seq: int, block_len: int, offset: int) -> list[np.ndarray]:
    """Own and primary, bool[seq, seq]; from those of a longer text, so that JAX compiles once for many."""
    longest = max(seq, 32)
    masks = tandem_masks(block_starts(longest, block_len, offset))
    return [np.asarray(mask)[:seq, :seq] for mask in masks]


def mask_rows(seq: int, block_len: int, offset: int = 0) -> list[dict[str, str]]:
    """The mask as a table: for each token, which it sees through the primary and which by its own view."""
    own, primary = _masks(seq, block_len, offset)
    return [
        {
            "token": str(token),
            "sees through the primary": _run(primary[token]) or "none",
            "sees by its own view": _run(own[token]),
        }
        for token in range(seq)
    ]


def sees(own: Sequence[bool], primary: Sequence[bool], token: int) -> str:
    """One row of the mask in words.

    >>> sees([False, False, True], [True, True, False], 2)
    'Token 2 sees tokens 0 to 1 through the primary and 2 for itself.'
    """
    parts = []
    for mask, how in ((primary, "through the primary"), (own, "for itself")):
        if run := _run(mask):
            parts.append(f"{'tokens ' if ' ' in run else ''}{run} {how}")
    return f"Token {token} sees {' and '.join(parts)}."


def _run(mask: Sequence[bool]) -> str:
    """First and last place of one row of a mask."""
    seen = np.flatnonzero(mask)
    if len(seen) > 1:
        return f"{seen[0]} to {seen[-1]}"
    return str(seen[0]) if len(seen) else ""


def roofline(hardware: Hardware, weights: float, most: int = 1024) -> Picture:
    """Time to read n tokens at once against n, both on logarithmic axes, and where they stop being free."""
    size = f"{weights / 1e9:.3g} B" if weights >= 1e9 else f"{weights / 1e6:.2g} M"
    figure, axes = canvas(
        f"{size} weights, {hardware.name}",
        "tokens at once",
        "time, in units of one token's",
        room=(0.75, 0.1),
    )
    n = np.unique(np.round(np.geomspace(1, most, 60)))
    one = read_time(hardware, weights, 1)
    times = [read_time(hardware, weights, tokens) / one for tokens in n]
    axes.loglog(n, times, color=BLUE, label="at once")
    axes.loglog(n, n, color="#777777", linestyle=":", label="one after the other")
    free = ridge(hardware)
    if free <= most:
        axes.axvline(free, color=ORANGE, linestyle="--", label=f"ridge: {free:.0f} tokens")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    legend(axes, loc="upper left")
    told = f"one token takes {one * 1e3:.3g} ms, and up to {free:.0f} at once take no longer"
    return Picture(figure, f"Roofline of a model of {size} weights on {hardware.name}: {told}.")


def roofline_rows(hardware: Hardware, weights: float, most: int = 1024) -> list[dict[str, str]]:
    """The roofline as a table."""
    one = read_time(hardware, weights, 1)
    widths = [4**power for power in range(most.bit_length()) if 4**power <= most]
    times = {width: read_time(hardware, weights, width) for width in widths}
    return [
        {"tokens": f"{width:,}", "milliseconds": f"{1e3 * time:.3g}", "of one token": f"{time / one:.3g} ×"}
        for width, time in times.items()
    ]


Measured = Mapping[str, Sequence[tuple[int, float, float, float]]]
"""By drafter: γ, and the speedup's median and quartiles there."""


def speedup_curve(
    alpha: float,
    draft_cost: float,
    verify_cost: float,
    slope: float = 0.0,
    most: int = 16,
    measured: Measured | None = None,
) -> Picture:
    """The formula: times as fast as the primary alone against γ, and the best γ.

    v(γ) = `verify_cost` + `slope` · γ: what one verification costs, in steps of the primary. `measured`
    points are drawn beside it, with their quartiles.
    """
    figure, axes = canvas("What acceptance buys", "block length γ", "times as fast", room=(0.65, 0.6))
    factors = speedup_factors(alpha, draft_cost, verify_cost, slope, most)
    gammas = list(range(1, most + 1))
    best = int(np.argmax(factors))
    primary_alone(axes)
    axes.plot(gammas, factors, color=BLACK, marker=".", label="formula")
    axes.plot(
        gammas[best], factors[best], color=BLACK, marker="*", markersize=16, linestyle="none",
        markerfacecolor="white", label=f"its best γ = {gammas[best]}: {factors[best]:.2f} ×",
    )  # fmt: skip
    top, measured = max(factors), measured or {}
    for index, (name, points) in enumerate(measured.items()):
        colour, marker, _ = series(measured)[index]
        x, y, low, high = (np.array(column) for column in zip(*points, strict=True))
        aside = 0.12 * (index - (len(measured) - 1) / 2)  # that no bar hides another
        axes.errorbar(
            x + aside, y, [y - low, high - y], color=colour, marker=marker, linestyle="none", capsize=3,
            label=f"{untypeset(name)}, measured (quartiles)",
        )  # fmt: skip
        top = max(top, float(high.max()))
    legend(axes, loc="upper right", ncols=2)
    axes.set_xticks(gammas)
    axes.set_ylim(0, max(1.4, 1.35 * top))
    told = f"best at γ = {gammas[best]} with {factors[best]:.2f} times the primary alone"
    for name, points in measured.items():
        told += f"; {name} measured {', '.join(f'{point[1]:.2f} at {point[0]}' for point in points)}"
    costs = f"draft cost {draft_cost:.2f}, verification {verify_cost:.2f} and {slope:.2f} per draft"
    return Picture(figure, f"Speedup against γ for acceptance {alpha:.0%}, {costs}: {told}.")


def speedup_rows(factors: Sequence[float], measured: Measured | None = None) -> list[dict[str, str]]:
    """The curve as a table, one row a γ, from `speedup_factors`; measured: median and quartiles."""
    points = {
        f"{name}, measured": {gamma: f"{y:.2f} ({low:.2f} to {high:.2f})" for gamma, y, low, high in found}
        for name, found in (measured or {}).items()
    }
    return [
        {
            "γ": str(gamma),
            "formula": f"{factor:.2f}",
            **{name: at.get(gamma, "–") for name, at in points.items()},
        }
        for gamma, factor in enumerate(factors, start=1)
    ]


def speedup_factors(
    alpha: float, draft_cost: float, verify_cost: float, slope: float = 0.0, most: int = 16
) -> list[float]:
    """The formula: times as fast as the primary alone at γ = 1 to `most`."""
    return [
        wall_clock_factor(tokens_per_call_iid(alpha, g), g, draft_cost, verify_cost + slope * g)
        for g in range(1, most + 1)
    ]


def timelines(rows: Mapping[str, Sequence[Span]]) -> Picture:
    """Who works when, one row a way to decode, in steps of the primary; a tick where tokens come out."""
    figure, axes = canvas(
        "Who works when",
        "time (decoding steps of the primary)",
        "",
        7.2,
        0.9 + 0.7 * len(rows),
        (min(3.6, 0.2 + widest(rows, 10)), 0.15),
    )
    axes.grid(visible=False)
    told = []
    for y, (name, spans) in enumerate(rows.items()):
        for who, colour, hatch in (("primary", BLUE, ""), ("drafter", ORANGE, "///")):
            spells = [(span.start, span.end - span.start) for span in spans if span.who == who]
            look = {"facecolor": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.5}
            axes.broken_barh(spells, (y - 0.275, 0.55), **look)
        for span in spans:
            if span.tokens:
                axes.annotate(
                    str(span.tokens),
                    (span.end, y - 0.3),  # above the bar: this axis points down
                    ha="right",
                    va="bottom",
                    fontsize=9,
                    annotation_clip=True,
                )
        tokens, end = sum(span.tokens for span in spans), spans[-1].end if spans else 0.0
        told.append(f"{name}: {tokens} tokens in {end:.1f} steps")
    axes.set_yticks(range(len(rows)), [untypeset(name) for name in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(left=0)
    patches = [
        Patch(color=BLUE, label="primary"),
        Patch(facecolor=ORANGE, hatch="///", edgecolor="white", label="drafter"),
    ]
    legend(axes, handles=patches, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    return Picture(figure, f"Timeline, {'; '.join(told)}.")
