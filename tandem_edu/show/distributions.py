"""Pictures of distributions: how much p and q have in common, and whether samples follow p."""

from collections.abc import Mapping, Sequence

import numpy as np

from tandem_edu.show.palette import ACCEPTED, PRIMARY, REJECTED, plain, series
from tandem_edu.show.picture import Picture, canvas, legend, shifts


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


def frequencies(expected: np.ndarray, observed: Mapping[str, np.ndarray], strings: Sequence[str]) -> Picture:
    """Shares of the sampled tokens beside the distribution that they should follow."""
    figure, axes = canvas("Do the samples follow p?", "token", "share", 7.2, 3.6)
    x, shift = np.arange(len(strings)), shifts(observed, 0.12 * len(observed))
    axes.bar(x, expected, color="#dddddd", edgecolor="#777777", label="p, exact")
    for name, style in series(observed).items():
        style["linestyle"] = "none"
        axes.plot(x + shift[name], observed[name], **style)
    axes.set_xticks(x, [label_of(string) for string in strings], fontsize=9)
    legend(axes)
    shares = {"p": expected, **observed}
    parts = [f"{name} {', '.join(f'{share:.1%}' for share in of)}" for name, of in shares.items()]
    return Picture(figure, f"Shares of {len(strings)} tokens: {'; '.join(parts)}.")


def label_of(string: str, limit: int = 12) -> str:
    """A token as an axis label: white space made visible, nothing typeset, at most `limit` characters."""
    label = plain(string[:limit].replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥"))
    return "".join(char if char.isprintable() else "�" for char in label)
