"""Verification by enumeration: the outcome of every block that a drafter may propose, in float64.

A model is a dict: its distribution after each run of drafts. Written from the definitions in
`tandem_edu.decode.verify`, with loops.
"""

import numpy as np


def outcomes(block: tuple, p: dict, q: dict, broken: str = "") -> np.ndarray:
    """P(accepted, token | these drafts) of block verification."""
    share = [1.0]
    for i, x in enumerate(block):
        share.append(min(1.0, share[i] * p[block[:i]][x] / q[block[:i]][x]))
    h, next_token = [], []
    for i in range(len(block)):
        here_p, here_q = p[block[:i]], q[block[:i]]
        residual = np.maximum(share[i] * here_p - here_q, 0)
        denominator = residual.sum() + (1 - share[i])
        h_i = residual.sum() / denominator if denominator > 0 else 1.0
        h.append(share[i] if broken == "h_i = p_i" else h_i)
        next_token.append(np.maximum(here_p - here_q, 0) if broken == "residual without p_i" else residual)
    h, next_token = [*h, share[-1]], [*next_token, p[block]]
    table = np.zeros((len(h), len(p[()])))
    for i in range(len(h)):
        if broken == "first failure":
            accepted = np.prod(h[: i + 1]) * (1 - h[i + 1] if i < len(block) else 1)
        else:
            accepted = h[i] * np.prod([1 - later for later in h[i + 1 :]])
        # Where p and q are equal there is no residual, and the token is drawn from p.
        token = next_token[i] if next_token[i].sum() > 0 else p[block[:i]]
        table[i] = accepted * token / token.sum()
    return table


def accepted_by_block(block: tuple, p: dict, q: dict) -> np.ndarray:
    """P(accepted | these drafts) of block verification."""
    return outcomes(block, p, q).sum(axis=1)


def accepted_by_token(block: tuple, p: dict, q: dict) -> np.ndarray:
    """P(accepted | these drafts) of token-by-token verification."""
    each = [min(1.0, p[block[:i]][x] / q[block[:i]][x]) for i, x in enumerate(block)]
    return np.array([np.prod(each[:i]) * (1 - a) for i, a in enumerate([*each, 0.0])])


def blocks(q: dict, ends, block: tuple = ()):
    """Every block the drafter may propose, with its probability; it ends where `ends(block)`."""
    if ends(block):
        yield block, 1.0
        return
    for token in np.flatnonzero(q[block]).tolist():
        for whole, probability in blocks(q, ends, (*block, token)):
            yield whole, q[block][token] * probability


def mean_accepted(p: dict, q: dict, gamma: int, accepted_by) -> float:
    """The mean number of drafts accepted of a block of γ, by enumeration."""
    return sum(
        probability * float(accepted_by(block, p, q) @ np.arange(gamma + 1))
        for block, probability in blocks(q, lambda block: len(block) == gamma)
    )
