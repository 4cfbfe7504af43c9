"""Block verification writes exactly what the primary would, and keeps at least as many drafts.

The oracle is NumPy in float64, from the definitions: with three tokens and γ = 3 every block, every
verdict and every text can be enumerated. What the oracle writes is compared with the primary's own joint
distribution; what the compiled function draws is compared with the oracle.
"""

from functools import cache
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumerated import blocks, mean_accepted, of_block, outcomes, outcomes_by_token
from test_distribution import draw_many, p_value

from tandem_edu.decode import Sampling, verify
from tandem_edu.decode.block_verify import verify_block
from tandem_edu.decode.sampling import DRAFT

VOCAB, GAMMA = 3, 3
SAMPLED = Sampling(temperature=1.0)
BROKEN = ["residual without p_i", "h_i = p_i", "first failure"]


def random_model(rng) -> dict:
    """A distribution after every prefix of up to γ tokens."""
    prefixes = [prefix for n in range(GAMMA + 1) for prefix in product(range(VOCAB), repeat=n)]
    return {prefix: rng.dirichlet(np.ones(VOCAB)) for prefix in prefixes}


def until(stops):
    """Blocks that end after γ drafts at the latest."""
    return lambda block: len(block) == GAMMA or stops(block)


def chance_of(text: tuple, p: dict, known: int = 0) -> float:
    """What `p` gives `text` after its first `known` tokens."""
    return float(np.prod([p[text[:i]][text[i]] for i in range(known, len(text))]))


def written(p: dict, judged, broken: str = "") -> np.ndarray:
    """P(text) of γ + 1 tokens: drafts kept, the primary's token, and the rest from p.

    `judged` are (block as verification sees it, probability, q).
    """
    table = np.zeros((VOCAB,) * (GAMMA + 1))
    for block, chance, q in judged:
        for (accepted, token), verdict in np.ndenumerate(outcomes(block, p, q, broken)):
            begun = (*block[:accepted], token)
            for rest in product(range(VOCAB), repeat=GAMMA + 1 - len(begun)):
                table[begun + rest] += chance * verdict * chance_of(begun + rest, p, len(begun))
    return table


def error(p: dict, judged, broken: str = "") -> float:
    """How far the text written is from the primary's joint distribution, summed over all texts."""
    texts = product(range(VOCAB), repeat=GAMMA + 1)
    joint = np.array([chance_of(text, p) for text in texts]).reshape((VOCAB,) * (GAMMA + 1))
    return float(np.abs(written(p, judged, broken) - joint).sum())


STOPPING_RULES = {
    "never": lambda block: False,
    "after token 0": lambda block: block[-1:] == (0,),
    "after 1, or two alike": lambda block: block[:1] == (1,) or (len(block) == 2 and block[0] == block[1]),
    "at once": lambda block: True,
}


def random_pairs(seed: int, number: int):
    """Primaries and drafters that know nothing of each other."""
    rng = np.random.default_rng(seed)
    return [(random_model(rng), random_model(rng)) for _ in range(number)]


@pytest.mark.parametrize("name", STOPPING_RULES)
def test_the_text_has_exactly_the_primarys_distribution(name):
    for p, q in random_pairs(0, 5):
        judged = [(block, chance, q) for block, chance in blocks(q, until(STOPPING_RULES[name]))]
        assert error(p, judged) < 1e-12


@pytest.mark.parametrize("broken", BROKEN)
def test_the_enumeration_rejects_a_broken_rule(broken):
    # Some pairs do not show it: with three tokens a residual is often a single token, with p_i or without.
    errors = [
        error(p, [(block, chance, q) for block, chance in blocks(q, until(STOPPING_RULES["never"]))], broken)
        for p, q in random_pairs(0, 5)
    ]
    assert max(errors) > 1e-3


def test_a_draft_may_end_the_block_but_not_leave_it():
    """A router that stops at token 0 must still hand it in: q says how often it is drafted, not dropped."""
    [(p, q)] = random_pairs(0, 1)
    seen = [
        (block[:-1] if block[-1:] == (0,) else block, chance, q)
        for block, chance in blocks(q, until(STOPPING_RULES["after token 0"]))
    ]
    assert error(p, seen) > 1e-3


# The first has every outcome, and another table for each broken rule; then p_1 is cut at 1 and p_2 falls,
# or p_1 is below 1 and the second draft makes up for it.
CASES = [((1, 0, 2), 3), ((2, 2, 1), 3), ((0, 2, 1), 3), ((2, 0, 0), 3)]
CASES += [((1, 0, 1), 2), ((1, 1, 2), 1), ((2, 0, 1), 0)]


@cache
def judged_pair() -> tuple[dict, dict, np.ndarray]:
    """A primary, a drafter, and 200,000 verdicts on each of the blocks: (accepted, token)."""
    [(p, q)] = random_pairs(38, 1)
    q_rows = jnp.float32(np.array([[q[block[:i]] for i in range(GAMMA)] for block, _ in CASES]))
    p_rows = jnp.float32(np.array([[p[block[:i]] for i in range(GAMMA + 1)] for block, _ in CASES]))
    drafts, drafted = jnp.array([block for block, _ in CASES]), jnp.array([n for _, n in CASES])

    def one(key):
        u = random_numbers(key, GAMMA + 1)

        def judge(drafts, drafted, q, p):
            return verify_block(drafts, drafted, q, p, SAMPLED, u)

        verdict = jax.vmap(judge)(drafts, drafted, q_rows, p_rows)
        return jnp.stack([verdict.accepted, verdict.token], axis=-1)

    return p, q, draw_many(one, 200_000)


def p_values(broken: str = "") -> list[float]:
    """Of the verdicts on each block, against what the oracle says of it."""
    p, q, verdicts = judged_pair()
    tables = [outcomes(block[:drafted], p, q, broken) for block, drafted in CASES]
    return [
        0.0 if verdicts[:, i, 0].max() >= len(table) else p_value(verdicts[:, i], table)
        for i, table in enumerate(tables)
    ]


def test_the_compiled_verdicts_are_the_oracles():
    assert min(p_values()) > 1e-3


@pytest.mark.parametrize("broken", BROKEN)
def test_the_comparison_rejects_a_broken_rule(broken):
    assert p_values(broken)[0] < 1e-6


def test_it_keeps_at_least_as_many_drafts():
    gains = []
    for p, q in random_pairs(1, 200):
        jointly, singly = (mean_accepted(p, q, GAMMA, rule) for rule in (of_block, outcomes_by_token))
        gains.append(jointly - singly)
        jointly, singly = (mean_accepted(p, q, 1, rule) for rule in (of_block, outcomes_by_token))
        assert jointly == pytest.approx(singly, abs=1e-12)
    assert min(gains) > -1e-12
    assert np.mean(np.array(gains) > 0.01) > 0.5


def test_the_papers_own_example():
    """Two tokens, p = (1/3, 2/3), q = (2/3, 1/3), γ = 2: 11/9 drafts kept instead of 10/9."""
    prefixes = [prefix for n in range(GAMMA + 1) for prefix in product(range(VOCAB), repeat=n)]
    p, q = (dict.fromkeys(prefixes, np.array(row) / 3) for row in ([1, 2, 0], [2, 1, 1e-300]))
    assert mean_accepted(p, q, 2, of_block) == pytest.approx(11 / 9)
    assert mean_accepted(p, q, 2, outcomes_by_token) == pytest.approx(10 / 9)


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
        # The drafter's choice, but of every third block one that it would never have made.
        drafts = jnp.where(number % 3 == 0, (jnp.argmax(q, axis=-1) + number) % 5, jnp.argmax(q, axis=-1))
        of = (drafts, number % 5, q, p, Sampling())
        return verify_block(*of, random_numbers(key)), verify(*of, random_numbers(jax.random.fold_in(key, 2)))

    keys, numbers = jax.random.split(getkey(), 3000), jnp.arange(3000, dtype=jnp.int32)
    block, token = jax.jit(jax.vmap(both))(keys, numbers)
    assert set(block.accepted.tolist()) == set(range(5))
    for ours, theirs in zip(jax.tree.leaves(block), jax.tree.leaves(token), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_drafter_that_is_the_primary_keeps_everything(getkey):
    def judge(key, drafted):
        _, p = random_rows(key, SAMPLED)
        q = p[:-1]
        u = random_numbers(key)
        drafts = jax.vmap(SAMPLED.draw)(q, u[:-1, DRAFT])
        return verify_block(drafts, drafted, q, p, SAMPLED, u).accepted

    drafted = jnp.arange(5000, dtype=jnp.int32) % 5
    accepted = jax.jit(jax.vmap(judge))(jax.random.split(getkey(), 5000), drafted)
    np.testing.assert_array_equal(accepted, drafted)


def test_of_a_drafter_without_numbers_nothing_is_kept(getkey):
    q, p = jnp.full((2, 3), jnp.nan), jnp.array([[0.0, 0.5, 0.5]] * 3)
    for judge in (verify, verify_block):
        verdict = judge(jnp.array([0, 0]), jnp.int32(2), q, p, SAMPLED, random_numbers(getkey(), 3))
        assert int(verdict.accepted) == 0


def test_rounding_leaves_no_nan(getkey):
    @jax.jit
    def judged(q, p):
        p = jnp.stack([p, jnp.array([0.0, 0.0, 1.0])])
        of = (jnp.array([0]), jnp.int32(1), q[None], p, SAMPLED)
        verdict = jax.vmap(lambda key: verify_block(*of, random_numbers(key, 2)))(keys)
        return verdict.accepted, verdict.token

    keys = jax.random.split(getkey(), 64)
    for q, p, accepted, tokens in [
        ([0.0, 1.0, 0.0], [0.5, 0.5, 0.0], {1}, {2}),  # q(x) underflowed
        ([0.0, 1.0, 0.0], [0.0, 0.5, 0.5], {0}, {2}),  # and so did p(x)
        ([0.0, 0.5, 0.5], [0.0, 0.5, 0.5], {0}, {1, 2}),  # no residual: drawn from p
    ]:
        got = judged(jnp.array(q), jnp.array(p))
        assert [set(part.tolist()) for part in got] == [accepted, tokens]
