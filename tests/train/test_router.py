"""A router learns from a pair's own drafts which of them will stay."""

import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "decode"))
from lively_models import writer, writer_drafters

from tandem_edu.decode import LearnedRouter, PlainDrafter, Sampling, generate, speculate
from tandem_edu.decode.drafters import Draft, as_drafter
from tandem_edu.decode.routers import entropy, fingerprint
from tandem_edu.errors import BadInput
from tandem_edu.measure import calibration, judged_drafts
from tandem_edu.train import train_router
from tandem_edu.train.router import collect, fit
from tandem_edu.zoo import load_router, save_router

BLOCK_LEN, NAME = 4, "last-paper"
HOW = Sampling(temperature=1.0)
PROMPTS = [np.random.default_rng(seed).integers(0, 48, 4) for seed in range(30)]


@cache
def trained():
    drafter = writer_drafters(64)[NAME]
    return train_router(
        writer(64),
        drafter,
        PROMPTS,
        BLOCK_LEN,
        max_new_tokens=40,
        steps=300,
        key=jax.random.key(0),
        progress=False,
    )


def test_the_examples_are_the_judged_drafts_of_the_pair():
    """Against the trace of the same texts: as many of them, the same verdicts, the entropies of q."""
    primary, drafter = writer(64), as_drafter(writer_drafters(64)[NAME], writer(64))
    router = LearnedRouter(16, ("any", BLOCK_LEN), top_k=3, key=jax.random.key(0))
    given, key = PROMPTS[:2], jax.random.key(7)
    examples = collect(primary, drafter, router, given, BLOCK_LEN, 40, HOW, rows=2, key=key)
    out = speculate(primary, drafter, given, 40, BLOCK_LEN, HOW, jax.random.fold_in(key, 0))
    _, verdicts = judged_drafts([out.trace])
    assert len(examples.kept) == len(verdicts) == len(examples.features)
    assert examples.kept.sum() == verdicts.sum() == out.trace.summary()["accepted"]
    assert examples.features.shape[1] == 2 + 3 + 16 and np.isfinite(examples.features).all()
    best = examples.features[:, 2:5]
    assert (np.diff(best) <= 0).all() and (examples.features[:, 1] <= best[:, 0] + 1e-6).all()


def test_a_drafter_of_ones_own_may_hide_its_hidden_state():
    class Silent(PlainDrafter):
        def step(self, token, state, cache):
            guess = super().step(token, state, cache)
            return Draft(guess.logits, guess.state)

    router, _ = train_router(
        writer(64), Silent(writer_drafters(64)["plain"]), PROMPTS[:4], 2, max_new_tokens=8, steps=2,
        key=jax.random.key(0), progress=False,
    )  # fmt: skip
    assert router.w_in.shape[0] == 2 + router.top_k


def test_entropy_by_its_definition():
    logits = np.random.default_rng(0).normal(size=(3, 7))
    q = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(entropy(jnp.float32(logits)), -(q * np.log(q)).sum(-1), rtol=1e-5)
    assert float(entropy(jnp.array([0.0, -jnp.inf]))) == 0


def test_it_knows_more_than_the_share_of_drafts_kept():
    router, held_out = trained()
    confidence = np.asarray(router.confidence(jnp.asarray(held_out.features)))
    kept = held_out.kept
    assert 0.2 < kept.mean() < 0.95 and len(kept) > 80
    assert confidence[kept == 1].mean() > confidence[kept == 0].mean() + 0.02


def test_fit_finds_a_rule_that_is_there():
    """Kept exactly where one feature is positive: learned almost without error, whatever its scale."""
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(2000, 6)) * [1, 100, 1, 0.01, 1, 1] + 3).astype(np.float32)
    kept = (features[:, 3] > 3).astype(np.float32)
    blank = LearnedRouter(2, ("any", 4), top_k=2, key=jax.random.key(1))
    router = fit(blank, type(trained().held_out)(features, kept), 500, 3e-3, jax.random.key(2))
    guess = np.asarray(router.confidence(jnp.asarray(features))) > 0.5
    assert np.mean(guess == kept) > 0.97


def test_a_threshold_trades_drafts_for_calls_and_changes_no_text():
    primary, drafter, router = writer(64), writer_drafters(64)[NAME], trained().router
    alone = generate(primary, PROMPTS[0], 50)
    drafted, cycles = [], []
    for threshold in (0.0, 0.7, 1.0):
        out = speculate(primary, drafter, PROMPTS[0], 50, BLOCK_LEN, router=router.with_threshold(threshold))
        np.testing.assert_array_equal(out.tokens, alone.tokens)
        summary = out.trace.summary()
        drafted.append(summary["drafted"])
        cycles.append(summary["cycles"])
    assert drafted[0] > drafted[2] and cycles[0] < cycles[2]
    without = speculate(primary, drafter, PROMPTS[0], 50, BLOCK_LEN).trace.summary()
    assert (drafted[0], cycles[0]) == (without["drafted"], without["cycles"])


def test_a_block_that_is_ended_early_costs_fewer_steps():
    """The drafter's steps themselves are counted, by a callback in the compiled loop."""
    steps = []
    base = as_drafter(writer_drafters(64)["plain"], writer(64))

    class Counting(type(base)):
        def step(self, token, state, cache):
            jax.debug.callback(lambda _: steps.append(1), token)
            return super().step(token, state, cache)

    drafter = Counting(base.model)
    made_for = (fingerprint(drafter), BLOCK_LEN)
    router = LearnedRouter(16, made_for, threshold=1.0, top_k=3, key=jax.random.key(0))
    for threshold in (0.0, 1.0):
        steps.clear()
        cut = router.with_threshold(threshold)
        out = speculate(writer(64), drafter, PROMPTS[1], 40, BLOCK_LEN, router=cut)
        jax.block_until_ready(out)
        jax.effects_barrier()
        summary = out.trace.summary()
        # The drafter also reads a last draft that was kept, to catch up.
        assert summary["drafted"] <= len(steps) <= summary["drafted"] + summary["cycles"]
        if threshold == 1.0:
            assert summary["drafted"] <= summary["cycles"]


def test_it_is_saved_and_loaded(tmp_path):
    router = trained().router
    save_router(router, tmp_path / "router.safetensors")
    loaded = load_router(tmp_path / "router.safetensors")
    assert loaded.made_for == router.made_for
    features = jnp.asarray(trained().held_out.features)
    np.testing.assert_array_equal(loaded.confidence(features), router.confidence(features))
    with pytest.raises(BadInput, match="a file of weights"):
        load_router(tmp_path / "none.safetensors")


def test_one_prompt_is_too_few():
    with pytest.raises(BadInput, match="at least two prompts, got 1"):
        train_router(writer(64), writer(64), PROMPTS[:1], key=jax.random.key(0))


@pytest.mark.parametrize("name", ["block_len", "rows", "steps"])
def test_numbers_that_leave_nothing_to_do(name):
    with pytest.raises(BadInput, match=f"{name} of at least 1, got 0"):
        train_router(writer(64), writer(64), PROMPTS, key=jax.random.key(0), **{name: 0})


def test_a_prompt_that_does_not_fit_is_named():
    """By its place among all prompts, though they are decoded a few at a time."""
    prompts = [*PROMPTS[:10], np.ones(64, int), *PROMPTS[10:]]
    with pytest.raises(BadInput, match="prompt 10: a prompt shorter than the context of 64 tokens, got 64"):
        train_router(writer(64), writer(64), prompts, rows=4, max_new_tokens=8, key=jax.random.key(0))


def test_no_drafts_to_learn_from():
    given = {"max_new_tokens": 1, "key": jax.random.key(0), "progress": False}
    with pytest.raises(BadInput, match="at least one judged draft to learn from, got none"):
        train_router(writer(64), writer_drafters(64)[NAME], PROMPTS[:4], BLOCK_LEN, **given)


def test_calibration_by_hand():
    confidence, kept = np.array([0.05, 0.15, 0.15, 0.95, 1.0]), np.array([0.0, 0.0, 1.0, 1.0, 1.0])
    found = calibration(confidence, kept, bins=10)
    assert found.counts == (1, 2, 0, 0, 0, 0, 0, 0, 0, 2)
    assert found.accepted[1] == 0.5 and found.accepted[5] is None
    np.testing.assert_allclose(found.error, (0.05 + 2 * 0.35 + 2 * 0.025) / 5)
    assert len(found.table()) == 10 and found.table()[1]["drafts"] == 2
    with pytest.raises(BadInput, match="at least one judged draft"):
        calibration(np.zeros(0), np.zeros(0))


def test_confidences_drawn_true_are_calibrated_and_shifted_ones_are_not():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=20_000)
    kept = (rng.uniform(size=20_000) < confidence).astype(float)
    assert calibration(confidence, kept).error < 0.02
    assert calibration(np.sqrt(confidence), kept).error > 0.1
