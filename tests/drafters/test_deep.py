"""The deep tandem of the paper's section 5: sketches of blocks, and a small half that writes them."""

import dataclasses
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from pairs import config

import tandem_edu as te
from tandem_edu.drafters import load_model, save_model
from tandem_edu.train import recipe, train

GAMMAS = (1, 2, 3, 4, 8)
SIZES = config(16, 3, 4, 2, tie_embeddings=False)
TOKENS = jax.random.randint(jax.random.key(4), (39,), 0, SIZES.vocab_size)
call, sketch = eqx.filter_jit(te.DeepTandem.__call__), eqx.filter_jit(te.DeepTandem.sketch)
prefill, extend = eqx.filter_jit(te.DeepTandem.prefill), eqx.filter_jit(te.DeepTandem.extend)


@cache
def deep(block_len: int) -> te.DeepTandem:
    return oracle.lively(te.DeepTandem(SIZES, block_len, n_large=2, key=jax.random.key(1)), 2)


def close(a, b) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block_len", GAMMAS)
def test_it_is_the_slow_model_written_from_the_equations(block_len):
    for seq in (1, block_len, 17):  # also texts of no whole block, and of a short last one
        logits, sketches = oracle.deep_tandem(deep(block_len), TOKENS[:seq])
        close(call(deep(block_len), TOKENS[:seq]), logits)
        close(sketch(deep(block_len), TOKENS[:seq]), sketches)


def test_with_blocks_of_one_the_large_half_is_an_ordinary_transformer():
    model = deep(1)
    _, hidden = model.large(TOKENS, return_hidden=True)
    close(sketch(model, TOKENS), hidden[-1])


@pytest.mark.parametrize("block_len", GAMMAS)
def test_cached_equals_teacher_forced(block_len):
    """After a padded prompt; and again after a rollback into the middle of an earlier block."""
    model, expected = deep(block_len), call(deep(block_len), TOKENS)
    _, after_prompt = prefill(model, TOKENS[:16], 11, 48)
    logits, _, longer = extend(model, TOKENS[11:], after_prompt)
    close(logits, expected[11:])
    for length in (12, 21, 38):
        wrong = (TOKENS[length:] + 1) % SIZES.vocab_size
        _, _, longer = extend(model, wrong, longer.with_length(length))
        assert int(longer.length) == 39
        logits, _, longer = extend(model, TOKENS[length:], longer.with_length(length))
        close(logits, expected[length:])


def test_the_equality_can_fail():
    model = deep(4)
    _, cache = prefill(model, TOKENS[:16], 10, 48)
    for part in ("tokens", "sketch", "large", "small"):
        broken = jax.tree.map(lambda x: jnp.roll(x, 1, 0) if x.ndim else x, getattr(cache, part))
        broken = eqx.tree_at(lambda c, part=part: getattr(c, part), cache, broken)
        logits, *_ = extend(model, TOKENS[10:], broken)
        assert np.abs(logits - call(model, TOKENS)[10:]).max() > 1e-2


@pytest.mark.parametrize("block_len", GAMMAS)
def test_who_sees_whom(block_len):
    """A changed token changes no logit before it. A sketch depends on all earlier blocks alone."""
    model, (logits, sketches) = deep(block_len), (f(deep(block_len), TOKENS) for f in (call, sketch))
    differs = lambda new, old: np.any(np.asarray(new) != old, axis=-1)
    predicted = np.arange(1, 40)
    for position in range(0, 39, 5):
        changed = TOKENS.at[position].add(1) % SIZES.vocab_size
        seen = differs(call(model, changed), logits)
        np.testing.assert_array_equal(seen, predicted > position)
        later_block = predicted // block_len > position // block_len
        np.testing.assert_array_equal(differs(sketch(model, changed), sketches), later_block)


def test_a_long_text_is_read_in_chunks_that_cut_no_block():
    tokens = jax.random.randint(jax.random.key(5), (150,), 0, SIZES.vocab_size)
    for block_len in (3, 8):
        _, cache = prefill(deep(block_len), tokens[:1], 1, 160)
        close(extend(deep(block_len), tokens[1:], cache)[0], call(deep(block_len), tokens)[1:])


def test_a_batch_is_its_rows():
    rows = jnp.stack([TOKENS, TOKENS[::-1]])
    for function in (call, sketch):
        close(function(deep(4), rows), np.stack([function(deep(4), row) for row in rows]))


def test_it_writes_what_its_full_passes_predict():
    model, prompts, text = deep(4), [[3, 1, 4, 1, 5], [2]], []
    out = te.generate(model, prompts, 20)
    for row, prompt in enumerate(prompts):
        text = list(prompt)
        for _ in range(20):
            text.append(int(jnp.argmax(call(model, jnp.array(text + [0] * (39 - len(text))))[len(text) - 1])))
        assert out.tokens[row].tolist() == text[len(prompt) :]
        np.testing.assert_array_equal(te.generate(model, prompt, 20).tokens, out.tokens[row])


def test_it_drafts_for_a_primary():
    primary = oracle.lively(te.Transformer(SIZES, key=jax.random.key(6)), 7)
    out = te.speculate(primary, deep(2), [3, 1, 4], 24, block_len=3)
    np.testing.assert_array_equal(out.tokens, te.generate(primary, [3, 1, 4], 24).tokens)
    blocks = te.block_generate(primary, deep(2), [3, 1, 4], 12, block_len=100, free_token=False)
    np.testing.assert_array_equal(blocks.tokens, te.generate(deep(2), [3, 1, 4], 12).tokens)


def test_it_is_trained_saved_and_loaded(tmp_path):
    text = np.resize(np.arange(12), 600)
    settings = recipe("primary", steps=30, batch_size=4, seq_len=19, learning_rate=1e-2, warmup_steps=5)
    untrained = te.DeepTandem(dataclasses.replace(SIZES, n_layers=2), 2, key=jax.random.key(0))
    model, history = train(untrained, settings, text, text, progress=False)
    assert history[-1]["valid_accuracy"] > 0.9
    for part in ("large", "small", "projection"):
        assert not eqx.tree_equal(getattr(untrained, part), getattr(model, part))
    save_model(model, tmp_path / "deep.safetensors")
    assert eqx.tree_equal(load_model(tmp_path / "deep.safetensors"), model)


def test_it_learns_to_read_the_token_before():
    """Half of these tokens follow from the one before. With embeddings of 0.02 the accuracy is 0.10."""
    sizes = config(64, 2, 4, 2)
    first = np.random.default_rng(0).integers(0, sizes.vocab_size, 2000)
    text = np.stack([first, (5 * first + 1) % sizes.vocab_size], axis=1).ravel()
    settings = recipe("primary", steps=30, batch_size=8, seq_len=32, learning_rate=1e-2, warmup_steps=5)
    untrained = te.DeepTandem(sizes, block_len=2, key=jax.random.key(0))
    _, history = train(untrained, settings, text, text[-600:], progress=False)
    assert history[-1]["valid_accuracy"] > 0.5


def test_what_cannot_be_halved():
    build = lambda n_layers, *given: te.DeepTandem(
        dataclasses.replace(SIZES, n_layers=n_layers), *given, key=jax.random.key(0)
    )
    for given, message in [
        ((3,), "an even number of layers to halve, got 3: pass n_large=2 for 2 and 1 layers"),
        ((4, 2, 4), "layers for both halves, got 4 of 4 in the large one"),
        ((1, 2, 1), "layers for both halves"),
        ((4, 2, 0), "n_large of at least 1, got 0"),
        ((4, 0), "block_len of at least 1, got 0"),
    ]:
        with pytest.raises(te.BadInput, match=message):
            build(*given)
    assert build(5, 2, 2).small.config.n_layers == 3
