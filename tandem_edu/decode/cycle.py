"""One decoding cycle: draft, let the primary read, judge, commit. Every block-wise decoder is this.

With `n` tokens of text of which the primary has read all but the last (the *pending* one):

1. the drafter reads the pending token and drafts d_1 .. d_γ, one by one, or fewer if a router stops it;
2. the primary reads [pending, d_1 .. d_γ] in one call: its distributions at the γ + 1 positions; where it
   adds no token of its own, not d_γ, with which the next block begins;
3. the judge keeps m drafts and the primary adds one token: the text grows by m + 1;
4. both caches commit: the primary's length becomes that of the new text but its last token, and a
   tandem's block is overwritten from what the primary has just read.

γ is a traced value under a static γ_max, so a sweep over γ compiles once; the primary always reads
γ_max + 1 tokens, and what lies beyond γ + 1 of them is never looked at. (Reading only as many as were
drafted, by `lax.switch` over the widths, was tried: the state that goes through it is copied, which costs a
CPU more than short blocks save, and each width is one more program to compile.)

In a batch every row is at a place of its own in its own text. A row that is done goes on computing
beside the others, and nothing of that is kept.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from tandem_edu.decode.drafters import Drafter, PrimaryOutput
from tandem_edu.decode.request import Request, Row
from tandem_edu.decode.routers import Router
from tandem_edu.decode.sampling import DRAFT, Sampling
from tandem_edu.decode.trace import Trace
from tandem_edu.errors import require
from tandem_edu.model import Cache, Transformer


class Decoder(eqx.Module):
    """All that stays the same from cycle to cycle."""

    primary: Transformer
    drafter: Drafter
    router: Router | None
    sampling: Sampling
    stop_token: Int[Array, ""]
    block_len: Int[Array, ""]
    """γ, here the most drafts a cycle."""
    max_block_len: int = eqx.field(static=True)
    judge: Callable = eqx.field(static=True)
    """`verify`, `verify_block` or one that keeps everything."""
    bonus_token: bool = eqx.field(static=True, default=True)
    """Whether the primary's own token is emitted after the kept drafts."""
    reserve_bonus: bool = eqx.field(static=True, default=True)
    """Whether room is left for that token at the text's end; else the last token may be a draft."""


class State(eqx.Module):
    """All that changes, and the random numbers."""

    text: Int[Array, "*rows capacity"]
    n: Int[Array, "*rows"]
    end: Int[Array, "*rows"]
    u: Float[Array, "*rows capacity width role two"]
    """`Sampling.numbers`."""
    cache: Cache
    drafter: Any
    trace: Trace
    done: Bool[Array, "*rows"]


class DraftBlock(eqx.Module):
    """The drafts of one cycle, and what the router saw of each."""

    u: Float[Array, "*rows width role two"]
    """This cycle's random numbers."""
    drafted: Int[Array, "*rows"]
    ids: Int[Array, "*rows block"]
    q: Float[Array, "*rows block vocab"]
    features: Float[Array, "*rows block n_features"]
    confidence: Float[Array, "*rows block"]
    limit: Int[Array, "*rows"]
    """It ends here, or where a router or the drafter itself ends it, which sets this lower."""
    state: Any

    @property
    def going_on(self) -> Bool[Array, "*rows"]:
        """Whether there is one more to draft."""
        return self.drafted < self.limit


def begin(decoder: Decoder, request: Request) -> State:
    """The state after the prompts."""
    width = decoder.max_block_len + 1
    capacity = request.row.text.shape[-1] + width

    def read(row: Row):
        prompt = row.text[: request.prompt_bucket]
        hidden, cache = decoder.primary.prefill(prompt, row.prompt_len - 1, capacity)
        reading = PrimaryOutput(prompt, hidden, cache, jnp.int32(0))
        return cache, decoder.drafter.start(reading, width, jnp.maximum(decoder.block_len, 1))

    row = request.row
    cache, drafter = request.begin(read)
    text = jnp.pad(row.text, [(0, 0)] * (row.text.ndim - 1) + [(0, width)])
    trace = request.rows(lambda _: Trace.empty(row.text.shape[-1], decoder.max_block_len))(row)
    done = jnp.zeros(row.end.shape, bool)
    u = request.rows(lambda row: request.sampling.numbers(row.key, capacity, width))(row)
    return State(text, row.prompt_len, row.end, u, cache, drafter, trace, done)


def cycle(decoder: Decoder, state: State, rows: Callable) -> tuple[State, DraftBlock]:
    """The next state. `rows` is `Request.rows`."""
    draft = rows(partial(_no_draft, decoder))(state)
    step = rows(partial(_draft_one, decoder))
    draft = lax.while_loop(lambda d: jnp.any(d.going_on), lambda d: step(state, d), draft)
    return rows(partial(_read_and_commit, decoder))(state, draft), draft


@eqx.filter_jit
def decode(decoder: Decoder, request: Request):
    """Cycles until every row is done: the text buffers, where the texts end, the trace."""
    state = lax.while_loop(
        lambda state: ~jnp.all(state.done),
        lambda state: cycle(decoder, state, request.rows)[0],
        begin(decoder, request),
    )
    return state.text, state.n, state.trace


def _no_draft(decoder: Decoder, state: State) -> DraftBlock:
    block, vocab = decoder.max_block_len, decoder.primary.config.vocab_size
    room = state.end - state.n - int(decoder.reserve_bonus)
    limit = jnp.where(state.done, 0, jnp.minimum(decoder.block_len, room))
    features = 0
    if decoder.router is not None:
        guess = eqx.filter_eval_shape(decoder.drafter.step, jnp.int32(0), state.drafter, state.cache)
        features = decoder.router.n_features(guess.hidden.shape[0])
    return DraftBlock(
        u=state.u[state.n],
        drafted=jnp.int32(0),
        ids=jnp.zeros(block, jnp.int32),
        q=jnp.zeros((block, vocab)),
        features=jnp.zeros((block, features)),
        confidence=jnp.ones(block),
        limit=limit,
        state=state.drafter,
    )


def _draft_one(decoder: Decoder, state: State, draft: DraftBlock) -> DraftBlock:
    """One more draft, from the drafter's own (warped) distribution."""
    i, vocab = draft.drafted, decoder.primary.config.vocab_size
    last = jnp.where(i == 0, state.text[state.n - 1], draft.ids[i - 1])
    guess = decoder.drafter.step(last, draft.state, state.cache)
    got, fix = f"logits of shape {guess.logits.shape}", "train both with one tokenizer"
    require(guess.logits.shape == (vocab,), f"a drafter over the primary's {vocab} tokens", got, fix)
    q = decoder.sampling.probabilities(guess.logits)
    token = decoder.sampling.draw(q, draft.u[i, DRAFT])
    features, confidence, more = draft.features[0], jnp.float32(1), guess.ready
    if decoder.router is not None:
        features = decoder.router.features(guess.logits, token, guess.hidden)
        confidence = decoder.router.confidence(features)
        more = more & (confidence >= decoder.router.threshold)
    drafts = draft.going_on & guess.ready
    drafted = i + drafts.astype(jnp.int32)
    slot = jnp.where(drafts, i, decoder.max_block_len)  # beyond the end: nothing is written
    return DraftBlock(
        u=draft.u,
        drafted=drafted,
        ids=draft.ids.at[slot].set(token, mode="drop"),
        q=draft.q.at[slot].set(q, mode="drop"),
        features=draft.features.at[slot].set(features, mode="drop"),
        confidence=draft.confidence.at[slot].set(confidence, mode="drop"),
        limit=jnp.where(more, draft.limit, jnp.minimum(draft.limit, drafted)),
        state=guess.state,
    )


def _read_and_commit(decoder: Decoder, state: State, draft: DraftBlock) -> State:
    block = jnp.concatenate([state.text[state.n - 1][None], draft.ids])
    block = block if decoder.bonus_token else block[:-1]
    logits, hidden, cache = decoder.primary.extend(block, state.cache, return_hidden=True)
    p = decoder.sampling.probabilities(logits)
    verdict = decoder.judge(draft.ids, draft.drafted, draft.q, p, decoder.sampling, draft.u)
    run = jnp.append(draft.ids, 0).at[verdict.accepted].set(verdict.token)
    # Where nothing was drafted, as prompt lookup may, the primary's token it is, or the text would not grow.
    whole = jnp.maximum(verdict.accepted + int(decoder.bonus_token), 1)
    stops = (run == decoder.stop_token) & (jnp.arange(run.shape[0]) < whole)
    emitted = jnp.where(jnp.any(stops), jnp.argmax(stops).astype(jnp.int32) + 1, whole)
    emitted = jnp.minimum(emitted, state.end - state.n)
    emitted = jnp.where(state.done, 0, emitted)
    n = state.n + emitted
    cache = cache.with_length(n - 1)
    accepted = jnp.minimum(verdict.accepted, emitted)
    trace = state.trace.record(
        state.done, draft.drafted, accepted, emitted, draft.ids, verdict.acceptance_prob, draft.confidence
    )
    return State(
        text=lax.dynamic_update_slice(state.text, run, (state.n,)),
        n=n,
        end=state.end,
        u=state.u,
        cache=cache,
        drafter=decoder.drafter.commit(draft.state, PrimaryOutput(block, hidden, cache, state.n - 1)),
        trace=trace,
        done=state.done | jnp.any(stops) | (n >= state.end),
    )
