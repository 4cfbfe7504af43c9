"""Pictures of distributions: where two of them acceptance_prob, and how often what was drawn."""

from collections.abc import Mapping, Sequence

import numpy as np

from tandem_edu.show.picture import BLUE, GREEN, ORANGE, Picture, canvas, legend, series, untypeset


def acceptance_prob(p: np.ndarray, q: np.ndarray, strings: Sequence[str], most: int = 12) -> Picture:
    """Bars of the primary's p and the drafter's q over the likeliest tokens; min(p, q) is kept.

    The area both cover is Σ min(p, q) = 1 - TV(p, q), the probability that a draft from q is accepted.
    What p has above q is the residual, from which the primary draws after a rejection.
    """
    order = np.argsort(np.maximum(p, q))[::-1]
    shown, others = order[:most], order[most:]
    both = np.minimum(p, q)
    kept = float(both.sum())
    rest = f", and the {len(others):,} others together" if len(others) else ""
    axis = f"the {len(shown)} likeliest tokens{rest}"
    figure, axes = canvas(f"A draft is kept {kept:.0%} of the time", axis, "probability", 7.2, 3.8)
    labels = [label_of(strings[int(token)]) for token in shown] + ["others"] * bool(rest)
    x, bottom = np.arange(len(labels)), np.zeros(len(labels))
    for part, colour, hatch, label in (
        (both, GREEN, "", "min(p, q): kept"),
        (p - both, BLUE, "///", "p above q: the residual"),
        (q - both, ORANGE, "...", "q above p: rejected"),
    ):
        heights = np.append(part[shown], part[others].sum())[: len(x)]
        alpha = 0.6 if hatch else 1.0
        axes.bar(x, heights, bottom=bottom, color=colour, hatch=hatch, alpha=alpha, label=label)
        bottom = bottom + heights
    axes.set_xticks(x, labels, rotation=45, ha="right", fontsize=9)
    legend(axes)
    told = ", ".join(f"{strings[t]!r} p {p[t]:.0%} q {q[t]:.0%}" for t in shown[:3])
    parts = f"{kept:.0%} are in both and kept, {1 - kept:.0%} of q are rejected and as many of p the residual"
    return Picture(figure, f"Bars of p and q: {parts}. Likeliest: {told}.")


def frequencies(expected: np.ndarray, observed: Mapping[str, np.ndarray], strings: Sequence[str]) -> Picture:
    """Shares of what was drawn beside the distribution it should have, token by token."""
    figure, axes = canvas("What was drawn, and what should have been", "token", "share", 7.2, 3.6)
    x, told = np.arange(len(strings)), []
    axes.bar(x, expected, color="#dddddd", edgecolor="#777777", label="p, exactly")
    asides = 0.12 * (np.arange(len(observed)) - (len(observed) - 1) / 2)  # that no mark hides another
    for (name, shares), aside, style in zip(observed.items(), asides, series(observed), strict=True):
        colour, marker, _ = style
        axes.plot(x + aside, shares, color=colour, marker=marker, linestyle="none", label=untypeset(name))
        told.append(f"{name} {', '.join(f'{share:.1%}' for share in shares)}")
    labels = [label_of(string) for string in strings]
    turned = {"rotation": 45, "ha": "right"} if max(map(len, labels)) > 3 else {}
    axes.set_xticks(x, labels, fontsize=9, **turned)
    legend(axes)
    exact = ", ".join(f"{share:.1%}" for share in expected)
    return Picture(figure, f"Shares of {len(strings)} tokens: p {exact}; {'; '.join(told)}.")


def label_of(string: str, most: int = 12) -> str:
    r"""A token as an axis label: white space visible, nothing that matplotlib would typeset.

    >>> label_of("a b\n$x$")
    'a·b⏎\\$x\\$'
    """
    shown = untypeset(string[:most].replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥"))
    return "".join(sign if sign.isprintable() else "�" for sign in shown)
