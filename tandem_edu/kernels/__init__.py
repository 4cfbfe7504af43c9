"""The one place for code that exists because of a particular processor.

Each function computes what one line of `jax.numpy` says, and on a GPU or TPU it *is* that line. On a CPU
it takes another way, because XLA's own way is several times slower. The model code calls these functions
and contains no such workaround itself.

| function | computes | instead, on a CPU |
|---|---|---|
| `matmul` | x W or x Wᵀ | streams W once for up to 64 rows (`cpu.c`) |
| `attention` | softmax(q kᵀ) v | reads only the keys that the mask allows (`cpu.c`) |
| `argmax` | the index of the first highest score | three vectorised passes |
| `take_rows` | table[ids] | one slice per row, for a few rows |
| `compute_once` | f(x) | keeps XLA from computing f again in each layer |
| `silu_product` | silu(a) · b | recomputed for the gradient, not stored |
"""

from tandem_edu.kernels.cpu import attention, available, matmul
from tandem_edu.kernels.xla import argmax, compute_once, silu_product, take_rows
