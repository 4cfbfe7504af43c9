"""How good a model is at the next token, and how like its primary: teacher-forced, on held-out text.

With q the model's and p the primary's distribution at a position whose true next token is t:

- accuracy: share of positions where argmax q = t;
- cross-entropy: mean of -log q(t), in nats per token;
- agreement (relative accuracy): share where argmax q = argmax p, the acceptance of greedy drafts;
- TV: mean of ½ Σ_v |p(v) - q(v)|; 1 - TV is the acceptance of drafts sampled at temperature 1.

Prefixes are the text's own, so what a drafter meets while decoding, text written by the primary, may be
easier or harder.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Int

from tandem_edu.errors import require
from tandem_edu.model import Transformer
from tandem_edu.model.weights import Model
from tandem_edu.train.evaluation import token_scores


@dataclass(frozen=True)
class Quality:
    """Means over `tokens` positions; the last two are None for a model without a primary."""

    tokens: int
    accuracy: float
    cross_entropy: float
    agreement: float | None = None
    total_variation: float | None = None

    def to_dict(self) -> dict:
        """JSON-able."""
        return asdict(self)


def quality(
    model: Model,
    windows: Int[np.ndarray, "count window"],
    primary: Transformer | None = None,
    block_len: int = 2,
    batch_size: int = 8,
) -> Quality:
    """Measure `model` on `windows` (see `tandem_edu.data.windows`).

    One that reads a primary does so in blocks of `block_len`. Raises `BadInput` if its primary is
    missing, another, or cannot be read in such blocks, for other vocabularies, for no windows, for
    windows longer than a context, and for ids outside the vocabulary.
    """
    return qualities({"": model}, windows, primary, block_len, batch_size)[""]


def qualities(
    models: Mapping[str, Model],
    windows: Int[np.ndarray, "count window"],
    primary: Transformer | None = None,
    block_len: int = 2,
    batch_size: int = 8,
) -> dict[str, Quality]:
    """`quality` of each model, by its name; the primary reads each window once for all of them."""
    require(len(windows) > 0, "at least one window", len(windows), "use a longer text")
    scores = token_scores(models, windows, primary, dict.fromkeys(models, block_len), batch_size)
    return {name: _quality(found) for name, found in scores.items()}


def _quality(scores: Float[np.ndarray, "count seq scores"]) -> Quality:
    cross_entropy, accuracy, *others = scores.mean((0, 1), dtype=np.float64).tolist()
    return Quality(scores.shape[0] * scores.shape[1], accuracy, cross_entropy, *others)
