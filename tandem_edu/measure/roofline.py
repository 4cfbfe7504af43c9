"""Why reading several tokens costs hardly more than reading one: the roofline (Williams et al. 2009).

To read n tokens, a model of N weights loads its weights once and does 2·N operations per token:

    time(n) = max(bytes / bandwidth, 2 · N · n / peak)

While the first term is larger, n tokens take as long as one. Extra tokens are free up to the *ridge*
n* = peak · bytes / (2 · N · bandwidth). Attention over the cache is left out; it is small for short texts.
"""

from typing import NamedTuple

from tandem_edu.errors import require


class Hardware(NamedTuple):
    """A chip by its data sheet: operations and bytes of main memory per second, which no program reaches."""

    name: str
    peak: float
    bandwidth: float
    bytes_per_weight: int


PRESETS = (
    Hardware("laptop CPU, 4 cores, float32", 0.4e12, 50e9, 4),
    Hardware("NVIDIA T4 (Colab), float16", 65e12, 320e9, 2),
    Hardware("NVIDIA A100 40 GB, bfloat16", 312e12, 1_555e9, 2),
    Hardware("NVIDIA H100 SXM, bfloat16", 989e12, 3_350e9, 2),
    Hardware("TPU v5e, bfloat16", 197e12, 819e9, 2),
)
"""From the makers' data sheets (dense, without sparsity); the laptop's numbers are rounded."""


def read_time(hardware: Hardware, weights: float | int, tokens: float | int) -> float:
    """time(n) in seconds, for n = `tokens` and N = `weights`. Raises `BadInput` unless both are above 0.

    >>> chip = Hardware("round numbers", peak=1e12, bandwidth=1e11, bytes_per_weight=4)
    >>> read_time(chip, weights=1e9, tokens=1), read_time(chip, weights=1e9, tokens=100)
    (0.04, 0.2)
    """
    require(weights > 0 and tokens > 0, "weights and tokens above 0", (weights, tokens), "count them")
    memory = weights * hardware.bytes_per_weight / hardware.bandwidth
    return max(memory, 2 * weights * tokens / hardware.peak)


def ridge(hardware: Hardware) -> float:
    """n*: how many tokens take as long to compute as the weights take to load."""
    return hardware.peak * hardware.bytes_per_weight / (2 * hardware.bandwidth)
