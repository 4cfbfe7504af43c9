"""Several texts decoded together: each is what it is alone, whatever the other texts are. And streams."""

from functools import partial

import jax
import numpy as np
import pytest
from noisy_models import ONE_OF_A_KIND, ROUNDING, alternating, slow, writer, writer_drafters

from tandem_edu.decode import ConfidenceRule, Sampling, block_generate, generate, speculate, stream

PROMPTS = [[7], [1, 2, 3], [40, 4, 9, 9, 30, 2], [5, 5]]
NEW, KEY = 24, jax.random.key(5)
SAMPLED = Sampling(temperature=0.5)
ROUTED = {"router": ConfidenceRule(0.3), "verification": "block"}


def with_drafter(name: str, block_len: int = 3, decode=speculate, **more):
    """A function of prompts and key."""
    given = (writer(32), writer_drafters(32)[name])
    return lambda prompts, key: decode(*given, prompts, NEW, block_len, sampling=SAMPLED, key=key, **more)


def alone(**more):
    return lambda prompts, key: generate(writer(32), prompts, NEW, SAMPLED, key, **more)


def assert_each_row_is_what_it_is_alone(decode, together, prompts, key=KEY) -> None:
    """Floats may differ in the last bits, tokens and counts may not. The rows differ from each other."""
    assert len({tuple(row) for row in np.asarray(together.tokens).tolist()}) == len(prompts)
    for row, trace in enumerate(together.trace.per_text()):
        one = decode(prompts[row], jax.random.fold_in(key, row))
        np.testing.assert_array_equal(together.tokens[row], one.tokens)
        assert int(together.length[row]) == int(one.length)
        for name in ("cycles", "drafted", "accepted", "emitted", "draft_ids"):
            np.testing.assert_array_equal(getattr(trace, name), getattr(one.trace, name))
        for name in ("acceptance_prob", "confidence"):
            np.testing.assert_allclose(getattr(trace, name), getattr(one.trace, name), atol=ROUNDING)


@pytest.mark.parametrize(
    "name, verification, generator",
    [
        ("fused-own", "token", "threefry2x32"),
        ("fused-own", "token", "rbg"),  # under `vmap` its numbers depend on the rest of the batch
        *slow(*((*case, "rbg") for case in alternating(ONE_OF_A_KIND))),
    ],
)
def test_speculate_different_prompts(name, verification, generator):
    decode, key = with_drafter(name, verification=verification), jax.random.key(5, impl=generator)
    together = decode(PROMPTS, key)
    assert len(set(np.asarray(together.trace.cycles).tolist())) > 1
    assert_each_row_is_what_it_is_alone(decode, together, PROMPTS, key)


def test_speculate_several_samples_of_one_prompt():
    together = with_drafter("plain", **ROUTED, num_samples=3)(PROMPTS[1], KEY)
    assert_each_row_is_what_it_is_alone(with_drafter("plain", **ROUTED), together, [PROMPTS[1]] * 3)


def test_generate():
    decode = alone(stop_token=int(alone()(PROMPTS, KEY).tokens[1, 9]))
    together = decode(PROMPTS, KEY)
    assert len(set(np.asarray(together.length).tolist())) > 1
    assert_each_row_is_what_it_is_alone(decode, together, PROMPTS)
    samples = alone(num_samples=3)(PROMPTS[1], KEY)
    assert_each_row_is_what_it_is_alone(alone(), samples, [PROMPTS[1]] * 3)


@pytest.mark.slow
def test_samples_of_several_prompts_come_prompt_by_prompt():
    together = alone(num_samples=2)(PROMPTS[:2], KEY)
    prompts = [prompt for prompt in PROMPTS[:2] for _ in range(2)]
    assert_each_row_is_what_it_is_alone(alone(), together, prompts)


@pytest.mark.slow
@pytest.mark.parametrize("decode", [speculate, block_generate])
def test_a_row_that_has_ended_does_not_change(decode):
    """Each row ends at its own stop token while the others go on."""
    free = with_drafter("last-paper", decode=decode)(PROMPTS, KEY)
    stopping = with_drafter("last-paper", decode=decode, stop_token=int(free.tokens[0][4]))
    together = stopping(PROMPTS, KEY)
    assert len(set(np.asarray(together.length).tolist())) > 1
    assert_each_row_is_what_it_is_alone(stopping, together, PROMPTS)


def test_the_other_rows_do_not_matter_to_a_row():
    """Bit for bit: the shapes are the same, only the other prompts differ."""
    others = [[7], [5, 5], [8]], [[9, 9, 9, 8], [40], [8]]
    here, there = (with_drafter("fused-own")([PROMPTS[1], *rest], KEY) for rest in others)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y[0]), here, there)
    assert here.tokens[1].tolist() != there.tokens[1].tolist()


def test_rbg_may_be_the_default_generator():
    """As `JAX_DEFAULT_PRNG_IMPL=rbg` makes it; raw keys then have four numbers."""
    expected = alone()(PROMPTS, KEY).tokens
    with jax.default_prng_impl("rbg"):
        assert jax.random.PRNGKey(5).shape == (4,)
        for key in (jax.random.PRNGKey(5), jax.random.key(5)):
            np.testing.assert_array_equal(alone()(PROMPTS, key).tokens, expected)


def test_a_stream_yields_what_speculate_returns():
    decode = partial(with_drafter, "plain", **ROUTED)
    stop = int(decode()(PROMPTS[1], KEY).tokens[15])
    out = decode(stop_token=stop)(PROMPTS[1], KEY)
    cycles = list(decode(decode=stream, stop_token=stop)(PROMPTS[1], KEY))
    streamed = np.concatenate([cycle.tokens for cycle in cycles])
    np.testing.assert_array_equal(streamed, out.tokens[: int(out.length)])
    records = out.trace.to_records()
    assert [cycle.accepted for cycle in cycles] == [record["accepted"] for record in records]
    assert [cycle.drafted.tolist() for cycle in cycles] == [record["draft_ids"] for record in records]
