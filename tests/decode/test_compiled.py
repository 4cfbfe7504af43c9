"""Decoding inside `jax.jit` and `jax.vmap`, and what may change without compiling anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lively_models import (
    ONE_OF_A_KIND,
    ROUNDING,
    by_turns,
    speaker,
    speaker_drafters,
    writer,
    writer_drafters,
)

from tandem_edu.decode import (
    ConfidenceRule,
    EntropyRule,
    LearnedRouter,
    Sampling,
    block_generate,
    generate,
    speculate,
)
from tandem_edu.decode.drafters import as_drafter
from tandem_edu.decode.routers import check_router, fingerprint
from tandem_edu.errors import BadInput

PROMPTS = jnp.asarray(np.random.default_rng(3).integers(0, 48, (4, 5)), jnp.int32)
HOW = Sampling(temperature=1.0)


def assert_same(together, one_by_one) -> None:
    for i, alone in enumerate(one_by_one):
        jax.tree.map(
            lambda many, one, i=i: np.testing.assert_allclose(many[i], one, atol=ROUNDING), together, alone
        )


@pytest.mark.parametrize("name", ["plain", pytest.param("last-own", marks=pytest.mark.slow)])
def test_speculation_under_jit_and_vmap_equals_one_text_at_a_time(name):
    primary, drafter = writer(32), writer_drafters(32)[name]
    keys = jax.random.split(jax.random.key(0), 4)

    def one(prompt, key):
        return speculate(primary, drafter, prompt, 20, 3, HOW, key)

    together = jax.jit(jax.vmap(one))(PROMPTS, keys)
    assert_same(together, [one(prompt, key) for prompt, key in zip(PROMPTS, keys, strict=True)])
    assert len({tuple(row) for row in np.asarray(together.tokens).tolist()}) == 4
    assert len(set(np.asarray(together.trace.cycles).tolist())) > 1


@pytest.mark.parametrize("decode", [speculate, block_generate])
def test_a_block_length_may_be_traced_under_a_bound_that_is_not(decode):
    primary, drafter = writer(32), writer_drafters(32)["last-own"]
    one = lambda block_len: decode(primary, drafter, PROMPTS[0], 20, block_len, max_block_len=4)
    for block_len in (1, 3):
        jax.tree.map(np.testing.assert_array_equal, jax.jit(one)(block_len), one(block_len))
    with pytest.raises(BadInput, match="max_block_len of at least 1, got None: pass it"):
        jax.jit(lambda block_len: decode(primary, drafter, PROMPTS[0], 20, block_len))(3)


def test_a_learned_router_does_not_look_at_a_traced_block_length():
    drafter = as_drafter(writer_drafters(32)["plain"], writer(32))
    router = LearnedRouter(0, (fingerprint(drafter), 4), key=jax.random.key(0))
    check = lambda block_len: check_router(router, drafter, block_len) or block_len
    assert int(jax.jit(check)(3)) == 3
    with pytest.raises(BadInput, match="trained with block_len=3"):
        check(3)


@pytest.mark.slow
def test_generate_under_jit_and_vmap_equals_one_text_at_a_time():
    keys = jax.random.split(jax.random.key(0), 4)

    model = writer(32)

    def one(prompt, key):
        return generate(model, prompt, 20, HOW, key, stop_token=7)

    # The same prompt twice: other keys make another text of it.
    prompts = PROMPTS.at[1].set(PROMPTS[0])
    together = jax.jit(jax.vmap(one))(prompts, keys)
    assert_same(together, [one(prompt, key) for prompt, key in zip(prompts, keys, strict=True)])
    assert together.tokens[0].tolist() != together.tokens[1].tolist()


class Counted(Sampling):
    """Counts how often its own code runs, which is while it is being traced and never after."""

    def probabilities(self, logits):
        TRACED.append(logits.shape)
        return super().probabilities(logits)


TRACED: list = []


def test_numbers_change_without_compiling_anew():
    """γ from 1 to 8, the sampling's numbers, the key, the prompt, its length, the stop token."""
    primary, drafter = speaker(), speaker_drafters()["plain"]

    def both(prompt, new, block_len, seed, stop, *how):
        key = jax.random.key(seed)
        speculate(primary, drafter, prompt, new, block_len, Counted(*how), key, stop_token=stop)
        generate(primary, prompt, new, Counted(*how), key, stop_token=stop)

    both([1], 9, 4, 0, None, 1.0, 3, 0.9)
    first = len(TRACED)
    assert first >= 3, "the draft, the verification, generate: does `Counted` count at all?"
    for block_len in range(1, 9):
        both([1, 2, 3], 9 + block_len, block_len, block_len, 4, 0.1 * block_len, block_len, 0.1 * block_len)
    assert len(TRACED) == first


@pytest.mark.slow
def test_thresholds_change_without_compiling_anew():
    primary, drafter = speaker(), speaker_drafters()["last-paper"]
    how = Counted(1.0, None, 0.9)

    def with_routers(threshold, max_entropy):
        for router in (ConfidenceRule(threshold), EntropyRule(max_entropy)):
            speculate(primary, drafter, [1, 2], 9, 4, how, jax.random.key(0), router)

    with_routers(0.5, 1.0)
    first = len(TRACED)
    for threshold in (0.0, 0.2, 0.9, 1.0):
        with_routers(threshold, 2 * threshold)
    assert len(TRACED) == first


@pytest.mark.slow
@pytest.mark.parametrize("name, verification", by_turns(ONE_OF_A_KIND))
def test_gamma_and_tau_change_without_compiling_anew_with_each_kind_of_drafter(name, verification):
    """γ from 1 to 8 and τ from 0 to 1: untrained and learned routers, and blocks that nobody verifies."""
    primary, drafter = speaker(), speaker_drafters()[name]
    key, made_for = jax.random.key(0), (fingerprint(as_drafter(drafter, primary)), 8)
    hidden = 0 if name == "lookup" else drafter.config.d_model
    learned = LearnedRouter(hidden, made_for, top_k=2, key=key)

    def all_ways(block_len, threshold):
        how, more = Counted(1.0), {"verification": verification}
        speculate(primary, drafter, [1, 2], 9, block_len, how, key, **more)
        speculate(primary, drafter, [1, 2], 9, block_len, how, key, ConfidenceRule(threshold), **more)
        speculate(primary, drafter, [1, 2], 9, 8, how, key, learned.with_threshold(threshold), **more)
        block_generate(primary, drafter, [1, 2], 9, block_len, sampling=how, key=key)

    all_ways(4, 0.5)
    first = len(TRACED)
    for block_len in range(1, 9):
        all_ways(block_len, (block_len - 1) / 7)
    assert len(TRACED) == first


@pytest.mark.slow
def test_a_tighter_bound_changes_no_token():
    prompt, primary, drafter = [1, 2, 3], writer(32), writer_drafters(32)["plain"]
    wide = speculate(primary, drafter, prompt, 24, block_len=3)
    tight = speculate(primary, drafter, prompt, 24, block_len=3, max_block_len=3)
    np.testing.assert_array_equal(wide.tokens, tight.tokens)
    assert tight.trace.summary() == wide.trace.summary()


def test_a_bound_below_the_block():
    with pytest.raises(BadInput, match="max_block_len of at least 3, got 2"):
        speculate(writer(32), writer(32), [1], 4, block_len=3, max_block_len=2)
