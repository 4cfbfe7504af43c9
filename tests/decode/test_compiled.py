"""Decoding inside `jax.jit` and `jax.vmap`, and what may change without compiling anew."""

import jax
import jax.numpy as jnp
import noisy_models as models
import numpy as np
import pytest
from refusal import refuses

import tandem_edu as te
from tandem_edu.decode.routers import LearnedRouter, check_router, fingerprint
from tandem_edu.decode.speculative import as_drafter

PROMPTS = jnp.asarray(np.random.default_rng(3).integers(0, 48, (4, 5)), jnp.int32)


@pytest.mark.parametrize("name", ["plain", *models.slow("last-own", "generate", "blocks")])
def test_decoding_under_jit_and_vmap_equals_one_text_at_a_time(name):
    """γ is traced, too."""
    drafters, how = models.writer_drafters(32), {"sampling": te.Sampling(temperature=1.0)}

    def decode(prompt, key, block_len):
        if name == "generate":
            return te.generate(models.writer(32), prompt, 20, key=key, stop_token=7, **how)
        function = te.block_generate if name == "blocks" else te.speculate
        given = (models.writer(32), drafters["plain" if name == "blocks" else name], prompt, 20, block_len)
        return function(*given, key=key, max_draft_len=8, **how)

    keys = jax.random.split(jax.random.key(0), 4)
    together = jax.jit(jax.vmap(decode, in_axes=(0, 0, None)))(PROMPTS, keys, 3)
    for i, (prompt, key) in enumerate(zip(PROMPTS, keys, strict=True)):
        close = lambda many, one, i=i: np.testing.assert_allclose(many[i], one, atol=models.ROUNDING)
        jax.tree.map(close, together, decode(prompt, key, 3))
    assert len({tuple(row) for row in np.asarray(together.tokens).tolist()}) == 4
    assert name in ("generate", "blocks") or len(set(np.asarray(together.trace.cycles).tolist())) > 1


def test_a_traced_block_length():
    """It needs a limit, and a learned router does not check it."""
    primary, drafter = models.writer(32), models.writer_drafters(32)["plain"]
    with pytest.raises(te.BadInput, match="max_draft_len of at least 1, got None: pass it"):
        jax.jit(lambda block_len: te.speculate(primary, drafter, PROMPTS[0], 20, block_len))(3)
    drafter = as_drafter(drafter, primary)
    router = LearnedRouter(1, (fingerprint(drafter), 4), key=jax.random.key(0))
    check = lambda block_len: check_router(router, drafter, block_len) or block_len
    assert int(jax.jit(check)(3)) == 3
    refuses("trained with block_len=3", check, 3)


class Counted(te.Sampling):
    """Counts how often its own code runs, which is while it is being traced and never after."""

    def probabilities(self, logits):
        TRACED.append(logits.shape)
        return super().probabilities(logits)


TRACED: list = []


def assert_compiled_once(decode, first, others) -> None:
    """`decode(*first)` traces `Counted`, and no call with `others` does so again."""
    start = len(TRACED)
    decode(*first)
    traced = len(TRACED)
    assert traced - start >= 2, "the draft and the verification: does `Counted` count at all?"
    for arguments in others:
        decode(*arguments)
    assert len(TRACED) == traced


def test_numbers_change_without_compiling_anew():
    """γ from 1 to 8, the sampling's numbers, the key, the prompt, its length, the stop token."""
    primary, drafter = models.speaker(), models.speaker_drafters()["plain"]

    def decode(prompt, new, block_len, seed, stop, *how):
        key = jax.random.key(seed)
        te.speculate(primary, drafter, prompt, new, block_len, Counted(*how), key, stop_token=stop)
        te.generate(primary, prompt, new, Counted(*how), key, stop_token=stop)

    others = [([1, 2, 3], 9 + n, n, n, 4, 0.1 * n, n, 0.1 * n) for n in range(1, 9)]
    assert_compiled_once(decode, ([1], 9, 4, 0, None, 1.0, 3, 0.9), others)


@pytest.mark.slow
@pytest.mark.parametrize("name, verification", models.alternating(models.ONE_OF_A_KIND))
def test_gamma_and_tau_change_without_compiling_anew_with_each_kind_of_drafter(name, verification):
    """γ from 1 to 8 and τ from 0 to 1: untrained and learned routers, and blocks without verification."""
    primary, drafter = models.speaker(), models.speaker_drafters()[name]
    key, made_for = jax.random.key(0), (fingerprint(as_drafter(drafter, primary)), 8)
    learned = LearnedRouter(1 + 2 + 2 * primary.config.d_model, made_for, top_k=2, key=key)

    def decode(block_len, threshold):
        how, more = Counted(1.0), {"verification": verification}
        te.speculate(primary, drafter, [1, 2], 9, block_len, how, key, **more)
        for router in (te.ConfidenceRule(threshold), te.ConfidenceRule(threshold / 2)):
            te.speculate(primary, drafter, [1, 2], 9, block_len, how, key, router, **more)
        te.speculate(primary, drafter, [1, 2], 9, 8, how, key, learned.with_threshold(threshold), **more)
        te.block_generate(primary, drafter, [1, 2], 9, block_len, sampling=how, key=key)

    assert_compiled_once(decode, (4, 0.5), [(n, (n - 1) / 7) for n in range(1, 9)])


@pytest.mark.parametrize("name", ["generate", "speculate"])
def test_the_loop_over_one_text_carries_no_batch_axis(name):
    """With an axis of one in its state, XLA copies the caches at each step: half as slow again."""
    primary, drafter = models.writer(32), models.writer_drafters(32)["fused-own"]
    decode = {
        "generate": lambda prompt: te.generate(primary, prompt, 8).tokens,
        "speculate": lambda prompt: te.speculate(primary, drafter, prompt, 8, 2).tokens,
    }[name]

    def ranks(jaxpr) -> list[int]:
        """The ranks of what the while loops carry, caches [n_kv_heads, capacity, head_dim] among it."""
        found = []
        for equation in jaxpr.eqns:
            if equation.primitive.name == "while":
                found += [var.aval.ndim for var in equation.outvars]
            for value in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr")
            ):
                inner = getattr(value, "jaxpr", value)
                found += ranks(inner) if hasattr(inner, "eqns") else []
        return found

    one = ranks(jax.make_jaxpr(decode)(jnp.array([1, 2])).jaxpr)
    assert max(one) == 3
    assert max(ranks(jax.make_jaxpr(decode)(jnp.array([[1, 2], [3, 4]])).jaxpr)) == 4
