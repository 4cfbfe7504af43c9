"""Pictures of ideas: acceptance, the mask, the roofline, the speedup formula, which model works when."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from tandem_edu.errors import require
from tandem_edu.measure import Comparison, Span, spread, tokens_per_call_iid, wall_clock_factor
from tandem_edu.measure.roofline import Hardware, read_time, ridge
from tandem_edu.model.masks import block_starts, tandem_masks
from tandem_edu.show.palette import ACCEPTED, BLACK, GREY, PRIMARY, REJECTED, TANDEM, label_of, plain, series
from tandem_edu.show.picture import Picture, canvas, error_bars, legend, one_by_one, primary_alone, shifts
from tandem_edu.show.plots import speedup_cell


def acceptance_prob(p: np.ndarray, q: np.ndarray, strings: Sequence[str]) -> Picture:
    """Bars of the primary's p and the drafter's q over the 12 most probable tokens, and over all others.

    The area in both is Σ min(p, q) = 1 - TV(p, q), the probability that a draft from q is accepted. The
    part of p above q is the residual; after a rejection, the next token is drawn from it.
    """
    order = np.argsort(np.maximum(p, q))[::-1]
    shown, others = order[:12], order[12:]
    both = np.minimum(p, q)
    accepted = float(both.sum())
    axis = f"the {len(shown)} most probable tokens, and the {len(others):,} others together"
    figure, axes = canvas(f"A draft is accepted with probability {accepted:.0%}", axis, "probability", 7.2)
    labels = [*(label_of(strings[int(token)]) for token in shown), "others"]
    bottom = np.zeros(len(labels))
    for part, colour, hatch, alpha, label in (
        (both, ACCEPTED, "", 1.0, "min(p, q): accepted"),
        (p - both, PRIMARY, "///", 0.6, "p above q: residual"),
        (q - both, REJECTED, "...", 0.6, "q above p: rejected"),
    ):
        heights = np.append(part[shown], part[others].sum())
        look = {"color": colour, "hatch": hatch, "alpha": alpha, "label": label}
        axes.bar(range(len(labels)), heights, bottom=bottom, **look)
        bottom = bottom + heights
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", fontsize=9)
    legend(axes)
    top = ", ".join(f"{strings[t]!r} p {p[t]:.0%} q {q[t]:.0%}" for t in shown[:3])
    parts = f"{accepted:.0%} are in both and accepted, {1 - accepted:.0%} of q are rejected"
    return Picture(figure, f"Bars of p and q: {parts}, as much of p is the residual. Most probable: {top}.")


def block_mask(seq: int, block_len: int, offset: int = 0, token: int | None = None) -> Picture:
    """Which tokens each token of the secondary attends to, and through which model; `token` marks a row."""
    longer = tandem_masks(block_starts(max(seq, 32), block_len, offset))  # JAX compiles one length
    own, primary = (np.asarray(mask)[:seq, :seq] for mask in longer)
    words = f"What each token attends to (γ = {block_len})", "attended token (key)", "attending token (query)"
    columns = {"the primary's representation of": primary, "its own of": own}
    labels = "the primary's representation", "the secondary's own (dot)"
    alt = f"Attention mask of {seq} tokens in blocks of {block_len} from token {offset}."
    return _mask(words, columns, labels, alt, "Token {} attends to {} and to {}.", token)


def sketch_mask(seq: int, block_len: int, token: int | None = None) -> Picture:
    """What the deep tandem knows when it predicts each token; `token` marks a row.

    The small half reads all tokens before; those before the token's block are also in its sketch.
    """
    position = np.arange(seq)
    known = position < position[:, None]
    sketched = position < (position // block_len * block_len)[:, None]
    words = f"What each token is predicted from (γ = {block_len})", "token that is read", "predicted token"
    columns = {"both halves read": sketched, "only the small half reads": known & ~sketched}
    labels = "both halves: it is in the sketch", "the small half alone (dot)"
    alt = f"What a deep tandem with blocks of {block_len} predicts each of {seq} tokens from."
    return _mask(words, columns, labels, alt, "For token {}, {}, and {}.", token)


def _mask(
    words: tuple[str, str, str],
    columns: Mapping[str, np.ndarray],
    labels: Sequence[str],
    alt: str,
    sentence: str,
    token: int | None,
) -> Picture:
    """A picture of two masks that share no cell; the second has dots. `words`: the title, the two axes."""
    (title, x_axis, y_axis), (first, second) = words, columns.values()
    seq = len(first)
    figure, axes = canvas(title, x_axis, y_axis, 5.6, 5.0)
    axes.grid(visible=False)
    cells = {"cmap": ListedColormap(["#ffffff", PRIMARY, TANDEM]), "vmin": 0, "vmax": 2}
    edges, ticks = np.arange(seq + 1) - 0.5, range(0, seq, 1 if seq <= 12 else 2)
    axes.pcolormesh(edges, edges, first + 2 * second, edgecolors="#dddddd", linewidth=0.5, **cells)
    axes.set(aspect="equal", ylim=(seq - 0.5, -0.5), xticks=ticks, yticks=ticks)
    axes.tick_params(labelsize=9)
    queries, keys = np.nonzero(second)
    axes.plot(keys, queries, marker=".", linestyle="none", color=BLACK, markersize=4)
    handles = [
        Patch(color=colour, label=label) for colour, label in zip((PRIMARY, TANDEM), labels, strict=True)
    ]
    legend(axes, handles=handles, loc="upper right")
    rows = [{"token": str(i), **{name: _run(mask[i]) for name, mask in columns.items()}} for i in range(seq)]
    if token is not None:
        require(0 <= token < seq, f"a token in 0..{seq - 1} to mark", token, "take one of the text")
        axes.axhspan(token - 0.5, token + 0.5, fill=False, edgecolor=BLACK, linewidth=2)
        parts = [f"{name} {rows[token][name]}" for name in columns]
        alt += " " + sentence.format(token, *parts)
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
