"""What a person can get wrong, and what the decoder answers."""

import inspect
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from noisy_models import speaker, speaker_drafters, writer
from oracle import lively
from refusal import refuses

import tandem_edu as te
from tandem_edu.decode import request
from tandem_edu.decode.routers import LearnedRouter, check_router, fingerprint
from tandem_edu.decode.speculative import as_drafter
from tandem_edu.drafters import Plain
from tandem_edu.errors import at_least
from tandem_edu.model import Transformer, TransformerConfig

KEY = jax.random.key(0)


def other(seed: int = 0, **sizes) -> Transformer:
    """A model like `speaker`, but for these sizes."""
    config = TransformerConfig.from_dict({**speaker().config.to_dict(), **sizes})
    return Transformer(config, key=jax.random.key(seed))


def both_refuse(says: str, prompt, new=4, **more) -> None:
    refuses(says, te.generate, speaker(), prompt, new, **more)
    refuses(says, te.speculate, speaker(), speaker_drafters()["plain"], prompt, new, **more)


@pytest.mark.parametrize(
    "prompt, says",
    [
        ([], r"a prompt of one or more token ids, int32\[prompt\], got shape \(0,\)"),
        (np.zeros(0, int), "one or more token ids"),
        ([[[1, 2]]], r"row 0 of the batch: .* got shape \(1, 2\)"),
        ([[1], 2], "a ragged list"),
        ([[1], [2, 5]], r"row 1 of the batch: token ids in 0\.\.4, got 5"),
        ([[1], []], "row 1 of the batch: a prompt of one or more token ids"),
        ([[1], [1] * 31], r"row 1 of the batch: prompt and new tokens within the context of 32, got 31 \+ 4"),
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
        ([1] * 32, r"within the context of 32, got 32 \+ 4 = 36: keep the last 28 tokens of the prompt"),
        ([1] * 31, r"got 31 \+ 4 = 35: pass max_new_tokens=1 at most, or keep the last 28 tokens"),
    ],
)
def test_a_prompt_that_cannot_be_continued(prompt, says):
    both_refuse(says, prompt)


def test_the_shape_of_a_prompt_is_checked_while_tracing_too():
    decode = jax.jit(lambda prompt: te.generate(speaker(), prompt, 2).tokens)
    refuses("one or more token ids", decode, jnp.ones((2, 2, 2), jnp.int32))


def test_arguments_of_a_decoder():
    both_refuse("max_new_tokens of at least 1, got 0", [1, 2, 3], 0)
    both_refuse("got -3", [1, 2, 3], -3)
    both_refuse(r"within the context of 32, got 3 \+ 30 = 33: pass max_new_tokens=29", [1, 2, 3], 30)
    for stop_token in (-1, 5, 1000):
        both_refuse(rf"a stop_token in 0\.\.4, got {stop_token}", [1, 2, 3], stop_token=stop_token)
    both_refuse("num_samples of at least 1, got 0", [1], num_samples=0)
    both_refuse("one key for sampling, .*, got None", [1], sampling=te.Sampling(temperature=1.0))
    given = (speaker(), speaker_drafters()["plain"])
    for decode in (te.speculate, te.stream, te.block_generate):
        refuses("of at least [01], got -1", decode, *given, [1], 4, -1)
        refuses("max_draft_len of at least 1, got 0", decode, *given, [1], 4, 1, max_draft_len=0)
        refuses("max_draft_len of at least 3, got 2", decode, *given, [1], 4, 3, max_draft_len=2)
    refuses("one prompt to stream, got a batch of 2", te.stream, *given, [[1], [2]], 4)
    refuses("among token, block, got 'tree'", te.speculate, *given, [1], 4, verification="tree")
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if eqx.is_inexact_array(x) else x, speaker())
    for primary, drafter in ((half, speaker()), (speaker(), half)):
        refuses("weights in float32, got bfloat16", te.speculate, primary, drafter, [1], 4)
    # A block longer than the text allocates no more than the text needs.
    assert jax.eval_shape(lambda: te.speculate(*given, [1], 4, 10_000)).trace.draft_ids.shape[-1] == 8


def test_whole_numbers():
    for number in (2.5, 2.0, "3", None, True, 0, -1, np.int64(0), jnp.int32(0)):
        refuses("expected block_len of at least 1, got .*: try 4", at_least, 1, number, "block_len", "try 4")
    for number in (1, 7, np.int64(2), jnp.int32(2)):
        assert at_least(1, number, "block_len", "try 4") == number


def test_keys():
    check_key = inspect.unwrap(request.check_key)  # the tests' type checker would answer first
    for key in (0, np.zeros(()), jax.random.split(KEY, 3)):
        refuses("one key for sampling, from which each text of a batch gets its own, got", check_key, key)
    for key in (KEY, jax.random.PRNGKey(0)):
        check_key(key)


@pytest.mark.parametrize(
    "how, says",
    [
        ((-0.1,), "temperature of at least 0, got -0.1"),
        ((float("nan"),), "temperature of at least 0, got nan"),
        ((None,), "temperature of at least 0, got None: 0 is greedy"),
        (("0.7",), "temperature of at least 0, got '0.7'"),
        ((True,), "temperature of at least 0, got True"),
        ((1.0, 0), "top_k of at least 1, got 0"),
        ((1.0, "3"), "top_k of at least 1, got '3'"),
        ((1.0, None, 0.0), r"top_p in \(0, 1\], got 0.0"),
        ((1.0, None, 1.5), "got 1.5"),
        ((1.0, None, float("nan")), "got nan"),
        ((1.0, None, "0.9"), r"top_p in \(0, 1\], got '0.9'"),
        ((1.0, None, [0.9, 0.8]), r"top_p in \(0, 1\], got \[0.9, 0.8\]"),
    ],
)
def test_a_sampling_that_is_no_distribution(how, says):
    refuses(says, inspect.unwrap(te.Sampling.__init__), SimpleNamespace(), *how)


def test_settings_of_prompt_lookup_and_routers():
    for ngram in (0, -1):
        refuses(f"ngram of at least 1, got {ngram}", te.PromptLookup, 5, ngram)
    for threshold in (1.1, -0.1):
        refuses(rf"threshold in \[0, 1\], got {threshold}", te.ConfidenceRule, threshold)


def test_a_router_of_another_drafter_or_block_length():
    primary, drafters = speaker(), speaker_drafters()
    plain = as_drafter(drafters["plain"], primary)
    router = LearnedRouter(4, (fingerprint(plain), 3), top_k=2, key=KEY)
    check_router(router, plain, 3)
    says = "trained with block_len=2, got one trained with 3"
    refuses(says, te.speculate, primary, drafters["plain"], [1], 4, 2, router=router)
    for drafter in (drafters["last-paper"], lively(drafters["plain"], 5, 0.1)):
        says = r"a router trained for this drafter \(.*, got one for Plain"
        refuses(says, te.speculate, primary, drafter, [1], 4, 3, router=router)
    refuses("a Router, got float", inspect.unwrap(check_router), 0.8, plain, 3)


def test_untrained_drafters_have_different_fingerprints():
    """Their small arrays are equal: norms of ones, projections of identity."""
    sizes = {"vocab_size": 96, "d_model": 96, "n_heads": 2, "d_ff": 96}
    primary, one, two = (other(seed, **sizes, n_layers=n) for seed, n in ((0, 3), (1, 1), (2, 1)))
    config = primary.config
    for this, that in [
        (one, two),
        (te.Tandem(one, config, key=KEY), te.Tandem(two, config, key=KEY)),
        (te.Tandem(one, config, [[0]], key=KEY), te.Tandem(one, config, [[1]], key=KEY)),
        (te.EarlyExit(config, 1), te.EarlyExit(config, 2)),
        (te.Glide(one, config, [2]), te.Glide(one, config, [3])),
        (te.PromptLookup(96, 2), te.PromptLookup(96, 3)),
    ]:
        names = [fingerprint(as_drafter(drafter, primary)) for drafter in (this, that, this)]
        assert names[0] == names[2] != names[1]
        router = LearnedRouter(1, (names[0], 3), top_k=2, key=KEY)
        refuses("a router trained for this drafter", check_router, router, as_drafter(that, primary), 3)


class Unchecked(Plain):
    """A drafter of one's own that does not check its primary."""

    def check_primary(self, primary):
        pass


def test_a_drafter_of_another_vocabulary():
    drafter = other(vocab_size=6)
    for given in (drafter, Plain(drafter), writer(32)):
        refuses("the same vocabulary, got vocab_size 5 and", te.speculate, speaker(), given, [1], 4)
    for own in (Unchecked(drafter), te.PromptLookup(6)):
        for decode in (te.speculate, te.block_generate, lambda *given: list(te.stream(*given))):
            says = r"over the primary's 5 tokens, got logits of shape \(6,\)"
            refuses(says, decode, speaker(), own, [1], 4)


def test_a_drafter_for_another_primary():
    tandem = lambda **sizes: te.Tandem(speaker(), other(**sizes).config, key=KEY)
    for says, drafter in [
        ("n_layers=3 for this tandem, got n_layers=2", tandem(n_layers=3)),
        ("d_model=8 for this tandem, got d_model=4", tandem(d_model=8)),
        ("n_heads=2 for this early-exit, got n_heads=1", te.EarlyExit(other(n_heads=2).config)),
        ("rope_theta=500.0 for this early-exit, got", te.EarlyExit(other(rope_theta=500.0).config)),
    ]:
        says = f"a primary with {says}.*: pass the primary it was trained with"
        refuses(says, te.speculate, speaker(), drafter, [1], 4)
    as_drafter(tandem(max_len=64), speaker())  # the context may be another


@pytest.mark.slow
def test_a_drafter_of_a_shorter_context_works():
    """Rotary positions go on after a drafter's context: its drafts get worse, the text does not."""
    out = te.speculate(speaker(), other(max_len=8), [1], 31)
    np.testing.assert_array_equal(out.tokens, te.generate(speaker(), [1], 31).tokens)


def test_things_that_are_no_drafter():
    unchecked = inspect.unwrap(as_drafter)  # the tests' type checker would answer first
    for thing in ("prompt lookup", None, speaker().config):
        refuses(r"a Transformer, a Tandem or a te\.Drafter, got", unchecked, thing, speaker())
    says = "a Transformer as the primary, got a Tandem: pass the primary first"
    refuses(says, unchecked, speaker(), speaker_drafters()["last-paper"])
    with pytest.raises(TypeError, match="abstract"):
        te.Drafter()
