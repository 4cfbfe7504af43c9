"""The deep tandem's large half alone: what it sees, and that it learns."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from studies import deep_tandem
from studies.variants import BlockPrediction
from tandem_edu.decode import generate
from tandem_edu.drafters import DeepTandem
from tandem_edu.errors import BadInput
from tandem_edu.model import Transformer, TransformerConfig
from tandem_edu.train import recipe, train

CONFIG = TransformerConfig(13, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=24, max_len=64)
TOKENS = jax.random.randint(jax.random.key(1), (22,), 0, 13)
call = eqx.filter_jit(lambda model, tokens: model(tokens))


def block_prediction(block_len: int) -> BlockPrediction:
    large = oracle.lively(Transformer(CONFIG, key=jax.random.key(0)), 1)
    return BlockPrediction(large=large, config=CONFIG, block_len=block_len)


@pytest.mark.parametrize("block_len", [1, 3, 8])
def test_a_prediction_depends_on_whole_earlier_blocks(block_len):
    model, logits = block_prediction(block_len), call(block_prediction(block_len), TOKENS)
    predicted = np.arange(1, len(TOKENS) + 1)
    for position in range(0, len(TOKENS), 4):
        changed = call(model, TOKENS.at[position].add(1) % 13)
        seen = np.any(np.asarray(changed != logits), axis=-1)
        np.testing.assert_array_equal(seen, predicted // block_len > position // block_len)


def test_at_one_token_a_block_it_is_an_ordinary_transformer():
    model = block_prediction(1)
    np.testing.assert_allclose(call(model, TOKENS), call(model.large, TOKENS), rtol=1e-5, atol=1e-5)


def test_its_predictions_are_the_deep_tandems_sketches():
    deep = DeepTandem(dataclasses.replace(CONFIG, n_layers=4), block_len=4, key=jax.random.key(2))
    model = BlockPrediction(large=deep.large, config=deep.large.config, block_len=4)
    expected = deep.large.logits(deep.sketch(TOKENS))
    np.testing.assert_allclose(call(model, TOKENS), expected, rtol=1e-5, atol=1e-5)
    assert jnp.all(call(model, TOKENS)[:3] == 0)  # no block before the first


def test_it_learns_what_a_block_ahead_can_be_known():
    text = np.resize(np.arange(12), 600)
    settings = recipe("primary", steps=40, batch_size=4, seq_len=24, learning_rate=1e-2, warmup_steps=5)
    _, history = train(block_prediction(4), settings, text, text, progress=False)
    assert history[-1]["valid_accuracy"] > 0.8  # 21 of 24 positions have a block before them


def test_it_writes_nothing():
    with pytest.raises(BadInput, match="a model that writes, got a block-prediction"):
        generate(block_prediction(4), [1, 2], 4)


def test_the_rooflines_speed_lies_between_one_and_the_layers_alone():
    assert deep_tandem.estimate(2) == pytest.approx(4 / 3)
    for chip in deep_tandem.CHIPS:
        assert 1 < deep_tandem._roofline(chip) < deep_tandem.estimate(2)
