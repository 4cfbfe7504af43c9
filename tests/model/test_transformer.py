"""The transformer against its oracle, cached against uncached, and who sees whom."""

import dataclasses
import inspect
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from refusal import refuses

from tandem_edu.model import Cache, Embedding, Transformer, TransformerConfig
from tandem_edu.model.layers import attend, softmax_attention
from tandem_edu.model.masks import positions, visible

BASE = TransformerConfig(vocab_size=13, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=24, max_len=64)
VARIANTS = {
    "grouped": {},
    "one key head": {"n_kv_heads": 1},
    "all key heads": {"n_kv_heads": 4},
    "one head, one layer": {"n_heads": 1, "n_kv_heads": 1, "n_layers": 1},
    "untied": {"tie_embeddings": False},
    "other theta and eps": {"rope_theta": 500.0, "norm_eps": 0.1},
    "shared": {"shared_vocab": True},
    "shared, narrower": {"shared_vocab": True, "d_embed": 10},
    "shared, wider, untied": {"shared_vocab": True, "d_embed": 20, "tie_embeddings": False},
}
call = eqx.filter_jit(Transformer.__call__)
extend = eqx.filter_jit(Transformer.extend)
prefill = eqx.filter_jit(Transformer.prefill)


def some_tokens(key, *shape):
    return jax.random.randint(key, shape, 0, BASE.vocab_size)


@pytest.fixture(scope="module")
def model():
    return oracle.lively(Transformer(BASE, key=jax.random.key(1)), 2)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_equals_the_oracle(variant, getkey):
    config = dataclasses.replace(BASE, **VARIANTS[variant])
    embedding = Embedding(config, key=getkey()) if config.shared_vocab else None
    model = oracle.lively(Transformer(config, key=getkey(), embedding=embedding), 3)
    tokens = some_tokens(getkey(), 11)
    logits, hidden = call(model, tokens, return_hidden=True)
    slow_logits, slow_hidden = oracle.transformer(model, tokens)
    np.testing.assert_allclose(logits, slow_logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(hidden, slow_hidden, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(call(model, tokens), logits, rtol=1e-5, atol=1e-5)


def test_prefill_does_not_see_the_padding(model, getkey):
    tokens = some_tokens(getkey(), 12)
    logits, hidden = call(model, tokens, return_hidden=True)
    for length in (0, 1, 6):
        padded = jnp.concatenate([tokens[:length], some_tokens(getkey(), 9 - length)])
        states, cache = prefill(model, padded, jnp.int32(length), 24)
        assert int(cache.length) == length
        np.testing.assert_allclose(states[:, :length], hidden[:, :length], rtol=1e-5, atol=1e-5)
        rest = slice(length, length + 6)
        more, states, cache = extend(model, tokens[rest], cache)
        assert int(cache.length) == length + 6
        np.testing.assert_allclose(more, logits[rest], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(states, hidden[:, rest], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "q_len", [1, 3, 8, *[pytest.param(q_len, marks=pytest.mark.slow) for q_len in (2, 4, 5, 6, 7)]]
)
def test_extending_equals_reading_at_once(model, getkey, q_len):
    tokens = some_tokens(getkey(), 21)
    _, cache = prefill(model, tokens[:8], 5, 32)
    for start in (5, 5 + q_len):
        logits, _, cache = extend(model, tokens[start : start + q_len], cache)
        expected = call(model, tokens)[start : start + q_len]
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("accepted", range(6))
def test_a_rollback_forgets(model, getkey, accepted):
    """A block is read, of which only the first `accepted` tokens are accepted; then the text goes on."""
    tokens = some_tokens(getkey(), 14)
    wrong = (tokens[4 + accepted : 9] + 1) % BASE.vocab_size
    _, cache = prefill(model, tokens[:4], 4, 24)
    *_, cache = extend(model, jnp.concatenate([tokens[4 : 4 + accepted], wrong]), cache)
    assert int(cache.length) == 9
    cache = cache.with_length(4 + accepted)
    logits, _, cache = extend(model, tokens[4 + accepted :], cache)
    assert int(cache.length) == 14
    np.testing.assert_allclose(logits, call(model, tokens)[4 + accepted :], rtol=1e-5, atol=1e-5)


def test_a_cache_is_a_value(model, getkey):
    tokens = some_tokens(getkey(), 6)
    _, cache = prefill(model, tokens, 6, 12)
    before = jax.tree.map(np.array, cache)
    extend(model, tokens, cache)
    cache.with_length(2)
    assert eqx.tree_equal(jax.tree.map(np.array, cache), before)
    assert isinstance(cache, Cache)
    assert cache.capacity == 12


def test_a_batch_is_a_vmap(model, getkey):
    tokens = some_tokens(getkey(), 3, 9)
    logits, hidden = call(model, tokens, return_hidden=True)
    each_logits, each_hidden = jax.jit(jax.vmap(lambda row: model(row, return_hidden=True)))(tokens)
    assert hidden.shape == (3, BASE.n_layers + 1, 9, BASE.d_model)
    np.testing.assert_allclose(logits, each_logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(hidden, each_hidden, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changed", [0, 1, 5, 9])
def test_no_token_sees_a_later_one(model, getkey, changed):
    tokens = some_tokens(getkey(), 10)
    other = tokens.at[changed].set((tokens[changed] + 1) % BASE.vocab_size)
    logits, others = call(model, tokens), call(model, other)
    np.testing.assert_array_equal(logits[:changed], others[:changed])
    assert np.all(np.any(np.asarray(logits[changed:] != others[changed:]), axis=-1))


@pytest.mark.parametrize(
    "seq", [1, 65, *[pytest.param(seq, marks=pytest.mark.slow) for seq in (63, 64, 130)]]
)
def test_chunks_change_nothing(getkey, seq):
    q = jax.random.normal(getkey(), (4, seq, 6))
    k, v = jax.random.normal(getkey(), (2, 2, seq, 6))
    position = positions(seq)
    mask = visible(position, last=position)
    chunked = jax.jit(lambda q, k, v: attend(q, [(k, v)], [mask]))
    whole = jax.jit(lambda q, k, v: softmax_attention(q, [(k, v)], [mask]))
    np.testing.assert_allclose(chunked(q, k, v), whole(q, k, v), rtol=1e-5, atol=1e-5)

    grads = [jax.jit(jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), (0, 1, 2))) for f in (chunked, whole)]
    for ours, expected in zip(grads[0](q, k, v), grads[1](q, k, v), strict=True):
        assert np.all(np.isfinite(ours))
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *[
            ({name: bad}, f"expected {name} of at least 1, got {bad!r}: fix the config")
            for name in ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff", "max_len")
            for bad in (0, -1, True, 2.0)
        ],
        ({"d_model": 18}, r"divisible by 2 · n_heads .*, got d_model=18 and n_heads=4: take d_model=24"),
        ({"d_model": 12}, r"divisible by 2 · n_heads .*, got d_model=12 and n_heads=4: take d_model=16"),
        ({"n_kv_heads": 3}, "by n_kv_heads, got n_heads=4 and n_kv_heads=3: take n_kv_heads=4"),
        ({"d_embed": 8}, "d_embed only together with shared_vocab=True, got d_embed=8"),
        ({"d_embed": 0, "shared_vocab": True}, "d_embed of at least 1, got 0"),
        *[({"rope_theta": bad}, f"rope_theta above 0, got {bad!r}") for bad in (0.0, float("inf"), "big")],
        ({"norm_eps": -1e-5}, "norm_eps above 0, got -1e-05: leave it out"),
        ({"tie_embeddings": 1}, "tie_embeddings to be True or False, got 1"),
        ({"shared_vocab": None}, "shared_vocab to be True or False, got None"),
    ],
)
def test_a_config_that_cannot_be(fields, message):
    refuses(message, unchecked, BASE.to_dict() | fields)


def unchecked(fields) -> TransformerConfig:
    """Without the run-time type check, which would speak first."""
    config = object.__new__(TransformerConfig)
    inspect.unwrap(TransformerConfig.__init__)(config, **fields)
    return config


def test_a_config_of_numpys_numbers_is_the_same():
    sizes = {name: np.int64(size) if type(size) is int else size for name, size in BASE.to_dict().items()}
    config = unchecked({**sizes, "rope_theta": 10_000})
    assert json.dumps(config.to_dict()) == json.dumps(BASE.to_dict())


@pytest.mark.parametrize(
    ("tokens", "got"), [([1, 2], "list"), (3, "int"), (np.ones(2, np.float32), "float32")]
)
def test_tokens_are_an_array_of_integers(model, tokens, got):
    read = inspect.unwrap(Transformer.__call__)
    refuses(rf"an array of integers, got {got}: pass jnp\.array", read, model, tokens)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({**BASE.to_dict(), "dropout": 0.1}, "the fields of a TransformerConfig, got .*'dropout': .*version"),
        ([1, 2], "got .* must be a mapping, not list"),
        ({"vocab_size": 4}, "the fields of a TransformerConfig, got .*'d_model'"),
    ],
)
def test_a_config_that_cannot_be_loaded(written, message):
    # Without the run-time type check: it is the user's file that may hold anything.
    refuses(message, inspect.unwrap(TransformerConfig.from_dict), TransformerConfig, written)


def test_an_embedding_that_does_not_fit(model):
    """Shared or not, else a model would train a copy, or be stored without the embedding that it learned."""
    build = lambda config, embedding: Transformer(config, key=jax.random.key(0), embedding=embedding)
    smaller, shared = (dataclasses.replace(BASE, **more) for more in ({"d_model": 8}, {"shared_vocab": True}))
    for config, embedding, message in [
        (smaller, model.embedding, r"an embedding of 13 tokens x 8, got .* and 13 x 16: .*d_embed=16"),
        (shared, None, "an embedding to share, got None: pass embedding"),
        (BASE, model.embedding, "shared_vocab=True and an embedding of .*, got shared_vocab=False"),
    ]:
        refuses(message, build, config, embedding)


def test_in_64_bit_mode_a_model_stays_in_32_bits(model):
    """A user may have switched that mode on for other work; integers there have 64 bits."""
    tokens = np.array([3, 1, 4, 1, 5, 9, 2])
    logits = call(model, jnp.asarray(tokens))
    jax.config.update("jax_enable_x64", True)
    try:
        built = oracle.lively(Transformer(BASE, key=jax.random.key(1)), 2)
        for ids in (jnp.asarray(tokens, jnp.int32), jnp.asarray(tokens, jnp.int64)):
            full, hidden = call(built, ids, return_hidden=True)
            states, cache = prefill(built, ids[:5], 4, 16)
            cached, _, longer = extend(built, ids[4:], cache)
            np.testing.assert_allclose(full, logits, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(cached, logits[4:], rtol=1e-5, atol=1e-5)
            floats = jax.tree.leaves((built, full, hidden, states, cached, longer.k, longer.v))
            assert {x.dtype for x in floats} == {np.dtype("float32")}
            assert longer.length.dtype == longer.with_length(6).length.dtype == np.int32
    finally:
        jax.config.update("jax_enable_x64", False)
