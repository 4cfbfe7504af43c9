"""Table 1 of the paper: how good each model is, and how like the primary; by position in the block too."""

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from tandem_edu import data
from tandem_edu.data import Corpus
from tandem_edu.measure import Interval, bootstrap
from tandem_edu.model import Transformer
from tandem_edu.model.weights import Model
from tandem_edu.reproduce.table import Table
from tandem_edu.train.evaluation import token_scores
from tandem_edu.zoo.shipped import Pair

SEQ_LEN = 256
TRAINED_LEN, LONG_LEN = 2, 8
"""Blocks a tandem reads its primary in: the paper's, and a long one."""

PAPER = {
    "secondary": "accuracy 55.06 %, TV 0.391",
    "tandem": "accuracy 58.61 %, TV 0.141",
}


def quality_table(pair: Pair, text: Corpus) -> Table:
    """All models on `text`; the intervals are over its documents."""
    units = document_windows(pair.tokenizer, text)
    control = document_scores(pair.distilled, units, pair.primary, 1)
    rows = []
    for name, model, block_len in _contenders(pair):
        found = document_scores(model, units, pair.primary, block_len)
        gamma = "" if block_len == 1 else f" (γ = {block_len})"
        rows.append(
            {
                "model": name.replace("_", "-") + gamma,
                "accuracy": of(found, 1),
                "cross-entropy": of(found, 0),
                "agreement": of(found, 2),
                "TV": of(found, 3),
                "agreement / distilled's": ratio(found, control, 2),
                "TV / distilled's": ratio(found, control, 3),
                "paper": PAPER.get(name) if block_len < LONG_LEN else None,
            }
        )
    note = (
        f"Teacher-forced on {len(units)} documents that no model was trained on or chosen by, in windows of "
        f"{SEQ_LEN} tokens ({sum(map(len, units)):,} windows). Agreement: the same most likely token as the "
        "primary's. TV: total variation distance to the primary, 1 - TV is the acceptance at temperature 1. "
        "In brackets: 95 % of 2,000 resamplings of the documents. The last two columns compare with the "
        "distilled secondary on the same documents; it is the same secondary with the same data, steps and "
        "losses; the tandem has the projections and the maps of keys and values through which it looks "
        "besides (a secondary with as many weights: below). All drafters start from "
        "random weights (the paper's from pretrained ones)."
    )
    return Table("quality", "Quality, and likeness to the primary", note, rows)


def position_table(pair: Pair, text: Corpus, block_len: int = LONG_LEN) -> Table:
    """Agreement with the primary at each position of a block."""
    units = document_windows(pair.tokenizer, text)
    models = {"distilled": pair.distilled, "tandem-ce": pair.tandem_ce, "tandem": pair.tandem}
    windows, block_lens = np.concatenate(units), dict.fromkeys(models, block_len)
    found = token_scores(models, windows, pair.primary, block_lens)
    place, agreed = np.arange(SEQ_LEN) % block_len, 2
    rows = [
        {
            "position": i + 1,
            **{name: float(scores[:, place == i, agreed].mean()) for name, scores in found.items()},
        }
        for i in range(block_len)
    ]
    note = f"At each position of a block of {block_len}; the first reads the pending token."
    return Table("positions", "Agreement by position in the block", note, rows)


def document_windows(tokenizer: Tokenizer, text: Corpus, seq_len: int = SEQ_LEN) -> list[np.ndarray]:
    """The windows of each document that is at least one window long."""
    rows = [data.encode(tokenizer, [document]) for document in text.documents]
    return [data.windows(row, seq_len) for row in rows if len(row) > seq_len]


def document_scores(
    model: Model, units: Sequence[np.ndarray], primary: Transformer, block_len: int
) -> np.ndarray:
    """Sums over each document, float[documents, 5]: the four scores of `token_scores`, and the tokens."""
    scores = token_scores({"": model}, np.concatenate(units), primary, {"": block_len})[""]
    ends = np.cumsum([len(unit) for unit in units])[:-1]
    parts = [part.reshape(-1, 4).astype(np.float64) for part in np.split(scores, ends)]
    return np.stack([[*part.sum(0), len(part)] for part in parts])


def of(found: np.ndarray, score: int) -> Interval:
    """The mean of one score, per token."""
    return bootstrap(lambda sums: sums[..., score] / sums[..., 4], found)


def ratio(found: np.ndarray, other: np.ndarray, score: int) -> Interval:
    """One score divided by another model's, on the same documents."""
    both = np.stack([found[:, score], other[:, score]], axis=1)
    return bootstrap(lambda sums: sums[..., 0] / np.maximum(sums[..., 1], 1e-9), both)


def _contenders(pair: Pair) -> list[tuple[str, Model, int]]:
    plain = [(name, getattr(pair, name), 1) for name in ("secondary", "distilled", "mid_size", "primary")]
    tandems = [
        (name, getattr(pair, name), block_len)
        for block_len in (TRAINED_LEN, LONG_LEN)
        for name in ("tandem_ce", "tandem")
    ]
    return [*plain[:2], *tandems, *plain[2:]]
