"""What every test runs under: shapes checked at run time, no silent broadcasting, no silent casts.

The import hook must be installed before `tandem_edu` is first imported, so it comes first.
"""

import os
from itertools import count
from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook

# Only the packages that compute. The others meet what people type, and answer with errors of their own.
install_import_hook(
    [f"tandem_edu.{package}" for package in ("kernels", "model", "drafters", "decode", "train", "measure")],
    "beartype.beartype",
)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# After the hook, which only sees what is imported later.
from tandem_edu.drafters import Tandem  # noqa: E402
from tandem_edu.model import Transformer, TransformerConfig  # noqa: E402


def pytest_configure(config):
    """Compiling takes most of the quick tests' time, so XLA does not optimise, unless XLA_FLAGS says so."""
    if config.option.markexpr == "not slow":
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {flags}".strip()


@pytest.fixture(autouse=True)
def few_programs():
    """Forget compiled programs before a process holds too many: each takes some memory maps.

    Linux allows a process 65,530 of them, and XLA's compiler crashes at the limit.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


@pytest.fixture
def getkey():
    """A function that gives a new PRNG key at each call, the same ones in every run."""
    numbers = count(1)
    return lambda: jax.random.fold_in(jax.random.key(0), next(numbers))


@pytest.fixture(scope="session")
def tiny_config() -> TransformerConfig:
    """A primary's sizes: every width is another number, so that a mix-up shows."""
    return TransformerConfig(
        vocab_size=13, d_model=16, n_layers=3, n_heads=4, n_kv_heads=2, d_ff=24, max_len=64
    )


@pytest.fixture(scope="session")
def tiny_secondary_config() -> TransformerConfig:
    """A secondary's sizes, for the primary of `tiny_config`."""
    return TransformerConfig(
        vocab_size=13, d_model=12, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=20, max_len=64
    )


@pytest.fixture(scope="session")
def tiny_primary(tiny_config) -> Transformer:
    """A random primary."""
    return Transformer(tiny_config, key=jax.random.key(10))


@pytest.fixture(scope="session")
def tiny_secondary(tiny_secondary_config) -> Transformer:
    """A random secondary."""
    return Transformer(tiny_secondary_config, key=jax.random.key(11))


@pytest.fixture(scope="session")
def tiny_tandem(tiny_secondary, tiny_config) -> Tandem:
    """The two as a tandem in the paper's form."""
    return Tandem(tiny_secondary, tiny_config, key=jax.random.key(12))
