"""Adaptive block length: when to stop drafting (paper, section 3).

A draft that will be rejected costs a step of the drafter and gains nothing. After each draft a router
estimates the probability that the primary accepts it. Drafting ends where that *confidence* falls below a
threshold τ (the paper's is 0.8). The draft just made is verified in any case. It must be: a router that
discarded drafts by what they are would change the distribution of the rest, while one that only decides
whether to go on keeps it exact.

`LearnedRouter`    a two-layer MLP on what the drafter knows, see `tandem_edu.train.router`
`ConfidenceRule`   untrained: the drafter's own probability of the token it drafted

Both use the drafter's distribution at temperature 1, before top-k and top-p. τ is a traced value: another one
compiles nothing.
"""

import abc
import hashlib
import json
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tandem_edu.drafters import Draft, Drafter, PrimaryReader
from tandem_edu.errors import BadInput, require
from tandem_edu.model.layers import init_weight

Embed = Callable[[Int[Array, " k"]], Float[Array, "k d_embed"]]
INPUTS, TARGETS = ("embeddings", "hidden"), ("tv", "accepted")


class Router(eqx.Module):
    """Ends a block early: features of a draft → confidence → go on while it is at least `threshold`."""

    threshold: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def features(self, draft: Draft, token: Int[Array, ""], embed: Embed) -> Float[Array, " n_features"]:
        """What is known of the draft `token`. `embed` gives the drafter's embeddings of token ids."""

    @abc.abstractmethod
    def confidence(self, features: Float[Array, "*batch n_features"]) -> Float[Array, "*batch"]:
        """The estimated probability that the primary accepts the draft."""

    def with_threshold(self, threshold: float) -> "Router":
        """The same router with another τ. Raises `BadInput` outside [0, 1]."""
        return eqx.tree_at(lambda router: router.threshold, self, _probability("threshold", threshold))


class ConfidenceRule(Router):
    """Go on while the drafter gave the token it drafted a probability of at least `threshold`.

    Raises `BadInput` for a threshold outside [0, 1].
    """

    threshold: Float[Array, ""]

    def __init__(self, threshold: float):
        self.threshold = _probability("threshold", threshold)

    def features(self, draft, token, embed):
        return jax.nn.softmax(draft.logits)[token][None]

    def confidence(self, features):
        return features[..., 0]


class LearnedRouter(Router):
    """The paper's router: a two-layer MLP on what the drafter knows of its draft.

        confidence = sigmoid(w₂ · silu(W₁ z + b₁) + b₂),  z the features (`draft_features`), standardised

    The constructor makes an untrained one, `train.train_router` a trained one. `made_for` names the drafter
    and the γ_max whose drafts it has learned from, `inputs` and `target` what it sees and what it estimates.
    """

    w_in: Float[Array, "n_features d_router"]
    b_in: Float[Array, " d_router"]
    w_out: Float[Array, " d_router"]
    b_out: Float[Array, ""]
    mean: Float[Array, " n_features"]
    scale: Float[Array, " n_features"]
    threshold: Float[Array, ""]
    top_k: int = eqx.field(static=True)
    inputs: str = eqx.field(static=True)
    target: str = eqx.field(static=True)
    made_for: tuple[str, int] = eqx.field(static=True)

    def __init__(
        self,
        n_features: int,
        made_for: tuple[str, int],
        threshold: float = 0.8,
        top_k: int = 8,
        inputs: str = "embeddings",
        target: str = "tv",
        d_router: int = 32,
        *,
        key: PRNGKeyArray,
    ):
        self.w_in = init_weight(key, n_features, d_router)
        self.b_in = self.w_out = jnp.zeros(d_router, jnp.float32)
        self.b_out = jnp.float32(0)
        self.mean, self.scale = jnp.zeros(n_features, jnp.float32), jnp.ones(n_features, jnp.float32)
        self.threshold = _probability("threshold", threshold)
        self.top_k, self.inputs, self.target, self.made_for = top_k, inputs, target, made_for

    def features(self, draft, token, embed):
        return draft_features(draft, token, embed, self.top_k, self.inputs)

    def confidence(self, features):
        return jax.nn.sigmoid(self.score(features))

    def score(self, features: Float[Array, "*batch n_features"]) -> Float[Array, "*batch"]:
        """The confidence's logit."""

        def of_one(features):
            z = (features - self.mean) * self.scale
            return jax.nn.silu(z @ self.w_in + self.b_in) @ self.w_out + self.b_out

        return jnp.vectorize(of_one, signature="(n)->()")(features)


def draft_features(
    draft: Draft, token: Int[Array, ""], embed: Embed, top_k: int, inputs: str
) -> Float[Array, " n_features"]:
    """What a learned router sees of the drafter's distribution q, at temperature 1.

    - "embeddings", the paper's: the entropy of q, its `top_k` highest probabilities, and the drafter's
      embeddings of those tokens;
    - "hidden": in place of the embeddings q(token), and the drafter's last hidden state.
    """
    q = jax.nn.softmax(draft.logits)
    # Without the barrier XLA takes the ids one by one, sees no top-k any more and sorts the vocabulary.
    highest, ids = jax.lax.optimization_barrier(jax.lax.top_k(q, top_k))
    more = embed(ids).reshape(-1) if inputs == "embeddings" else jnp.append(draft.hidden, q[token])
    return jnp.concatenate([entropy(draft.logits)[None], highest, more])


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
