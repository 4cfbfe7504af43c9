"""Pictures of distributions: where two of them overlap, and how often what was drawn."""

from collections.abc import Mapping, Sequence

import numpy as np

from tandem_edu.show.picture import BLUE, GREEN, ORANGE, Picture, canvas, series, untypeset


def overlap(p: np.ndarray, q: np.ndarray, strings: Sequence[str], most: int = 12) -> Picture:
    """Bars of the primary's p and the drafter's q over the likeliest tokens; min(p, q) is kept.

    The area both cover is Σ min(p, q) = 1 - TV(p, q), the probability that a draft from q is accepted.
    What p has above q is the residual, from which the primary draws after a rejection.
    """
    shown = np.argsort(np.maximum(p, q))[::-1][:most]
    kept = float(np.minimum(p, q).sum())
    figure, axes = canvas(f"Kept: {kept:.0%}", "token", "probability", 7.2, 3.6)
    x = np.arange(len(shown))
    low, top = np.minimum(p, q)[shown], np.maximum(p, q)[shown]
    above = p[shown] > q[shown]
    axes.bar(x, low, color=GREEN, label="min(p, q): kept")
    for mask, colour, hatch, label in (
        (above, BLUE, "///", "p above q: the residual"),
        (~above, ORANGE, "...", "q above p: rejected"),
    ):
        axes.bar(
            x[mask], (top - low)[mask], bottom=low[mask], color=colour, hatch=hatch, alpha=0.6, label=label
        )
    labels = [label_of(strings[int(token)]) for token in shown]
    axes.set_xticks(x, labels, rotation=45, ha="right", fontsize=8)
    axes.legend(frameon=False)
    told = ", ".join(f"{strings[t]!r} p {p[t]:.0%} q {q[t]:.0%}" for t in shown[:3])
    return Picture(figure, f"Bars of p and q; together they cover {kept:.0%}. Likeliest: {told}.")


def frequencies(expected: np.ndarray, observed: Mapping[str, np.ndarray], strings: Sequence[str]) -> Picture:
    """Shares of what was drawn beside the distribution it should have, token by token."""
    figure, axes = canvas("What was drawn, and what should have been", "token", "share", 7.2, 3.6)
    x, told = np.arange(len(strings)), []
    axes.bar(x, expected, color="#dddddd", edgecolor="#777777", label="p, exactly")
    for (name, shares), (colour, marker, _) in zip(observed.items(), series(observed), strict=True):
        axes.plot(x, shares, color=colour, marker=marker, linestyle="none", label=untypeset(name))
        told.append(f"{name} differs by at most {np.abs(shares - expected).max():.1%}")
    axes.set_xticks(x, [label_of(string) for string in strings], rotation=45, ha="right", fontsize=8)
    axes.legend(frameon=False)
    return Picture(figure, f"Shares of {len(strings)} tokens: {'; '.join(told)}.")


def label_of(string: str, most: int = 12) -> str:
    r"""A token as an axis label: white space visible, nothing that matplotlib would typeset.

    >>> label_of("a b\n$x$")
    'a·b⏎\\$x\\$'
    """
    shown = untypeset(string[:most].replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥"))
    return "".join(sign if sign.isprintable() else "�" for sign in shown)
