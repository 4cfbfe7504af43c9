"""How good a model is at the next token, and how like its primary: teacher-forced, on held-out text.

With q the model's and p the primary's distribution at a position whose true next token is t:

- accuracy: share of positions where argmax q = t;
- cross-entropy: mean of -log q(t), in nats per token;
- agreement (relative accuracy): share where argmax q = argmax p, the acceptance of greedy drafts;
- TV: mean of ½ Σ_v |p(v) - q(v)|; 1 - TV is the acceptance of drafts sampled at temperature 1.

Prefixes are the text's own, so what a drafter meets while decoding, text written by the primary, may be
easier or harder.
"""

from dataclasses import asdict, dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tandem_edu.errors import require
from tandem_edu.model import Attached, Transformer
from tandem_edu.model.attached import check_block_len
from tandem_edu.model.tandem import check_same_vocabulary
from tandem_edu.model.weights import Model
from tandem_edu.train.step import predict


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
    missing or cannot be read in such blocks, for other vocabularies, or for no windows.
    """
    require(len(windows) > 0, "at least one window", len(windows), "use a longer text")
    if isinstance(model, Attached):
        expected = f"the {type(model).__name__} with its primary"
        require(primary is not None, expected, None, "pass primary=...")
        check_block_len(model, block_len)
    if primary is not None:
        check_same_vocabulary(primary.config, model.config)
    sums = np.zeros(4)
    for start in range(0, len(windows), batch_size):
        batch = jnp.asarray(windows[start : start + batch_size], jnp.int32)
        sums += np.asarray(_sums(model, primary, batch, jnp.int32(block_len)), np.float64)
    tokens = len(windows) * (windows.shape[1] - 1)
    accuracy, cross_entropy, agreement, variation = (sums / tokens).tolist()
    if primary is None:
        return Quality(tokens, accuracy, cross_entropy)
    return Quality(tokens, accuracy, cross_entropy, agreement, variation)


@eqx.filter_jit
def _sums(model, primary, windows: Int[Array, "batch window"], block_len) -> Float[Array, "4"]:
    """Sums over the batch of: hits, -log q(t), agreements, TV."""
    inputs, targets = windows[:, :-1], windows[:, 1:]
    reference, hidden = (None, None) if primary is None else primary(inputs, return_hidden=True)
    logits = predict(model, primary, inputs, hidden, (block_len, jnp.zeros_like(block_len)))
    log_q = jax.nn.log_softmax(logits, axis=-1)
    best = jnp.argmax(logits, axis=-1)
    surprise = -jnp.take_along_axis(log_q, targets[..., None], axis=-1)
    sums = [jnp.sum(best == targets).astype(jnp.float32), jnp.sum(surprise)]
    if reference is None:
        return jnp.stack([*sums, jnp.float32(0), jnp.float32(0)])
    agreement = jnp.sum(best == jnp.argmax(reference, axis=-1)).astype(jnp.float32)
    distance = jnp.sum(jnp.abs(jax.nn.softmax(reference, axis=-1) - jnp.exp(log_q))) / 2
    return jnp.stack([*sums, agreement, distance])
