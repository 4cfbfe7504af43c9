"""The compiled product of a few rows: right, the same for any number of rows, and never in the way."""

import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tandem_edu.model import narrow as room
from tandem_edu.model.narrow import MAX_ROWS, available, narrow, plain

SHAPES = [(256, 512), (512, 256), (12, 13), (20, 7), (8, 8), (33, 65), (1, 1), (3, 100)]
needs_compiler = pytest.mark.skipif(not available(), reason="no C compiler here: narrow is plain then")
both_layouts = pytest.mark.parametrize("transposed", [False, True])


def _operands(d_in, d_out, transposed, rows=MAX_ROWS):
    x_key, w_key = jax.random.split(jax.random.key(d_in * 1000 + d_out))
    weight = jax.random.normal(w_key, (d_out, d_in) if transposed else (d_in, d_out))
    return jax.random.normal(x_key, (rows, d_in)), weight


@both_layouts
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_product_in_float64_up_to_float32_rounding(shape, transposed):
    x, weight = _operands(*shape, transposed)
    wide_x, wide = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    exact = wide_x @ (wide.T if transposed else wide)
    # Each of d_in products and sums is off by half a unit in the last place of the sum of absolutes.
    bound = shape[0] * np.finfo(np.float32).eps * (abs(wide_x) @ abs(wide.T if transposed else wide))
    assert np.all(abs(np.asarray(narrow(x, weight, transposed)) - exact) <= bound)


@needs_compiler
@both_layouts
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_is_the_same_to_the_bit_however_many_rows_come_with_it(shape, transposed):
    x, weight = _operands(*shape, transposed)
    whole = np.asarray(narrow(x, weight, transposed))
    for rows in range(1, MAX_ROWS):
        np.testing.assert_array_equal(np.asarray(narrow(x[:rows], weight, transposed)), whole[:rows])


@needs_compiler
@both_layouts
def test_a_batch_of_rows_is_more_rows(transposed):
    x, weight = _operands(20, 24, transposed, rows=12)
    batch = jax.vmap(lambda part: narrow(part, weight, transposed))(x.reshape(4, 3, 20))
    np.testing.assert_array_equal(
        np.asarray(batch.reshape(12, 24)), np.asarray(narrow(x, weight, transposed))
    )


@both_layouts
def test_matrices_in_a_batch_are_left_to_xla(transposed):
    x, weight = _operands(20, 24, transposed, rows=3)
    many = jnp.stack([weight, 2 * weight])
    found = jax.vmap(lambda one: narrow(x, one, transposed))(many)
    np.testing.assert_allclose(found[1], 2 * found[0], rtol=1e-5)
    pairs = jax.vmap(lambda rows, one: narrow(rows, one, transposed))(jnp.stack([x, x]), many)
    np.testing.assert_allclose(pairs, found, rtol=1e-5)


@both_layouts
@pytest.mark.parametrize("order", ["grad of vmap", "vmap of grad"])
def test_gradients_are_those_of_the_plain_product(order, transposed):
    x, weight = _operands(20, 24, transposed, rows=12)
    parts = x.reshape(4, 3, 20)

    def gradients(product):
        loss = lambda part, weight: jnp.sum(jnp.sin(product(part, weight, transposed)))
        if order == "vmap of grad":
            return jax.vmap(jax.grad(loss, (0, 1)), (0, None))(parts, weight)
        return jax.grad(lambda parts, weight: jnp.sum(jax.vmap(loss, (0, None))(parts, weight)), (0, 1))(
            parts, weight
        )

    for ours, theirs in zip(gradients(narrow), gradients(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@needs_compiler
def test_it_is_used_for_few_rows_and_not_for_many():
    def program(rows):
        return jax.jit(narrow).lower(jnp.ones((rows, 16)), jnp.ones((16, 8))).as_text()

    assert "tandem_edu_narrow" in program(MAX_ROWS)
    assert "tandem_edu_narrow" not in program(MAX_ROWS + 1)


@pytest.mark.parametrize("trouble", ["switched off", "no compiler", "a compiler that fails", "no room"])
def test_without_a_compiled_product_it_is_the_plain_one(trouble, monkeypatch, tmp_path):
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    if trouble == "switched off":
        monkeypatch.setenv("TANDEM_EDU_NARROW", "0")
    if trouble == "no compiler":
        monkeypatch.setattr(room.shutil, "which", lambda name: None)
    if trouble == "a compiler that fails":

        def fails(*arguments, **settings):
            raise subprocess.CalledProcessError(1, "cc")

        monkeypatch.setattr(room.subprocess, "run", fails)
    if trouble == "no room":
        cache.write_text("a file where the folder should be")
    available.cache_clear()
    try:
        assert not available()
        x, weight = _operands(20, 24, False)
        np.testing.assert_array_equal(np.asarray(narrow(x, weight)), np.asarray(plain(x, weight)))
        assert not cache.is_dir() or not list(cache.rglob("*.so*"))
    finally:
        monkeypatch.undo()
        available.cache_clear()
