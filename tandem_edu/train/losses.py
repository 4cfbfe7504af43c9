"""What training makes small: cross-entropy to the text, and divergence from the primary.

Axis names: `*batch seq` positions, `vocab` token ids. All figures are means over positions, in nats
per token (total variation has no unit). p is the primary's (the teacher's) distribution, q the one
that is trained.

The divergences are 0 where q = p and differ in what a small model, which cannot reach p, gives up:
KL punishes a q that misses what p holds likely, reverse KL one that holds likely what p does not, and
the last two count what speculative decoding lives on, the share of drafts accepted.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

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
    return _weighted_sum({"kl": 1.0}, teacher_logits, logits)


def reverse_kl_divergence(
    teacher_logits: Float[Array, "*batch seq vocab"], logits: Float[Array, "*batch seq vocab"]
) -> Float[Array, ""]:
    """mean of KL(q ‖ p) = Σ_v q(v) log(q(v) / p(v)), in nats per token; 0 where q = p.

    Also called mode-seeking (Gu et al. 2024, arXiv:2306.08543): a q on one of p's peaks costs little.

    >>> p, q = jnp.log(jnp.array([[0.5, 0.5]])), jnp.log(jnp.array([[0.25, 0.75]]))
    >>> round(float(reverse_kl_divergence(p, q)), 4)  # (log 1/2 + 3 log 3/2) / 4
    0.1308
    """
    return _weighted_sum({"reverse_kl": 1.0}, teacher_logits, logits)


def total_variation(
    teacher_logits: Float[Array, "*batch seq vocab"], logits: Float[Array, "*batch seq vocab"]
) -> Float[Array, ""]:
    """mean of TV(p, q) = ½ Σ_v |p(v) - q(v)|, from 0 (q = p) to 1 (no token in common).

    1 - TV = Σ_v min(p(v), q(v)) is the chance that a draft is accepted (Leviathan et al. 2023,
    arXiv:2211.17192, theorem 3.5), so this is the share of drafts lost. As a loss it is in DistillSpec
    (Zhou et al. 2024, arXiv:2310.08461). Where p and q have little in common it is flat.

    >>> p, q = jnp.log(jnp.array([[0.5, 0.5]])), jnp.log(jnp.array([[0.25, 0.75]]))
    >>> round(float(total_variation(p, q)), 4)
    0.25
    """
    return _weighted_sum({"tv": 1.0}, teacher_logits, logits)


def negative_log_acceptance(
    teacher_logits: Float[Array, "*batch seq vocab"], logits: Float[Array, "*batch seq vocab"]
) -> Float[Array, ""]:
    """mean of -log α, where α = Σ_v min(p(v), q(v)) = 1 - TV(p, q), in nats per token; 0 where q = p.

    Its gradient is that of TV divided by α: the same direction, and steep where TV is flat (Samarin et
    al. 2026, arXiv:2602.23881). Computed as -logsumexp(min(log p, log q)), so that an α too small for
    a float still has a logarithm and a gradient.

    >>> p, q = jnp.log(jnp.array([[0.5, 0.5]])), jnp.log(jnp.array([[0.25, 0.75]]))
    >>> round(float(negative_log_acceptance(p, q)), 4)  # -log 3/4
    0.2877
    """
    return _weighted_sum({"nla": 1.0}, teacher_logits, logits)


# At each position, from log p and log q; the names are those of the weights in `Objective`.
_DIVERGENCES: dict[str, Callable[[Array, Array], Array]] = {
    "kl": lambda log_p, log_q: jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1),
    "reverse_kl": lambda log_p, log_q: jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1),
    "tv": lambda log_p, log_q: jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)), axis=-1) / 2,
    "nla": lambda log_p, log_q: -jax.nn.logsumexp(jnp.minimum(log_p, log_q), axis=-1),
}


def _weighted_sum(weights: dict[str, float], teacher_logits: Array, logits: Array) -> Array:
    """Σ weight · mean divergence. All share one log p and one log q, the costly part."""
    log_p, log_q = jax.nn.log_softmax(teacher_logits), jax.nn.log_softmax(logits)
    terms = [weight * jnp.mean(_DIVERGENCES[name](log_p, log_q)) for name, weight in weights.items()]
    return sum(terms[1:], terms[0])


@dataclass(frozen=True)
class Objective:
    """A weighted sum of the losses above; what has the weight zero is not computed.

    | weight | loss |
    |---|---|
    | `ce` | cross-entropy to the text |
    | `kl` | KL(primary ‖ model) |
    | `reverse_kl` | KL(model ‖ primary) |
    | `tv` | total variation |
    | `nla` | negative log-acceptance |

    The paper's λ = 0.5 is `Objective(ce=1.0, kl=0.5)`. Raises `BadInput` for negative or infinite
    weights, or if all are zero.

    >>> objective, logits = Objective(kl=0.5), jnp.zeros((3, 8))
    >>> round(float(objective(logits, jnp.array([1, 5, 2]), logits)), 4)  # log 8
    2.0794
    """

    ce: float = 1.0
    kl: float = 0.0
    reverse_kl: float = 0.0
    tv: float = 0.0
    nla: float = 0.0

    def __post_init__(self) -> None:
        weights = asdict(self).values()
        fine = all(isinstance(x, int | float) and 0 <= x < float("inf") for x in weights)
        fine = fine and any(weights)
        require(fine, "weights of at least 0, not all 0", self, "the paper has ce=1.0 and kl=0.5")

    @property
    def distils(self) -> bool:
        """Whether the teacher's logits are needed."""
        return bool(self._divergences)

    @property
    def _divergences(self) -> dict[str, float]:
        return {name: weight for name in _DIVERGENCES if (weight := getattr(self, name))}

    def __call__(
        self,
        logits: Float[Array, "*batch seq vocab"],
        targets: Int[Array, "*batch seq"],
        teacher_logits: Float[Array, "*batch seq vocab"] | None = None,
    ) -> Float[Array, ""]:
        """The weighted sum. Raises `BadInput` if a divergence has a weight and there is no teacher."""
        terms = []
        if self.ce:
            terms.append(self.ce * cross_entropy(logits, targets))
        if self.distils:
            if teacher_logits is None:
                expected = f"teacher_logits for {', '.join(self._divergences)}"
                raise BadInput(expected, None, "pass the primary's logits")
            terms.append(_weighted_sum(self._divergences, teacher_logits, logits))
        return sum(terms[1:], terms[0])
