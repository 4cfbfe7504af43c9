"""What training makes small: cross-entropy to the text, and divergence from the primary.

Axis names: `*batch seq` positions, `vocab` token ids. All figures are means over positions, in nats
per token. p is the primary's (the teacher's) distribution, q the one that is trained.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tandem_edu.errors import BadInput, require


def token_losses(
    logits: Float[Array, "*batch seq vocab"], targets: Int[Array, "*batch seq"]
) -> Float[Array, "*batch seq"]:
    """-log q(target) = logsumexp(logits) - logits[target] at each position."""
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def cross_entropy(
    logits: Float[Array, "*batch seq vocab"], targets: Int[Array, "*batch seq"]
) -> Float[Array, ""]:
    """mean of -log q(target), in nats per token.

    >>> logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
    >>> round(float(cross_entropy(logits, jnp.array([0]))), 4)  # log 2
    0.6931
    """
    return jnp.mean(token_losses(logits, targets))


def kl_divergence(
    teacher_logits: Float[Array, "*batch seq vocab"], logits: Float[Array, "*batch seq vocab"]
) -> Float[Array, ""]:
    """mean of KL(p ‖ q) = Σ_v p(v) log(p(v) / q(v)), in nats per token; 0 where q = p.

    Distillation (Hinton et al. 2015, arXiv:1503.02531) at temperature 1.

    >>> p, q = jnp.log(jnp.array([[0.5, 0.5]])), jnp.log(jnp.array([[0.25, 0.75]]))
    >>> round(float(kl_divergence(p, q)), 4)  # (log 2 + log 2/3) / 2
    0.1438
    """
    log_p, log_q = jax.nn.log_softmax(teacher_logits), jax.nn.log_softmax(logits)
    return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1))


@dataclass(frozen=True)
class Objective:
    """ce · cross-entropy to the text + kl · KL(primary ‖ model).

    The paper's λ = 0.5 is `Objective(ce=1.0, kl=0.5)`. What has the weight zero is not computed.
    Raises `BadInput` for negative or infinite weights, or if both are zero.

    >>> objective, logits = Objective(kl=0.5), jnp.zeros((3, 8))
    >>> round(float(objective(logits, jnp.array([1, 5, 2]), logits)), 4)  # log 8
    2.0794
    """

    ce: float = 1.0
    kl: float = 0.0

    def __post_init__(self) -> None:
        fine = all(isinstance(x, int | float) and 0 <= x < float("inf") for x in (self.ce, self.kl))
        fine = fine and self.ce + self.kl > 0
        got = f"ce={self.ce!r} and kl={self.kl!r}"
        require(fine, "weights of at least 0, not both 0", got, "the paper has ce=1.0 and kl=0.5")

    def __call__(
        self,
        logits: Float[Array, "*batch seq vocab"],
        targets: Int[Array, "*batch seq"],
        teacher_logits: Float[Array, "*batch seq vocab"] | None = None,
    ) -> Float[Array, ""]:
        """The weighted sum. Raises `BadInput` if `kl` has a weight and there is no teacher."""
        terms = []
        if self.ce:
            terms.append(self.ce * cross_entropy(logits, targets))
        if self.kl:
            if teacher_logits is None:
                raise BadInput("teacher_logits for the weight kl", None, "pass the primary's logits")
            terms.append(self.kl * kl_divergence(teacher_logits, logits))
        return sum(terms[1:], terms[0])
