"""With 64-bit mode on, as another library of the same process may set it, decoding stays in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from noisy_models import ONE_OF_A_KIND, writer, writer_drafters

from tandem_edu.decode import ConfidenceRule, Sampling, block_generate, generate, speculate

PROMPT, NEW, KEY = [3, 11, 40, 7], 28, jax.random.key(4)


def assert_same_with_64_bits(decode) -> None:
    """`decode()` twice: the same numbers, in the same dtypes."""
    expected = decode()
    try:
        jax.config.update("jax_enable_x64", True)
        got = decode()
    finally:
        jax.config.update("jax_enable_x64", False)
    for x, y in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("how", [(), (1.0,), (0.8, 20, 0.9)])
def test_probabilities(how):
    logits = np.random.default_rng(0).normal(size=(3, 48)).astype(np.float32)
    assert_same_with_64_bits(lambda: Sampling(*how).probabilities(jnp.asarray(logits)))


def test_generate():
    assert_same_with_64_bits(lambda: generate(writer(32), PROMPT, NEW, Sampling(1.0), KEY))


@pytest.mark.parametrize("how", [(), (Sampling(1.0), KEY)], ids=["greedy", "sampled"])
def test_speculate(how):
    decode = lambda: speculate(writer(32), writer_drafters(32)["plain"], PROMPT, NEW, 4, *how)
    assert_same_with_64_bits(decode)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_each_kind_of_drafter(name):
    given = (writer(32), writer_drafters(32)[name], [PROMPT, [2]], NEW, 4)
    how = {"sampling": Sampling(0.8, 20, 0.9), "key": KEY}
    router = ConfidenceRule(0.3)
    assert_same_with_64_bits(lambda: speculate(*given, **how, router=router, verification="block"))
    assert_same_with_64_bits(lambda: block_generate(*given, **how))
