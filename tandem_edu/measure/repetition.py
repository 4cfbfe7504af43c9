"""How much of a text runs in circles, as greedy text of small models does: that flatters every drafter."""

from collections.abc import Sequence

import numpy as np


def repetition_rate(texts: Sequence[np.ndarray], length: int = 8) -> float:
    """Share of the places in `texts` where the last `length` tokens have stood before in the same text.

    >>> repetition_rate([np.array([1, 2, 1, 2, 1, 2])], length=2)
    0.6
    """
    repeated = total = 0
    for text in texts:
        ids, seen = np.asarray(text).ravel().tolist(), set()
        for end in range(length, len(ids) + 1):
            run = tuple(ids[end - length : end])
            repeated, total = repeated + (run in seen), total + 1
            seen.add(run)
    return repeated / total if total else 0.0
