"""What only the tandem has: its blocks, its layer maps, and how its two models fit together."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import oracle
import pytest
from pairs import forced, pair, read_hidden, some_tokens
from refusal import refuses

from tandem_edu.drafters import PrimaryOutput, Tandem
from tandem_edu.drafters.projection import resolve_layer_map
from tandem_edu.drafters.protocol import check_same_vocabulary
from tandem_edu.model import Cache, TransformerConfig
from tandem_edu.model.masks import block_starts


def test_block_starts_equal_the_walk_along_the_grid():
    for seq in (1, 2, 9):
        for block_len in (1, 2, 3, 5, 8, 12):
            for offset in (0, 1, 2, 5, 8, 9, 11):
                starts = block_starts(seq, block_len, offset).tolist()
                assert starts == oracle.block_starts(seq, block_len, offset), (seq, block_len, offset)


def test_the_call_is_the_teacher_forced_pass():
    """With blocks of 2 from position 0, if nothing else is asked for. A block has a token at least."""
    tokens, (primary, tandem) = some_tokens(40, 9), pair("tandem-last")
    hidden = read_hidden(primary, tokens)
    call = eqx.filter_jit(tandem)
    assert jnp.allclose(call(tokens, hidden), forced(pair("tandem-last"), tokens, hidden, 2), atol=1e-5)
    assert jnp.array_equal(call(tokens, hidden), call(tokens, hidden, block_len=2, offset=0))
    for block_len in (0, -2):
        refuses(f"block_len of at least 1, got {block_len}: ", tandem, tokens, hidden, block_len)


def test_own_history_starts_with_copies_of_the_secondarys_projections(tiny_config, tiny_secondary):
    cache, hidden = Cache.empty(tiny_config, 8), jnp.zeros((4, 4, 16))
    output = PrimaryOutput(some_tokens(41, 4), hidden, cache, jnp.int32(0))
    for own_history in (False, True):
        tandem = Tandem(tiny_secondary, tiny_config, "last", own_history, key=jax.random.key(0))
        copies = tuple(block.kv if own_history else None for block in tiny_secondary.blocks)
        assert eqx.tree_equal(tandem.primary_kv, copies)
        # The paper's form has one cache, which the primary overwrites.
        state = eqx.filter_eval_shape(tandem.start, output, 2, jnp.int32(2))
        assert (state.primary is not None) == own_history


def test_both_models_have_one_vocabulary(tiny_secondary, tiny_config, tiny_primary):
    other = TransformerConfig.from_dict({**tiny_config.to_dict(), "vocab_size": 14})
    says = "the same vocabulary, got vocab_size 14 and 13: train both"
    refuses(says, Tandem, tiny_secondary, other, key=jax.random.key(0))
    # Without the run-time type check, which would speak first.
    says = r"as a TransformerConfig, got Transformer: pass primary\.config"
    refuses(says, inspect.unwrap(check_same_vocabulary), tiny_primary, tiny_secondary.config)


def test_last_needs_a_shallower_secondary(tiny_secondary, tiny_config):
    shallow = TransformerConfig.from_dict({**tiny_config.to_dict(), "n_layers": 1})
    says = r"n_layers of the secondary at most .*, got 2 and 1: .*uniform"
    refuses(says, Tandem, tiny_secondary, shallow, key=jax.random.key(0))
    Tandem(tiny_secondary, shallow, "uniform", key=jax.random.key(0))


@pytest.mark.parametrize(
    ("layer_map", "message"),
    [
        ("first", '"last", "uniform", "middle", "fused" or a list of states per layer, got .first.: pick'),
        ([[1]], "2 non-empty lists of states in 0..3, got .*: give one list per layer"),
        ([[1], []], "2 non-empty lists"),
        ([[1], [4]], "states in 0..3"),
        ([[1], [-1]], "states in 0..3"),
        ([[1], [2], [3]], "2 non-empty lists"),
        *[(other, "2 non-empty lists of states") for other in (["last"] * 2, [1, 2], 3)],
    ],
)
def test_a_layer_map_that_cannot_be(layer_map, message):
    # Without the run-time type check, which would speak first.
    refuses(message, inspect.unwrap(resolve_layer_map), layer_map, 3, 2)


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
