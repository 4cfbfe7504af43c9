"""A router learns from a pair's own drafts which of them the primary accepts."""

import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "decode"))
from noisy_models import writer, writer_drafters

from tandem_edu.decode import LearnedRouter, Sampling, generate, speculate
from tandem_edu.decode.routers import draft_features, entropy
from tandem_edu.decode.speculative import as_drafter
from tandem_edu.drafters import Draft, Plain
from tandem_edu.errors import BadInput
from tandem_edu.measure import calibration, verified_drafts
from tandem_edu.model.weights import read_arrays, write_arrays
from tandem_edu.train import router, train_router
from tandem_edu.train.router import Examples, collect, fit
from tandem_edu.zoo import load_router, save_router

BLOCK_LEN, KEY = 4, jax.random.key(0)
PROMPTS = [np.random.default_rng(seed).integers(0, 48, 4) for seed in range(24)]
STEPS = []


class Counting(Plain):
    """Notes each of its steps, by a callback in the compiled loop."""

    def step(self, token, state, primary, cache):
        jax.debug.callback(lambda _: STEPS.append(1), token)
        return super().step(token, state, primary, cache)


@cache
def drafter():
    return Counting(writer_drafters(64)["plain"])


@cache
def trained():
    """The router and the examples that it has not learned from."""
    settings = {"max_new_tokens": 40, "steps": 300, "key": KEY, "progress": False}
    return train_router(writer(64), drafter(), PROMPTS, BLOCK_LEN, **settings)


@pytest.mark.parametrize("sampling", [None, Sampling(0.8)], ids=["greedy", "sampled"])
def test_the_examples_are_the_drafts_of_the_pair(sampling):
    """Against the trace of the same texts: all drafts, the same results, the probabilities of acceptance."""
    prompts, key = PROMPTS[:8], jax.random.key(7)
    examples = collect(writer(64), drafter(), trained()[0], prompts, 40, sampling, key)
    how = (sampling, jax.random.fold_in(key, 0))
    out = speculate(writer(64), drafter(), prompts, 40, BLOCK_LEN, *how, max_draft_len=BLOCK_LEN)
    _, accepted = verified_drafts([out.trace])
    verified = examples.verified()
    assert len(examples.features) == out.trace.summary()["drafted"] > len(verified.features) == len(accepted)
    assert verified.accepted.sum() == accepted.sum() == out.trace.summary()["accepted"]
    assert np.isfinite(examples.features).all() and examples.features.shape[1] == 1 + 8 + 8 * 16
    assert (np.diff(examples.features[:, 1:9]) <= 0).all() and (examples.features[:, 0] >= 0).all()
    overlap = examples.acceptance_prob
    assert ((overlap >= 0) & (overlap <= 1 + 1e-6)).all()
    assert np.mean((overlap > 0.01) & (overlap < 0.99)) > 0.02
    if sampling is not None:
        recorded = [p for row in out.trace.to_records() for p in row["acceptance_prob"]]
        np.testing.assert_allclose(np.sort(overlap), np.sort(recorded), atol=1e-6)


def test_the_paper_sees_the_embeddings_of_the_most_probable_tokens():
    """Entropy, top-k probabilities, embeddings by their definitions; the alternative: the hidden state."""
    model, logits = writer(64), jnp.float32(np.random.default_rng(1).normal(size=48))
    draft, token = Draft(logits, None, jnp.arange(3.0)), jnp.int32(5)
    q = np.exp(logits) / np.exp(logits).sum()
    order = np.argsort(-q)[:4]
    seen = draft_features(draft, token, model.embed, 4, "embeddings")
    expected = [-(q * np.log(q)).sum(), *q[order], *np.asarray(model.embed(jnp.asarray(order))).ravel()]
    np.testing.assert_allclose(seen, expected, rtol=1e-5)
    seen = draft_features(draft, token, model.embed, 4, "hidden")
    np.testing.assert_allclose(seen, [*expected[:5], 0, 1, 2, q[5]], rtol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="how XLA compiles for a CPU")
def test_no_draft_sorts_the_vocabulary():
    """It would take as long as the draft itself."""
    model, token = writer(64), jnp.int32(5)
    draft = lambda logits: Draft(logits, None, jnp.zeros(1))
    see = lambda logits: draft_features(draft(logits), token, model.embed, 8, "embeddings")
    compiled = jax.jit(see).lower(jnp.zeros(48)).compile().as_text()
    assert "TopK" in compiled and " sort(" not in compiled


@pytest.mark.parametrize("name", ["plain", "last-paper", "eagle-top", "glide-last", "exit", "lookup"])
def test_every_drafter_has_embeddings(name):
    model = as_drafter(writer_drafters(64)[name], writer(64))
    own = getattr(model, "model", getattr(model, "secondary", writer(64)))
    np.testing.assert_array_equal(model.embed(jnp.arange(4), writer(64)), own.embed(jnp.arange(4)))


def test_a_drafter_of_ones_own_may_hide_its_hidden_state():
    class Silent(Plain):
        def step(self, token, state, primary, cache):
            draft = super().step(token, state, primary, cache)
            return Draft(draft.logits, draft.state)

    silent, settings = Silent(writer_drafters(64)["plain"]), {"key": KEY, "progress": False}
    settings |= {"features": "hidden", "target": "accepted"}
    learned, _ = train_router(writer(64), silent, PROMPTS[:2], 2, max_new_tokens=8, steps=2, **settings)
    assert len(learned.mean) == 2 + learned.top_k


def test_entropy_by_its_definition():
    logits = np.random.default_rng(0).normal(size=(3, 7))
    q = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(entropy(jnp.float32(logits)), -(q * np.log(q)).sum(-1), rtol=1e-5)
    assert float(entropy(jnp.array([0.0, -jnp.inf]))) == 0


def test_its_confidence_is_higher_where_drafts_are_accepted():
    learned, held_out = trained()
    confidence = np.asarray(learned.confidence(jnp.asarray(held_out.features)))
    accepted = held_out.accepted
    assert 0.2 < accepted.mean() < 0.95 and len(accepted) > 60
    assert confidence[accepted == 1].mean() > confidence[accepted == 0].mean() + 0.02


def test_fit_learns_a_rule_that_is_there():
    """Accepted exactly where one feature is positive: learned almost without error, whatever its scale."""
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(2000, 6)) * [1, 100, 1, 0.01, 1, 1] + 3).astype(np.float32)
    accepted = (features[:, 3] > 3).astype(np.float32)
    untrained = LearnedRouter(6, ("any", 4), target="accepted", key=jax.random.key(1))
    learned = fit(untrained, Examples(features, np.zeros(2000), accepted), 500, jax.random.key(2))
    predicted = np.asarray(learned.confidence(jnp.asarray(features))) > 0.5
    assert np.mean(predicted == accepted) > 0.97


def test_a_soft_target_is_estimated_as_it_is():
    """Of all drafts, also where verification did not reach."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2000, 6)).astype(np.float32)
    overlap = (1 / (1 + np.exp(-features[:, 2]))).astype(np.float32)
    accepted = np.where(features[:, 2] < 0, np.nan, 1).astype(np.float32)
    untrained = LearnedRouter(6, ("any", 4), key=jax.random.key(1))
    learned = fit(untrained, Examples(features, overlap, accepted), 800, jax.random.key(2))
    estimated = np.asarray(learned.confidence(jnp.asarray(features)))
    assert np.abs(estimated - overlap).mean() < 0.02


def test_a_threshold_trades_drafts_for_calls_and_changes_no_text():
    """A block that ends early costs fewer steps of the drafter, too."""
    alone, drafted, cycles = generate(writer(64), PROMPTS[0], 50), [], []
    for threshold in (0.0, 0.7, 1.0):
        STEPS.clear()
        cut = trained()[0].with_threshold(threshold)
        out = speculate(writer(64), drafter(), PROMPTS[0], 50, BLOCK_LEN, router=cut)
        np.testing.assert_array_equal(out.tokens, alone.tokens)
        jax.effects_barrier()
        summary = out.trace.summary()
        drafted.append(summary["drafted"])
        cycles.append(summary["cycles"])
        # The drafter also reads a last draft that was accepted.
        assert drafted[-1] <= len(STEPS) <= drafted[-1] + cycles[-1]
    assert drafted[0] > drafted[2] and cycles[0] < cycles[2] and drafted[2] <= cycles[2]
    without = speculate(writer(64), drafter(), PROMPTS[0], 50, BLOCK_LEN).trace.summary()
    assert (drafted[0], cycles[0]) == (without["drafted"], without["cycles"])


def test_it_is_saved_and_loaded(tmp_path):
    learned, held_out = trained()
    save_router(learned, tmp_path / "router.safetensors")
    loaded = load_router(tmp_path / "router.safetensors")
    for name in ("made_for", "inputs", "target"):
        assert getattr(loaded, name) == getattr(learned, name)
    features = jnp.asarray(held_out.features)
    np.testing.assert_array_equal(loaded.confidence(features), learned.confidence(features))
    with pytest.raises(BadInput, match="a file of weights"):
        load_router(tmp_path / "none.safetensors")
    arrays, metadata = read_arrays(tmp_path / "router.safetensors")
    del metadata["router"]["target"]
    write_arrays(arrays, metadata, tmp_path / "router.safetensors")
    with pytest.raises(BadInput, match=r"a router at .*, got one without its target: train one"):
        load_router(tmp_path / "router.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": PROMPTS[:1]}, "at least two prompts, got 1"),
        ({"block_len": 0}, "block_len of at least 1, got 0"),
        ({"steps": 0}, "steps of at least 1, got 0"),
        ({"target": "kl"}, "target among tv, accepted, got 'kl'"),
        ({"features": "logits"}, "features among embeddings, hidden, got 'logits'"),
        # By its number among all prompts, though they are decoded a few at a time.
        ({"prompts": [*PROMPTS[:10], np.ones(64, int), *PROMPTS]}, "expected prompt 10: .*context of 64"),
    ],
)
def test_bad_input(changes, message):
    usual = {"prompts": PROMPTS, "max_new_tokens": 8, "key": KEY}
    with pytest.raises(BadInput, match=message):
        train_router(writer(64), writer(64), **usual | changes)


def test_no_drafts_to_learn_from(monkeypatch):
    monkeypatch.setattr(router, "cycles", lambda decoder, request: [])
    with pytest.raises(BadInput, match="at least one verified draft to learn from, got none"):
        train_router(writer(64), writer(64), PROMPTS, max_new_tokens=1, key=KEY, progress=False)


def test_calibration_by_hand():
    confidence, accepted = np.array([0.05, 0.15, 0.15, 0.95, 1.0]), np.array([0.0, 0.0, 1.0, 1.0, 1.0])
    result = calibration(confidence, accepted, bins=10)
    assert result.counts == (1, 2, 0, 0, 0, 0, 0, 0, 0, 2)
    assert result.accepted[1] == 0.5 and result.accepted[5] is None
    np.testing.assert_allclose(result.error, (0.05 + 2 * 0.35 + 2 * 0.025) / 5)
    with pytest.raises(BadInput, match="at least one verified draft"):
        calibration(np.zeros(0), np.zeros(0))


def test_true_confidences_are_calibrated_and_shifted_ones_are_not():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=20_000)
    accepted = (rng.uniform(size=20_000) < confidence).astype(float)
    assert calibration(confidence, accepted).error < 0.02
    assert calibration(np.sqrt(confidence), accepted).error > 0.1
