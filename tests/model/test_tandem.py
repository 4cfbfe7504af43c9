"""The tandem against its oracle, teacher-forced against cached, and who can see whom."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from tandem_edu.errors import BadInput
from tandem_edu.model import Tandem, Transformer, TransformerConfig
from tandem_edu.model.masks import block_starts, tandem_masks
from tandem_edu.model.tandem import check_same_vocabulary, resolve_layer_map

SEQ, PROMPT, CAPACITY, VOCAB = 17, 10, 48, 13
MAPS = {"last": "last", "uniform": "uniform", "fused": "fused", "explicit": [[0, 3], [2]]}
close = {"rtol": 1e-5, "atol": 1e-5}


@eqx.filter_jit
def forced_jit(tandem, tokens, hidden, block_len, offset):
    return tandem(tokens, hidden, block_len, offset)


def forced(tandem, tokens, hidden, block_len, offset=0):
    """Teacher-forced logits, compiled once a tandem."""
    return forced_jit(tandem, tokens, hidden, jnp.int32(block_len), jnp.int32(offset))


extend = eqx.filter_jit(Tandem.extend)
commit = eqx.filter_jit(Tandem.commit)
prefill = eqx.filter_jit(Tandem.prefill)
read_blocks = eqx.filter_jit(Tandem.read_blocks)
read = eqx.filter_jit(Transformer.__call__)
primary_extend = eqx.filter_jit(Transformer.extend)
primary_prefill = eqx.filter_jit(Transformer.prefill)


def some_tokens(seed, *shape):
    return jax.random.randint(jax.random.key(seed), shape, 0, VOCAB)


@pytest.fixture(scope="module")
def primary(tiny_primary):
    return oracle.lively(tiny_primary, 20)


@pytest.fixture(scope="module")
def make(tiny_secondary, tiny_config):
    """Tandems by layer map and own history, each built once."""
    built = {}

    def tandem(layer_map="last", own_history=False):
        name = (layer_map, own_history)
        if name not in built:
            plain = Tandem(tiny_secondary, tiny_config, MAPS[layer_map], own_history, key=jax.random.key(21))
            built[name] = oracle.lively(plain, 22)
        return built[name]

    return tandem


def decode(primary, tandem, tokens, prompt_len, block_len, accepted=None):
    """Logits of `tokens[prompt_len:]` the way a decoder comes by them, and k(i) of each token read.

    `accepted` gives, block after block, how many of the `block_len` tokens read are the right ones;
    the others are junk, to be forgotten. Without it all are.
    """
    padded = jnp.concatenate([tokens[:prompt_len], some_tokens(1, PROMPT - prompt_len)])
    length = jnp.int32(prompt_len)
    hidden, primary_cache = primary_prefill(primary, padded, length, CAPACITY)
    cache = prefill(tandem, padded, hidden, length, CAPACITY, jnp.int32(block_len))
    starts = block_starts(prompt_len, block_len, prompt_len).tolist()
    at, logits, accepted = prompt_len, [], iter(accepted or [])
    while at < len(tokens):
        right = min(next(accepted, block_len), len(tokens) - at)
        block = jnp.concatenate([tokens[at : at + right], some_tokens(at, block_len - right)])
        for i in range(block_len):
            step, cache = extend(tandem, block[i : i + 1], cache)
            logits += [step[0]] if i < right else []
        assert int(cache.length) == at + block_len
        _, hidden, primary_cache = primary_extend(primary, block, primary_cache, return_hidden=True)
        primary_cache = primary_cache.with_length(at + right)
        cache = commit(tandem, hidden, cache, jnp.int32(at), jnp.int32(at + right))
        starts += [at] * right
        at += right
    return np.stack(logits), jnp.array(starts)


@pytest.mark.parametrize("own_history", [False, True])
@pytest.mark.parametrize("block_len", [1, 2, 3, 5, 8])
def test_cached_equals_teacher_forced(primary, make, block_len, own_history):
    tandem, tokens = make("fused", own_history), some_tokens(30, SEQ)
    _, hidden = read(primary, tokens, return_hidden=True)
    for prompt_len in (0, 1, 2, 7, PROMPT):
        logits, starts = decode(primary, tandem, tokens, prompt_len, block_len)
        np.testing.assert_array_equal(starts, block_starts(SEQ, block_len, prompt_len))
        expected = forced(tandem, tokens, hidden, block_len, prompt_len)
        np.testing.assert_allclose(logits, expected[prompt_len:], **close)


@pytest.mark.parametrize("own_history", [False, True])
@pytest.mark.parametrize("layer_map", MAPS)
def test_cached_equals_teacher_forced_for_every_layer_map(primary, make, layer_map, own_history):
    tandem, tokens = make(layer_map, own_history), some_tokens(31, SEQ)
    _, hidden = read(primary, tokens, return_hidden=True)
    logits, _ = decode(primary, tandem, tokens, 4, 3)
    np.testing.assert_allclose(logits, forced(tandem, tokens, hidden, 3, 4)[4:], **close)


@pytest.mark.parametrize("own_history", [False, True])
@pytest.mark.parametrize(
    ("block_len", "accepted"),
    [(2, [1] * 20), (3, [1, 3, 2, 1, 2]), (5, [2, 5, 1, 1, 3]), (8, [1, 8, 1, 2, 1]), (4, [4, 1, 4, 1])],
)
def test_rejected_drafts_leave_no_trace(primary, make, block_len, accepted, own_history):
    tandem, tokens = make("fused", own_history), some_tokens(32, SEQ)
    _, hidden = read(primary, tokens, return_hidden=True)
    for prompt_len in (0, 1, 6):
        logits, starts = decode(primary, tandem, tokens, prompt_len, block_len, accepted)
        expected, _, _ = read_blocks(tandem, tokens, hidden, starts)
        np.testing.assert_allclose(logits, expected[prompt_len:], **close)


@pytest.mark.parametrize("own_history", [False, True])
def test_a_block_at_once_equals_token_by_token(primary, make, own_history):
    tandem, tokens = make("last", own_history), some_tokens(33, SEQ)
    _, hidden = read(primary, tokens, return_hidden=True)
    cache = prefill(tandem, tokens[:6], hidden[:, :6], jnp.int32(6), CAPACITY, jnp.int32(2))
    at_once, after = extend(tandem, tokens[6:11], cache)
    assert int(after.length) == 11
    for i in range(6, 11):
        step, cache = extend(tandem, tokens[i : i + 1], cache)
        np.testing.assert_allclose(at_once[i - 6], step[0], **close)


@pytest.mark.parametrize("own_history", [False, True])
@pytest.mark.parametrize("layer_map", MAPS)
def test_equals_the_oracle(primary, make, layer_map, own_history):
    tandem, tokens = make(layer_map, own_history), some_tokens(34, 12)
    _, hidden = read(primary, tokens, return_hidden=True)
    for block_len, offset in ((1, 0), (3, 2), (4, 1), (20, 0)):
        starts = slow_starts(12, block_len, offset)
        slow = oracle.tandem(tandem, tokens, hidden, starts)
        np.testing.assert_allclose(
            forced(tandem, tokens, hidden, block_len, offset), slow, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("own_history", [False, True])
def test_a_token_sees_the_primary_before_its_block_only(primary, make, own_history):
    tandem, tokens = make("fused", own_history), some_tokens(35, 12)
    _, hidden = read(primary, tokens, return_hidden=True)
    starts = np.asarray(block_starts(12, 4, 2))
    logits = np.asarray(forced(tandem, tokens, hidden, 4, 2))
    for changed in range(12):
        others = np.asarray(forced(tandem, tokens, hidden.at[:, changed].add(1.0), 4, 2))
        blind = starts <= changed
        np.testing.assert_array_equal(logits[blind], others[blind])
        assert np.all(np.any(logits[~blind] != others[~blind], axis=-1))


@pytest.mark.parametrize("own_history", [False, True])
def test_a_token_sees_its_own_side_within_its_block_only(primary, make, own_history):
    """The primary's states held still: in the paper's form a token of another block is not seen."""
    tandem, tokens = make("last", own_history), some_tokens(36, 12)
    _, hidden = read(primary, tokens, return_hidden=True)
    starts = np.asarray(block_starts(12, 4, 2))
    logits = np.asarray(forced(tandem, tokens, hidden, 4, 2))
    for changed in range(12):
        other = tokens.at[changed].set((tokens[changed] + 1) % VOCAB)
        others = np.asarray(forced(tandem, other, hidden, 4, 2))
        position = np.arange(12)
        sees = (position >= changed) & (own_history | (starts <= changed))
        np.testing.assert_array_equal(logits[~sees], others[~sees])
        assert np.all(np.any(logits[sees] != others[sees], axis=-1))


@pytest.mark.parametrize("own_history", [False, True])
def test_one_block_over_everything_is_the_plain_secondary(primary, make, own_history):
    tandem, tokens = make("last", own_history), some_tokens(37, SEQ)
    _, hidden = read(primary, tokens, return_hidden=True)
    for block_len in (SEQ, 4 * SEQ):
        np.testing.assert_allclose(
            forced(tandem, tokens, hidden, block_len), read(tandem.secondary, tokens), **close
        )


def test_a_sweep_over_block_lengths_compiles_once(primary, make):
    tandem, tokens = make(), some_tokens(38, SEQ)
    _, hidden = read(primary, tokens, return_hidden=True)
    traces = []

    @eqx.filter_jit
    def logits(tandem, block_len, offset):
        traces.append(block_len)
        return tandem(tokens, hidden, block_len, offset)

    for block_len in (1, 2, 3, 8):
        for offset in (0, 5):
            traced = logits(tandem, jnp.int32(block_len), jnp.int32(offset))
            np.testing.assert_allclose(traced, forced(tandem, tokens, hidden, block_len, offset), **close)
    assert len(traces) == 1


@pytest.mark.parametrize("own_history", [False, True])
def test_a_batch_is_a_vmap(primary, make, own_history):
    tandem, tokens = make("fused", own_history), some_tokens(39, 3, 9)
    _, hidden = read(primary, tokens, return_hidden=True)
    each = jax.jit(jax.vmap(lambda t, h: tandem(t, h, 2, 1)))(tokens, hidden)
    np.testing.assert_allclose(forced(tandem, tokens, hidden, 2, 1), each, **close)


def test_own_history_starts_with_copies_of_the_secondarys_maps(tiny_secondary, tiny_config):
    tandem = Tandem(tiny_secondary, tiny_config, own_history=True, key=jax.random.key(0))
    for maps, block in zip(tandem.primary_maps, tiny_secondary.blocks, strict=True):
        assert eqx.tree_equal(maps, block.keys_values)
    tandem = Tandem(tiny_secondary, tiny_config, key=jax.random.key(0))
    assert tandem.primary_maps == (None, None)
    assert tandem.init_cache(8).primary is None


def slow_starts(seq, block_len, offset):
    """k(i): walk the grid of block starts, in both directions from the offset."""
    grid = {offset + block_len * n for n in range(-seq - offset, seq + 1)} | {0}
    return [max(start for start in grid if 0 <= start <= i) for i in range(seq)]


def test_block_starts_equal_the_walk_along_the_grid():
    for seq in (1, 2, 9):
        for block_len in (1, 2, 3, 5, 8, 12):
            for offset in (0, 1, 2, 5, 8, 9, 11):
                starts = block_starts(seq, block_len, offset).tolist()
                assert starts == slow_starts(seq, block_len, offset), (seq, block_len, offset)


@pytest.mark.parametrize("own_history", [False, True])
def test_the_masks_say_what_the_formula_says(own_history):
    starts = slow_starts(9, 3, 2)
    own, primary = tandem_masks(jnp.array(starts), own_history)
    for i in range(9):
        for t in range(9):
            assert bool(primary[i, t]) == (t < starts[i])
            assert bool(own[i, t]) == ((0 if own_history else starts[i]) <= t <= i)


@pytest.mark.parametrize("block_len", [0, -2])
def test_a_block_has_a_token_at_least(primary, make, block_len):
    tokens = some_tokens(40, 4)
    _, hidden = read(primary, tokens, return_hidden=True)
    with pytest.raises(BadInput, match=f"block_len of at least 1, got {block_len}: "):
        make()(tokens, hidden, block_len)


def test_both_speak_one_vocabulary(tiny_secondary, tiny_config):
    other = TransformerConfig.from_dict({**tiny_config.to_dict(), "vocab_size": 14})
    with pytest.raises(BadInput, match="the same vocabulary, got vocab_size 14 and 13: train both"):
        Tandem(tiny_secondary, other, key=jax.random.key(0))
    with pytest.raises(BadInput, match="vocab_size 13 and 14"):
        check_same_vocabulary(tiny_config, other)


def test_the_primary_itself_is_no_config(tiny_primary, tiny_secondary_config):
    # Without the run-time type check, which would speak first.
    check = inspect.unwrap(check_same_vocabulary)
    with pytest.raises(BadInput, match=r"as a TransformerConfig, got Transformer: pass primary\.config"):
        check(tiny_primary, tiny_secondary_config)


def test_last_wants_a_shallower_secondary(tiny_secondary, tiny_config):
    shallow = TransformerConfig.from_dict({**tiny_config.to_dict(), "n_layers": 1})
    with pytest.raises(BadInput, match=r"n_layers of the secondary at most .*, got 2 and 1: .*uniform"):
        Tandem(tiny_secondary, shallow, key=jax.random.key(0))
    Tandem(tiny_secondary, shallow, "uniform", key=jax.random.key(0))


@pytest.mark.parametrize(
    ("layer_map", "message"),
    [
        (
            "first",
            '"last", "uniform", "middle", "fused" or a list of states per layer, got .first.: pick one',
        ),
        ([[1]], "2 non-empty lists of states in 0..3, got .*: give one list per layer"),
        ([[1], []], "2 non-empty lists"),
        ([[1], [4]], "states in 0..3"),
        ([[1], [-1]], "states in 0..3"),
        ([[1], [2], [3]], "2 non-empty lists"),
    ],
)
def test_a_layer_map_that_cannot_be(layer_map, message):
    with pytest.raises(BadInput, match=message):
        resolve_layer_map(layer_map, 3, 2)


@pytest.mark.parametrize("layer_map", [["last", "last"], [1, 2], 3])
def test_a_layer_map_of_another_kind(layer_map):
    # Without the run-time type check, which would speak first.
    with pytest.raises(BadInput, match=r"layer_map as a list of states per layer, got .*: write"):
        inspect.unwrap(resolve_layer_map)(layer_map, 3, 2)


@pytest.mark.parametrize(
    ("name", "n_primary", "n_secondary", "states"),
    [
        ("last", 12, 3, ((9,), (10,), (11,))),
        ("last", 3, 3, ((0,), (1,), (2,))),
        ("uniform", 12, 3, ((4,), (8,), (12,))),
        ("uniform", 2, 4, ((0,), (1,), (2,), (2,))),
        ("middle", 12, 2, ((6,), (6,))),
        ("middle", 5, 1, ((3,),)),
        ("fused", 12, 2, ((1, 6, 12),) * 2),
        ("fused", 1, 1, ((1,),)),
    ],
)
def test_named_layer_maps(name, n_primary, n_secondary, states):
    assert resolve_layer_map(name, n_primary, n_secondary) == states
