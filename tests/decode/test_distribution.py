"""Sampled speculative decoding draws texts with exactly the probabilities that the primary gives them.

With five tokens every short text can be enumerated: its probability comes from full forward passes
(`slow_decoder.joint`), its frequency from seeded draws, and Pearson's chi-square compares the two. A correct
decoder has p > 1e-3 for the seeds fixed here (one seed in a thousand would not). A decoder with one small
error has p < 1e-6, as the last tests show with the same number of draws.
"""

import importlib
import itertools
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import noisy_models as models
import numpy as np
import pytest
import slow_decoder
from enumerated import accepted_by_block, accepted_by_token, mean_accepted
from scipy.stats import chisquare

from tandem_edu.decode import ConfidenceRule, Sampling, generate, speculate
from tandem_edu.decode.sampling import DRAFT
from tandem_edu.decode.speculative import VERIFICATIONS
from tandem_edu.drafters import PromptLookup

# A package's attribute `verify` is the function; the module of that name is what gets patched.
cycle = importlib.import_module("tandem_edu.decode.cycle")
verification = importlib.import_module("tandem_edu.decode.verify")

MODELS_OWN = {"temperature": 1.0}
ALL_SETTINGS = {"temperature": 0.7, "top_k": 4, "top_p": 0.9}
QUICK, MANY = 25_000, 200_000


def draw_many(one, draws: int, chunk: int = 250):
    """`one(key)` for many keys, as NumPy arrays with the draws along the first axis.

    In chunks that stay in the cache: 2,000 at once take up to twice as long.
    """
    # The quick tests' compiler optimises nothing (tests/conftest.py); for so many draws a little pays.
    many = jax.jit(jax.vmap(one), compiler_options={"xla_backend_optimization_level": 1})
    root = jax.random.key(2024)
    chunks = [
        jax.tree.map(np.asarray, many(jax.random.split(jax.random.fold_in(root, i), chunk)))
        for i in range(draws // chunk)
    ]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)


def p_value(texts: np.ndarray, table: np.ndarray) -> float:
    """Pearson's test that `texts` are drawn from `table`; cells below 10 are pooled."""
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
    """Many texts, and of each the number of cycles, the drafts and the accepted drafts of its first cycle."""

    def one(key):
        out = speculate(models.speaker(), drafter, prompt, new, block_len, Sampling(**how), key, **more)
        return out.tokens, out.trace.cycles, out.trace.drafted[0], out.trace.accepted[0]

    return draw_many(one, draws)


def assert_exact(drafter, prompt, new: int, block_len: int, how: dict, draws: int = MANY, **more) -> None:
    texts, cycles, drafted, accepted = speculated(drafter, prompt, new, block_len, how, draws, **more)
    assert p_value(texts, slow_decoder.joint(models.speaker(), prompt, new, **how)) > 1e-3
    if "router" in more:
        assert len(set(drafted.tolist())) >= 2, "does the router stop some blocks and not others?"
    elif not isinstance(drafter, PromptLookup):
        # The comparison reaches what can go wrong: each number of accepted drafts, and later cycles.
        longest = min(block_len, new - 1)
        assert min(np.mean(accepted == m) for m in range(longest + 1)) > 0.01
        assert accepted.max() == longest and cycles.max() == new
        # The mean number of accepted drafts is that of p and q; by block at least as many as by token.
        p, q = slow_decoder.first_block(models.speaker(), drafter, prompt, longest, block_len, how)
        rules = {"token": accepted_by_token, "block": accepted_by_block}
        expected = {name: mean_accepted(p, q, longest, rule) for name, rule in rules.items()}
        assert expected["block"] >= expected["token"] - 1e-9
        error = np.std(accepted) / draws**0.5
        assert abs(np.mean(accepted) - expected[more["verification"]]) < 4.5 * error


WAYS = [
    (3, 1, MODELS_OWN),
    (4, 3, MODELS_OWN),
    (3, 2, {"temperature": 0.7}),
    (3, 2, {"temperature": 1.0, "top_k": 3}),
    (4, 8, {"temperature": 1.0, "top_p": 0.9}),
]
# The plain drafter in all of these ways, in two under both verifications; each of the others in one.
CASES = [("plain", *way, "token") for way in WAYS] + [("plain", *WAYS[i], "block") for i in (1, 4)]
OTHERS = zip(models.alternating(models.DRAFTERS[1:]), itertools.cycle(WAYS), strict=False)
CASES += [(name, *way, verification) for (name, verification), way in OTHERS]
CASES += [("last-paper", 3, 2, ALL_SETTINGS, "block")]


@pytest.mark.parametrize(
    "name, new, block_len, how, verification, draws",
    [("plain", 3, 2, MODELS_OWN, "token", QUICK), *models.slow(*((*case, MANY) for case in CASES))],
)
def test_speculation_has_the_primarys_distribution(name, new, block_len, how, verification, draws):
    prompt = [1] if how is ALL_SETTINGS else [3, 0, 2]
    given = models.speaker_drafters()[name], prompt, new, block_len, how, draws
    assert_exact(*given, verification=verification)


@pytest.mark.slow
@pytest.mark.parametrize("name, verification", models.alternating(models.TRAINED))
def test_trained_drafters_do_not_change_the_distribution(name, verification):
    assert_exact(models.speaker_trained(name), [3, 0], 4, 3, MODELS_OWN, verification=verification)


@pytest.mark.slow
@pytest.mark.parametrize("verification", ["token", "block"])
def test_a_draft_of_prompt_lookup_is_accepted_with_the_primarys_probability(verification):
    """It is certain of its drafts, 2 and then 3, so Σ min(p, q) is p(draft)."""
    prompt, drafter, how = [3, 0, 2, 3, 0], PromptLookup(5, ngram=2), MODELS_OWN
    texts, _, _, accepted = speculated(drafter, prompt, 3, 2, how, MANY, verification=verification)
    table = slow_decoder.joint(models.speaker(), prompt, 3, **how)
    expected = table[2].sum() + table[2, 3].sum()
    assert abs(np.mean(accepted) - expected) < 4.5 * np.std(accepted) / MANY**0.5
    assert p_value(texts, table) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("verification", ["token", "block"])
@pytest.mark.parametrize("router", [ConfidenceRule(0.35), ConfidenceRule(0.5)])
def test_a_router_does_not_change_the_distribution(router, verification):
    more = {"router": router, "verification": verification}
    assert_exact(models.speaker_drafters()["plain"], [1], 4, 3, MODELS_OWN, **more)


@pytest.mark.slow
def test_a_stop_token_does_not_change_the_distribution():
    stop, full = 2, slow_decoder.joint(models.speaker(), [1], 3, **MODELS_OWN)
    table = np.zeros(full.shape)
    for text in np.ndindex(full.shape):
        n = text.index(stop) if stop in text else 3
        table[text[:n] + (stop,) * (3 - n)] += full[text]
    texts = speculated(models.speaker_drafters()["plain"], [1], 3, 2, MODELS_OWN, MANY, stop_token=stop)[0]
    assert p_value(texts, table) > 1e-3


@pytest.mark.parametrize("how, draws", [(MODELS_OWN, QUICK), *models.slow((ALL_SETTINGS, MANY))])
def test_generate_has_the_models_distribution(how, draws):
    model = models.speaker()  # here, not within the trace: it is kept for the other tests
    texts = draw_many(lambda key: generate(model, [1], 3, Sampling(**how), key).tokens, draws)
    assert p_value(texts, slow_decoder.joint(models.speaker(), [1], 3, **how)) > 1e-3
    assert p_value(texts, slow_decoder.joint(models.speaker_drafters()["plain"], [1], 3, **how)) < 1e-6


def test_the_rule_adds_up_to_p():
    """min(p, q) + (1 - Σ min(p, q)) · r = p: the rule's own proof, on `next_distribution`."""
    rng = np.random.default_rng(0)
    p, q = (jnp.float32(rng.dirichlet(np.full(7, 0.5), size=rows)) for rows in (16, 15))
    next_token = jax.vmap(partial(verification.next_distribution, p, q))
    rows = jnp.arange(15, dtype=jnp.int32)
    accepted = jnp.minimum(p[:-1], q)
    rejected = 1 - jnp.sum(accepted, axis=-1, keepdims=True)
    np.testing.assert_allclose(accepted + rejected * next_token(rows, 0 * rows + 15), p[:-1], atol=1e-6)
    np.testing.assert_allclose(next_token(rows, rows), p[:-1], atol=1e-6)  # the bonus
    # A rejection by rounding alone leaves no residual.
    alike = verification.next_distribution(p, p[:-1], jnp.int32(0), jnp.int32(1))
    np.testing.assert_array_equal(alike, p[0])


def reports_another_q(patch) -> None:
    """Drafts come from q, but verification gets a sharper one."""

    def wrong(drafts, drafted, q, *rest):
        sharp = q**1.5
        total = jnp.maximum(jnp.sum(sharp, axis=-1, keepdims=True), 1e-9)
        return verification.verify(drafts, drafted, sharp / total, *rest)

    patch.setitem(VERIFICATIONS, "token", wrong)


def bonus_from_the_position_before(patch) -> None:
    """After all drafts are accepted, the extra token comes from the last draft's own distribution."""
    right = verification.next_distribution

    def wrong(p, q, accepted, drafted):
        before = p[jnp.maximum(accepted - 1, 0)]
        return jnp.where(accepted == drafted, before, right(p, q, accepted, drafted))

    patch.setattr(verification, "next_distribution", wrong)


def redraws_from_p(patch) -> None:
    """A rejected token is drawn again from p, not from the residual."""
    patch.setattr(verification, "next_distribution", lambda p, q, accepted, drafted: p[accepted])


def reuses_the_drafts_randomness(patch) -> None:
    """The draft and its acceptance are decided by the same random number."""
    patch.setattr(verification, "ACCEPT", DRAFT)


def discards_drafts(patch) -> None:
    """A router leaves out the draft at which it stops. This changes the distribution of the other drafts."""
    right = cycle._draft

    def wrong(decoder, limits, state, block):
        after = right(decoder, limits, state, block)
        stopped = (after.limit < block.limit) & (block.drafted < block.limit)
        fewer = jnp.where(stopped, block.drafted, after.drafted)
        limit = jnp.where(stopped, fewer, after.limit)
        return eqx.tree_at(lambda b: (b.drafted, b.limit), after, (fewer, limit))

    patch.setattr(cycle, "_draft", wrong)


SLOW_BROKEN = [reports_another_q, redraws_from_p, reuses_the_drafts_randomness, discards_drafts]


@pytest.mark.parametrize("broken", [bonus_from_the_position_before, *models.slow(*SLOW_BROKEN)])
def test_the_comparison_fails_for_a_broken_decoder(broken, monkeypatch):
    broken(monkeypatch)
    draws = MANY if broken is reuses_the_drafts_randomness else QUICK
    new, more = (4, {"router": ConfidenceRule(0.35)}) if broken is discards_drafts else (3, {})
    drafter = models.retraced(models.speaker_drafters()["plain"])
    texts = speculated(drafter, [1], new, new - 1, MODELS_OWN, draws, **more)[0]
    assert p_value(texts, slow_decoder.joint(models.speaker(), [1], new, **MODELS_OWN)) < 1e-6
