"""Training losses: cross-entropy to the text, and divergences from the primary's distribution.

At each position p is the primary's (the teacher's) distribution, q the trained model's, and t the true
next token. All losses are in nats per token, except total variation, which has no unit.

| name | loss | source |
|---|---|---|
| `ce` | -log q(t) | |
| `kl` | KL(p ‖ q) = Σ_v p(v) log(p(v) / q(v)) | Hinton et al. 2015, arXiv:1503.02531 |
| `reverse_kl` | KL(q ‖ p) = Σ_v q(v) log(q(v) / p(v)) | Gu et al. 2024, arXiv:2306.08543 |
| `tv` | TV(p, q) = ½ Σ_v abs(p(v) - q(v)) | Zhou et al. 2024, arXiv:2310.08461 |
| `nla` | -log α with α = Σ_v min(p(v), q(v)) = 1 - TV(p, q) | Samarin et al. 2026, arXiv:2602.23881 |

KL punishes a q that misses what is likely under p, reverse KL one that adds what is unlikely. α is the
probability that a draft is accepted (Leviathan et al. 2023, arXiv:2211.17192, theorem 3.5). The gradient of
-log α is that of TV divided by α, so it stays steep where p and q hardly overlap and TV is flat.

>>> p, q = jnp.log(jnp.array([[0.5, 0.5]])), jnp.log(jnp.array([[0.25, 0.75]]))
>>> names = "ce", "kl", "reverse_kl", "tv", "nla"
>>> [round(float(LOSSES[name](q, jnp.array([0]), p)[0]), 4) for name in names]
[1.3863, 0.1438, 0.1308, 0.25, 0.2877]
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import jax.numpy as jnp
from jax.nn import log_softmax, logsumexp, softmax
from jaxtyping import Array, Float, Int
from optax.losses import kl_divergence_with_log_targets as kl
from optax.losses import softmax_cross_entropy_with_integer_labels

from tandem_edu.errors import require

LOSSES: dict[str, Callable[..., Array]] = {
    "ce": lambda q, t, p: softmax_cross_entropy_with_integer_labels(q, t),
    "kl": lambda q, t, p: kl(log_softmax(q), log_softmax(p)),
    "reverse_kl": lambda q, t, p: kl(log_softmax(p), log_softmax(q)),
    "tv": lambda q, t, p: abs(softmax(p) - softmax(q)).sum(-1) / 2,
    # From log p and log q, because α itself may be too small for a float.
    "nla": lambda q, t, p: -logsumexp(jnp.minimum(log_softmax(p), log_softmax(q)), axis=-1),
}
"""(Logits of q, targets t, logits of p) -> loss at each position. The compiler merges equal softmaxes."""


@dataclass(frozen=True)
class Objective:
    """A weighted sum of losses, each a mean over positions; a loss with weight 0 is not computed.

    The paper's λ = 0.5 is `Objective(kl=0.5)`. Raises `BadInput` for negative or infinite weights, or all 0.

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
        weights, fix = asdict(self).values(), "the paper has ce=1.0 and kl=0.5"
        valid = all(isinstance(x, int | float) and 0 <= x < float("inf") for x in weights)
        require(valid and any(weights), "weights of at least 0, not all 0", self, fix)

    @property
    def distils(self) -> bool:
        """Whether the teacher's logits are needed."""
        return any((self.kl, self.reverse_kl, self.tv, self.nla))

    def __call__(
        self,
        logits: Float[Array, "*batch seq vocab"],
        targets: Int[Array, "*batch seq"],
        teacher_logits: Float[Array, "*batch seq vocab"] | None = None,
    ) -> Float[Array, ""]:
        """The weighted sum; without a divergence it needs no teacher."""
        mean = lambda name: jnp.mean(LOSSES[name](logits, targets, teacher_logits))
        return sum(x * mean(name) for name, x in asdict(self).items() if x)  # pyright: ignore
