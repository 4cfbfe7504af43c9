"""Verification by enumeration: what becomes of every block that a drafter may write, in float64.

A model is a dict: its distribution after each run of drafts. Written from the definitions in
`tandem_edu.decode.verify` and `block_verify`, with loops.
"""

import numpy as np


def outcomes(block: tuple, p: dict, q: dict, broken: str = "") -> np.ndarray:
    """P(accepted, token | these drafts), by the definitions."""
    share = [1.0]
    for i, x in enumerate(block):
        share.append(min(1.0, share[i] * p[block[:i]][x] / q[block[:i]][x]))
    h, then = [], []
    for i in range(len(block)):
        here_p, here_q = p[block[:i]], q[block[:i]]
        left = np.maximum(share[i] * here_p - here_q, 0)
        below = left.sum() + (1 - share[i])
        h.append(share[i] if broken == "h_i = p_i" else left.sum() / below if below > 0 else 1.0)
        then.append(np.maximum(here_p - here_q, 0) if broken == "residual without p_i" else left)
    h, then = [*h, share[-1]], [*then, p[block]]
    table = np.zeros((len(h), len(p[()])))
    for i in range(len(h)):
        if broken == "first failure":
            kept = np.prod(h[: i + 1]) * (1 - h[i + 1] if i < len(block) else 1)
        else:
            kept = h[i] * np.prod([1 - later for later in h[i + 1 :]])
        # Where p and q are alike nothing is left unsaid, and the token is drawn from p.
        token = then[i] if then[i].sum() > 0 else p[block[:i]]
        table[i] = kept * token / token.sum()
    return table


def outcomes_by_token(block: tuple, p: dict, q: dict) -> np.ndarray:
    """P(accepted | these drafts) of token-by-token verification."""
    kept = [min(1.0, p[block[:i]][x] / q[block[:i]][x]) for i, x in enumerate(block)]
    return np.array([np.prod(kept[:i]) * (1 - a) for i, a in enumerate([*kept, 0.0])])


def blocks(q: dict, ends, block: tuple = ()):
    """Every block the drafter may write, with its probability; it ends where `ends(block)`."""
    if ends(block):
        yield block, 1.0
        return
    for token in np.flatnonzero(q[block]).tolist():
        for whole, chance in blocks(q, ends, (*block, token)):
            yield whole, q[block][token] * chance


def mean_accepted(p: dict, q: dict, gamma: int, accepted_of) -> float:
    """Drafts kept of a block of γ, by enumeration."""
    return sum(
        chance * float(accepted_of(block, p, q) @ np.arange(gamma + 1))
        for block, chance in blocks(q, lambda block: len(block) == gamma)
    )


def of_block(block, p, q):
    return outcomes(block, p, q).sum(axis=1)
