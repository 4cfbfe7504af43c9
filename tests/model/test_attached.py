"""The other drafters that read a primary: slow oracles, cached against teacher-forced, who sees whom."""

import dataclasses
import inspect
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from tandem_edu.errors import BadInput
from tandem_edu.measure import quality
from tandem_edu.model import Eagle, EarlyExit, Glide, PrimaryReader, Transformer, TransformerConfig
from tandem_edu.model.cross_attending import resolve_cache_map
from tandem_edu.model.masks import block_starts
from tandem_edu.model.weights import describe, load_model, named_arrays, read_arrays, save_model
from tandem_edu.train import Objective, Recipe, evaluate, train

SEQ, CAPACITY, VOCAB = 13, 40, 13
TEXT = np.tile(np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 12, 0], np.uint16), 60)
close = {"rtol": 1e-5, "atol": 1e-5}
KINDS = ["eagle-1", "eagle-2", "eagle-lent", "cross-1", "cross-2", "cross-lent", "exit-1", "exit-2"]


class Pair(NamedTuple):
    primary: Transformer
    model: PrimaryReader


def config(d_model, n_layers, n_heads, n_kv_heads=2, **more):
    return TransformerConfig(VOCAB, d_model, n_layers, n_heads, n_kv_heads, 20, 64, **more)


@pytest.fixture(scope="module")
def pair(tiny_primary):
    """Primary and model by kind, each built once; every weight of both matters."""
    key, built = jax.random.key(7), {}
    primary = oracle.lively(tiny_primary, 20)
    # One whose head is not its embedding, and of another width than its layers.
    owner = Transformer(config(10, 1, 1, 1, tie_embeddings=False), key=key)
    wide = Transformer(config(16, 3, 4, shared_vocab=True, d_embed=10), key=key, vocabulary=owner.vocabulary)
    wide = oracle.lively(wide, 21)

    def secondary(*sizes, lender=None):
        more = {"shared_vocab": True, "d_embed": lender.config.embed_dim} if lender else {}
        return Transformer(config(*sizes, **more), key=key, vocabulary=lender and lender.vocabulary)

    def make(kind):
        if kind == "eagle-1":
            return primary, Eagle(secondary(12, 1, 2, 1), primary.config, key=key)
        if kind == "eagle-2":
            return primary, Eagle(secondary(16, 2, 2, 1), primary.config, "fused", key=key)
        if kind == "eagle-lent":
            return wide, Eagle(secondary(12, 1, 2, 1, lender=wide), wide.config, [0, 2], 3, key=key)
        if kind == "cross-1":
            return primary, Glide(secondary(8, 1, 2), primary.config)
        if kind == "cross-2":
            return primary, Glide(secondary(16, 2, 4), primary.config, "uniform")
        if kind == "cross-lent":
            return wide, Glide(secondary(8, 2, 2, lender=wide), wide.config, [3, 1])
        lender = primary if kind == "exit-1" else wide
        return lender, EarlyExit(lender.config, int(kind[-1]))

    def of(kind):
        if kind not in built:
            lender, model = make(kind)
            lively = oracle.lively(model, 22)
            if kind.endswith("-lent"):
                place = lambda m: m.secondary.vocabulary
                lively = eqx.tree_at(place, lively, lender.vocabulary)
            built[kind] = Pair(lender, lively)
        return built[kind]

    return of


def some_tokens(seed, *shape):
    return jax.random.randint(jax.random.key(seed), shape, 0, VOCAB)


read = eqx.filter_jit(Transformer.__call__)
primary_extend = eqx.filter_jit(Transformer.extend)
primary_prefill = eqx.filter_jit(Transformer.prefill)


@eqx.filter_jit
def forced_jit(model, primary, tokens, hidden, block_len, offset):
    return model.teacher_forced(primary, tokens, hidden, block_len, offset)


def forced(pair, tokens, hidden, block_len, offset=0):
    """Teacher-forced logits, compiled once a model."""
    return forced_jit(pair.model, pair.primary, tokens, hidden, jnp.int32(block_len), jnp.int32(offset))


class Decoder:
    """The cached methods of every kind, behind one face."""

    def __init__(self, pair, padded, length):
        self.primary, self.model = pair
        hidden, self.cache = primary_prefill(self.primary, padded, jnp.int32(length), CAPACITY)
        if isinstance(self.model, Eagle):
            prefill = eqx.filter_jit(Eagle.prefill)
            self.state = prefill(self.model, padded, hidden, jnp.int32(length), CAPACITY)
        else:
            self.state = self.model.init_block(5)

    def step(self, token):
        method = eqx.filter_jit(type(self.model).step)
        caches = () if isinstance(self.model, Eagle) else (self.cache,)
        owner = (self.primary,) if isinstance(self.model, EarlyExit) else ()
        logits, top, self.state = method(self.model, *owner, token, self.state, *caches)
        assert logits.shape == (VOCAB,) and top.shape == (self.model.config.d_model,)
        return logits

    def commit(self, block, right):
        """The primary reads a block, of which the first `right` tokens count."""
        start = self.cache.length
        _, hidden, cache = primary_extend(self.primary, block, self.cache, return_hidden=True)
        self.cache = cache.with_length(start + right)
        if isinstance(self.model, Eagle):
            commit = eqx.filter_jit(Eagle.commit)
            self.state = commit(self.model, block, hidden, self.state, start, start + right)
        else:
            self.state = self.state.with_length(0)


def decode(pair, tokens, prompt_len, block_len, unread=0):
    """Logits of `tokens[prompt_len:]` the way a decoder comes by them, junk after everything read.

    The last `unread` tokens of each block are committed without the drafter having read them.
    """
    padded = jnp.concatenate([tokens[:prompt_len], some_tokens(1, 8 - prompt_len)])
    decoder, logits, at = Decoder(pair, padded, prompt_len), [], prompt_len
    while at < len(tokens):
        right = min(block_len, len(tokens) - at)
        block = jnp.concatenate([tokens[at : at + right], some_tokens(at, 4 - right)])
        steps = [decoder.step(token) for token in block[: max(right - unread, 1)]]
        if not unread:
            decoder.step(block[right])  # a draft that is rejected
        logits += steps + [None] * (right - len(steps))
        decoder.commit(block, right)
        at += right
    return logits


@pytest.mark.parametrize("kind", KINDS)
def test_cached_equals_teacher_forced(pair, kind):
    tokens = some_tokens(30, SEQ)
    _, hidden = read(pair(kind).primary, tokens, return_hidden=True)
    for block_len, prompt_len in ((1, 0), (1, 5), (2, 1), (2, 8), (3, 0), (3, 7)):
        expected = forced(pair(kind), tokens, hidden, block_len, prompt_len)[prompt_len:]
        logits = decode(pair(kind), tokens, prompt_len, block_len)
        np.testing.assert_allclose(np.stack(logits), expected, **close)


@pytest.mark.parametrize("kind", ["eagle-2", "cross-2"])
def test_a_commit_needs_no_step_before_it(pair, kind):
    """All drafts kept: the primary has read the last one, the drafter has not."""
    tokens = some_tokens(31, SEQ)
    _, hidden = read(pair(kind).primary, tokens, return_hidden=True)
    expected = forced(pair(kind), tokens, hidden, 3, 4)[4:]
    for mine, theirs in zip(decode(pair(kind), tokens, 4, 3, unread=1), expected, strict=True):
        if mine is not None:
            np.testing.assert_allclose(mine, theirs, **close)


def spoilt_commit(self, tokens, hidden, state, start, length):
    """Keeps the keys made from the drafter's own features."""
    last = self.projection(hidden)[length - start - 1]
    return type(state)(state.cache.with_length(length), last, last)


def spoilt_known(self, tokens, hidden, state, start, length):
    """Forgets the feature before the block."""
    blank = eqx.tree_at(lambda s: s.known, state, jnp.zeros_like(state.known))
    return real_commit(self, tokens, hidden, blank, start, length)


def spoilt_step(self, token, state):
    """Feeds the primary's last feature again and again."""
    logits, top, after = real_step(self, token, state)
    return logits, top, eqx.tree_at(lambda s: s.feature, after, state.known)


real_commit, real_step = Eagle.commit, Eagle.step
SPOILT = [("commit", spoilt_commit), ("commit", spoilt_known), ("step", spoilt_step)]


@pytest.mark.parametrize(("name", "spoilt"), SPOILT, ids=lambda part: getattr(part, "__name__", part))
def test_the_equality_can_fail_for_eagle(pair, name, spoilt, monkeypatch):
    tokens = some_tokens(30, SEQ)
    _, hidden = read(pair("eagle-2").primary, tokens, return_hidden=True)
    expected = forced(pair("eagle-2"), tokens, hidden, 2, 3)[3:]
    monkeypatch.setattr(Eagle, name, spoilt)
    logits = np.stack(decode(pair("eagle-2"), tokens, 3, 2))
    assert np.abs(logits - expected).max() > 1e-2


@pytest.mark.parametrize("kind", ["cross-2", "exit-2"])
def test_the_equality_can_fail_where_the_cache_is_the_primarys(pair, kind):
    """Another layer's cache, or an exit one layer off."""
    primary, model = pair(kind)
    if kind == "cross-2":
        other = Glide(model.secondary, primary.config, [1, 2])
    else:
        parts = lambda m: (m.exit_map, m.norm)
        other = eqx.tree_at(parts, EarlyExit(primary.config, 1), parts(model))
    tokens = some_tokens(30, SEQ)
    _, hidden = read(primary, tokens, return_hidden=True)
    logits = np.stack(decode(Pair(primary, other), tokens, 3, 2))
    assert np.abs(logits - forced(pair(kind), tokens, hidden, 2, 3)[3:]).max() > 1e-2


# Against the slow ones


def unit(x, eps):
    return oracle.rms_norm(x, 1.0, eps)


def slow_eagle(model, primary, tokens, hidden, starts):
    """One token after the other, with the features its block allows."""
    cfg, second = model.config, model.secondary
    states = [[unit(x, cfg.norm_eps) for x in oracle.f64(hidden)[s]] for s in model.projection.states]
    weight = oracle.f64(model.projection.weight)
    known = [np.concatenate(parts) @ weight for parts in zip(*states, strict=True)]

    def entered(i, feature):
        pair = np.concatenate([oracle.embedded(second, tokens[i]), unit(feature, cfg.norm_eps)])
        return pair @ oracle.f64(model.fc)

    def climb(i, x, seen):
        """Token i's way up: its top state, and its keys and values layer by layer."""
        mine = []
        for j, block in enumerate(second.blocks):
            mine.append(oracle.key_and_value(x, i, block, cfg))
            x = oracle.layer(x, i, [past[j] for past in seen] + [mine[j]], block, cfg)
        return x, mine

    nothing, past, logits = np.zeros(cfg.d_model), [], []
    for i in range(len(tokens)):
        past.append(climb(i, entered(i, known[i - 1] if i else nothing), past)[1])
    for i in range(len(tokens)):
        own, top = [], known[starts[i] - 1] if starts[i] else nothing
        for t in range(starts[i], i + 1):
            top, mine = climb(t, entered(t, top), past[: starts[i]] + own)
            own.append(mine)
        logits.append(oracle.scored(second, top))
    return np.stack(logits)


def slow_cross(model, primary, tokens, hidden, starts):
    own, logits = [[] for _ in model.layers], []
    for i, token in enumerate(tokens):
        x = oracle.embedded(model.secondary, token)
        for j, block in enumerate(model.secondary.blocks):
            ell = model.layers[j] - 1
            states = oracle.f64(hidden)[ell]
            theirs = [
                oracle.key_and_value(states[t], t, primary.blocks[ell], primary.config)
                for t in range(starts[i])
            ]
            own[j].append(oracle.key_and_value(x, i, block, model.config))
            x = oracle.layer(x, i, theirs + own[j][starts[i] :], block, model.config)
        logits.append(oracle.scored(model.secondary, x))
    return np.stack(logits)


def slow_exit(model, primary, tokens, hidden, starts):
    """The exit stands where the primary's final norm would be."""
    shallow = eqx.tree_at(
        lambda p: (p.blocks, p.final_norm), primary, (primary.blocks[: model.exit_layer], model.norm)
    )
    _, states = oracle.transformer(shallow, tokens)
    return np.stack([oracle.scored(shallow, x @ oracle.f64(model.exit_map)) for x in states[-1]])


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_oracle(pair, kind):
    slow = {"eagle": slow_eagle, "cross": slow_cross, "exit": slow_exit}[kind.split("-")[0]]
    tokens = some_tokens(34, 9)
    _, hidden = read(pair(kind).primary, tokens, return_hidden=True)
    for block_len, offset in ((1, 0), (3, 2)):
        starts = block_starts(9, block_len, offset).tolist()
        expected = slow(pair(kind).model, pair(kind).primary, tokens, hidden, starts)
        np.testing.assert_allclose(
            forced(pair(kind), tokens, hidden, block_len, offset), expected, rtol=1e-4, atol=1e-4
        )


def test_a_block_longer_than_unroll_is_not_right(pair):
    """Why a longer one is refused: the first `unroll` tokens of a block are right, no more."""
    primary, model = pair("eagle-2")
    tokens = some_tokens(35, 8)
    _, hidden = read(primary, tokens, return_hidden=True)
    expected = slow_eagle(model, primary, tokens, hidden, [0] * 8)
    error = np.abs(np.asarray(forced(pair("eagle-2"), tokens, hidden, 8)) - expected).max(-1)
    assert error[:4].max() < 1e-4 < 1e-3 < error[4:].max()
    with pytest.raises(BadInput, match="block_len of at most unroll = 4, got 5: build it with unroll=5"):
        model.teacher_forced(primary, tokens, hidden, 5)
    with pytest.raises(BadInput, match="at most unroll = 4, got 5"):
        quality(model, np.asarray(tokens)[None], primary, block_len=5)
    with pytest.raises(BadInput, match="at most unroll = 4, got 5"):
        evaluate(model, np.asarray(tokens)[None], primary, block_len=5)


def test_a_fresh_eagle_is_the_plain_secondary(tiny_primary, tiny_secondary):
    eagle = Eagle(tiny_secondary, tiny_primary.config, key=jax.random.key(0))
    tokens = some_tokens(36, SEQ)
    _, hidden = read(tiny_primary, tokens, return_hidden=True)
    plain = read(tiny_secondary, tokens)
    np.testing.assert_allclose(forced(Pair(tiny_primary, eagle), tokens, hidden, 3), plain, **close)


# Who sees whom


@pytest.mark.parametrize("kind", ["eagle-1", "eagle-2", "cross-1", "cross-2"])
def test_a_token_sees_the_primary_before_its_block_only(pair, kind):
    tokens = some_tokens(37, 12)
    _, hidden = read(pair(kind).primary, tokens, return_hidden=True)
    starts = np.asarray(block_starts(12, 4, 2))
    logits = np.asarray(forced(pair(kind), tokens, hidden, 4, 2))
    ramp = jnp.broadcast_to(jnp.linspace(-1.0, 1.0, 16), (4, 16))
    for changed in range(12):
        others = np.asarray(forced(pair(kind), tokens, hidden.at[:, changed].add(ramp), 4, 2))
        blind = starts <= changed
        np.testing.assert_array_equal(logits[blind], others[blind])
        assert np.all(np.any(logits[~blind] != others[~blind], axis=-1))


@pytest.mark.parametrize("kind", KINDS)
def test_no_token_sees_a_later_one(pair, kind):
    tokens = some_tokens(38, 12)
    both = jnp.stack([tokens, tokens.at[7].set((tokens[7] + 1) % VOCAB)])
    _, hidden = read(pair(kind).primary, both, return_hidden=True)
    one, other = np.asarray(forced(pair(kind), both, hidden, 3, 1))
    np.testing.assert_array_equal(one[:7], other[:7])
    assert np.all(np.any(one[7:] != other[7:], axis=-1))


def test_an_exit_knows_nothing_of_the_layers_above_it(pair):
    tokens = some_tokens(39, 8)
    _, hidden = read(pair("exit-1").primary, tokens, return_hidden=True)
    below, above = hidden.at[1].add(1.0), hidden.at[2:].add(1.0)
    logits, same, other = (np.asarray(forced(pair("exit-1"), tokens, h, 2)) for h in (hidden, above, below))
    np.testing.assert_array_equal(logits, same)
    assert np.abs(logits - other).max() > 1e-3


@pytest.mark.parametrize("kind", ["eagle-2", "cross-2", "exit-2"])
def test_a_batch_is_a_vmap(pair, kind):
    tokens = some_tokens(40, 3, 9)
    _, hidden = read(pair(kind).primary, tokens, return_hidden=True)
    alone = lambda t, h: pair(kind).model.teacher_forced(pair(kind).primary, t, h, 2, 1)
    each = jax.jit(jax.vmap(alone))(tokens, hidden)
    np.testing.assert_allclose(forced(pair(kind), tokens, hidden, 2, 1), each, **close)


# In files, and in training


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(pair, kind, tmp_path):
    path = tmp_path / "model.safetensors"
    primary, model = pair(kind)
    save_model(model, path)
    loaded = load_model(path, primary.vocabulary)
    assert bool(eqx.tree_equal(model, loaded, typematch=True))
    assert describe(loaded) == describe(model)
    names = read_arrays(path)[0].keys()
    if kind.endswith("-lent"):
        assert not any("vocabulary" in name for name in names)
        assert loaded.secondary.vocabulary.embedding is primary.vocabulary.embedding
    if kind.startswith("exit"):
        assert names == {"exit_map", "norm.scale"}


def slow(kind):
    return pytest.param(kind, marks=pytest.mark.slow)


def bits(tree):
    return {name: np.asarray(leaf).tobytes() for name, leaf in named_arrays(tree).items()}


@pytest.mark.parametrize("kind", [slow("eagle-lent"), slow("cross-lent"), "exit-2"])
def test_it_learns_and_the_primary_does_not(pair, kind, tmp_path):
    primary, model = pair(kind)
    recipe = Recipe(
        "short",
        steps=60,
        learning_rate=1e-2,
        warmup_steps=5,
        batch_size=2,
        seq_len=12,
        objectives=((0.5, Objective()), (1.0, Objective(kl=0.5))),
        block_lens=(1, 3),
        eval_every=30,
        eval_windows=4,
    )
    before = bits(primary), bits(model)
    run = lambda: train(model, recipe, TEXT, TEXT, primary=primary, folder=tmp_path, progress=False)
    result = run()
    assert (bits(primary), bits(model)) == before
    windows = np.stack([TEXT[n : n + 13] for n in range(4)]).astype(np.int32)
    start, end = (quality(m, windows, primary, block_len=3) for m in (model, result.model))
    assert end.cross_entropy < start.cross_entropy - 0.1
    assert result.history[-1]["valid_agreement"] >= 0.0
    still = {name for name, value in bits(result.model).items() if value == before[1][name]}
    assert still == {name for name in before[1] if "vocabulary" in name}
    assert bits(run().model) == bits(result.model)  # out of the checkpoint


# What does not fit


def test_bad_input(tiny_primary, tiny_secondary, tiny_config):
    key = jax.random.key(0)
    model = lambda *sizes, **more: Transformer(config(*sizes, **more), key=key)
    cross = lambda *sizes, layer_map="last", **more: Glide(model(*sizes, **more), tiny_config, layer_map)
    other = dataclasses.replace(tiny_config, vocab_size=14)
    for build, message in [
        (lambda: EarlyExit(tiny_config, 0), r"exit_layer in 1\.\.2, got 0: "),
        (lambda: EarlyExit(tiny_config, 3), r"exit_layer in 1\.\.2, got 3: "),
        (lambda: EarlyExit(config(8, 1, 2), 1), r"exit_layer in 1\.\.0, got 1: use a deeper primary"),
        (lambda: cross(16, 1, 2), "the primary's head_dim = 4, got 8: "),
        (lambda: cross(8, 1, 2, 1), "the primary's n_kv_heads = 2, got 1: "),
        (lambda: cross(8, 1, 2, rope_theta=500.0), "the primary's rope_theta = 10000.0, got 500.0: "),
        (lambda: cross(8, 1, 2, layer_map="fused"), '"last", "uniform" or one layer'),
        (lambda: cross(8, 1, 2, layer_map=[0]), r"1 of the primary's layers 1\.\.3, got \(0,\)"),
        (lambda: cross(8, 1, 2, layer_map=[4]), r"1\.\.3, got \(4,\)"),
        (lambda: cross(8, 1, 2, layer_map=[1, 2]), "1 of the primary's"),
        (lambda: cross(8, 4, 2), 'for layer_map="last", got 4 and 3'),
        (lambda: Glide(model(8, 1, 2), other), "the same vocabulary"),
        (lambda: Eagle(tiny_secondary, other, key=key), "the same vocabulary"),
        (lambda: Eagle(tiny_secondary, tiny_config, "last", key=key), '"top", "fused" or a list'),
        (lambda: Eagle(tiny_secondary, tiny_config, [4], key=key), r"states in 0\.\.3"),
        (lambda: Eagle(tiny_secondary, tiny_config, unroll=0, key=key), "unroll of at least 1, got 0"),
    ]:
        with pytest.raises(BadInput, match=message) as caught:
            build()
        assert "\n" not in str(caught.value)


def test_training_asks_for_what_fits(pair):
    primary, model = pair("eagle-2")
    usual = {"steps": 2, "learning_rate": 1e-2, "warmup_steps": 0, "seq_len": 12}
    other = Transformer(dataclasses.replace(primary.config, d_ff=12), key=jax.random.key(0))
    for block_lens, lender, message in [
        ((2, 5), primary, "block_len of at most unroll = 4, got 5"),
        ((), primary, "a recipe with block_lens for the Eagle"),
        ((2,), None, "a primary for the Eagle"),
        ((2,), other, "the Eagle's own primary"),
    ]:
        with pytest.raises(BadInput, match=message):
            train(model, Recipe("some", block_lens=block_lens, **usual), TEXT, TEXT, primary=lender)


def test_named_maps():
    assert resolve_cache_map("last", 3, 3) == (1, 2, 3)
    assert resolve_cache_map("uniform", 2, 4) == (1, 1, 2, 2)
    assert resolve_cache_map([2], 3, 1) == (2,)
    # Without the run-time type check, which would speak first.
    for other in (5, ["last"]):
        with pytest.raises(BadInput, match=r"1 of the primary's layers 1\.\.3, got .*: give one for each"):
            inspect.unwrap(resolve_cache_map)(other, 3, 1)
