"""The compiled step: what moves and what does not, what it draws, and how often it is compiled."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tandem_edu.errors import BadInput
from tandem_edu.model import Joint, Tandem, Transformer, TransformerConfig
from tandem_edu.model.weights import named_arrays
from tandem_edu.train import Objective, Recipe, cross_entropy, kl_divergence, recipe, step
from tandem_edu.train.step import (
    decayed,
    draw_block,
    init_state,
    learning_rate,
    optimizer,
    predict,
    split,
    train_step,
)

DISTIL = Objective(ce=1.0, kl=0.5)


def some(**changes):
    usual = {"steps": 20, "learning_rate": 1e-2, "warmup_steps": 4, "batch_size": 3, "seq_len": 9}
    return Recipe(**{"name": "some", **usual, **changes})


def batch(seed=0, rows=3, width=10):
    return jax.random.randint(jax.random.key(seed), (rows, width), 0, 13)


def bits(tree):
    return {name: np.asarray(leaf).tobytes() for name, leaf in named_arrays(tree).items()}


def advance(model, recipe, primary=None, objective=None, steps=3):
    """The state after some steps, and the losses."""
    rest, state, losses = split(model)[1], init_state(model, recipe), []
    for n in range(steps):
        given = ((rest,), primary, batch(n))
        goal = objective or recipe.objective_at(n)
        (state,), (loss,) = train_step(given, (state,), (recipe,), (goal,))
        losses.append(float(loss))
    return state, losses


@pytest.fixture(scope="module")
def borrower(tiny_primary):
    cfg = TransformerConfig(13, 12, 2, 2, 1, 20, 64, shared_vocab=True, d_embed=16)
    return Transformer(cfg, key=jax.random.key(5), vocabulary=tiny_primary.vocabulary)


# The step against its slow version


@pytest.mark.parametrize("kind", ["plain", "distilled", "tandem"])
def test_a_step_is_the_obvious_one(kind, tiny_primary, tiny_secondary, tiny_config):
    """Loss and update computed a window at a time, from the pieces."""
    model, block_lens = tiny_secondary, ()
    if kind == "tandem":
        model, block_lens = Tandem(model, tiny_config, key=jax.random.key(3)), (2, 3)
    objective = Objective() if kind == "plain" else DISTIL
    recipe = some(block_lens=block_lens, objectives=((1.0, objective),))
    state, losses = advance(model, recipe, tiny_primary, steps=1)

    def slow_loss(model):
        total = jnp.float32(0)
        for window in batch(0):
            teacher, hidden = tiny_primary(window[:-1], return_hidden=True)
            block_len, offset = draw_block(recipe, jnp.int32(0)) if block_lens else (0, 0)
            tandem = isinstance(model, Tandem)
            logits = model(window[:-1], hidden, block_len, offset) if tandem else model(window[:-1])
            total += cross_entropy(logits, window[1:])
            total += objective.kl * kl_divergence(teacher, logits)
        return total / 3

    @eqx.filter_jit
    def slow_step(model):
        loss, gradient = jax.value_and_grad(slow_loss)(model)
        updates, _ = optimizer(recipe).update(gradient, optimizer(recipe).init(model), model)
        return loss, gradient, optax.apply_updates(model, updates)

    loss, gradient, moved = slow_step(model)
    assert losses[0] == pytest.approx(float(loss), rel=1e-5)
    expected = named_arrays(moved)
    # Adam's first step is ± the rate whatever the gradient's size: compare where that is well above 0.
    sizes = {name: np.abs(np.asarray(leaf)) for name, leaf in named_arrays(gradient).items()}
    for name, leaf in named_arrays(state.trained).items():
        sure = sizes[name] > 1e-5
        assert sure.any(), name
        np.testing.assert_allclose(np.asarray(leaf)[sure], np.asarray(expected[name])[sure], atol=3e-6)


def test_the_step_counts(tiny_secondary):
    state, _ = advance(tiny_secondary, some(), steps=3)
    assert int(state.step) == 3 and state.step.dtype == jnp.int32


# What moves and what does not


@pytest.mark.parametrize("tandem", [False, True])
def test_what_is_borrowed_or_the_primarys_does_not_move_a_bit(tandem, borrower, tiny_primary, tiny_config):
    model = Tandem(borrower, tiny_config, own_history=True, key=jax.random.key(0)) if tandem else borrower
    recipe = some(block_lens=(2,) if tandem else (), objectives=((1.0, DISTIL),))
    before = bits(tiny_primary), bits(model)
    state, _ = advance(model, recipe, tiny_primary)
    assert (bits(tiny_primary), bits(model)) == before
    trained = eqx.combine(state.trained, split(model)[1])
    same = {name for name, value in bits(trained).items() if value == before[1][name]}
    assert same == {name for name in before[1] if "vocabulary" in name}
    assert not any("vocabulary" in name for name in named_arrays(state.trained))
    assert not any("vocabulary" in name for name in named_arrays(state.opt_state))


def test_everything_of_its_own_moves(tiny_tandem, tiny_primary):
    before = bits(tiny_tandem)
    state, _ = advance(tiny_tandem, some(block_lens=(2,)), tiny_primary)
    after = bits(state.trained)
    assert after.keys() == before.keys()
    # With last, layer 1 of 3 is the lowest state read; all projections are used.
    assert not [name for name in after if after[name] == before[name]]


def test_the_first_step_already_moves(tiny_secondary):
    state, _ = advance(tiny_secondary, some(), steps=1)
    before, after = bits(tiny_secondary), bits(state.trained)
    assert not [name for name in after if after[name] == before[name]]


def test_weight_decay_is_for_linear_maps_only(tiny_tandem):
    marks = named_arrays(decayed(split(tiny_tandem)[0]))
    left_out = {name for name, mark in marks.items() if not mark}
    assert left_out == {name for name in marks if "norm" in name or name == "secondary.vocabulary.embedding"}
    assert {"projections.0.weight", "secondary.blocks.1.mlp.w_down"} <= marks.keys() - left_out


# Schedule and clipping


def test_the_rate_rises_then_falls_along_a_cosine():
    recipe = some(steps=100, learning_rate=0.02, warmup_steps=10)
    rate = np.array([float(learning_rate(recipe)(n)) for n in range(100)])
    np.testing.assert_allclose(rate[:10], 0.002 * np.arange(1, 11), rtol=1e-5)
    t = np.arange(1, 91) / 90
    cosine = 0.02 * (0.1 + 0.9 * (1 + np.cos(np.pi * t)) / 2)
    np.testing.assert_allclose(rate[10:], cosine, rtol=1e-5)
    assert rate.argmax() == 9 and rate[-1] == pytest.approx(0.002)


def test_without_warm_up_it_starts_near_the_top():
    rate = learning_rate(some(steps=100, warmup_steps=0, learning_rate=1.0))
    assert float(rate(0)) == pytest.approx(1.0, abs=1e-3) and float(rate(99)) == pytest.approx(0.1)


def test_a_long_gradient_is_clipped():
    """AdamW forgets the scale of its gradients but for ε, so look at its first moment."""
    recipe = some(clip_norm=0.5)
    trained = {"w": jnp.ones((2, 2))}
    gradient = {"w": jnp.full((2, 2), 100.0)}
    _, opt_state = optimizer(recipe).update(gradient, optimizer(recipe).init(trained), trained)
    (mean,) = [leaf for name, leaf in named_arrays(opt_state).items() if "mu" in name]
    np.testing.assert_allclose(np.asarray(mean), 0.1 * 0.25, rtol=1e-5)


# Draws of the block


def draws(recipe, count):
    both = jax.vmap(lambda n: jnp.stack(draw_block(recipe, n)))(jnp.arange(count))
    return np.asarray(both).T


def test_draws_are_a_pure_function_of_seed_and_step():
    recipe = some(block_lens=(2, 4, 8))
    one, other = draws(recipe, 50), draws(some(block_lens=(2, 4, 8), steps=70), 50)
    np.testing.assert_array_equal(one, other)
    single = [[int(x) for x in draw_block(recipe, jnp.int32(n))] for n in range(50)]
    np.testing.assert_array_equal(one.T, single)
    assert (draws(some(block_lens=(2, 4, 8), seed=1), 50) != one).any()


def test_draws_cover_the_set_and_offsets_are_uniform():
    block_len, offset = draws(some(block_lens=(1, 2, 5)), 6000)
    assert set(block_len) == {1, 2, 5} and (offset < block_len).all() and (offset >= 0).all()
    for gamma in (1, 2, 5):
        here = offset[block_len == gamma]
        assert len(here) == pytest.approx(2000, abs=180)  # five standard deviations
        counts = np.bincount(here, minlength=gamma)
        spread = 5 * np.sqrt(len(here) / gamma * (1 - 1 / gamma))
        np.testing.assert_allclose(counts, len(here) / gamma, atol=spread + 1e-9)


def test_no_random_offsets():
    block_len, offset = draws(some(block_lens=(3, 4), random_offsets=False), 200)
    assert set(block_len) == {3, 4} and not offset.any()


# Compilation and memory


def test_one_compilation_serves_all_block_lengths_and_one_more_each_phase(
    tiny_tandem, tiny_primary, monkeypatch
):
    traced = []
    monkeypatch.setattr(step, "predict", lambda *args: traced.append(1) or predict(*args))
    recipe = some(block_lens=(1, 2, 3, 7), objectives=((0.5, Objective()), (1.0, DISTIL)), steps=21)
    lens = {int(draw_block(recipe, jnp.int32(n))[0]) for n in range(21)}
    assert len(lens) == 4
    advance(tiny_tandem, recipe, tiny_primary, steps=21)
    assert len(traced) == 2
    advance(tiny_tandem, recipe, tiny_primary, steps=21)  # a second run compiles nothing
    assert len(traced) == 2


def test_the_primarys_head_is_left_out_without_distillation(tiny_tandem, tiny_primary):
    """In the compiled program, not only in the source: count the floating-point operations."""
    recipe = some(block_lens=(2,))
    given = ((split(tiny_tandem)[1],), tiny_primary, batch())
    states = (init_state(tiny_tandem, recipe),)

    def flops(objective):
        compiled = train_step.lower(given, states, (recipe,), (objective,)).compile().compiled
        return compiled.cost_analysis()["flops"]

    head = 2 * 3 * 9 * 16 * 13  # multiply-add, batch, seq, d_primary, vocab
    assert flops(DISTIL) - flops(Objective()) > head


def test_the_state_is_given_away_and_the_model_is_not(tiny_secondary):
    recipe = some()
    state = init_state(tiny_secondary, recipe)
    train_step(((split(tiny_secondary)[1],), None, batch()), (state,), (recipe,), (Objective(),))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.trained))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(tiny_secondary))


def test_each_says_what_it_needs(tiny_tandem, tiny_primary):
    block = (jnp.int32(2), jnp.int32(0))
    with pytest.raises(BadInput, match="block for the Tandem"):
        predict(tiny_tandem, None, batch(), None, None)
    with pytest.raises(BadInput, match="primary and hidden for the Tandem"):
        predict(tiny_tandem, None, batch(), None, block)
    with pytest.raises(BadInput, match="block for the Joint"):
        predict(Joint(tiny_primary, tiny_tandem), None, batch(), None, None)


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_a_batch_in_parts_is_the_same_batch(tiny_primary, tiny_tandem, micro_batches):
    """Equal parts: the mean of the parts' means is the mean of the whole."""
    whole, parts = (
        recipe("tandem-distil", steps=4, batch_size=4, seq_len=16, micro_batches=n)
        for n in (1, micro_batches)
    )
    rows = jax.random.randint(jax.random.key(3), (4, 17), 0, tiny_primary.config.vocab_size)
    ends = []
    for one in (whole, parts):
        given = ((split(tiny_tandem)[1],), tiny_primary, rows)
        (state,), loss = train_step(given, (init_state(tiny_tandem, one),), (one,), (DISTIL,))
        ends.append((loss, state.trained))
    for mine, theirs in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_rematerialisation_changes_no_update(tiny_primary, tiny_tandem):
    kept, again = (
        recipe("tandem-distil", steps=4, batch_size=2, seq_len=16, remat=remat) for remat in (False, True)
    )
    rows = jax.random.randint(jax.random.key(3), (2, 17), 0, tiny_primary.config.vocab_size)
    ends = []
    for one in (kept, again):
        given = ((split(tiny_tandem)[1],), tiny_primary, rows)
        (state,), loss = train_step(given, (init_state(tiny_tandem, one),), (one,), (DISTIL,))
        ends.append((loss, state.trained))
    for mine, theirs in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_rematerialisation_needs_less_memory():
    model = Transformer(TransformerConfig(13, 32, 6, 2, 1, 64, 128), key=jax.random.key(0))

    def temporary(remat):
        one = some(batch_size=4, seq_len=128, micro_batches=1, remat=remat)
        given = ((split(model)[1],), None, batch(rows=4, width=129))
        lowered = train_step.lower(given, (init_state(model, one),), (one,), (Objective(),))
        compiled = lowered.compile().compiled
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(True) < 0.6 * temporary(False)
