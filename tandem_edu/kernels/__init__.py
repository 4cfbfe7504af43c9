"""The one place for code that exists because of a particular processor.

Each function computes what one line of `jax.numpy` says, and on a GPU or TPU it *is* that line. On a CPU
it takes another way, because XLA's own is several times slower. The model code has no such workarounds.
"""

from tandem_edu.kernels.cpu import attention, available, matmul
from tandem_edu.kernels.xla import argmax, compute_once, silu_product, take_rows
