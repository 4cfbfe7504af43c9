"""Code for a particular processor: one line of `jax.numpy` each, and faster on a CPU than XLA's own."""

from tandem_edu.kernels.cpu import attention, available, matmul
from tandem_edu.kernels.xla import argmax, compute_once, silu_product, take_rows
