"""How well a model predicts held-out text, teacher-forced, token by token.

With q the model's and p the primary's distribution at a position whose true next token is t, the scores
of that position are

- -log q(t), the cross-entropy in nats;
- whether argmax q = t;
- whether argmax q = argmax p, and the distance TV = ½ Σ_v |p(v) - q(v)| (both only with a primary).

Axis names: `batch` windows of `window` = seq + 1 tokens.
"""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tandem_edu.model import PrimaryReader, Transformer
from tandem_edu.model.attached import check_block_len
from tandem_edu.model.weights import Model
from tandem_edu.train.checks import check_ids, check_length, check_primary, reads_primary
from tandem_edu.train.losses import token_losses
from tandem_edu.train.step import predict


def evaluate(
    model: Model,
    windows: Int[np.ndarray, "n window"],
    primary: Transformer | None = None,
    block_len: int = 2,
    batch_size: int = 8,
) -> dict[str, float]:
    """The figures of a training curve: means over all positions of `windows`, every target counted once.

    - `valid_loss`: cross-entropy, nats per token, whatever the objective in training;
    - `valid_accuracy`: share of positions where argmax q is the text's token;
    - `valid_agreement`: share where argmax q is the primary's argmax (only with a primary).

    A model that reads the primary does so in blocks of `block_len` from position 0 on. Raises
    `BadInput` for a primary that is missing or another, for a `block_len` it cannot be asked for, for
    windows longer than a context, and for ids outside the vocabulary.
    """
    return evaluate_all({"": model}, windows, primary, {"": block_len}, batch_size)[""]


def evaluate_all(
    models: Mapping[str, Model],
    windows: Int[np.ndarray, "n window"],
    primary: Transformer | None,
    block_lens: Mapping[str, int],
    batch_size: int = 8,
) -> dict[str, dict[str, float]]:
    """`evaluate` of each model, at its own block length; the primary reads once for all."""
    names = ("valid_loss", "valid_accuracy", "valid_agreement")
    scores = token_scores(models, windows, primary, block_lens, batch_size)
    means = {name: found.mean((0, 1), dtype=np.float64).tolist() for name, found in scores.items()}
    return {name: dict(zip(names, found, strict=False)) for name, found in means.items()}


def token_scores(
    models: Mapping[str, Model],
    windows: Int[np.ndarray, "n window"],
    primary: Transformer | None,
    block_lens: Mapping[str, int],
    batch_size: int = 8,
) -> dict[str, Float[np.ndarray, "n seq scores"]]:
    """The scores of each position: 2 of them, with a primary 4, in the order above. As `evaluate_all`."""
    for name, model in models.items():
        check_primary(model, primary)
        if isinstance(model, PrimaryReader):
            check_block_len(model, block_lens[name])
        check_length(windows.shape[1] - 1, model, primary)
    check_ids(models.values(), windows)
    n = len(windows)
    # Repeated windows fill the last batch, so that all batches share one compiled program.
    padded = np.resize(windows, (-(-n // batch_size) * batch_size, windows.shape[1]))
    sizes = {name: jnp.int32(block_lens[name]) for name in models}
    batches = [
        _scores_of(models, primary, jnp.asarray(padded[start : start + batch_size], jnp.int32), sizes)
        for start in range(0, len(padded), batch_size)
    ]
    return {name: np.concatenate([batch[name] for batch in batches])[:n] for name in models}


def _scores_of(
    models: Mapping[str, Model],
    primary: Transformer | None,
    batch: Int[Array, "batch window"],
    block_lens: Mapping[str, Int[Array, ""]],
) -> dict[str, Float[np.ndarray, "batch seq scores"]]:
    """Of one batch. The primary's reading is a program of its own, compiled once for all models."""
    readers = [name for name, model in models.items() if reads_primary(model)]
    teacher, hidden = (None, None) if primary is None else _read(primary, batch, bool(readers))
    # A model is given what it reads and no more, so that it has one program, whoever is beside it.
    seen = {name: (primary, hidden) if name in readers else (None, None) for name in models}
    return {
        name: np.asarray(_scores(model, *seen[name], teacher, batch, block_lens[name]))
        for name, model in models.items()
    }


@eqx.filter_jit
def _read(
    primary: Transformer, batch: Int[Array, "batch window"], states: bool
) -> tuple[Float[Array, "batch seq vocab"], Float[Array, "batch depth seq d_primary"] | None]:
    """The primary's logits, and its states if some model reads them."""
    tokens = batch[:, :-1]
    return primary(tokens, return_hidden=True) if states else (primary(tokens), None)


@eqx.filter_jit
def _scores(
    model: Model,
    primary: Transformer | None,
    hidden: Float[Array, "batch depth seq d_primary"] | None,
    teacher: Float[Array, "batch seq vocab"] | None,
    batch: Int[Array, "batch window"],
    block_len: Int[Array, ""],
) -> Float[Array, "batch seq scores"]:
    tokens, targets = batch[:, :-1], batch[:, 1:]
    logits = predict(model, primary, tokens, hidden, (block_len, jnp.zeros_like(block_len)))
    guesses = jnp.argmax(logits, axis=-1)
    scores = [token_losses(logits, targets), guesses == targets]
    if teacher is not None:
        distance = jnp.sum(jnp.abs(jax.nn.softmax(teacher) - jax.nn.softmax(logits)), axis=-1) / 2
        scores += [guesses == jnp.argmax(teacher, axis=-1), distance]
    return jnp.stack([score.astype(jnp.float32) for score in scores], axis=-1)
