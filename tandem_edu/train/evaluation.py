"""How well models predict held-out text, and how close they are to their primary. All is teacher-forced.

With q the model's and p the primary's distribution, a position with the true next token t has these scores:

- cross-entropy: -log q(t), in nats;
- accuracy: whether argmax q = t;
- agreement: whether argmax q = argmax p, the acceptance of greedy drafts;
- TV: ½ Σ_v abs(p(v) - q(v)); 1 - TV is the acceptance of drafts sampled at temperature 1.

In decoding, a drafter continues the primary's text instead, which may be easier or harder.
Axis names: `n` or `batch` windows of `window` = seq + 1 tokens, see `tandem_edu.data.windows`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tandem_edu.drafters import Model, PrimaryReader
from tandem_edu.drafters.protocol import check_same_vocabulary
from tandem_edu.errors import require
from tandem_edu.model import Transformer
from tandem_edu.train.losses import LOSSES
from tandem_edu.train.step import predict


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
    block_len: int | Mapping[str, int] = 2,
    batch_size: int = 8,
) -> dict[str, Quality]:
    """The mean scores of models on `windows`, by name; arguments and errors as of `token_scores`."""
    scores = token_scores(models, windows, primary, block_len, batch_size)
    count = windows[:, 1:].size
    return {name: Quality(count, *x.mean((0, 1), dtype=np.float64).tolist()) for name, x in scores.items()}


def token_scores(
    models: Mapping[str, Model],
    windows: Int[np.ndarray, "n window"],
    primary: Transformer | None,
    block_len: int | Mapping[str, int],
    batch_size: int = 8,
) -> dict[str, Float[np.ndarray, "n seq scores"]]:
    """The scores of each position, 2 or with a primary 4, for each model.

    A model reads the primary in blocks of `block_len` (a mapping gives each its own) from position 0 on.
    Raises `BadInput` for no windows, too long ones, unknown ids, and a wrong primary or block length.
    """
    n, width = windows.shape
    require(n > 0, "at least one window", n, "use a longer text")
    block_lens = block_len if isinstance(block_len, Mapping) else dict.fromkeys(models, block_len)
    for name, model in models.items():
        check_model(model, primary, width - 1, [block_lens[name]])
    check_ids(models.values(), windows)
    # Repeated windows fill the last batch, so that all batches share one compiled program.
    padded = np.resize(windows, (-(-n // batch_size) * batch_size, width))
    scores = {name: [] for name in models}
    for start in range(0, len(padded), batch_size):
        batch = jnp.asarray(padded[start : start + batch_size], jnp.int32)
        teacher, hidden = (None, None) if primary is None else _read(primary, batch)
        for name, model in models.items():
            block = jnp.int32(block_lens[name]), jnp.int32(0)
            scores[name].append(np.asarray(_scores(model, primary, hidden, teacher, batch, block)))
    return {name: np.concatenate(batches)[:n] for name, batches in scores.items()}


_read = eqx.filter_jit(lambda primary, batch: primary(batch[:, :-1], return_hidden=True))


@eqx.filter_jit
def _scores(model: Model, primary, hidden, teacher, batch, block) -> Float[Array, "batch seq scores"]:
    tokens, targets = batch[:, :-1], batch[:, 1:]
    logits = predict(model, primary, tokens, hidden, block)
    predicted = jnp.argmax(logits, axis=-1)
    scores = [LOSSES["ce"](logits, targets, teacher), predicted == targets]
    if teacher is not None:
        scores += [predicted == jnp.argmax(teacher, axis=-1), LOSSES["tv"](logits, targets, teacher)]
    return jnp.stack([score.astype(jnp.float32) for score in scores], axis=-1)


def check_model(model: Model, primary: Transformer | None, seq_len: int, block_lens: Sequence[int]) -> None:
    """Raise `BadInput` unless `model` can read `seq_len` tokens with this primary, in such blocks."""
    max_len = min(each.config.max_len for each in (model, primary) if each is not None)
    require(seq_len <= max_len, f"seq_len of at most max_len = {max_len}", seq_len, "take a smaller seq_len")
    if isinstance(model, PrimaryReader):
        require(primary is not None, f"a primary for the {type(model).__name__}", None, "pass primary=")
        model.check_primary(primary)  # pyright: ignore
        for block_len in block_lens:
            model.check_block_len(block_len)
    elif primary is not None:
        check_same_vocabulary(primary.config, model.config)


def check_ids(models: Iterable[Model], ids: np.ndarray) -> None:
    """Raise `BadInput` for ids outside a model's vocabulary: JAX would clamp them or return NaN."""
    low, high, size = np.min(ids), np.max(ids), min(model.config.vocab_size for model in models)
    fix = "use the tokenizer of the model"
    require(bool(low >= 0 and high < size), f"ids of a vocabulary of {size}", f"{low}..{high}", fix)
