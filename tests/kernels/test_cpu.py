"""The compiled kernels: exact up to rounding, the same bits for any number of rows, and optional."""

import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tandem_edu.kernels import available, cpu, matmul
from tandem_edu.kernels.cpu import MAX_ROWS, xla_matmul
from tandem_edu.model import Cache
from tandem_edu.model.layers import attend, softmax_attention

SHAPES = [(256, 512), (512, 256), (64, 192), (12, 13), (20, 7), (8, 8), (33, 65), (1, 1), (3, 100)]
needs_compiler = pytest.mark.skipif(not available(), reason="no C compiler here: XLA does it all")
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
    assert np.all(abs(np.asarray(matmul(x, weight, transposed)) - exact) <= bound)


@needs_compiler
@both_layouts
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_is_the_same_to_the_bit_however_many_rows_come_with_it(shape, transposed):
    x, weight = _operands(*shape, transposed)
    whole = np.asarray(matmul(x, weight, transposed))
    for rows in range(1, 14):
        np.testing.assert_array_equal(np.asarray(matmul(x[:rows], weight, transposed)), whole[:rows])


@needs_compiler
@both_layouts
def test_a_batch_of_rows_is_more_rows(transposed):
    x, weight = _operands(20, 24, transposed, rows=12)
    batch = jax.vmap(lambda part: matmul(part, weight, transposed))(x.reshape(4, 3, 20))
    np.testing.assert_array_equal(batch.reshape(12, 24), matmul(x, weight, transposed))


@both_layouts
def test_matrices_in_a_batch_are_left_to_xla(transposed):
    x, weight = _operands(20, 24, transposed, rows=3)
    many = jnp.stack([weight, 2 * weight])
    result = jax.vmap(lambda one: matmul(x, one, transposed))(many)
    np.testing.assert_allclose(result[1], 2 * result[0], rtol=1e-5)
    pairs = jax.vmap(lambda rows, one: matmul(rows, one, transposed))(jnp.stack([x, x]), many)
    np.testing.assert_allclose(pairs, result, rtol=1e-5)


@both_layouts
@pytest.mark.parametrize("order", ["grad of vmap", "vmap of grad"])
def test_gradients_are_those_of_the_plain_product(order, transposed):
    x, weight = _operands(20, 24, transposed, rows=12)
    parts = x.reshape(4, 3, 20)

    def gradients(product):
        loss = lambda part, weight: jnp.sum(jnp.sin(product(part, weight, transposed)))
        if order == "vmap of grad":
            return jax.vmap(jax.grad(loss, (0, 1)), (0, None))(parts, weight)
        total = lambda parts, weight: jnp.sum(jax.vmap(loss, (0, None))(parts, weight))
        return jax.grad(total, (0, 1))(parts, weight)

    for ours, expected in zip(gradients(matmul), gradients(xla_matmul), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


@needs_compiler
def test_it_is_used_for_few_rows_and_not_for_many():
    def program(rows):
        return jax.jit(matmul).lower(jnp.ones((rows, 16)), jnp.ones((16, 8))).as_text()

    assert "tandem_matmul" in program(MAX_ROWS)
    assert "tandem_matmul" not in program(MAX_ROWS + 1)


@pytest.mark.parametrize("trouble", ["switched off", "no compiler", "a compiler that fails", "no cache"])
def test_without_a_compiled_product_it_is_the_plain_one(trouble, monkeypatch, tmp_path):
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    if trouble == "switched off":
        monkeypatch.setenv("TANDEM_EDU_KERNELS", "0")
    if trouble == "no compiler":
        monkeypatch.setattr(cpu.shutil, "which", lambda name: None)
    if trouble == "a compiler that fails":
        monkeypatch.setenv("CC", "false")
    if trouble == "no cache":
        cache.write_text("a file where the folder should be")
    available.cache_clear()
    try:
        assert not available()
        x, weight = _operands(20, 24, False)
        np.testing.assert_array_equal(np.asarray(matmul(x, weight)), np.asarray(xla_matmul(x, weight)))
        assert not cache.is_dir() or not list(cache.rglob("*.so*"))
    finally:
        monkeypatch.undo()
        available.cache_clear()


def _attention_operands(heads, groups, q_len, head_dim, lengths):
    """Queries, and sources of so many keys; query i sees a different, ragged part of each."""
    keys = iter(jax.random.split(jax.random.key(q_len * 100 + head_dim), 3 * len(lengths) + 1))
    q = jax.random.normal(next(keys), (heads, q_len, head_dim))
    draw = lambda length: 3 * jax.random.normal(next(keys), (groups, length, head_dim))
    sources = [(draw(length), draw(length)) for length in lengths]
    masks = [jax.random.bernoulli(next(keys), 0.4, (q_len, length)) for length in lengths]
    return q, sources, [masks[0].at[:, 0].set(True), *masks[1:]]


SIZES = [
    (8, 2, 5, 32, [200]),
    (8, 2, 2, 32, [200, 9]),
    (4, 4, 1, 12, [65, 3]),
    (2, 1, 16, 40, [64]),
    (1, 1, 3, 5, [130, 64, 1]),
    (2, 2, 2, 128, [70]),
]


def _in_float64(q, sources, masks):
    """The attention, and a bound of what float32 may make of it.

    A score that is off by δ makes its weight off by the factor e^δ, hence a mean of values by at most
    2 δ max|v|; a sum of products in float32 is off by some units of the last place of Σ |q_d k_d|.
    """
    wide = lambda x: np.asarray(x, np.float64)
    q, seen = wide(q), np.concatenate([np.asarray(mask) for mask in masks], axis=-1)
    k, v = (np.concatenate([wide(source[i]) for source in sources], axis=-2) for i in (0, 1))
    k, v = (np.repeat(x, len(q) // len(x), axis=0) for x in (k, v))
    scale = q.shape[-1] ** -0.5
    scores = np.where(seen, scale * q @ np.swapaxes(k, -1, -2), -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    off = 4 * np.finfo(np.float32).eps * scale * (abs(q) @ np.swapaxes(abs(k), -1, -2)).max()
    return weights @ v / weights.sum(axis=-1, keepdims=True), 2 * off * abs(v).max()


@pytest.mark.parametrize("sizes", SIZES)
def test_attention_is_that_of_float64_up_to_rounding(sizes):
    operands = _attention_operands(*sizes)
    exact, bound = _in_float64(*operands)
    for ours in (attend, softmax_attention):
        assert np.max(abs(ours(*operands) - exact)) < bound < 1e-3


@needs_compiler
@pytest.mark.parametrize("sizes", SIZES)
def test_a_query_has_the_same_bits_whatever_comes_with_it_and_after_it(sizes):
    q, sources, masks = _attention_operands(*sizes)
    whole = np.asarray(attend(q, sources, masks))
    longer = lambda x: jnp.pad(x, ((0, 0), (0, 100), (0, 0)), constant_values=7.0)
    longer_sources = [(longer(k), longer(v)) for k, v in sources]
    longer_masks = [jnp.pad(mask, ((0, 0), (0, 100))) for mask in masks]
    np.testing.assert_array_equal(np.asarray(attend(q, longer_sources, longer_masks)), whole)
    for i in range(q.shape[1]):
        alone = attend(q[:, i : i + 1], sources, [mask[i : i + 1] for mask in masks])
        np.testing.assert_array_equal(np.asarray(alone), whole[:, i : i + 1])


def test_attention_in_batches_and_its_gradients():
    q, sources, masks = _attention_operands(4, 2, 3, 8, [20, 9])
    many = jnp.stack([q, 2 * q])
    batch = jax.vmap(lambda one: attend(one, sources, masks))(many)
    np.testing.assert_allclose(batch[1], attend(2 * q, sources, masks), rtol=2e-5, atol=2e-6)
    other = [(2 * k, v + 1) for k, v in sources]
    both = [(jnp.stack([a, c]), jnp.stack([b, d])) for (a, b), (c, d) in zip(sources, other, strict=True)]
    both_masks = [jnp.stack([mask, mask.at[:, 3:].set(False)]) for mask in masks]
    batch = jax.vmap(attend)(many, both, both_masks)
    for row, (one, one_source) in enumerate(((q, sources), (2 * q, other))):
        one_mask = [mask[row] for mask in both_masks]
        np.testing.assert_array_equal(np.asarray(batch[row]), np.asarray(attend(one, one_source, one_mask)))
    nested_attend = jax.vmap(jax.vmap(attend, (0, 0, None)), (0, None, None))
    nested = nested_attend(jnp.stack([many, 3 * many]), both, masks)
    np.testing.assert_allclose(nested[1, 1], attend(6 * q, other, masks), rtol=2e-5, atol=2e-6)
    loss = lambda function: jax.grad(lambda q, sources: jnp.sum(jnp.sin(function(q, sources, masks))), (0, 1))
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, loss(attend)(q, sources), loss(softmax_attention)(q, sources))


@needs_compiler
def test_attention_with_scores_far_apart_and_keys_that_are_garbage():
    q, sources, masks = _attention_operands(2, 1, 2, 8, [70])
    (k, v), mask = sources[0], masks[0].at[:, 30:].set(False)
    far = [(k.at[:, 0].multiply(100.0).at[:, 30:].set(1e30), v.at[:, 30:].set(1e30))]
    result = np.asarray(attend(q, far, [mask]))
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result, softmax_attention(q, far, [mask]), rtol=2e-5, atol=2e-6)


@needs_compiler
def test_a_text_read_in_one_call_has_the_bits_of_one_read_token_by_token(tiny_primary):
    """So verification sees exactly what decoding would have seen, near-ties included."""
    read = jax.jit(lambda tokens, cache: tiny_primary.extend(tokens, cache)[::2])
    text = jax.random.randint(jax.random.key(5), (40,), 0, 13)
    one, several, alone = Cache.empty(tiny_primary.config, 64), Cache.empty(tiny_primary.config, 64), []
    for token in text:
        logits, one = read(token[None], one)
        alone.append(logits)
    together = []
    for start in range(0, 40, 5):
        logits, several = read(text[start : start + 5], several)
        together.append(logits)
    np.testing.assert_array_equal(np.concatenate(together), np.concatenate(alone))


@needs_compiler
def test_the_threads_that_share_a_product_do_not_change_it():
    """A process that may use one core only computes the same bits."""
    script = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(sys.argv[1])])
import jax, numpy as np
from tandem_edu.kernels import matmul
x = jax.random.normal(jax.random.key(0), (5, 64))
for d_out in (127, 128, 129, 700):
    weight = jax.random.normal(jax.random.key(d_out), (64, d_out))
    for _ in range(20):
        y = matmul(x, weight)
    print(np.asarray(y).tobytes().hex())
"""
    # macOS has no such call; the same code shares the work there.
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no way here to take a core away")
    command = [sys.executable, "-c", script]
    run = lambda cores: subprocess.run([*command, cores], capture_output=True, check=True).stdout
    assert run("1") == run("4")


@needs_compiler
@pytest.mark.parametrize("content", [b"", b"no library"])
def test_a_damaged_file_in_the_cache_is_compiled_again(content, monkeypatch, tmp_path):
    path = tmp_path / "tandem_edu" / os.path.basename(cpu._load()._name)
    path.parent.mkdir()
    path.write_bytes(content)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cpu._load().tandem_matmul and len(path.read_bytes()) > 1000


@pytest.mark.slow
@needs_compiler
def test_another_processor_passes_the_same_tests(tmp_path):
    """One with narrower vectors, for which GCC would rather not multiply and add at once."""
    compiler, first = tmp_path / "cc", shutil.which("cc") or shutil.which("gcc")
    flags = "-mno-avx512f" if "avx512f" in " ".join(cpu._processor()) else ""
    compiler.write_text(f'#!/bin/sh\nexec {first} --param=avoid-fma-max-bits=512 "$@" {flags}\n')
    compiler.chmod(0o755)
    names = "attention_is_that_of_float64 or same_bits or to_the_bit"
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", names]
    setting = {"CC": str(compiler), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(tests, env=os.environ | setting, capture_output=True, text=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout
    assert list(tmp_path.rglob("kernels-*.so"))
