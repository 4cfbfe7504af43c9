"""Speculative decoding (SPEED in the paper): draft γ tokens, verify them in one call of the primary.

A cycle, with `n` tokens of text of which the primary has read all but the last (the *pending* one):

1. the drafter reads the pending token and drafts d_1 .. d_γ, one by one;
2. the primary reads [pending, d_1 .. d_γ] in one call: its distributions at the γ + 1 positions;
3. verification keeps m drafts and the primary adds one token: the text grows by m + 1;
4. both caches commit: the primary's length becomes that of the new text but its last token, and a
   tandem's block is overwritten from what the primary has just read.

γ is a traced value under a static γ_max, so a sweep over γ compiles once; the primary always reads
γ_max + 1 tokens, and what lies beyond γ + 1 of them is never looked at.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from tandem_edu.decode.drafters import Drafter, Reading, as_drafter
from tandem_edu.decode.request import Output, Request, finish, make_request
from tandem_edu.decode.sampling import DRAFT, Sampling, role_key
from tandem_edu.decode.trace import Trace
from tandem_edu.decode.verify import verify
from tandem_edu.errors import require
from tandem_edu.model import Cache, Tandem, Transformer


def speculate(
    primary: Transformer,
    drafter: Transformer | Tandem | Drafter,
    prompt,
    max_new_tokens: int,
    block_len: int = 4,
    sampling: Sampling | None = None,
    key: PRNGKeyArray | None = None,
    *,
    stop_token: int | None = None,
    max_block_len: int | None = None,
) -> Output:
    """Continue `prompt` exactly as `primary` would, with `drafter` guessing `block_len` (γ) tokens ahead.

    Greedy output equals `generate(primary, ...)` token for token (up to ties of two logits within
    rounding); sampled output has exactly the primary's distribution. The last cycle drafts no more
    than can still be emitted. `out.trace` tells what was drafted and accepted.

    `max_block_len` (γ_max) is part of the compiled program, `block_len` is not: the primary reads
    γ_max + 1 tokens in each cycle. Left out it is `block_len` rounded up to a multiple of 8, so that a
    sweep over γ compiles once; `max_block_len=block_len` is faster where few rows are cheaper (a CPU).

    Raises `BadInput` for `block_len` below 1 or above `max_block_len`, and whatever `generate` raises.

    >>> import jax
    >>> from tandem_edu.decode.autoregressive import generate
    >>> from tandem_edu.model import TransformerConfig
    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=32)
    >>> primary, drafter = (Transformer(cfg, key=jax.random.key(i)) for i in (0, 1))
    >>> out = speculate(primary, drafter, [1, 2, 3], max_new_tokens=9, block_len=3)
    >>> bool(jnp.array_equal(out.tokens, generate(primary, [1, 2, 3], 9).tokens))
    True
    """
    require(block_len >= 1, "block_len (γ) of at least 1", block_len, "try block_len=4")
    drafter = as_drafter(drafter, primary)
    request = make_request(primary.config, prompt, max_new_tokens, sampling, key, stop_token)
    max_block_len = -(-block_len // 8) * 8 if max_block_len is None else max_block_len
    got = f"{max_block_len} for block_len={block_len}"
    require(max_block_len >= block_len, "max_block_len of at least block_len", got, "leave it out")
    text, n, trace = _speculate(primary, drafter, request, jnp.int32(block_len), max_block_len)
    return finish(request, text, n, max_new_tokens, trace)


class _State(eqx.Module):
    text: Int[Array, " capacity"]
    n: Int[Array, ""]
    cache: Cache
    drafter: Any
    trace: Trace
    stopped: Array


class _Draft(eqx.Module):
    drafted: Int[Array, ""]
    ids: Int[Array, " block"]
    q: Float[Array, "block vocab"]
    state: Any


@eqx.filter_jit
def _speculate(primary, drafter, request: Request, block_len, max_block_len: int):
    width = max_block_len + 1
    text = jnp.pad(request.text, (0, width))
    prompt = text[: request.prompt_bucket]
    hidden, cache = primary.prefill(prompt, request.prompt_len - 1, text.shape[0])
    reading = Reading(prompt, hidden, cache, jnp.int32(0))
    state = _State(
        text=text,
        n=request.prompt_len,
        cache=cache,
        drafter=drafter.start(reading, text.shape[0], block_len),
        trace=_empty_trace(request.text.shape[0], max_block_len),
        stopped=jnp.array(False),
    )

    def cycle(state: _State) -> _State:
        limit = jnp.minimum(block_len, request.end - state.n - 1)
        draft = _draft(drafter, state, request, limit, max_block_len, primary.config.vocab_size)
        return _verify_and_commit(primary, drafter, state, draft, request)

    state = lax.while_loop(lambda s: (s.n < request.end) & ~s.stopped, cycle, state)
    return state.text, state.n, state.trace


def _draft(drafter: Drafter, state: _State, request: Request, limit, block: int, vocab: int) -> _Draft:
    """Up to `limit` drafts, each drawn from the drafter's own (warped) distribution."""
    empty = _Draft(jnp.int32(0), jnp.zeros(block, jnp.int32), jnp.zeros((block, vocab)), state.drafter)

    def step(draft: _Draft) -> _Draft:
        i = draft.drafted
        last = jnp.where(i == 0, state.text[state.n - 1], draft.ids[i - 1])
        logits, inner = drafter.step(last, draft.state)
        require(
            logits.shape == (vocab,),
            f"a drafter over the primary's {vocab} tokens",
            f"logits of shape {logits.shape}",
            "train both with one tokenizer",
        )
        q = request.sampling.probabilities(logits)
        token = request.sampling.draw(q, role_key(request.key, state.n, state.n + i, DRAFT))
        return _Draft(i + 1, draft.ids.at[i].set(token), draft.q.at[i].set(q), inner)

    return lax.while_loop(lambda draft: draft.drafted < limit, step, empty)


def _verify_and_commit(
    primary: Transformer, drafter: Drafter, state: _State, draft: _Draft, request: Request
):
    block = jnp.concatenate([state.text[state.n - 1][None], draft.ids])
    logits, hidden, cache = primary.extend(block, state.cache, return_hidden=True)
    p = request.sampling.probabilities(logits)
    verdict = verify(draft.ids, draft.drafted, draft.q, p, request.sampling, request.key, state.n)
    index = jnp.arange(block.shape[0])
    run = jnp.where(index == verdict.accepted, verdict.token, jnp.append(draft.ids, 0))
    stops = (run == request.stop_token) & (index <= verdict.accepted)
    stopped = jnp.any(stops)
    emitted = jnp.where(stopped, jnp.argmax(stops).astype(jnp.int32), verdict.accepted) + 1
    n = state.n + emitted
    cache = cache.with_length(n - 1)
    reading = Reading(block, hidden, cache, state.n - 1)
    return _State(
        text=lax.dynamic_update_slice(state.text, run, (state.n,)),
        n=n,
        cache=cache,
        drafter=drafter.commit(draft.state, reading),
        trace=_record(state.trace, draft, verdict, emitted),
        stopped=stopped,
    )


def _empty_trace(rows: int, block: int) -> Trace:
    zeros = jnp.zeros(rows, jnp.int32)
    return Trace(
        jnp.int32(0), zeros, zeros, zeros, jnp.full((rows, block), -1, jnp.int32), jnp.zeros((rows, block))
    )


def _record(trace: Trace, draft: _Draft, verdict, emitted) -> Trace:
    row, was_drafted = trace.cycles, jnp.arange(draft.ids.shape[0]) < draft.drafted
    return Trace(
        cycles=row + 1,
        drafted=trace.drafted.at[row].set(draft.drafted),
        accepted=trace.accepted.at[row].set(jnp.minimum(verdict.accepted, emitted)),
        emitted=trace.emitted.at[row].set(emitted),
        draft_ids=trace.draft_ids.at[row].set(jnp.where(was_drafted, draft.ids, -1)),
        overlap=trace.overlap.at[row].set(jnp.where(was_drafted, verdict.overlap, 0.0)),
    )
