"""What a person can get wrong, and what the decoder answers."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lively_models import lively, speaker, speaker_drafters, writer

from tandem_edu.decode import (
    ConfidenceRule,
    Drafter,
    EntropyRule,
    LearnedRouter,
    PlainDrafter,
    PromptLookup,
    Sampling,
    block_generate,
    generate,
    request,
    speculate,
    stream,
)
from tandem_edu.decode.drafters import as_drafter
from tandem_edu.decode.routers import check_router, fingerprint
from tandem_edu.errors import BadInput, at_least
from tandem_edu.model import EarlyExit, Glide, Tandem, Transformer, TransformerConfig


def other(**sizes) -> Transformer:
    """A model like `speaker`, but for these sizes."""
    return Transformer(
        TransformerConfig.from_dict({**speaker().config.to_dict(), **sizes}), key=jax.random.key(0)
    )


def both(prompt, new=4, **more):
    """The two ways to decode, as calls yet to be made."""
    plain = speaker_drafters()["plain"]
    return [
        lambda: generate(speaker(), prompt, new, **more),
        lambda: speculate(speaker(), plain, prompt, new, **more),
    ]


@pytest.mark.parametrize(
    "prompt, says",
    [
        ([], "one or more token ids, or a batch of at least one prompt, got an empty one"),
        ((), "a batch of at least one prompt, got an empty one"),
        (np.zeros(0, int), "one or more token ids"),
        ([[[1, 2]]], r"row 0 of the batch: .* got shape \(1, 2\)"),
        ([[1], 2], "a ragged list"),
        ([[1], [2, 5]], r"row 1 of the batch: token ids in 0\.\.4, got 5"),
        ([[1], []], "row 1 of the batch: a prompt of one or more token ids"),
        ([[1], [1] * 31], r"row 1 of the batch: prompt and new tokens within the context of 32, got 31 \+ 4"),
        ([[1], [1] * 32], "row 1 of the batch: a prompt shorter than the context of 32 tokens"),
        (np.zeros((0, 3), int), "a batch of at least one prompt"),
        (np.zeros((1, 2, 3), int), r"got shape \(1, 2, 3\)"),
        (3, r"got shape \(\)"),
        ([1.0, 2.0], "of float64"),
        (jnp.ones(3), "of float32"),
        ([True, False], "of bool"),
        ("hello", "encode the text first"),
        (None, "encode the text first"),
        ([0, 5], r"token ids in 0\.\.4, got 5"),
        (np.array([0, 2**40]), "got 1099511627776"),
        ([-1, 2], "got -1"),
        (jnp.array([4, 5]), "got 5"),
        ([1] * 32, "shorter than the context of 32 tokens, got 32 tokens: keep its last 31"),
        ([1] * 33, "got 33 tokens"),
    ],
)
def test_a_prompt_that_cannot_be_continued(prompt, says):
    for call in both(prompt):
        with pytest.raises(BadInput, match=says):
            call()


def test_the_shape_of_a_prompt_is_checked_while_tracing_too():
    with pytest.raises(BadInput, match="one or more token ids"):
        jax.jit(lambda prompt: generate(speaker(), prompt, 2).tokens)(jnp.ones((2, 2, 2), jnp.int32))


@pytest.mark.parametrize(
    "new, says",
    [
        (0, "max_new_tokens of at least 1, got 0"),
        (-3, "got -3"),
        (30, r"within the context of 32, got 3 \+ 30 = 33: pass max_new_tokens=29"),
    ],
)
def test_a_number_of_tokens_that_does_not_fit(new, says):
    for call in both([1, 2, 3], new):
        with pytest.raises(BadInput, match=says):
            call()


@pytest.mark.parametrize("stop_token", [-1, 5, 1000])
def test_a_stop_token_that_is_no_token(stop_token):
    for call in both([1, 2, 3], stop_token=stop_token):
        with pytest.raises(BadInput, match=rf"a stop_token in 0\.\.4, got {stop_token}"):
            call()


def test_sampling_without_a_key():
    for call in both([1], sampling=Sampling(temperature=1.0)):
        with pytest.raises(BadInput, match="a key for sampling"):
            call()


@pytest.mark.parametrize("key", [0, np.zeros(()), jax.random.split(jax.random.key(0), 3)])
def test_what_is_not_one_key(key):
    with pytest.raises(BadInput, match="one key for sampling, from which each row gets its own, got"):
        inspect.unwrap(request.check_key)(key)


def test_a_key_of_the_old_style_will_do():
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        inspect.unwrap(request.check_key)(key)


@pytest.mark.parametrize("number", [2.5, 2.0, "3", None, 0, -1, np.int64(0), jnp.int32(0)])
def test_what_is_not_a_whole_number_of_at_least_one(number):
    with pytest.raises(BadInput, match=r"expected block_len of at least 1, got .*: try 4"):
        at_least(1, number, "block_len", "try 4")


@pytest.mark.parametrize("number", [1, 7, np.int64(2), jnp.int32(2)])
def test_whole_numbers_of_every_kind_will_do(number):
    at_least(1, number, "block_len", "try 4")


@pytest.mark.parametrize("block_len", [0, -1])
def test_a_block_of_no_tokens(block_len):
    plain = speaker_drafters()["plain"]
    for decode in (speculate, stream, block_generate):
        with pytest.raises(BadInput, match="of at least 1"):
            decode(speaker(), plain, [1], 4, block_len)


def test_no_samples():
    for call in both([1], num_samples=0):
        with pytest.raises(BadInput, match="num_samples of at least 1, got 0"):
            call()


def test_a_batch_cannot_be_streamed():
    with pytest.raises(BadInput, match="one prompt to stream, got a batch of 2"):
        stream(speaker(), speaker_drafters()["plain"], [[1], [2]], 4)


def test_an_unknown_verification():
    with pytest.raises(BadInput, match="a verification among token, block, got 'tree'"):
        speculate(speaker(), speaker_drafters()["plain"], [1], 4, verification="tree")


def test_a_block_longer_than_the_text_to_come():
    """It asks for no more room than the text needs."""
    out = speculate(speaker(), speaker_drafters()["plain"], [1], 4, block_len=10_000)
    np.testing.assert_array_equal(out.tokens, generate(speaker(), [1], 4).tokens)
    assert out.trace.draft_ids.shape[-1] == 8


def test_weights_of_another_kind_than_the_caches():
    half = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if eqx.is_inexact_array(x) else x, speaker(), is_leaf=eqx.is_array
    )
    for decode in (lambda: generate(half, [1], 4), lambda: speculate(speaker(), half, [1], 4)):
        with pytest.raises(BadInput, match="weights in float32 to decode with, got bfloat16"):
            decode()


def test_a_bound_of_no_drafts():
    plain = speaker_drafters()["plain"]
    with pytest.raises(BadInput, match="max_block_len of at least 1, got 0"):
        block_generate(speaker(), plain, [1], 4, block_len=1, max_block_len=0)


@pytest.mark.parametrize("exit_layer", [2, 3, 0, -1])
def test_an_exit_that_is_none(exit_layer):
    """`speaker` has two layers: at the last one, past it, before the first."""
    with pytest.raises(BadInput, match=rf"exit_layer in 1\.\.1, got {exit_layer}: leave it at least one"):
        EarlyExit(speaker().config, exit_layer)


@pytest.mark.parametrize("ngram, least", [(0, 1), (-1, 1), (2, 0), (2, 3)])
def test_a_prompt_lookup_of_no_tokens(ngram, least):
    with pytest.raises(BadInput, match="ngram of at least 1, got" if ngram < 1 else r"least in 1\.\.2"):
        PromptLookup(5, ngram, least)


@pytest.mark.parametrize("rule, value", [(ConfidenceRule, 1.1), (ConfidenceRule, -0.1), (EntropyRule, -1.0)])
def test_a_threshold_that_is_none(rule, value):
    with pytest.raises(BadInput, match=f"got {value}"):
        rule(value)


def test_a_router_of_another_drafter_or_block_length():
    primary, drafters = speaker(), speaker_drafters()
    mine = fingerprint(as_drafter(drafters["plain"], primary))
    router = LearnedRouter(4, (mine, 3), top_k=2, key=jax.random.key(0))
    check_router(router, as_drafter(drafters["plain"], primary), 3)
    with pytest.raises(BadInput, match="trained with block_len=2, got one trained with 3"):
        speculate(primary, drafters["plain"], [1], 4, 2, router=router)
    for other_drafter in (drafters["last-paper"], lively(drafters["plain"], 5, 0.1)):
        with pytest.raises(
            BadInput, match=r"a router trained for this drafter \(.*, got one for PlainDrafter"
        ):
            speculate(primary, other_drafter, [1], 4, 3, router=router)
    with pytest.raises(BadInput, match="a Router, got float"):
        inspect.unwrap(check_router)(0.8, as_drafter(drafters["plain"], primary), 3)


def test_untrained_drafters_are_told_apart():
    """Their small arrays are alike: norms of ones, maps of identity. A router is of one of them."""
    sizes = {"vocab_size": 96, "d_model": 96, "n_heads": 2, "d_ff": 96}
    primary, one, two = (
        Transformer(
            TransformerConfig.from_dict({**speaker().config.to_dict(), **sizes, "n_layers": layers}),
            key=jax.random.key(seed),
        )
        for seed, layers in ((0, 3), (1, 1), (2, 1))
    )
    pairs = [
        (one, two),
        (
            Tandem(one, primary.config, key=jax.random.key(0)),
            Tandem(two, primary.config, key=jax.random.key(0)),
        ),
        (EarlyExit(primary.config, 1), EarlyExit(primary.config, 2)),
        (Glide(one, primary.config, [2]), Glide(one, primary.config, [3])),
        (PromptLookup(96, 2), PromptLookup(96, 3)),
    ]
    for this, that in pairs:
        names = [fingerprint(as_drafter(drafter, primary)) for drafter in (this, that, this)]
        assert names[0] == names[2] != names[1]
        router = LearnedRouter(0, (names[0], 3), top_k=2, key=jax.random.key(0))
        with pytest.raises(BadInput, match="a router trained for this drafter"):
            check_router(router, as_drafter(that, primary), 3)


@pytest.mark.parametrize(
    "how, says",
    [
        ({"temperature": -0.1}, "temperature of at least 0, got -0.1"),
        ({"temperature": float("nan")}, "got nan"),
        ({"temperature": 1.0, "top_k": 0}, "top_k of at least 1, got 0"),
        ({"temperature": 1.0, "top_p": 0.0}, r"top_p in \(0, 1\], got 0.0"),
        ({"temperature": 1.0, "top_p": 1.5}, "got 1.5"),
        ({"temperature": 1.0, "top_p": float("nan")}, "got nan"),
    ],
)
def test_sampling_that_is_no_distribution(how, says):
    with pytest.raises(BadInput, match=says):
        Sampling(**how)


def test_a_drafter_of_another_vocabulary():
    drafter = other(vocab_size=6)
    with pytest.raises(BadInput, match="the same vocabulary, got vocab_size 5 and 6"):
        speculate(speaker(), drafter, [1], 4)
    for own in (PlainDrafter(drafter), PromptLookup(6)):
        for decode in (speculate, block_generate, lambda *given: list(stream(*given))):
            with pytest.raises(BadInput, match=r"over the primary's 5 tokens, got logits of shape \(6,\)"):
                decode(speaker(), own, [1], 4)


@pytest.mark.parametrize("sizes", [{"n_layers": 3}, {"d_model": 8}])
def test_a_tandem_for_another_primary(sizes):
    tandem = Tandem(speaker(), other(**sizes).config, key=jax.random.key(0))
    with pytest.raises(BadInput, match="pass the primary it was trained with"):
        speculate(speaker(), tandem, [1], 4)


@pytest.mark.parametrize("sizes", [{"n_heads": 2, "n_kv_heads": 1}, {"rope_theta": 500.0}])
def test_a_borrower_of_another_primarys_keys(sizes):
    drafter = EarlyExit(other(**sizes).config, 1)
    with pytest.raises(BadInput, match="rope's theta"):
        speculate(speaker(), drafter, [1], 4)


def test_a_primary_in_the_drafters_place_and_the_other_way_round():
    with pytest.raises(BadInput, match="the same vocabulary"):
        speculate(speaker(), writer(32), [1], 4)


@pytest.mark.slow
def test_a_drafter_of_a_shorter_context_is_fine():
    """Rotary positions go on past a drafter's context: its guesses get worse, the text does not."""
    drafter = other(max_len=8)
    out = speculate(speaker(), drafter, [1], 31)
    np.testing.assert_array_equal(out.tokens, generate(speaker(), [1], 31).tokens)


def test_what_is_no_drafter_at_all():
    # Unwrapped, because the tests' type checker would answer first.
    for thing in ("prompt lookup", None, speaker().config):
        with pytest.raises(BadInput, match=r"a Transformer, a Tandem or a te\.Drafter, got"):
            inspect.unwrap(as_drafter)(thing, speaker())


def test_primary_and_drafter_in_the_wrong_order():
    tandem = speaker_drafters()["last-paper"]
    with pytest.raises(BadInput, match="a Transformer as the primary, got a Tandem: pass the primary first"):
        inspect.unwrap(as_drafter)(speaker(), tandem)


def test_the_protocol_itself_is_no_drafter():
    with pytest.raises(TypeError, match="abstract"):
        Drafter()
