"""The paper's variants: who learns, and who sees what."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from studies.variants import BlockPrediction, Joint
from tandem_edu.drafters import Tandem
from tandem_edu.errors import BadInput
from tandem_edu.measure import quality
from tandem_edu.model import Transformer, TransformerConfig
from tandem_edu.train import recipe, train, train_together

SIZES = {"vocab_size": 13, "d_model": 16, "n_heads": 2, "n_kv_heads": 1, "d_ff": 16, "max_len": 32}
PRIMARY = TransformerConfig(n_layers=2, **SIZES)
TOKENS = jnp.array([3, 1, 4, 1, 5, 9, 2, 6, 5])
TEXT = np.random.default_rng(0).integers(0, 13, 600)

read = eqx.filter_jit(Transformer.__call__)
called = eqx.filter_jit(lambda model, *given: model(*given))
forced = eqx.filter_jit(lambda model, *given: model.teacher_forced(*given))


@pytest.fixture(scope="module", params=[False, True], ids=["own vocabulary", "shared vocabulary"])
def pair(request):
    primary = Transformer(PRIMARY, key=jax.random.key(0))
    config = TransformerConfig(n_layers=1, shared_vocab=request.param, **SIZES)
    shared = primary.embedding if request.param else None
    secondary = Transformer(config, key=jax.random.key(1), embedding=shared)
    return primary, Tandem(secondary, PRIMARY, "fused", key=jax.random.key(2))


def settings():
    return recipe("tandem-ce", steps=3, batch_size=4, seq_len=16, learning_rate=1e-2, eval_windows=4)


def test_joint_is_the_tandem_on_its_own_primary_whatever_primary_it_is_given(pair):
    primary, tandem = pair
    _, hidden = read(primary, TOKENS, return_hidden=True)
    expected = called(tandem, TOKENS, hidden, 3, 1)
    given = forced(Joint(primary, tandem, PRIMARY), None, TOKENS, 0 * hidden, 3, 1)
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5)


def test_training_a_joint_moves_both_and_keeps_them_tied(pair):
    primary, tandem = pair
    joint = Joint(primary, tandem, PRIMARY)
    trained, _ = train(joint, settings(), TEXT, TEXT, primary=primary, progress=False)
    before, after = primary.blocks[0].mlp, trained.primary.blocks[0].mlp
    assert not eqx.tree_equal(before, after)
    if tandem.config.shared_vocab:
        assert not np.array_equal(trained.primary.embedding.table, primary.embedding.table)
        assert eqx.tree_equal(trained.tied.secondary.embedding, trained.primary.embedding)
    measured = quality(trained, np.resize(TEXT, (4, 17)), trained.primary)
    expected = quality(trained.tied, np.resize(TEXT, (4, 17)), trained.primary)
    assert measured.cross_entropy == pytest.approx(expected.cross_entropy, rel=1e-5)


def test_the_variants_trainings_are_kept(pair, tmp_path):
    primary, tandem = pair
    models = {"joint": Joint(primary, tandem, PRIMARY), "at once": BlockPrediction(tandem)}
    plans = {name: (model, settings()) for name, model in models.items()}
    first, again = (
        train_together(plans, TEXT, primary=primary, folder=tmp_path, progress=False) for _ in range(2)
    )
    for name in models:
        assert eqx.tree_equal(first[name].model, again[name].model)


def test_block_prediction_sees_the_blocks_first_token_and_no_other(pair):
    primary, tandem = pair
    _, hidden = read(primary, TOKENS, return_hidden=True)
    logits = lambda tokens: forced(BlockPrediction(tandem), primary, tokens, hidden, 3)
    same = logits(TOKENS)
    for position in range(len(TOKENS)):
        changed = jnp.any(logits(TOKENS.at[position].set(0)) != same, axis=-1)
        expected = np.zeros(len(TOKENS), bool)
        if position % 3 == 0:  # only the secondary's own view: the primary's states are held fixed here
            expected[position : position + 3] = True
        np.testing.assert_array_equal(changed, expected)


def test_at_one_token_a_block_nothing_is_different(pair):
    primary, tandem = pair
    _, hidden = read(primary, TOKENS, return_hidden=True)
    predicted = BlockPrediction(tandem).teacher_forced(primary, TOKENS, hidden, 1)
    np.testing.assert_array_equal(predicted, tandem(TOKENS, hidden, 1))
    with pytest.raises(BadInput, match="block_len of at least 1"):
        BlockPrediction(tandem).teacher_forced(primary, TOKENS, hidden, 0)
