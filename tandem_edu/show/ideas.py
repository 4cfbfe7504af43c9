"""Pictures of ideas: the mask, the roofline, the speedup formula, and which model works when."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from tandem_edu.errors import require
from tandem_edu.measure import Comparison, Span, spread, tokens_per_call_iid, wall_clock_factor
from tandem_edu.measure.roofline import Hardware, read_time, ridge
from tandem_edu.model.masks import block_starts, tandem_masks
from tandem_edu.show.palette import BLACK, GREY, PRIMARY, TANDEM, plain, series
from tandem_edu.show.picture import Picture, canvas, error_bars, legend, one_by_one, primary_alone, shifts
from tandem_edu.show.plots import speedup_cell


def block_mask(seq: int, block_len: int, offset: int = 0, token: int | None = None) -> Picture:
    """Which tokens each token of the secondary attends to, and through which model; `token` marks a row."""
    longer = tandem_masks(block_starts(max(seq, 32), block_len, offset))  # JAX compiles one length
    own, primary = (np.asarray(mask)[:seq, :seq] for mask in longer)
    title = f"What each token attends to (γ = {block_len})"
    figure, axes = canvas(title, "attended token (key)", "attending token (query)", 5.6, 5.0)
    axes.grid(visible=False)
    cells = {"cmap": ListedColormap(["#ffffff", PRIMARY, TANDEM]), "vmin": 0, "vmax": 2}
    edges, ticks = np.arange(seq + 1) - 0.5, range(0, seq, 1 if seq <= 12 else 2)
    axes.pcolormesh(edges, edges, primary + 2 * own, edgecolors="#dddddd", linewidth=0.5, **cells)
    axes.set(aspect="equal", ylim=(seq - 0.5, -0.5), xticks=ticks, yticks=ticks)
    axes.tick_params(labelsize=9)
    queries, keys = np.nonzero(own)
    axes.plot(keys, queries, marker=".", linestyle="none", color=BLACK, markersize=4)
    colours = {"the primary's representation": PRIMARY, "the secondary's own (dot)": TANDEM}
    legend(axes, handles=[Patch(color=colours[name], label=name) for name in colours], loc="upper right")
    columns = {"the primary's representation of": primary, "its own of": own}
    rows = [{"token": str(i), **{name: _run(mask[i]) for name, mask in columns.items()}} for i in range(seq)]
    alt = f"Attention mask of {seq} tokens in blocks of {block_len} from token {offset}."
    if token is not None:
        require(0 <= token < seq, f"a token in 0..{seq - 1} to mark", token, "take one of the text")
        axes.axhspan(token - 0.5, token + 0.5, fill=False, edgecolor=BLACK, linewidth=2)
        parts = [f"{name} {rows[token][name]}" for name in columns]
        alt += f" Token {token} attends to {' and to '.join(parts)}."
    return Picture(figure, alt, rows)


def _run(mask: np.ndarray) -> str:
    """The tokens in one row of a mask, in words."""
    seen = np.flatnonzero(mask)
    if len(seen) > 1:
        return f"tokens {seen[0]} to {seen[-1]}"
    return f"token {seen[0]}" if len(seen) else "no token"


def roofline(hardware: Hardware, weights: float) -> Picture:
    """Time to read n tokens in one call against n, and the ridge; both axes are logarithmic."""
    size = f"{weights / 1e9:.3g} B" if weights >= 1e9 else f"{weights / 1e6:.3g} M"
    title, axis = f"{size} weights, {hardware.name}", "time (that of one token = 1)"
    figure, axes = canvas(title, "tokens per call", axis)
    n = np.unique(np.geomspace(1, 1024, 61).round()).tolist()  # with all powers of 2
    times = {tokens: read_time(hardware, weights, tokens) for tokens in n}
    one, free = times[1], ridge(hardware)
    axes.loglog(n, [time / one for time in times.values()], color=PRIMARY, label="in one call")
    one_by_one(axes, n, 1)
    if free <= 1024:
        axes.axvline(free, color=BLACK, linestyle="--", label=f"ridge: {free:.0f} tokens")
    legend(axes, loc="upper left")
    text = f"one token takes {one * 1e3:.3g} ms, and up to {free:.0f} in one call take no longer"
    rows = [
        {"tokens": f"{tokens:,}", "milliseconds": f"{1e3 * time:.3g}", "of one token": f"{time / one:.3g} ×"}
        for tokens, time in ((4**power, times[4**power]) for power in range(6))
    ]
    return Picture(figure, f"Roofline of a model of {size} weights on {hardware.name}: {text}.", rows)


def speedup_curve(
    alpha: float,
    draft_cost: float,
    verify_cost: float,
    slope: float = 0.0,
    limit: int = 16,
    measured: Comparison | None = None,
) -> Picture:
    """Speedup by the formula at γ = 1 to `limit`, and the best γ.

    v(γ) = `verify_cost` + `slope` · γ is the cost of a verification, in decoding steps of the primary.
    `measured` adds points with their quartiles.
    """
    figure, axes = canvas("Speedup by the formula", "block length γ", "speedup over the primary alone")
    gammas = range(1, limit + 1)
    tokens = [tokens_per_call_iid(alpha, g) for g in gammas]
    factors = [wall_clock_factor(tokens[g - 1], g, draft_cost, verify_cost + slope * g) for g in gammas]
    rows = [{"γ": str(g), "formula": f"{factor:.2f}"} for g, factor in zip(gammas, factors, strict=True)]
    top, best = max(factors), 1 + int(np.argmax(factors))
    primary_alone(axes)
    axes.plot(gammas, factors, color=BLACK, marker=".", label="formula")
    star = {"marker": "*", "markersize": 16, "linestyle": "none", "markerfacecolor": "white"}
    axes.plot(best, top, color=BLACK, **star, label=f"best γ = {best}: {top:.2f} ×")
    alt = f"best at γ = {best} with speedup {top:.2f}"
    drafters = measured.drafters if measured else []
    for name, style in series(drafters).items():
        runs = measured.of(name) if measured else []
        spreads = [spread(run.speedup) for run in runs]
        style |= {"linestyle": "none", "label": f"{style['label']}, measured (quartiles)"}
        x = [run.block_len + shifts(drafters, 0.24)[name] for run in runs]
        error_bars(axes, x, spreads, **style)
        top = max(top, *(high for _, _, high in spreads))
        cells = {str(run.block_len): speedup_cell(run.speedup) for run in runs}
        rows = [row | {f"{name}, measured": cells.get(row["γ"], "–")} for row in rows]
        points = [f"{middle.value:.2f} at {run.block_len}" for middle, run in zip(spreads, runs, strict=True)]
        alt += f"; {name} measured {', '.join(points)}"
    legend(axes, loc="upper right", ncols=2)
    axes.set(xticks=gammas, ylim=(0, max(1.4, 1.35 * top)))
    costs = f"draft cost {draft_cost:.2f}, verification {verify_cost:.2f} and {slope:.2f} per draft"
    return Picture(figure, f"Speedup against γ for acceptance {alpha:.0%}, {costs}: {alt}.", rows)


def timelines(spans_of: Mapping[str, Sequence[Span]]) -> Picture:
    """Which model works when, one row per drafter; the number is how many tokens come out of a call."""
    title, axis = "Which model works when", "time (decoding steps of the primary)"
    figure, axes = canvas(title, axis, "", 7.2, 0.9 + 0.7 * len(spans_of))
    axes.grid(visible=False)
    looks = {"primary": {"facecolor": PRIMARY}, "drafter": {"facecolor": GREY, "hatch": "///"}}
    edge = {"edgecolor": "white", "linewidth": 0.5}
    handles = [Patch(**look, **edge, label=who) for who, look in looks.items()]
    legend(axes, handles=handles, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    rows = []
    for y, (name, style) in enumerate(series(spans_of).items()):
        spans = spans_of[name]
        looks["drafter"] |= {"facecolor": style["color"]}
        for who, look in looks.items():
            ranges = [(span.start, span.end - span.start) for span in spans if span.who == who]
            axes.broken_barh(ranges, (y - 0.275, 0.55), **look, **edge)
        for span in spans:
            if span.tokens:  # above the bar: this axis points down
                axes.annotate(str(span.tokens), (span.end, y - 0.3), ha="right", va="bottom", fontsize=9)
        tokens, end = sum(span.tokens for span in spans), spans[-1].end if spans else 0.0
        drafting = sum(span.end - span.start for span in spans if span.who == "drafter")
        row = {"who": name, "tokens": str(tokens), "steps": f"{end:.1f}"}
        row["tokens per step"] = f"{tokens / end:.2f}" if end else "–"
        rows.append(row | {"drafting": f"{drafting / end:.0%}" if end else "–"})
    labels = [plain(name if len(name) <= 20 else f"{name[:19]}…") for name in spans_of]
    axes.set_yticks(range(len(rows)), labels)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, None))
    parts = [f"{row['who']}: {row['tokens']} tokens in {row['steps']} steps" for row in rows]
    return Picture(figure, f"Timeline, {'; '.join(parts)}.", rows)
