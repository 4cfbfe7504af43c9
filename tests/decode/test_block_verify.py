"""Block verification has exactly the primary's distribution, and accepts at least as many drafts.

The oracle is NumPy in float64, from the definitions: with three tokens and γ = 3 every block, every outcome
and every text can be enumerated. The oracle's texts are compared with the primary's joint distribution, and
the outcomes of the compiled function with the oracle's.
"""

from functools import cache
from itertools import product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumerated import accepted_by_block, accepted_by_token, blocks, mean_accepted, outcomes
from test_distribution import draw_many, p_value

from tandem_edu.decode import Sampling, verify, verify_block
from tandem_edu.decode.sampling import DRAFT

VOCAB, GAMMA = 3, 3
SAMPLED = Sampling(temperature=1.0)
BROKEN = ["residual without p_i", "h_i = p_i", "first failure"]
PREFIXES = [prefix for n in range(GAMMA + 1) for prefix in product(range(VOCAB), repeat=n)]


def random_pairs(seed: int, number: int) -> list[tuple[dict, dict]]:
    """Unrelated primaries and drafters: a distribution after every prefix of up to γ tokens."""
    rng = np.random.default_rng(seed)
    model = lambda: {prefix: rng.dirichlet(np.ones(VOCAB)) for prefix in PREFIXES}
    return [(model(), model()) for _ in range(number)]


def proposed(q: dict, stops=lambda block: False) -> list:
    """Every block that ends after γ drafts, or where a router stops, with its probability."""
    return list(blocks(q, lambda block: len(block) == GAMMA or stops(block)))


def probability_of(text: tuple, p: dict, start: int = 0) -> float:
    """p of `text` after its first `start` tokens."""
    return float(np.prod([p[text[:i]][text[i]] for i in range(start, len(text))]))


def error(p: dict, q: dict, verified: list, broken: str = "") -> float:
    """Σ |P(text) - the primary's| over all texts of γ + 1 tokens.

    A text is the accepted drafts, the primary's token, and the rest from p.
    """
    table = {text: -probability_of(text, p) for text in product(range(VOCAB), repeat=GAMMA + 1)}
    for block, probability in verified:
        for (accepted, token), outcome in np.ndenumerate(outcomes(block, p, q, broken)):
            begun = (*block[:accepted], token)
            for rest in product(range(VOCAB), repeat=GAMMA + 1 - len(begun)):
                table[begun + rest] += probability * outcome * probability_of(begun + rest, p, len(begun))
    return sum(map(abs, table.values()))


AFTER_0 = lambda block: block[-1:] == (0,)
AFTER_1_OR_A_PAIR = lambda block: block[:1] == (1,) or (len(block) == 2 and block[0] == block[1])


@pytest.mark.parametrize("stops", [lambda block: False, AFTER_0, AFTER_1_OR_A_PAIR, lambda block: True])
def test_the_text_has_exactly_the_primarys_distribution(stops):
    for p, q in random_pairs(0, 5):
        assert error(p, q, proposed(q, stops)) < 1e-12


@pytest.mark.parametrize("broken", BROKEN)
def test_the_enumeration_rejects_a_broken_rule(broken):
    # Some pairs do not show it: with three tokens a residual is often a single token, with p_i or without.
    assert max(error(p, q, proposed(q), broken) for p, q in random_pairs(0, 5)) > 1e-3


def test_a_draft_may_end_the_block_but_must_be_verified():
    """A router that stops at token 0 and discards it is wrong: q is how often it is drafted."""
    [(p, q)] = random_pairs(0, 1)
    kept = [(block[:-1] if AFTER_0(block) else block, chance) for block, chance in proposed(q, AFTER_0)]
    assert error(p, q, kept) > 1e-3


# The first has every outcome, and another table for each broken rule. In the others p_1 is capped at 1 and
# p_2 falls, or p_1 is below 1 and the second draft compensates for it.
CASES = [((1, 0, 2), 3), ((2, 2, 1), 3), ((0, 2, 1), 3), ((2, 0, 0), 3)]
CASES += [((1, 0, 1), 2), ((1, 1, 2), 1), ((2, 0, 1), 0)]


@cache
def drawn_outcomes() -> tuple[dict, dict, np.ndarray]:
    """A primary, a drafter, and 50,000 outcomes of each of the blocks: (accepted, token)."""
    [(p, q)] = random_pairs(38, 1)
    q_rows = jnp.float32(np.array([[q[block[:i]] for i in range(GAMMA)] for block, _ in CASES]))
    p_rows = jnp.float32(np.array([[p[block[:i]] for i in range(GAMMA + 1)] for block, _ in CASES]))
    drafts, drafted = jnp.array([block for block, _ in CASES]), jnp.array([n for _, n in CASES])

    def one(key):
        u = random_numbers(key, GAMMA + 1)
        decide = lambda drafts, drafted, q, p: verify_block(drafts, drafted, q, p, SAMPLED, u)
        outcome = jax.vmap(decide)(drafts, drafted, q_rows, p_rows)
        return jnp.stack([outcome.accepted, outcome.token], axis=-1)

    return p, q, draw_many(one, 50_000)


def p_values(broken: str = "") -> list[float]:
    """Of the outcomes of each block, compared with the oracle's."""
    p, q, drawn = drawn_outcomes()
    tables = [outcomes(block[:drafted], p, q, broken) for block, drafted in CASES]
    padded = [np.pad(table, ((0, GAMMA + 1 - len(table)), (0, 0))) for table in tables]
    return [p_value(drawn[:, i], table) for i, table in enumerate(padded)]


def test_the_compiled_outcomes_are_the_oracles():
    assert min(p_values()) > 1e-3


@pytest.mark.parametrize("broken", BROKEN)
def test_the_comparison_rejects_a_broken_rule(broken):
    assert p_values(broken)[0] < 1e-6


def test_it_accepts_at_least_as_many_drafts():
    def gain(p, q, gamma):
        by_block, by_token = (mean_accepted(p, q, gamma, by) for by in (accepted_by_block, accepted_by_token))
        return by_block - by_token

    pairs = random_pairs(1, 200)
    assert max(abs(gain(p, q, 1)) for p, q in pairs) < 1e-12
    gains = np.array([gain(p, q, GAMMA) for p, q in pairs])
    assert gains.min() > -1e-12 and np.mean(gains > 0.01) > 0.5


def test_the_papers_own_example():
    """Two tokens, p = (1/3, 2/3), q = (2/3, 1/3), γ = 2: 11/9 drafts accepted, not 10/9."""
    p, q = (dict.fromkeys(PREFIXES, np.array(row) / 3) for row in ([1, 2, 0], [2, 1, 1e-300]))
    assert mean_accepted(p, q, 2, accepted_by_block) == pytest.approx(11 / 9)
    assert mean_accepted(p, q, 2, accepted_by_token) == pytest.approx(10 / 9)


def random_numbers(key, width: int = 5):
    """Of one cycle: for each position and role."""
    return jax.random.uniform(key, (width, 3, 2))


def random_rows(key, sampling: Sampling):
    """Distributions of a pair of models that often agree."""
    q = jax.random.normal(key, (4, 5))
    p = jnp.pad(q, ((0, 1), (0, 0))) + jax.random.normal(jax.random.fold_in(key, 1), (5, 5)) * 0.5
    return sampling.probabilities(q), sampling.probabilities(p)


def test_greedy_equals_verify_and_needs_no_randomness(getkey):
    def both(key, number):
        q, p = random_rows(key, Sampling())
        # The drafter's choice, but in every third block one that it would never have made.
        drafts = jnp.where(number % 3 == 0, (jnp.argmax(q, axis=-1) + number) % 5, jnp.argmax(q, axis=-1))
        block = (drafts, number % 5, q, p, Sampling())
        other_key = jax.random.fold_in(key, 2)
        return verify_block(*block, random_numbers(key)), verify(*block, random_numbers(other_key))

    keys, numbers = jax.random.split(getkey(), 3000), jnp.arange(3000, dtype=jnp.int32)
    block, token = jax.jit(jax.vmap(both))(keys, numbers)
    assert set(block.accepted.tolist()) == set(range(5))
    jax.tree.map(np.testing.assert_array_equal, block, token)


def test_all_drafts_of_a_drafter_that_is_the_primary_are_accepted(getkey):
    def accepted(key, drafted):
        _, p = random_rows(key, SAMPLED)
        u = random_numbers(key)
        drafts = jax.vmap(SAMPLED.draw)(p[:-1], u[:-1, DRAFT])
        return verify_block(drafts, drafted, p[:-1], p, SAMPLED, u).accepted

    drafted = jnp.arange(5000, dtype=jnp.int32) % 5
    got = jax.jit(jax.vmap(accepted))(jax.random.split(getkey(), 5000), drafted)
    np.testing.assert_array_equal(got, drafted)


def test_no_draft_with_a_nan_is_accepted(getkey):
    q, p = jnp.full((2, 3), jnp.nan), jnp.array([[0.0, 0.5, 0.5]] * 3)
    block = (jnp.array([0, 0]), jnp.int32(2), q, p, SAMPLED, random_numbers(getkey(), 3))
    for rule in (verify, verify_block):
        assert int(eqx.filter_jit(rule)(*block).accepted) == 0


def test_rounding_leaves_no_nan(getkey):
    @jax.jit
    def verified(q, p):
        p = jnp.stack([p, jnp.array([0.0, 0.0, 1.0])])
        block = (jnp.array([0]), jnp.int32(1), q[None], p, SAMPLED)
        outcome = jax.vmap(lambda key: verify_block(*block, random_numbers(key, 2)))(keys)
        return outcome.accepted, outcome.token

    keys = jax.random.split(getkey(), 64)
    for q, p, accepted, tokens in [
        ([0.0, 1.0, 0.0], [0.5, 0.5, 0.0], {1}, {2}),  # q(x) underflowed
        ([0.0, 1.0, 0.0], [0.0, 0.5, 0.5], {0}, {2}),  # and so did p(x)
        ([0.0, 0.5, 0.5], [0.0, 0.5, 0.5], {0}, {1, 2}),  # no residual: drawn from p
    ]:
        got = verified(jnp.array(q), jnp.array(p))
        assert [set(part.tolist()) for part in got] == [accepted, tokens]
