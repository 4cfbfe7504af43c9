"""`Sampling` against the definitions, with loops."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow_decoder
from noisy_models import slow

from tandem_edu.decode import Sampling
from tandem_edu.decode.sampling import cycle_uniforms, sample_categorical

TOP_K = [None, 1, 2, 5, 33, 40]
TOP_P = [None, 0.01, 0.31, 0.57, 0.9, 0.999, 1.0]


def rows_of_logits() -> list[np.ndarray]:
    """Smooth logits, logits with many ties, all equal, one token far ahead."""
    rng = np.random.default_rng(5)
    rows = [rng.normal(0, 2, size) for size in (1, 5, 33)]
    rows += [rng.integers(0, 3, size).astype(float) for size in (5, 33)]
    rows += [np.zeros(5), np.array([0.0, 20.0, 0.0, 0.0, 0.0])]
    return [np.float32(row) for row in rows]


@pytest.mark.parametrize("temperature", [1.0, 0.3, 2.5])
def test_probabilities_follow_the_definitions(temperature):
    probabilities = eqx.filter_jit(Sampling.probabilities)
    for logits in rows_of_logits():
        for top_k in TOP_K:
            for top_p in TOP_P:
                p = np.asarray(probabilities(Sampling(temperature, top_k, top_p), jnp.asarray(logits)))
                expected = slow_decoder.distribution(logits, temperature, top_k, top_p)
                note = f"{logits}, top_k={top_k}, top_p={top_p}"
                np.testing.assert_array_equal(p > 0, expected > 0, err_msg=note)
                np.testing.assert_allclose(p, expected, rtol=1e-5, err_msg=note)


def test_settings_beyond_what_an_array_holds():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    assert jnp.allclose(Sampling(1.0, top_k=3_000_000_000).probabilities(logits), jnp.exp(logits))
    assert Sampling(1.0, top_p=1e-46).probabilities(logits).tolist() == [1, 0, 0]


def test_of_equal_tokens_the_lower_id_comes_first():
    logits = jnp.array([0.0, 1.0, 1.0, 1.0])
    assert Sampling(1.0, top_k=2).probabilities(logits).tolist() == [0, 0.5, 0.5, 0]
    assert Sampling().probabilities(logits).tolist() == [0, 1, 0, 0]


def test_top_p_of_one_keeps_every_token_of_a_large_vocabulary():
    """The running sum reaches 1 in float32 long before the last of these tokens."""
    logits = jnp.asarray(np.random.default_rng(0).normal(0, 4, 5000), jnp.float32)
    everything = Sampling(1.0).probabilities(logits)
    np.testing.assert_array_equal(Sampling(1.0, top_p=1.0).probabilities(logits), everything)


@pytest.mark.parametrize("temperature", [1e-3, 1e-20, 1e-37, 1e-45, 1e-300, 0.0])
def test_a_vanishing_temperature_is_greedy_and_never_nan(temperature):
    logits = jnp.array([-3.0, 2.0, 1.0, -1e4])
    for sampling in (Sampling(temperature), Sampling(temperature, top_k=3, top_p=0.5)):
        assert sampling.probabilities(logits).tolist() == [0, 1, 0, 0]


def test_each_distribution_of_a_batch_is_what_it_is_alone():
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 6)), jnp.float32)
    for sampling in (Sampling(), Sampling(0.8), Sampling(0.8, top_k=4, top_p=0.7)):
        together = sampling.probabilities(logits)
        for index in np.ndindex(2, 3):
            np.testing.assert_allclose(together[index], sampling.probabilities(logits[index]), rtol=1e-6)


@pytest.mark.parametrize("vocab", [1, 2, 5, 36, 1025, *slow(1000, 32_000, 151_936)])
def test_a_draw_inverts_both_cumulative_distributions(vocab):
    assert_inverts(vocab, sample_categorical, 60 if vocab < 10_000 else 12)


def test_the_comparison_fails_where_one_number_serves_both_steps():
    with pytest.raises(AssertionError):
        assert_inverts(36, lambda p, u: sample_categorical(p, u[jnp.array([0, 0])]), 12)


def assert_inverts(vocab: int, draw, steps: int) -> None:
    """`draw` against sums in float64, for a grid of both numbers, from 0 to the last below 1."""
    rng = np.random.default_rng(vocab)
    below_1 = np.nextafter(np.float32(1), 0)
    line = np.append(np.linspace(0, 1, steps, endpoint=False, dtype=np.float32), below_1)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    many = jax.jit(jax.vmap(draw, in_axes=(None, 0)))
    side = int(np.ceil(np.sqrt(vocab)))
    for concentration in (0.05, 1.0):
        p = np.float32(rng.dirichlet(np.full(vocab, concentration)))
        p[rng.random(vocab) < 0.3] = 0
        p[rng.integers(vocab)] = 0.25
        drawn = np.asarray(many(p, grid))
        assert np.all(p[drawn] > 0)
        groups = np.pad(np.float64(p), (0, side * side - vocab)).reshape(side, side)
        group, within = drawn // side, drawn % side
        sums = groups.sum(axis=1)[None]
        for weights, chosen, u in ((sums, group, grid[:, 0]), (groups[group], within, grid[:, 1])):
            weights = np.broadcast_to(weights, (len(grid), side))
            running = np.cumsum(weights, axis=1)
            of_chosen = lambda x, chosen=chosen: np.take_along_axis(x, chosen[:, None], axis=1)[:, 0]
            end, total = of_chosen(running), running[:, -1]
            assert np.all(end / total > u - 1e-6)
            assert np.all((end - of_chosen(weights)) / total < u + 1e-6)


def test_a_number_serves_one_cycle_one_position_and_one_role():
    """And it does not depend on the width of the compiled cycle."""
    key = jax.random.key(3)
    of = {start: np.asarray(cycle_uniforms(key, jnp.int32(start), 4)) for start in range(16)}
    together = np.stack(list(of.values()))
    assert len(np.unique(together)) == together.size
    assert together.min() >= 0 and together.max() < 1
    np.testing.assert_array_equal(cycle_uniforms(key, jnp.int32(7), 2), of[7][:2])
