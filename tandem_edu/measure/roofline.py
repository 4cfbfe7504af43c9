"""Why reading several tokens costs hardly more than reading one: the roofline (Williams et al. 2009).

To read n tokens, a model of N weights moves its weights through the chip once and does N multiply-adds,
2·N operations, a token:

    time(n) = max(bytes / bandwidth, 2 · N · n / peak)

While the first term is the larger one, n tokens take as long as one. They stop being free at the *ridge*
n* = peak · bytes / (2 · N · bandwidth). Attention over the cache is left out: it is small while texts are.
"""

from dataclasses import dataclass

from tandem_edu.errors import require


@dataclass(frozen=True)
class Hardware:
    """A chip by its data sheet: the best it can do, which no program quite reaches."""

    name: str
    peak: float
    """Operations per second, at the precision named."""
    bandwidth: float
    """Bytes per second from main memory."""
    bytes_per_weight: int
    """At that precision."""


PRESETS = (
    Hardware("laptop CPU, 4 cores, float32", 0.4e12, 50e9, 4),
    Hardware("NVIDIA T4 (Colab), float16", 65e12, 320e9, 2),
    Hardware("NVIDIA A100 40 GB, bfloat16", 312e12, 1_555e9, 2),
    Hardware("NVIDIA H100 SXM, bfloat16", 989e12, 3_350e9, 2),
    Hardware("TPU v5e, bfloat16", 197e12, 819e9, 2),
)
"""From the makers' data sheets (dense, without sparsity); the laptop is a round figure."""


def read_time(hardware: Hardware, weights: float | int, tokens: float | int) -> float:
    """Seconds to read `tokens` tokens with a model of so many weights: the larger of both terms.

    Raises `BadInput` for a size that is not above 0.

    >>> chip = Hardware("round numbers", peak=1e12, bandwidth=1e11, bytes_per_weight=4)
    >>> read_time(chip, weights=1e9, tokens=1), read_time(chip, weights=1e9, tokens=100)
    (0.04, 0.2)
    """
    for name, value in (("weights", weights), ("tokens", tokens)):
        require(value > 0, f"{name} above 0", value, "count them")
    memory = weights * hardware.bytes_per_weight / hardware.bandwidth
    return max(memory, 2 * weights * tokens / hardware.peak)


def ridge(hardware: Hardware) -> float:
    """n*, the number of tokens that take as long to compute as the weights take to move.

    >>> ridge(Hardware("round numbers", peak=1e12, bandwidth=1e11, bytes_per_weight=4))
    20.0
    """
    return hardware.peak * hardware.bytes_per_weight / (2 * hardware.bandwidth)
