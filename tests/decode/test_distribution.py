"""Sampled speculative decoding draws texts with exactly the probabilities that the primary gives them.

With five tokens every short text can be enumerated: its probability comes from full forward passes
(`slow.joint`), its frequency from 200,000 seeded draws, and Pearson's chi-square compares the two. A right
decoder stays above p = 1e-3 for the seeds fixed here (a wrong seed in a thousand would not); a decoder
that is wrong in one small thing falls below 1e-6, and the last tests see that it does.
"""

import importlib
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow
from enumerated import mean_accepted, of_block, outcomes_by_token
from lively_models import DRAFTERS, TRAINED, by_turns, retraced, speaker, speaker_drafters, speaker_trained
from scipy.stats import chisquare

from tandem_edu.decode import (
    ConfidenceRule,
    EntropyRule,
    PromptLookup,
    Sampling,
    generate,
    speculate,
)
from tandem_edu.decode.sampling import DRAFT

# A package's attribute `verify` is the function; the module of that name is what gets patched.
speculative = importlib.import_module("tandem_edu.decode.speculative")
cycle = importlib.import_module("tandem_edu.decode.cycle")
verification = importlib.import_module("tandem_edu.decode.verify")

PLAIN = {"temperature": 1.0}
WARPED = {"temperature": 0.7, "top_k": 4, "top_p": 0.9}


def draw_many(one, draws: int, chunk: int = 250):
    """`one(key)` for many keys, as NumPy arrays with the draws along the first axis.

    In chunks that stay in the cache: 2,000 at once take up to twice as long.
    """
    # The quick tests' compiler optimises nothing (tests/conftest.py); for so many draws it pays.
    many = jax.jit(jax.vmap(one), compiler_options={"xla_backend_optimization_level": 3})
    root = jax.random.key(2024)
    chunks = [
        jax.tree.map(np.asarray, many(jax.random.split(jax.random.fold_in(root, i), chunk)))
        for i in range(draws // chunk)
    ]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)


def p_value(texts: np.ndarray, table: np.ndarray) -> float:
    """How likely draws from `table` are to look as unlike it as `texts` do; cells below 10 are pooled."""
    counts = np.zeros(table.shape)
    np.add.at(counts, tuple(texts.T), 1)
    if np.any(counts[table == 0]):
        return 0.0
    counts, expected = counts[table > 0], table[table > 0] * len(texts)
    rare = expected < 10
    pooled = [np.append(cells[~rare], cells[rare].sum()) for cells in (counts, expected)]
    observed, expected = (cells[: None if rare.any() else -1] for cells in pooled)
    return float(chisquare(observed, expected * observed.sum() / expected.sum()).pvalue)


def speculated(drafter, prompt, new: int, block_len: int, how: dict, draws: int, **more):
    """Many texts, and of each its number of cycles and the drafts kept in its first cycle."""

    def one(key):
        out = speculate(speaker(), drafter, prompt, new, block_len, Sampling(**how), key, **more)
        return out.tokens, out.trace.cycles, out.trace.accepted[0]

    return draw_many(one, draws)


def assert_exact(drafter, prompt, new: int, block_len: int, how: dict, **more) -> None:
    texts, cycles, accepted = speculated(drafter, prompt, new, block_len, how, 200_000, **more)
    if "router" not in more and not isinstance(drafter, PromptLookup):
        # The comparison reaches what can go wrong: each length of the kept run, and cycles after the first.
        most = min(block_len, new - 1)
        assert set(accepted.tolist()) == set(range(most + 1))
        assert min(np.mean(accepted == m) for m in range(most + 1)) > 0.01
        assert cycles.max() == new
        pair = speaker(), drafter, prompt, most, block_len, how
        assert_accepted_as_predicted(accepted, *slow.first_block(*pair), most, more["verification"])
    assert p_value(texts, slow.joint(speaker(), prompt, new, **how)) > 1e-3


def assert_accepted_as_predicted(accepted, p: dict, q: dict, drafts: int, verification: str) -> None:
    """The mean run of drafts kept in the first cycle is what p and q say; of a block at least as many."""
    rules = {"token": outcomes_by_token, "block": of_block}
    expected = {name: mean_accepted(p, q, drafts, rule) for name, rule in rules.items()}
    assert expected["block"] >= expected["token"] - 1e-9
    error = np.std(accepted) / len(accepted) ** 0.5
    assert abs(np.mean(accepted) - expected[verification]) < 4.5 * error


@pytest.mark.parametrize(
    "name, block_len, how, verification",
    [
        ("plain", 2, PLAIN, "token"),
        pytest.param("last-paper", 2, WARPED, "block", marks=pytest.mark.slow),
    ],
)
def test_speculation_has_the_primarys_distribution(name, block_len, how, verification):
    assert_exact(speaker_drafters()[name], [1], 3, block_len, how, verification=verification)


CASES = [
    (3, 1, PLAIN),
    (4, 3, PLAIN),
    (3, 2, {"temperature": 0.7}),
    (3, 2, {"temperature": 1.0, "top_k": 3}),
    (4, 8, {"temperature": 1.0, "top_p": 0.9}),
]
# The plain drafter in all of these ways, in two under both verifications; each of the others in one.
SLOW_CASES = [("plain", *case, "token") for case in CASES]
SLOW_CASES += [("plain", *case, "block") for case in (CASES[1], CASES[4])]
SLOW_CASES += [
    (name, *case, verification)
    for (name, verification), case in zip(by_turns(DRAFTERS[1:]), itertools.cycle(CASES), strict=False)
]


@pytest.mark.slow
@pytest.mark.parametrize("name, new, block_len, how, verification", SLOW_CASES)
def test_speculation_has_the_primarys_distribution_in_every_way(name, new, block_len, how, verification):
    drafter = speaker_drafters()[name]
    assert_exact(drafter, [3, 0, 2], new, block_len, how, verification=verification)


@pytest.mark.slow
@pytest.mark.parametrize("name, verification", by_turns(TRAINED))
def test_trained_drafters_leave_the_distribution_as_it_is(name, verification):
    drafter = speaker_trained(name)
    assert_exact(drafter, [3, 0], 4, 3, PLAIN, verification=verification)


@pytest.mark.slow
@pytest.mark.parametrize("verification", ["token", "block"])
def test_a_draft_of_prompt_lookup_stays_with_the_primarys_probability(verification):
    """It is certain of its drafts, 2 and then 3, so Σ min(p, q) is p(draft)."""
    prompt, drafts = [3, 0, 2, 3, 0], [2, 3]
    texts, _, accepted = speculated(
        PromptLookup(5, ngram=2), prompt, 3, 2, PLAIN, 200_000, verification=verification
    )
    p = [slow.warped(slow.next_logits(speaker(), prompt + drafts[:i]), 1.0)[x] for i, x in enumerate(drafts)]
    expected = p[0] + p[0] * p[1]
    assert abs(np.mean(accepted) - expected) < 4.5 * np.std(accepted) / 200_000**0.5
    assert p_value(texts, slow.joint(speaker(), prompt, 3, **PLAIN)) > 1e-3


ROUTERS = {"confidence": ConfidenceRule(0.35), "entropy": EntropyRule(1.0)}


@pytest.mark.parametrize(
    "rule, verification",
    [
        ("confidence", "block"),
        *[pytest.param("entropy", v, marks=pytest.mark.slow) for v in ("token", "block")],
    ],
)
def test_a_router_leaves_the_distribution_as_it_is(rule, verification):
    router, drafter = ROUTERS[rule], speaker_drafters()["plain"]
    assert_exact(drafter, [1], 4, 3, PLAIN, router=router, verification=verification)
    drafted = draw_many(
        lambda key: speculate(speaker(), drafter, [1], 4, 3, Sampling(1.0), key, router=router).trace.drafted[
            0
        ],
        2_000,
    )
    assert len(set(drafted.tolist())) >= 2, "does the router stop some blocks and not others?"


@pytest.mark.slow
def test_the_comparison_fails_where_a_router_throws_drafts_away(monkeypatch):
    """A draft left out for what it is bends the distribution of what is left."""
    keep = cycle._draft_one

    def throwing(decoder, state, draft):
        after = keep(decoder, state, draft)
        stopped = (after.limit < draft.limit) & draft.going_on
        fewer = jnp.where(stopped, draft.drafted, after.drafted)
        limit = jnp.where(stopped, fewer, after.limit)
        return eqx.tree_at(lambda d: (d.drafted, d.limit), after, (fewer, limit))

    monkeypatch.setattr(cycle, "_draft_one", throwing)
    drafter = retraced(speaker_drafters()["plain"])
    texts, _, _ = speculated(drafter, [1], 4, 3, PLAIN, 50_000, router=ConfidenceRule(0.35))
    assert p_value(texts, slow.joint(speaker(), [1], 4, **PLAIN)) < 1e-6


@pytest.mark.slow
def test_a_stop_token_leaves_the_distribution_as_it_is():
    stop, how = 2, {"temperature": 1.0}
    full = slow.joint(speaker(), [1], 3, **how)
    table = np.zeros(full.shape)
    for text in np.ndindex(full.shape):
        ended = list(text)
        if stop in ended:
            first = ended.index(stop)
            ended[first:] = [stop] * (3 - first)
        table[tuple(ended)] += full[text]
    texts, _, _ = speculated(speaker_drafters()["plain"], [1], 3, 2, how, 200_000, stop_token=stop)
    assert p_value(texts, table) > 1e-3


@pytest.mark.parametrize("how", [PLAIN, pytest.param(WARPED, marks=pytest.mark.slow)])
def test_generate_has_the_models_distribution(how):
    model = speaker()  # here, not within the trace: it is kept for the other tests
    texts = draw_many(lambda key: generate(model, [1], 3, Sampling(**how), key).tokens, 200_000)
    assert p_value(texts, slow.joint(speaker(), [1], 3, **how)) > 1e-3
    drafters = slow.joint(speaker_drafters()["plain"], [1], 3, **how)
    assert p_value(texts, drafters) < 1e-6


def test_what_is_kept_and_what_is_redrawn_add_up_to_p():
    """min(p, q) + (1 - Σ min(p, q)) · r = p: the rule's own proof, on `next_distribution`."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        p, q = (jnp.float32(rng.dirichlet(np.full(7, 0.5), size=rows)) for rows in (4, 3))
        for row in range(3):
            kept = jnp.minimum(p[row], q[row])
            redrawn = verification.next_distribution(p, q, jnp.int32(row), jnp.int32(3))
            total = kept + (1 - jnp.sum(kept)) * redrawn
            np.testing.assert_allclose(total, p[row], atol=1e-6)
            bonus = verification.next_distribution(p, q, jnp.int32(row), jnp.int32(row))
            np.testing.assert_allclose(bonus, p[row], atol=1e-6)


def test_a_rejection_by_rounding_alone_redraws_from_p():
    p = jnp.array([[0.25, 0.75], [0.5, 0.5]])
    redrawn = verification.next_distribution(p, p[:1], jnp.int32(0), jnp.int32(1))
    assert redrawn.tolist() == [0.25, 0.75]


def reports_another_q(patch) -> None:
    """Drafts come from q, but verification is told a sharper one."""

    def lying(drafts, drafted, q, *rest):
        sharp = q**1.5
        total = jnp.maximum(jnp.sum(sharp, axis=-1, keepdims=True), 1e-9)
        return verification.verify(drafts, drafted, sharp / total, *rest)

    patch.setitem(speculative.VERIFICATIONS, "token", lying)


def bonus_from_the_row_before(patch) -> None:
    """After all drafts are kept, the extra token comes from the last draft's own distribution."""
    right = verification.next_distribution

    def wrong(p, q, accepted, drafted):
        before = p[jnp.maximum(accepted - 1, 0)]
        return jnp.where(accepted == drafted, before, right(p, q, accepted, drafted))

    patch.setattr(verification, "next_distribution", wrong)


def redraws_from_p(patch) -> None:
    """A rejected token is drawn again from p, as if nothing had been kept of it."""
    patch.setattr(verification, "next_distribution", lambda p, q, accepted, drafted: p[accepted])


def reuses_the_drafts_randomness(patch) -> None:
    """The draft and its acceptance are decided by one and the same random number."""
    patch.setattr(verification, "ACCEPT", DRAFT)


@pytest.mark.parametrize(
    "broken",
    [
        bonus_from_the_row_before,
        *[pytest.param(rule, marks=pytest.mark.slow) for rule in (reports_another_q, redraws_from_p)],
    ],
)
def test_the_comparison_fails_for_a_broken_decoder(broken, monkeypatch):
    broken(monkeypatch)
    drafter = retraced(speaker_drafters()["plain"])
    texts, _, _ = speculated(drafter, [1], 3, 2, PLAIN, 50_000)
    assert p_value(texts, slow.joint(speaker(), [1], 3, **PLAIN)) < 1e-6


@pytest.mark.slow
def test_the_comparison_fails_where_a_number_is_used_twice(monkeypatch):
    reuses_the_drafts_randomness(monkeypatch)
    drafter = retraced(speaker_drafters()["plain"])
    texts, _, _ = speculated(drafter, [1], 3, 2, PLAIN, 200_000)
    assert p_value(texts, slow.joint(speaker(), [1], 3, **PLAIN)) < 1e-6
