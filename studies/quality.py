"""Table 1 of the paper: quality and agreement with the primary, also by position in the block."""

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from studies.bootstrap import bootstrap
from studies.table import Lab, Table
from tandem_edu import data
from tandem_edu.data import Corpus
from tandem_edu.drafters import Model
from tandem_edu.measure import Interval
from tandem_edu.model import Transformer
from tandem_edu.train.evaluation import token_scores

SEQ_LEN = 256
TRAINED_LEN, LONG_LEN = 2, 8
"""Block lengths in which a tandem reads its primary: the paper's, and a long one."""
CROSS_ENTROPY, ACCURACY, AGREEMENT, TV, TOKENS = range(5)
"""Columns of `document_scores`."""
PAPER = {
    "secondary": "55.06 %, 2.14, 74.64 %, 0.391, 0.991, 1.230",
    "distilled": "56.50 %, 2.12, 75.30 %, 0.318, 1, 1",
    "tandem_ce": "58.35 %, 1.94, 80.00 %, 0.178, 1.062, 0.560",
    "tandem": "58.61 %, 1.99, 81.00 %, 0.141, 1.076, 0.443",
}
"""The same six figures in its table 1; the ratios are computed from it."""
CONTENDERS = (
    *(("secondary", 1), ("distilled", 1)),
    *((name, block_len) for block_len in (TRAINED_LEN, LONG_LEN) for name in ("tandem_ce", "tandem")),
    *(("mid_size", 1), ("primary", 1)),
)


def study(lab: Lab) -> list[Table]:
    """All models on the test part; the intervals are over its documents."""
    pair = lab.pair
    units = document_windows(pair.tokenizer, lab.parts.test)
    control = document_scores(pair.distilled, units, pair.primary, 1)
    rows = []
    for name, block_len in CONTENDERS:
        scores = document_scores(getattr(pair, name), units, pair.primary, block_len)
        gamma = "" if block_len == 1 else f" (γ = {block_len})"
        rows.append(
            {
                "model": name.replace("_", "-") + gamma,
                "accuracy": of(scores, ACCURACY),
                "cross-entropy": of(scores, CROSS_ENTROPY),
                "agreement": of(scores, AGREEMENT),
                "TV": of(scores, TV),
                "agreement / distilled's": ratio(scores, control, AGREEMENT),
                "TV / distilled's": ratio(scores, control, TV),
                "the paper's six": PAPER.get(name) if block_len < LONG_LEN else None,
            }
        )
    return [Table("quality", rows), _positions(lab, np.concatenate(units))]


def _positions(lab: Lab, windows: np.ndarray) -> Table:
    """Agreement with the primary at each position of a long block."""
    pair = lab.pair
    models = {"distilled": pair.distilled, "tandem-ce": pair.tandem_ce, "tandem": pair.tandem}
    scores = token_scores(models, windows, pair.primary, dict.fromkeys(models, LONG_LEN))
    position = np.arange(SEQ_LEN) % LONG_LEN
    at = lambda i: {name: float(s[:, position == i, AGREEMENT].mean()) for name, s in scores.items()}
    return Table("positions", [{"position": i + 1, **at(i)} for i in range(LONG_LEN)])


def document_windows(tokenizer: Tokenizer, text: Corpus, seq_len: int = SEQ_LEN) -> list[np.ndarray]:
    """The windows of each document that is at least one window long."""
    encoded = [data.encode(tokenizer, [document]) for document in text.documents]
    return [data.windows(tokens, seq_len) for tokens in encoded if len(tokens) > seq_len]


def document_scores(
    model: Model, units: Sequence[np.ndarray], primary: Transformer, block_len: int, free_token: bool = False
) -> np.ndarray:
    """Sums over each document, float[documents, 5]: the four scores of `token_scores`, and the tokens.

    With `free_token` each block of `block_len` predictions is followed by one of the primary's.
    """
    models, block = {"model": model, "primary": primary}, block_len + free_token
    each = token_scores(models if free_token else {"model": model}, np.concatenate(units), primary, block)
    scores = each["model"]
    if free_token:
        is_free = np.arange(scores.shape[1]) % block == block - 1
        scores = np.where(is_free[:, None], each["primary"], scores)
    ends = np.cumsum([len(unit) for unit in units])[:-1]
    parts = [part.reshape(-1, 4).astype(np.float64) for part in np.split(scores, ends)]
    return np.stack([[*part.sum(0), len(part)] for part in parts])


def of(scores: np.ndarray, score: int) -> Interval:
    """The mean of one score, per token."""
    return bootstrap(lambda sums: sums[..., score] / sums[..., TOKENS], scores)


def ratio(scores: np.ndarray, other: np.ndarray, score: int) -> Interval:
    """One score divided by another model's, on the same documents."""
    both = np.stack([scores[:, score], other[:, score]], axis=1)
    return bootstrap(lambda sums: sums[..., 0] / np.maximum(sums[..., 1], 1e-9), both)
