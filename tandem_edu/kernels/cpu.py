"""Products of a few rows, and the attention of a few queries: where decoding on a CPU spends its time.

XLA's CPU backend multiplies one row at the speed of memory. For two or more it first packs the whole matrix
into another layout: 5 rows take four times as long as one, a verification as long as the decoding it
replaces. `cpu.c` streams the matrix once for all rows and reads only the keys and values that the mask
allows; a few cores share the work (`threads.h`). The system's C compiler compiles it once, into a cache.

Up to `MAX_ROWS` rows, a row's result does not depend on the other rows, to the last bit. So a verification
of γ + 1 tokens computes exactly what decoding one token at a time computes.

XLA does it all on Windows, a GPU or a TPU, in training, without a compiler, or if `TANDEM_EDU_KERNELS=0`.
"""

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tandem_edu.errors import BadInput
from tandem_edu.files import written_whole

MAX_ROWS = 64
"""With more rows XLA's packing pays: it reads a prompt of 64 tokens in two thirds of the time."""
LANES = 16
"""Floats in a vector of `cpu.c`, at most."""
MAX_THREADS = 4
"""The products of small models are too short to share among more."""
SOURCE = Path(__file__).with_suffix(".c")
HEADERS = [SOURCE.with_name("threads.h"), SOURCE.with_name("vectors.h")]
FUNCTIONS = ("tandem_matmul", "tandem_matmul_transposed", "tandem_attention")


def matmul(
    x: Float[Array, "rows d_in"], weight: Float[Array, "_ _"], transposed: bool = False
) -> Float[Array, "rows d_out"]:
    """x W for `weight` [d_in, d_out], or x Wᵀ for `weight` [d_out, d_in] with `transposed`."""
    small = x.shape[0] <= MAX_ROWS and x.dtype == weight.dtype == jnp.float32
    return _MATMULS[transposed](x, weight) if small and available() else xla_matmul(x, weight, transposed)


def xla_matmul(x: Float[Array, "rows d_in"], weight: Float[Array, "_ _"], transposed: bool = False) -> Array:
    """`matmul` by XLA."""
    # Not `x @ weight.T`: for a single row XLA would transpose the table again for each token.
    return jax.lax.dot_general(x, weight, (((1,), (int(transposed),)), ((), ())))


def attention(xla_attention: Callable, q: Array, kv_sources: Sequence, masks: Sequence) -> Array:
    """`xla_attention(q, kv_sources, masks)`: one softmax over the keys of all sources (`layers.attend`).

    The compiled form passes once over the visible keys (arXiv:2205.14135), for q[n_heads, q_len, head_dim].
    """
    small = q.ndim == 3 and q.shape[-2] <= MAX_ROWS and q.dtype == jnp.float32
    if not (small and available()):
        return xla_attention(q, kv_sources, masks)
    batch_of_one = jax.tree.map(lambda x: x[None], (q, kv_sources, masks))
    return _batched_attention(xla_attention)(*batch_of_one)[0]


@cache  # made once: outside `jit`, JAX compiles each new function again
def _batched_attention(xla_attention: Callable) -> Callable:
    def compiled(q, kv_sources, masks):
        head_dim = q.shape[-1]
        # `cpu.c` reads whole vectors, so heads of another width are padded with zeros.
        padded = lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -head_dim % LANES)])
        scaled, sources = jax.tree.map(lambda x: _merge_axes(padded(x)), (q * head_dim**-0.5, kv_sources))
        bits = [-mask.astype(jnp.int32) for mask in masks]
        arguments = [x for (k, v), mask in zip(sources, bits, strict=True) for x in (k, v, mask)]
        result = jax.ShapeDtypeStruct(scaled.shape, jnp.float32)
        out = jax.ffi.ffi_call("tandem_attention", result)(scaled, *arguments)
        return out.reshape(*q.shape[:-1], -1)[..., :head_dim]

    def batch_rule(axis_size, batched, *operands):
        broadcast = lambda is_batched, x: x if is_batched else jnp.broadcast_to(x, (axis_size, *x.shape))
        operands = jax.tree.map(broadcast, tuple(batched), operands)
        out = batched_attention(*jax.tree.map(_merge_axes, operands))
        return out.reshape(axis_size, -1, *out.shape[1:]), True

    batched_attention = _with_transforms(compiled, jax.vmap(xla_attention), batch_rule)
    return batched_attention


def _merge_axes(x: Array) -> Array:
    """The first two axes as one."""
    return x.reshape(-1, *x.shape[2:])


def _make_matmul(transposed: bool) -> Callable:
    """The compiled product for one layout of the matrix; under `jax.vmap` a batch becomes more rows."""
    by_xla = partial(xla_matmul, transposed=transposed)

    def compiled(x, weight):
        name = "tandem_matmul_transposed" if transposed else "tandem_matmul"
        result = jax.ShapeDtypeStruct((x.shape[0], weight.shape[1 - int(transposed)]), jnp.float32)
        return jax.ffi.ffi_call(name, result)(x, weight)

    def batch_rule(axis_size, batched, x, weight):
        if batched[1]:
            return jax.vmap(by_xla, (0 if batched[0] else None, 0))(x, weight), True
        flat = matmul(x.reshape(-1, x.shape[-1]), weight, transposed)
        return flat.reshape(*x.shape[:-1], -1), True

    return _with_transforms(compiled, by_xla, batch_rule)


def _with_transforms(compiled: Callable, by_xla: Callable, batch_rule: Callable) -> Callable:
    """`compiled` on a CPU and `by_xla` elsewhere, in batches and under differentiation."""

    @jax.custom_batching.custom_vmap
    def batched(*operands):
        return jax.lax.platform_dependent(*operands, cpu=compiled, default=by_xla)

    batched.def_vmap(batch_rule)

    @jax.custom_jvp
    def function(*operands):
        return batched(*operands)

    function.defjvp(lambda primals, tangents: jax.jvp(by_xla, primals, tangents))
    return function


_MATMULS = {transposed: _make_matmul(transposed) for transposed in (False, True)}


@cache
def available() -> bool:
    """Whether the compiled functions can be used here; the first call compiles them."""
    if os.environ.get("TANDEM_EDU_KERNELS") == "0" or os.name == "nt":  # GCC there aligns no vectors
        return False
    try:
        library = _load()
    except (OSError, RuntimeError, subprocess.SubprocessError, BadInput):  # RuntimeError: no home folder
        return False
    for name in FUNCTIONS:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    library.tandem_set_threads(min(MAX_THREADS, cores))
    return True


def _load() -> ctypes.CDLL:
    """The library, compiled unless the cache has a file that loads. Raises `OSError` without a compiler."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if compiler is None:
        raise OSError("no C compiler")
    command = [
        compiler,
        *("-O3", "-ffp-contract=fast", "-fno-strict-aliasing", "-fPIC", "-shared", "-w", "-pthread"),
        "--param=avoid-fma-max-bits=0",  # else GCC would round a loop with one sum in its own way
        "-fno-tree-vectorize",  # a sum that is vectorised here and not there would be rounded differently
        *(f"-I{SOURCE.parent}", f"-I{jax.ffi.include_dir()}"),
        "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native",
    ]
    # Another processor, compiler or version of JAX needs another file.
    sources = [path.read_text("utf-8") for path in (SOURCE, *HEADERS)]
    digest = hashlib.sha256("\n".join([*sources, *command, jax.__version__, *_processor()]).encode())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem_edu"
    path = folder / f"kernels-{digest.hexdigest()[:16]}.so"
    try:
        return ctypes.CDLL(str(path))
    except OSError:  # no such file, or a damaged one
        with written_whole(path) as part:
            subprocess.run([*command, str(SOURCE), "-o", str(part)], check=True, timeout=180)
        return ctypes.CDLL(str(path))


def _processor() -> list[str]:
    """What distinguishes the instructions of one processor from another's."""
    info = Path("/proc/cpuinfo")
    flags = re.search(r"^(?:flags|Features)\s*:(.*)", info.read_text() if info.exists() else "", re.M)
    return [platform.machine(), platform.processor(), flags[1] if flags else ""]
