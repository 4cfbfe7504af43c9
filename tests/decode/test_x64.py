"""With 64-bit mode on, as another library of the same process may set it, decoding stays in float32."""

import jax
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
def test_generate_and_speculate(how):
    how = {"sampling": Sampling(*how), "key": KEY}
    assert_same_with_64_bits(lambda: generate(writer(32), PROMPT, NEW, **how))
    drafter = writer_drafters(32)["plain"]
    assert_same_with_64_bits(lambda: speculate(writer(32), drafter, PROMPT, NEW, 4, **how))


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_each_kind_of_drafter(name):
    given = (writer(32), writer_drafters(32)[name], [PROMPT, [2]], NEW, 4)
    how = {"sampling": Sampling(0.8, 20, 0.9), "key": KEY}
    router = ConfidenceRule(0.3)
    assert_same_with_64_bits(lambda: speculate(*given, **how, router=router, verification="block"))
    assert_same_with_64_bits(lambda: block_generate(*given, **how))
