"""Adaptive block length: when to stop drafting (paper, section 3).

A draft that will be rejected costs a step of the drafter and gains nothing. After each draft a router
estimates the probability that the primary accepts it. Drafting ends where that *confidence* falls below a
threshold τ (the paper's is 0.8). The draft just made is verified in any case. It must be: a router that
discarded drafts by what they are would change the distribution of the rest, while one that only decides
whether to go on keeps it exact.

`LearnedRouter`    a two-layer MLP on what the drafter knows, see `tandem_edu.train.router`
`ConfidenceRule`   untrained: the drafter's own probability of the token it drafted
`EntropyRule`      untrained: the entropy of the drafter's distribution

All use the drafter's distribution at temperature 1, before top-k and top-p. τ is a traced value: another one
compiles nothing.
"""

import abc
import hashlib
import json
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tandem_edu.drafters import Drafter, PrimaryReader
from tandem_edu.errors import BadInput, require
from tandem_edu.model.layers import init_weight


class Router(eqx.Module):
    """Ends a block early: features of a draft → confidence → go on while it is at least `threshold`."""

    threshold: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def features(
        self, logits: Float[Array, " vocab"], token: Int[Array, ""], hidden: Float[Array, " d_hidden"]
    ) -> Float[Array, " n_features"]:
        """What is known of the draft `token`."""

    @abc.abstractmethod
    def confidence(self, features: Float[Array, "*batch n_features"]) -> Float[Array, "*batch"]:
        """The estimated probability that the primary accepts the draft."""


class ConfidenceRule(Router):
    """Go on while the drafter gave the token it drafted a probability of at least `threshold`.

    Raises `BadInput` for a threshold outside [0, 1].
    """

    threshold: Float[Array, ""]

    def __init__(self, threshold: float):
        self.threshold = _probability("threshold", threshold)

    def features(self, logits, token, hidden):
        return jax.nn.softmax(logits)[token][None]

    def confidence(self, features):
        return features[..., 0]


class EntropyRule(Router):
    """Go on while the entropy H = -Σ q log q is at most `max_entropy` nats; the confidence is e^-H.

    Raises `BadInput` for a negative `max_entropy`.

    >>> rule, logits = EntropyRule(max_entropy=1.0), jnp.zeros(8)
    >>> round(float(rule.confidence(rule.features(logits, jnp.int32(0), jnp.zeros(0)))), 3)  # 1 / 8
    0.125
    """

    threshold: Float[Array, ""]

    def __init__(self, max_entropy: float):
        require(max_entropy >= 0, "a max_entropy of at least 0 nats", max_entropy, "try 1.0")
        self.threshold = jnp.exp(-jnp.float32(max_entropy))

    def features(self, logits, token, hidden):
        return entropy(logits)[None]

    def confidence(self, features):
        return jnp.exp(-features[..., 0])


class LearnedRouter(Router):
    """A two-layer MLP on the entropy, the top-k probabilities and the drafter's last hidden state.

        confidence = sigmoid(w₂ · silu(W₁ z + b₁) + b₂),  z the features, standardised

    The constructor makes an untrained one, `train.train_router` a trained one. `made_for` names the drafter
    and the γ_max whose drafts it has learned from.
    """

    w_in: Float[Array, "n_features d_router"]
    b_in: Float[Array, " d_router"]
    w_out: Float[Array, " d_router"]
    b_out: Float[Array, ""]
    mean: Float[Array, " n_features"]
    scale: Float[Array, " n_features"]
    threshold: Float[Array, ""]
    top_k: int = eqx.field(static=True)
    made_for: tuple[str, int] = eqx.field(static=True)

    def __init__(
        self,
        d_hidden: int,
        made_for: tuple[str, int],
        threshold: float = 0.8,
        top_k: int = 8,
        d_router: int = 32,
        *,
        key: PRNGKeyArray,
    ):
        size = 2 + top_k + d_hidden
        self.w_in = init_weight(key, size, d_router)
        self.b_in = self.w_out = jnp.zeros(d_router, jnp.float32)
        self.b_out = jnp.float32(0)
        self.mean, self.scale = jnp.zeros(size, jnp.float32), jnp.ones(size, jnp.float32)
        self.threshold = _probability("threshold", threshold)
        self.top_k, self.made_for = top_k, made_for

    @property
    def d_hidden(self) -> int:
        """How many of the drafter's hidden values are among the features."""
        return self.mean.shape[0] - 2 - self.top_k

    def with_threshold(self, threshold: float) -> "LearnedRouter":
        """The same router with another τ."""
        return eqx.tree_at(lambda router: router.threshold, self, _probability("threshold", threshold))

    def features(self, logits, token, hidden):
        q = jax.nn.softmax(logits)
        highest = jax.lax.top_k(q, self.top_k)[0]
        return jnp.concatenate([jnp.stack([entropy(logits), q[token]]), highest, hidden])

    def confidence(self, features):
        return jax.nn.sigmoid(self.score(features))

    def score(self, features: Float[Array, "*batch n_features"]) -> Float[Array, "*batch"]:
        """The confidence's logit."""

        def of_one(features):
            z = (features - self.mean) * self.scale
            return jax.nn.silu(z @ self.w_in + self.b_in) @ self.w_out + self.b_out

        return jnp.vectorize(of_one, signature="(n)->()")(features)


def entropy(logits: Float[Array, "*batch vocab"]) -> Float[Array, "*batch"]:
    """H = -Σ q log q in nats, q = softmax(logits)."""
    log_q = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.where(jnp.isneginf(log_q), 0.0, jnp.exp(log_q) * log_q), axis=-1)


def fingerprint(drafter: Drafter) -> str:
    """A short name for this one drafter: its class and a digest of its settings and weights.

    Under a trace the digest is left out.
    """
    name = type(drafter).__name__
    arrays = [leaf for leaf in jax.tree.leaves(drafter) if eqx.is_inexact_array(leaf)]
    if any(isinstance(leaf, Tracer) for leaf in arrays):
        return name
    is_reader = isinstance(drafter, PrimaryReader)
    settings = drafter.settings() if is_reader else {k: v for k, v in vars(drafter).items() if type(v) is int}
    digest = hashlib.sha256(json.dumps(settings).encode())
    # Every array, because before a training some are alike: norms of ones, projections of identity.
    for leaf in arrays:
        digest.update(np.asarray(leaf).reshape(-1)[:4096].tobytes())
    return f"{name} {digest.hexdigest()[:12]}"


def check_router(router: Any, drafter: Drafter, block_len: int | Int[Array, ""]) -> None:
    """Raise `BadInput` unless this is a router, and if learned, one trained for this drafter and this γ."""
    if not isinstance(router, Router):
        raise BadInput("a Router", type(router).__name__, "pass te.ConfidenceRule(0.5), for example")
    if not isinstance(router, LearnedRouter):
        return
    trained_for, trained_len = router.made_for
    name = fingerprint(drafter)
    fix = "train a router on this drafter's own drafts: tandem-edu train router"
    matches = trained_for.startswith(name)
    require(matches, f"a router trained for this drafter ({name})", f"one for {trained_for}", fix)
    got = f"one trained with {trained_len}"
    fix = f"pass block_len={trained_len}, or train a router with --block-len {block_len}"
    matches = isinstance(block_len, Tracer) or trained_len == block_len
    require(matches, f"a router trained with block_len={block_len}", got, fix)


def _probability(name: str, value: float) -> Float[Array, ""]:
    require(0 <= value <= 1, f"{name} in [0, 1]", value, "the paper has 0.8")
    return jnp.float32(value)
