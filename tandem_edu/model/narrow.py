"""A few rows times a matrix, and a few queries' attention: where decoding spends its time on a CPU.

XLA's CPU backend multiplies one row at the speed of memory, but for two rows or more it first packs the
whole matrix into another layout, every time: 5 rows take it four times as long as one. That makes a
verification cost as much as what it verifies. `narrow.c` streams the matrix by once for all rows, and
reads only those keys and values of a cache that are seen; a few cores share the work (`narrow_threads.h`).
It is compiled by the system's C compiler at first use and kept in the user's cache folder.

Besides, up to `MAX_ROWS` (those of all texts of a batch together) a row's result does not depend on how many
rows come with it, to the last bit: what is verified in one call of γ + 1 rows is what decoding one by one
computes.

Without a C compiler, on Windows, on a GPU or TPU, in training and with `TANDEM_EDU_NARROW=0`, XLA does it
all.
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
"""Beyond, XLA's packing pays; a prompt of so many tokens is read in two thirds of its time."""
LANES = 16
"""Numbers of a vector in `narrow.c`, at most."""
SOURCE = Path(__file__).with_suffix(".c")
HEADERS = [SOURCE.with_name(f"narrow_{part}.h") for part in ("threads", "vectors")]
MAX_THREADS = 4
"""Beyond, the products of small models are too short to share."""
NAMES = ("narrow", "narrow_transposed", "narrow_attention")


def product(
    x: Float[Array, "rows d_in"], weight: Float[Array, "_ _"], transposed: bool = False
) -> Float[Array, "rows d_out"]:
    """x W for `weight` [d_in, d_out], or x Wᵀ for [d_out, d_in] with `transposed`.

    >>> x, weight = jnp.arange(6.0).reshape(2, 3), jnp.ones((3, 4))
    >>> product(x, weight)[:, 0].tolist(), product(x, weight.T, transposed=True)[:, 0].tolist()
    ([3.0, 12.0], [3.0, 12.0])
    """
    few = x.shape[0] <= MAX_ROWS and x.dtype == weight.dtype == jnp.float32
    return _PRODUCTS[transposed](x, weight) if few and available() else plain(x, weight, transposed)


def plain(x: Float[Array, "rows d_in"], weight: Float[Array, "_ _"], transposed: bool = False):
    """The same in XLA's own words."""
    # Not `x @ weight.T`: for a single row XLA would transpose a table again for each token.
    return jax.lax.dot_general(x, weight, (((1,), (int(transposed),)), ((), ())))


def attention(plain: Callable, q: Array, sides: Sequence, masks: Sequence) -> Array:
    """`plain(q, sides, masks)`, where that is a softmax over the keys of all sides (`layers.attend`).

    One pass over the keys that are seen, in the manner of arXiv:2205.14135; what lies behind them costs
    little. Only for `q[n_heads, q_len, head_dim]`, or that under `jax.vmap`.
    """
    few = q.ndim == 3 and q.shape[-2] <= MAX_ROWS and q.dtype == jnp.float32
    if not (few and available()):
        return plain(q, sides, masks)
    return _attention(plain)(*jax.tree.map(lambda x: x[None], (q, sides, masks)))[0]


@cache
def _attention(plain: Callable) -> Callable:
    """The compiled attention of several texts. Made once: outside `jit`, JAX compiles each new one."""

    def compiled(q, sides, masks):
        head_dim = q.shape[-1]
        # Whole vectors only: heads of another width are widened with zeros.
        widened = lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -head_dim % LANES)])
        scaled, sides = jax.tree.map(lambda x: _merged(widened(x)), (q * head_dim**-0.5, sides))
        bits = [-mask.astype(jnp.int32) for mask in masks]
        arguments = [x for (k, v), seen in zip(sides, bits, strict=True) for x in (k, v, seen)]
        found = _call("narrow_attention", scaled.shape, scaled, *arguments)
        return found.reshape(*q.shape[:-1], -1)[..., :head_dim]

    def batch_rule(axis_size, batched, *operands):
        everywhere = lambda is_batched, x: x if is_batched else jnp.broadcast_to(x, (axis_size, *x.shape))
        every = jax.tree.map(everywhere, tuple(batched), operands)
        found = of_texts(*jax.tree.map(_merged, every))
        return found.reshape(axis_size, -1, *found.shape[1:]), True

    of_texts = _transformable(compiled, jax.vmap(plain), batch_rule)
    return of_texts


def _merged(x: Array) -> Array:
    """The first two axes as one."""
    return x.reshape(-1, *x.shape[2:])


def _product(transposed: bool) -> Callable:
    """The compiled product of one layout; a batch of rows is more rows."""
    of_xla = partial(plain, transposed=transposed)

    def compiled(x, weight):
        shape = (x.shape[0], weight.shape[1 - int(transposed)])
        return _call("narrow_transposed" if transposed else "narrow", shape, x, weight)

    def batch_rule(axis_size, batched, x, weight):
        if batched[1]:
            return jax.vmap(of_xla, (0 if batched[0] else None, 0))(x, weight), True
        flat = product(x.reshape(-1, x.shape[-1]), weight, transposed)
        return flat.reshape(*x.shape[:-1], -1), True

    return _transformable(compiled, of_xla, batch_rule)


def _call(name: str, shape: tuple[int, ...], *operands: Array) -> Array:
    """The result, float32[shape], of one of the library's functions."""
    return jax.ffi.ffi_call(f"tandem_edu_{name}", jax.ShapeDtypeStruct(shape, jnp.float32))(*operands)


def _transformable(compiled: Callable, of_xla: Callable, batch_rule: Callable) -> Callable:
    """`compiled` on a CPU and `of_xla` elsewhere, in batches and under differentiation."""

    @jax.custom_batching.custom_vmap
    def batched(*operands):
        return jax.lax.platform_dependent(*operands, cpu=compiled, default=of_xla)

    batched.def_vmap(batch_rule)

    @jax.custom_jvp
    def function(*operands):
        return batched(*operands)

    function.defjvp(lambda primals, tangents: jax.jvp(of_xla, primals, tangents))
    return function


_PRODUCTS = {transposed: _product(transposed) for transposed in (False, True)}


@cache
def available() -> bool:
    """Whether the compiled product can be had here; the first call compiles it."""
    if os.environ.get("TANDEM_EDU_NARROW") == "0" or os.name == "nt":  # GCC aligns no vectors on its stack
        return False
    try:
        library = ctypes.CDLL(str(_compiled()))
    except (OSError, RuntimeError, subprocess.SubprocessError, BadInput):  # RuntimeError: there is no home
        return False
    for name in NAMES:
        capsule = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(f"tandem_edu_{name}", capsule, platform="cpu")
    library.narrow_threads(min(MAX_THREADS, _cores()))
    return True


def _compiled() -> Path:
    """The library in the user's cache folder, made if need be. Raises `OSError` without a compiler."""
    found = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if found is None:
        raise OSError("no C compiler")
    arguments = [
        "-O3",
        "-ffp-contract=fast",
        "--param=avoid-fma-max-bits=0",  # else GCC would round a loop with one sum its own way
        "-fno-tree-vectorize",  # a sum that is vectorised here and not there would be rounded differently
        "-fno-strict-aliasing",
        "-fPIC",
        "-shared",
        "-w",
        "-pthread",
        f"-I{SOURCE.parent}",
        f"-I{jax.ffi.include_dir()}",
    ]
    # Another processor, compiler or JAX is another file.
    sources = [path.read_text("utf-8") for path in (SOURCE, *HEADERS)]
    facts = [*sources, found, *arguments, jax.__version__, *_processor()]
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem_edu"
    path = folder / f"narrow-{digest}.so"
    if not path.exists():
        with written_whole(path) as part:
            native = ["-mcpu=native"] if platform.machine() in ("arm64", "aarch64") else ["-march=native"]
            subprocess.run(
                [found, *arguments, *native, str(SOURCE), "-o", str(part)], check=True, timeout=180
            )
    return path


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> list[str]:
    """What tells one processor's instructions from another's."""
    known = Path("/proc/cpuinfo")
    flags = re.search(r"^(?:flags|Features)\s*:(.*)", known.read_text() if known.exists() else "", re.M)
    return [platform.machine(), platform.processor(), flags[1] if flags else ""]
