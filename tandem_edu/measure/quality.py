"""How well a model predicts the next token, and how close it is to its primary, on held-out text.

All scores are teacher-forced. With q the model's and p the primary's distribution at a position whose true
next token is t:

- accuracy: share of positions where argmax q = t;
- cross-entropy: mean of -log q(t), in nats per token;
- agreement (relative accuracy): share where argmax q = argmax p, the acceptance of greedy drafts;
- TV: mean of ½ Σ_v |p(v) - q(v)|; 1 - TV is the acceptance of drafts sampled at temperature 1.

In decoding, a drafter continues the primary's text instead, which may be easier or harder.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from tandem_edu.drafters import Model
from tandem_edu.errors import require
from tandem_edu.model import Transformer
from tandem_edu.train.evaluation import token_scores


class Quality(NamedTuple):
    """Means over `tokens` positions; the last two are None without a primary."""

    tokens: int
    cross_entropy: float
    accuracy: float
    agreement: float | None = None
    total_variation: float | None = None


def quality(
    model: Model, windows: Int[np.ndarray, "n window"], primary: Transformer | None = None, block_len: int = 2
) -> Quality:
    """`qualities` of one model."""
    return qualities({"": model}, windows, primary, block_len)[""]


def qualities(
    models: Mapping[str, Model],
    windows: Int[np.ndarray, "n window"],
    primary: Transformer | None = None,
    block_len: int = 2,
) -> dict[str, Quality]:
    """Score models on `windows` (see `tandem_edu.data.windows`), by name; the primary reads them once.

    A model that reads the primary does so in blocks of `block_len`. Raises `BadInput` for no windows, and
    what `token_scores` raises.
    """
    require(len(windows) > 0, "at least one window", len(windows), "use a longer text")
    scores = token_scores(models, windows, primary, dict.fromkeys(models, block_len))
    count = windows[:, 1:].size
    return {name: Quality(count, *x.mean((0, 1), dtype=np.float64).tolist()) for name, x in scores.items()}
