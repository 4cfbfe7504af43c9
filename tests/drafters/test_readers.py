"""Every drafter that reads a primary: cached pass = parallel pass = slow oracle, and who sees whom."""

import dataclasses
import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from pairs import (
    KINDS,
    MAX_DRAFT,
    ONE_OF_EACH,
    VOCAB,
    Pair,
    config,
    decode,
    forced,
    pair,
    read,
    read_hidden,
    some_tokens,
    traced,
)
from refusal import refuses

from tandem_edu.drafters import Eagle, EarlyExit, Glide, Tandem, build_reader
from tandem_edu.drafters.glide import resolve_cache_map
from tandem_edu.model import Transformer
from tandem_edu.model.masks import block_starts
from tandem_edu.model.weights import named_arrays

SEQ = 17
close = {"rtol": 1e-5, "atol": 1e-5}
# Every kind in the long run, one of each class in the quick one.
all_kinds = pytest.mark.parametrize(
    "kind", [k if k in ONE_OF_EACH else pytest.param(k, marks=pytest.mark.slow) for k in KINDS]
)


read_text = eqx.filter_jit(Tandem._read_text)


def forced_from(pair, tokens, hidden, starts):
    """Teacher-forced logits where the blocks may start anywhere."""
    if isinstance(pair.model, Tandem):  # with own_history the starts of earlier blocks matter as well
        return read_text(pair.model, tokens, hidden, jnp.array(starts))[0]
    longest = pair.model.max_train_block_len or MAX_DRAFT
    rows = {first: forced(pair, tokens, hidden, longest, first) for first in set(starts)}
    return jnp.stack([rows[first][i] for i, first in enumerate(starts)])


def longest(kind):
    return pair(kind).model.max_train_block_len or MAX_DRAFT


@all_kinds
def test_cached_equals_teacher_forced(kind):
    tokens = some_tokens(30, SEQ)
    hidden = read_hidden(pair(kind).primary, tokens)
    for block_len, prompt_len in ((1, 0), (1, 7), (2, 1), (2, 10), (3, 2), (3, 7), (5, 1), (5, 10), (8, 0)):
        if block_len <= longest(kind):
            logits, starts = decode(pair(kind), tokens, prompt_len, block_len)
            assert starts == block_starts(SEQ, block_len, prompt_len).tolist()
            expected = forced(pair(kind), tokens, hidden, block_len, prompt_len)[prompt_len:]
            np.testing.assert_allclose(np.stack(logits), expected, **close)


@all_kinds
def test_rejected_drafts_leave_no_trace(kind):
    tokens = some_tokens(32, SEQ)
    hidden = read_hidden(pair(kind).primary, tokens)
    for block_len, accepted in ((2, [1] * 20), (3, [1, 3, 2, 1, 2]), (5, [2, 5, 1, 1]), (8, [1, 8, 1, 2])):
        for prompt_len in (0, 1, 6) if block_len <= longest(kind) else ():
            logits, starts = decode(pair(kind), tokens, prompt_len, block_len, accepted)
            expected = forced_from(pair(kind), tokens, hidden, starts)[prompt_len:]
            np.testing.assert_allclose(np.stack(logits), expected, **close)


@all_kinds
def test_the_last_draft_is_accepted_unread(kind):
    """All drafts are accepted: the primary has read the last one, the drafter has not."""
    tokens = some_tokens(31, SEQ)
    hidden = read_hidden(pair(kind).primary, tokens)
    expected = forced(pair(kind), tokens, hidden, 3, 4)[4:]
    logits, _ = decode(pair(kind), tokens, 4, 3, unread=True)
    assert [row is None for row in logits[:6]] == [False, False, True] * 2
    for row, expected_row in zip(logits, expected, strict=True):
        if row is not None:
            np.testing.assert_allclose(row, expected_row, **close)


def keep_own_keys(model, state, output):
    """A commit that does not replace the keys and values of the drafter's own."""
    if isinstance(model, Eagle):
        last = model.projection(output.hidden)[output.length - output.start - 1]
        return type(state)(state.cache.with_length(output.length), last, last)
    caches = (state.own, state.primary)
    return type(state)(*(cache and cache.with_length(output.length) for cache in caches))


def forget_feature(model, state, output):
    """A commit that does not know the feature before the block."""
    blank = jnp.zeros_like(state.primary_feature)
    return model.commit(eqx.tree_at(lambda s: s.primary_feature, state, blank), output)


def repeat_feature(model, token, state, primary, cache):
    """A step that feeds the primary's last feature again."""
    draft = model.step(token, state, primary, cache)
    return eqx.tree_at(lambda d: d.state.feature, draft, state.primary_feature)


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        ("tandem-fused", {"commit": keep_own_keys}),
        ("tandem-explicit-own", {"commit": keep_own_keys}),
        ("eagle-2", {"commit": keep_own_keys}),
        ("eagle-2", {"commit": forget_feature}),
        ("eagle-2", {"step": repeat_feature}),
        ("glide-2", lambda m: Glide(m.secondary, m.primary_config, [1, 2])),
        (
            "exit-2",
            lambda m: eqx.tree_at(
                lambda e: (e.exit_map, e.norm), EarlyExit(m.primary_config, 1), (m.exit_map, m.norm)
            ),
        ),
    ],
)
def test_the_equality_can_fail(kind, broken):
    """A broken step or commit, another layer's cache, an exit one layer below."""
    tokens, (primary, model) = some_tokens(30, SEQ), pair(kind)
    expected = forced(pair(kind), tokens, read_hidden(primary, tokens), 2, 3)[3:]
    if callable(broken):
        logits, _ = decode(Pair(primary, broken(model)), tokens, 3, 2)
    else:
        logits, _ = decode(pair(kind), tokens, 3, 2, **broken)
    assert np.abs(np.stack(logits) - expected).max() > 1e-2


@all_kinds
def test_equals_the_oracle(kind):
    tokens, (primary, model) = some_tokens(34, 12), pair(kind)
    hidden = read_hidden(primary, tokens)
    for block_len, offset in ((1, 0), (3, 2), (20, 0)):
        if block_len <= longest(kind) or model.max_train_block_len is None:
            starts = oracle.block_starts(12, block_len, offset)
            expected = oracle.READERS[model.kind](model, primary, tokens, hidden, starts)
            logits = forced(pair(kind), tokens, hidden, block_len, offset)
            np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in ONE_OF_EACH if kind != "exit-2"])
def test_a_token_sees_the_primary_before_its_block_only(kind):
    tokens = some_tokens(35, 12)
    hidden = read_hidden(pair(kind).primary, tokens)
    starts = np.asarray(block_starts(12, 4, 2))
    logits = np.asarray(forced(pair(kind), tokens, hidden, 4, 2))
    ramp = jnp.broadcast_to(jnp.linspace(-1.0, 1.0, 16), (4, 16))
    for changed in range(12):
        others = np.asarray(forced(pair(kind), tokens, hidden.at[:, changed].add(ramp), 4, 2))
        blind = starts <= changed
        np.testing.assert_array_equal(logits[blind], others[blind])
        assert np.all(np.any(logits[~blind] != others[~blind], axis=-1))


@pytest.mark.parametrize("kind", ["tandem-fused", "tandem-explicit-own", "glide-2"])
def test_which_of_its_own_tokens_a_token_sees(kind):
    """The primary's states do not change. Then only `own_history` shows the tokens of another block."""
    tokens, model = some_tokens(36, 12), pair(kind).model
    hidden = read_hidden(pair(kind).primary, tokens)
    starts, position = np.asarray(block_starts(12, 4, 2)), np.arange(12)
    logits = np.asarray(forced(pair(kind), tokens, hidden, 4, 2))
    for changed in range(12):
        other = tokens.at[changed].set((tokens[changed] + 1) % VOCAB)
        others = np.asarray(forced(pair(kind), other, hidden, 4, 2))
        sees = (position >= changed) & (getattr(model, "own_history", False) | (starts <= changed))
        np.testing.assert_array_equal(logits[~sees], others[~sees])
        assert np.all(np.any(logits[sees] != others[sees], axis=-1))


def test_a_new_eagle_is_the_plain_secondary(tiny_primary, tiny_secondary):
    eagle = Pair(tiny_primary, Eagle(tiny_secondary, tiny_primary.config, key=jax.random.key(0)))
    tokens = some_tokens(36, SEQ)
    logits = forced(eagle, tokens, read_hidden(tiny_primary, tokens), 3)
    np.testing.assert_allclose(logits, read(tiny_secondary, tokens), **close)


def test_an_eagle_is_exact_up_to_unroll():
    """Why a longer block is refused: the first `unroll` tokens of a block are exact, the others are not."""
    tokens, (primary, model) = some_tokens(35, 12), pair("eagle-2")
    hidden = read_hidden(primary, tokens)
    expected = oracle.eagle(model, primary, tokens, hidden, [0] * 12)
    error = np.abs(np.asarray(forced(pair("eagle-2"), tokens, hidden, 12)) - expected).max(-1)
    assert error[:4].max() < 1e-4 < 1e-3 < error[4:].max()
    says = "block_len of at most 4, got 5: build the eagle for block_len=5"
    refuses(says, model.teacher_forced, primary, tokens, hidden, 5)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_a_sweep_over_block_lengths_compiles_once(kind):
    tokens = some_tokens(38, SEQ)
    hidden = read_hidden(pair(kind).primary, tokens)
    forced(pair(kind), tokens, hidden, 1)
    before = len(traced)
    for block_len, offset in ((1, 5), (2, 0), (3, 5), (4, 1)):
        forced(pair(kind), tokens, hidden, block_len, offset)
    assert len(traced) == before


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_a_batch_is_a_vmap(kind):
    tokens, (primary, model) = some_tokens(40, 3, 9), pair(kind)
    hidden = read_hidden(primary, tokens)
    alone = lambda tokens, hidden: model.teacher_forced(primary, tokens, hidden, 2, 1)
    each = jax.jit(jax.vmap(alone))(tokens, hidden)
    np.testing.assert_allclose(forced(pair(kind), tokens, hidden, 2, 1), each, **close)


# Training. `tandem_edu.train` is imported here only, because the layers below do not need it.

TEXT = np.tile(np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 12, 0], np.uint16), 60)


def in_bytes(tree):
    return {name: np.asarray(leaf).tobytes() for name, leaf in named_arrays(tree).items()}


slow_kinds = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("eagle-shared", "glide-shared")]


@pytest.mark.parametrize("kind", [*slow_kinds, "exit-2"])
def test_it_learns_and_the_primary_does_not(kind, tmp_path):
    from tandem_edu.measure import quality
    from tandem_edu.train import Objective, Recipe, train

    primary, model = pair(kind)
    how = {"steps": 100, "learning_rate": 1e-2, "warmup_steps": 5, "batch_size": 2, "seq_len": 12}
    objectives = ((0.5, Objective()), (1.0, Objective(kl=0.5)))
    recipe = Recipe("short", objectives=objectives, block_lens=(1, 3), eval_every=50, eval_windows=4, **how)
    before = in_bytes(primary), in_bytes(model)
    run = lambda: train(model, recipe, TEXT, TEXT, primary=primary, folder=tmp_path, progress=False)
    result = run()
    assert (in_bytes(primary), in_bytes(model)) == before
    windows = np.stack([TEXT[n : n + 13] for n in range(4)]).astype(np.int32)
    start, end = (quality(m, windows, primary, block_len=3).cross_entropy for m in (model, result.model))
    assert end < start - 0.1
    assert result.history[-1]["valid_agreement"] >= 0.0
    unchanged = {name for name, value in in_bytes(result.model).items() if value == before[1][name]}
    assert unchanged == {name for name in before[1] if "embedding" in name}
    assert in_bytes(run().model) == in_bytes(result.model)  # from the checkpoint


def test_training_asks_for_what_fits():
    from tandem_edu.measure import quality
    from tandem_edu.train import Recipe, train

    primary, model = pair("eagle-2")
    settings = {"steps": 2, "learning_rate": 1e-2, "warmup_steps": 0, "seq_len": 12}
    other = Transformer(dataclasses.replace(primary.config, d_ff=12), key=jax.random.key(0))
    for block_lens, given, message in [
        ((2, 5), primary, "block_len of at most 4, got 5"),
        ((2,), other, "primary.*d_ff=12"),
    ]:
        recipe = Recipe("some", block_lens=block_lens, **settings)
        refuses(message, train, model, recipe, TEXT, TEXT, primary=given)
    refuses("block_len of at most 4, got 5", quality, model, np.zeros((1, 8), np.int32), primary, block_len=5)


def test_bad_input(tiny_primary, tiny_secondary, tiny_config):
    key = jax.random.key(0)
    model = lambda *sizes, **more: Transformer(config(*sizes, **more), key=key)
    glide = lambda *sizes, layer_map="last", **more: Glide(model(*sizes, **more), tiny_config, layer_map)
    other = dataclasses.replace(tiny_config, vocab_size=14)
    build = lambda kind, **settings: build_reader(kind, tiny_secondary, tiny_config, settings, key)
    for make, message in [
        (lambda: EarlyExit(tiny_config, 0), r"exit_layer in 1\.\.2, got 0: leave it at least one"),
        (lambda: EarlyExit(tiny_config, 3), r"exit_layer in 1\.\.2, got 3: "),
        (lambda: EarlyExit(config(8, 1, 2), 1), r"exit_layer in 1\.\.0, got 1: use a deeper primary"),
        (lambda: glide(16, 1, 2), "the primary's head_dim = 4, got 8: "),
        (lambda: glide(8, 1, 2, 1), "the primary's n_kv_heads = 2, got 1: "),
        (lambda: glide(8, 1, 2, rope_theta=500.0), "the primary's rope_theta = 10000.0, got 500.0: "),
        (lambda: glide(8, 1, 2, layer_map=[4]), r"\"uniform\" or 1 of .* 1\.\.3, got \[4\]"),
        (lambda: glide(8, 4, 2), 'for layer_map="last", got 4 and 3'),
        (lambda: Glide(model(8, 1, 2), other), "the same vocabulary"),
        (lambda: Eagle(tiny_secondary, other, key=key), "the same vocabulary"),
        (lambda: Eagle(tiny_secondary, tiny_config, "last", key=key), '"top", "fused" or a list'),
        (lambda: Eagle(tiny_secondary, tiny_config, [4], key=key), r"states in 0\.\.3"),
        (lambda: Eagle(tiny_secondary, tiny_config, unroll=0, key=key), "unroll of at least 1, got 0"),
        (lambda: build("medusa"), "a kind among .*tandem.*, got medusa: import the file that defines it"),
        (lambda: build("eagle", heads=3), r"the settings of Eagle, got .*heads.*: see help\(Eagle\)"),
    ]:
        refuses(message, make)


def test_named_cache_maps():
    assert resolve_cache_map("last", 3, 3) == (1, 2, 3)
    assert resolve_cache_map("uniform", 2, 4) == (1, 1, 2, 2)
    assert resolve_cache_map([2], 3, 1) == (2,)
    # Without the run-time type check, which would speak first.
    for other in (5, ["last"], "fused", [0], [1, 2]):
        says = r"1 of the primary's layers 1\.\.3, got .*: give one for each"
        refuses(says, inspect.unwrap(resolve_cache_map), other, 3, 1)
