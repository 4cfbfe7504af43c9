"""The compiled step: what changes and what does not, what it draws, and what the program leaves out."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_runs import CE, CE_KL, PLAIN, READER, batch, bits, some

from tandem_edu.drafters import Tandem
from tandem_edu.model import Transformer, TransformerConfig
from tandem_edu.model.weights import named_arrays
from tandem_edu.train import LOSSES
from tandem_edu.train.step import (
    decayed,
    draw_block,
    init_state,
    learning_rate,
    optimizer,
    partition,
    train_step,
)


def advance(models, objectives, primary, tokens):
    """The states after one step, and the losses."""
    frozen = {name: partition(model)[1] for name, (model, _) in models.items()}
    states = {name: init_state(*one) for name, one in models.items()}
    recipes = {name: recipe for name, (_, recipe) in models.items()}
    return train_step((frozen, primary, tokens), states, recipes, objectives)


@pytest.fixture(scope="module")
def models(tiny_primary, tiny_secondary, tiny_tandem):
    """Each with its recipe; the last shares the primary's embedding."""
    cfg = TransformerConfig(13, 12, 2, 2, 1, 20, 64, shared_vocab=True, d_embed=16)
    shares = Transformer(cfg, key=jax.random.key(5), embedding=tiny_primary.embedding)
    reader = Tandem(shares, tiny_primary.config, own_history=True, key=jax.random.key(0))
    return {"plain": (tiny_secondary, PLAIN), "tandem": (tiny_tandem, READER), "shares": (reader, READER)}


@pytest.fixture(scope="module")
def one_step(models, tiny_primary):
    before = bits(tiny_primary), {name: bits(model) for name, (model, _) in models.items()}
    states, losses = advance(models, dict.fromkeys(models, CE_KL), tiny_primary, batch())
    # Neither the primary nor the models that were passed in have changed.
    assert (bits(tiny_primary), {name: bits(model) for name, (model, _) in models.items()}) == before
    return states, losses


def test_a_step_is_the_obvious_one(models, one_step, tiny_primary):
    """Loss and update of each model, computed a window at a time from the pieces."""
    states, losses = one_step
    block_len, offset = draw_block(READER, jnp.int32(0))
    of_kind = {name: models[name][0] for name in ("plain", "tandem")}

    def slow_loss(models):
        each = dict.fromkeys(models, jnp.float32(0))
        for window in batch():
            tokens, targets = window[:-1], window[1:]
            teacher, hidden = tiny_primary(tokens, return_hidden=True)
            for name, model in models.items():
                logits = model(tokens, hidden, block_len, offset) if name == "tandem" else model(tokens)
                each[name] += LOSSES["ce"](logits, targets, None).mean() / 2
                each[name] += 0.5 * LOSSES["kl"](logits, None, teacher).mean() / 2
        return sum(each.values()), each

    @eqx.filter_jit
    def slow_step(models):
        (_, each), gradients = jax.value_and_grad(slow_loss, has_aux=True)(models)
        moved = {}
        for name, gradient in gradients.items():
            adamw = optimizer(READER)  # in what it says of AdamW, PLAIN is the same
            with jax.numpy_dtype_promotion("standard"):
                updates, _ = adamw.update(gradient, adamw.init(models[name]), models[name])
            moved[name] = optax.apply_updates(models[name], updates)
        return each, gradients, moved

    each, gradients, moved = slow_step(of_kind)
    for name in of_kind:
        assert float(losses[name]) == pytest.approx(float(each[name]), rel=1e-5)
        trained, expected = named_arrays(states[name].trained), named_arrays(moved[name])
        assert trained.keys() == expected.keys()
        # Adam's first step is ± the rate whatever the gradient's size: compare where that is well above 0.
        sizes = {path: np.abs(np.asarray(leaf)) for path, leaf in named_arrays(gradients[name]).items()}
        for path, leaf in trained.items():
            sure = sizes[path] > 1e-5
            assert sure.any(), path
            np.testing.assert_allclose(np.asarray(leaf)[sure], np.asarray(expected[path])[sure], atol=3e-6)


def test_a_shared_embedding_does_not_change_a_bit(models, one_step, tiny_primary):
    model, state = models["shares"][0], one_step[0]["shares"]
    before, after = bits(model), bits(eqx.combine(state.trained, partition(model)[1]))
    shared = {path for path, value in before.items() if value in bits(tiny_primary).values()}
    assert shared and {path for path in after if after[path] == before[path]} == shared
    assert not shared & named_arrays(state.trained).keys()
    assert not any(path.endswith(tuple(shared)) for path in named_arrays(state.opt_state))


def test_weight_decay_is_for_linear_maps_only(tiny_tandem):
    marks = named_arrays(decayed(partition(tiny_tandem)[0]))
    left_out = {name for name, mark in marks.items() if not mark}
    assert left_out == {name for name in marks if "norm" in name or "embedding" in name}
    assert {"projections.0.weight", "secondary.blocks.1.mlp.w_down"} <= marks.keys() - left_out


def test_the_rate_rises_then_falls_along_a_cosine():
    recipe = some(steps=100, learning_rate=0.02, warmup_steps=10)
    with jax.numpy_dtype_promotion("standard"):
        rate = np.asarray(jax.jit(jax.vmap(learning_rate(recipe)))(jnp.arange(100)))
    np.testing.assert_allclose(rate[:10], 0.002 * np.arange(1, 11), rtol=1e-5)
    t = np.arange(1, 91) / 90
    cosine = 0.02 * (0.1 + 0.9 * (1 + np.cos(np.pi * t)) / 2)
    np.testing.assert_allclose(rate[10:], cosine, rtol=1e-5)
    assert rate.argmax() == 9 and rate[-1] == pytest.approx(0.002)
    rate = learning_rate(some(steps=100, warmup_steps=0, learning_rate=1.0))
    assert float(rate(0)) == pytest.approx(1.0, abs=1e-3) and float(rate(99)) == pytest.approx(0.1)


def test_a_long_gradient_is_clipped():
    """AdamW is blind to the scale of its gradients but for ε, so the first moment is compared."""
    adamw, trained = optimizer(some(clip_norm=0.5)), {"w": jnp.ones((2, 2))}
    with jax.numpy_dtype_promotion("standard"):
        _, opt_state = jax.jit(adamw.update)({"w": jnp.full((2, 2), 100.0)}, adamw.init(trained), trained)
    (mean,) = [leaf for name, leaf in named_arrays(opt_state).items() if "mu" in name]
    np.testing.assert_allclose(np.asarray(mean), 0.1 * 0.25, rtol=1e-5)


def draws(recipe, count):
    both = jax.jit(jax.vmap(lambda n: jnp.stack(draw_block(recipe, n))))(jnp.arange(count))
    return np.asarray(both).T


def test_draws_are_a_pure_function_of_seed_and_step():
    recipe = some(block_lens=(2, 4, 8))
    one, other = draws(recipe, 50), draws(some(block_lens=(2, 4, 8), steps=70), 50)
    np.testing.assert_array_equal(one, other)
    single = jax.jit(partial(draw_block, recipe))
    np.testing.assert_array_equal(one.T, [[int(x) for x in single(jnp.int32(n))] for n in range(50)])
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


def test_the_primarys_head_is_left_out_without_distillation():
    """In the compiled program, not only in the source: count the floating-point operations."""
    primary = Transformer(TransformerConfig(13, 16, 1, 2, 1, 8, 64), key=jax.random.key(0))
    tandem = Tandem(primary, primary.config, key=jax.random.key(1))
    frozen, states = {"": partition(tandem)[1]}, {"": init_state(tandem, READER)}

    def flops(objective):
        lowered = train_step.lower((frozen, primary, batch()), states, {"": READER}, {"": objective})
        return lowered.compile().compiled.cost_analysis()["flops"]

    head = 2 * 2 * 12 * 16 * 13  # multiply-add, batch, seq, d_primary, vocab
    assert flops(CE_KL) - flops(CE) > head


def test_the_states_memory_is_reused_and_the_models_is_not(tiny_secondary):
    states = {"some": init_state(tiny_secondary, PLAIN)}
    frozen = {"some": partition(tiny_secondary)[1]}
    train_step((frozen, None, batch()), states, {"some": PLAIN}, {"some": CE})
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(states["some"].trained))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(tiny_secondary))


@pytest.mark.parametrize("parts", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_batch_in_parts_is_the_same_batch(tiny_primary, tiny_tandem, parts):
    """Equal parts: the mean of the parts' means is the mean of the whole."""

    def trained(n):
        models = {"some": (tiny_tandem, dataclasses.replace(READER, batch_size=parts, micro_batches=n))}
        states, losses = advance(models, {"some": CE_KL}, tiny_primary, batch(3, rows=parts))
        return states["some"].trained, losses

    for one, other in zip(*map(jax.tree.leaves, (trained(1), trained(parts))), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
