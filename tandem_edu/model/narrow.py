"""Products of a few rows with a matrix, where decoding and verification spend their time on a CPU.

XLA's CPU backend multiplies one row at the speed of memory, but for two rows or more it first packs the
whole matrix into another layout, every time: 5 rows take it four times as long as one. That makes a
verification cost as much as what it verifies. `narrow.c` streams the matrix by once for all rows; it is
compiled by the system's C compiler at first use and kept in the user's cache folder.

Besides, a row's result does not depend on how many rows come with it, to the last bit: what is verified
in one call of γ + 1 rows is what decoding one by one computes.

Without a C compiler, on a GPU or TPU, in training and with `TANDEM_EDU_NARROW=0`, it is plain `x @ w`.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tandem_edu.errors import BadInput
from tandem_edu.files import written_whole

MAX_ROWS = 16
"""Beyond, XLA's packing pays."""
SOURCE = Path(__file__).with_suffix(".c")
TARGETS = {False: "narrow", True: "narrow_transposed"}


def narrow(
    x: Float[Array, "rows d_in"], weight: Float[Array, "_ _"], transposed: bool = False
) -> Float[Array, "rows d_out"]:
    """x W for `weight` [d_in, d_out], or x Wᵀ for [d_out, d_in] with `transposed`.

    >>> x, weight = jnp.arange(6.0).reshape(2, 3), jnp.ones((3, 4))
    >>> narrow(x, weight)[:, 0].tolist(), narrow(x, weight.T, transposed=True)[:, 0].tolist()
    ([3.0, 12.0], [3.0, 12.0])
    """
    few = x.shape[0] <= MAX_ROWS and x.dtype == weight.dtype == jnp.float32
    return _FAST[transposed](x, weight) if few and available() else plain(x, weight, transposed)


def plain(x: Float[Array, "rows d_in"], weight: Float[Array, "_ _"], transposed: bool = False):
    """The same in XLA's own words."""
    # Not `x @ weight.T`: for a single row XLA would transpose a table again for each token.
    return jax.lax.dot_general(x, weight, (((1,), (int(transposed),)), ((), ())))


def _fast(transposed: bool):
    """The compiled product, as far as JAX's transformations go: a batch of rows is more rows."""
    of_xla = partial(plain, transposed=transposed)

    def compiled(x, weight):
        shape = jax.ShapeDtypeStruct((x.shape[0], weight.shape[1 - int(transposed)]), x.dtype)
        return jax.ffi.ffi_call(f"tandem_edu_{TARGETS[transposed]}", shape)(x, weight)

    @jax.custom_batching.custom_vmap
    def batched(x, weight):
        return jax.lax.platform_dependent(x, weight, cpu=compiled, default=of_xla)

    @batched.def_vmap
    def _(axis_size, in_batched, x, weight):
        if in_batched[1]:
            x = x if in_batched[0] else jnp.broadcast_to(x, (axis_size, *x.shape))
            return jax.vmap(of_xla)(x, weight), True
        flat = narrow(x.reshape(-1, x.shape[-1]), weight, transposed)
        return flat.reshape(*x.shape[:-1], -1), True

    @jax.custom_jvp
    def product(x, weight):
        return batched(x, weight)

    @product.defjvp
    def _(primals, tangents):
        return jax.jvp(of_xla, primals, tangents)

    return product


_FAST = {transposed: _fast(transposed) for transposed in TARGETS}


@cache
def available() -> bool:
    """Whether the compiled product can be had here; the first call compiles it."""
    if os.environ.get("TANDEM_EDU_NARROW") == "0":
        return False
    try:
        library = ctypes.CDLL(str(_compiled()))
    except (OSError, subprocess.SubprocessError, BadInput):
        return False
    for name in TARGETS.values():
        capsule = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(f"tandem_edu_{name}", capsule, platform="cpu")
    return True


def _compiled() -> Path:
    """The library in the user's cache folder, made if need be. Raises `OSError` without a compiler."""
    found = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if found is None:
        raise OSError("no C compiler")
    arguments = ["-O3", "-ffp-contract=fast", "-fPIC", "-shared", "-w", "-I", jax.ffi.include_dir()]
    # Another processor, compiler or jaxlib is another file.
    facts = [SOURCE.read_text("utf-8"), found, *arguments, jax.__version__, *_processor()]
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem_edu"
    path = folder / f"narrow-{digest}.so"
    if not path.exists():
        with written_whole(path) as part:
            native = ["-mcpu=native"] if platform.machine() in ("arm64", "aarch64") else ["-march=native"]
            subprocess.run([found, *arguments, *native, str(SOURCE), "-o", str(part)], check=True, timeout=60)
    return path


def _processor() -> list[str]:
    """What tells one processor's instructions from another's."""
    known = Path("/proc/cpuinfo")
    flags = known.read_text().split("flags", 1)[-1].split("\n", 1)[0] if known.exists() else ""
    return [platform.machine(), platform.processor(), flags]
