"""How well models predict held-out text, teacher-forced.

With q the model's and p the primary's distribution at a position whose true next token is t, a position
has these scores, in this order:

- -log q(t), the cross-entropy in nats;
- whether argmax q = t;
- with a primary only: whether argmax q = argmax p, and TV(p, q) = ½ Σ_v abs(p(v) - q(v)).

Axis names: `n` or `batch` windows of `window` = seq + 1 tokens.
"""

from collections.abc import Iterable, Mapping, Sequence

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


def token_scores(
    models: Mapping[str, Model],
    windows: Int[np.ndarray, "n window"],
    primary: Transformer | None,
    block_lens: Mapping[str, int],
    batch_size: int = 8,
) -> dict[str, Float[np.ndarray, "n seq scores"]]:
    """The scores of each position, 2 or with a primary 4, for each model.

    A model that reads the primary does so in blocks of `block_lens[name]` from position 0 on. The primary
    reads once for all models. Raises `BadInput` for a missing or wrong primary, for a block length the
    model does not support, for windows longer than a context, and for ids outside the vocabulary.
    """
    for name, model in models.items():
        check_model(model, primary, windows.shape[1] - 1, [block_lens[name]])
    check_ids(models.values(), windows)
    n = len(windows)
    # Repeated windows fill the last batch, so that all batches share one compiled program.
    padded = np.resize(windows, (-(-n // batch_size) * batch_size, windows.shape[1]))
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


def check_ids(models: Iterable[Model], *rows: np.ndarray) -> None:
    """Raise `BadInput` for ids outside a model's vocabulary: JAX would clamp them or return NaN."""
    smallest, fix = min(model.config.vocab_size for model in models), "use the tokenizer of the model"
    for low, high in ((int(np.min(row)), int(np.max(row))) for row in rows):
        require(0 <= low <= high < smallest, f"ids of a vocabulary of {smallest}", f"{low}..{high}", fix)
