"""One decoding cycle: draft, let the primary read, verify, commit. All block-wise decoding consists of it.

With `n` tokens of text, of which the primary has read all but the last (the *pending* one):

1. the drafter reads the pending token and drafts d_1 .. d_γ, one by one, or fewer if a router stops it;
2. the primary reads [pending, d_1 .. d_γ] in one pass, which gives its distributions at γ + 1 positions.
   Where it adds no token of its own, it does not read d_γ, the pending token of the next cycle;
3. verification accepts m drafts, and the primary adds one token: the text grows by m + 1;
4. both commit: the primary's cache is cut to the new text without its last token, and the drafter follows.

γ is a traced value below a static γ_max, so a sweep over γ compiles once. The primary always reads γ_max + 1
tokens, and what lies beyond γ + 1 does not count. In a batch, each text has its own position; one that is
done goes on computing beside the others, without effect.

Axis names: `batch` texts, `capacity` tokens of a buffer, `block` = γ_max drafts, `width` = γ_max + 1.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from tandem_edu.decode.request import Request, Text, over_batch, squeeze_one
from tandem_edu.decode.routers import Router
from tandem_edu.decode.sampling import DRAFT, Sampling
from tandem_edu.decode.trace import Trace
from tandem_edu.drafters import Draft, Drafter, PrimaryOutput
from tandem_edu.errors import require
from tandem_edu.model import Cache, Transformer
from tandem_edu.model.masks import positions


class Decoder(eqx.Module):
    """The models and the settings, the same for all texts."""

    primary: Transformer
    drafter: Drafter
    router: Router | None
    sampling: Sampling
    stop_token: Int[Array, ""]
    block_len: Int[Array, ""]
    """γ, the highest number of drafts a cycle."""
    max_draft_len: int = eqx.field(static=True)
    """γ_max, part of the compiled program."""
    verify: Callable = eqx.field(static=True)
    """`verify`, `verify_block` or one that accepts everything."""
    bonus_token: bool = eqx.field(static=True, default=True)
    """Whether the primary's own token is emitted after the accepted drafts."""
    reserve_bonus: bool = eqx.field(static=True, default=True)
    """Whether the last token of the text is always the primary's; else it may be a draft."""


class Limits(eqx.Module):
    """What each text keeps through all cycles."""

    end: Int[Array, "*batch"]
    uniforms: Float[Array, "*batch capacity width role two"]


class DecodeState(eqx.Module):
    """What changes from cycle to cycle."""

    buffer: Int[Array, "*batch capacity"]
    n: Int[Array, "*batch"]
    """Tokens of text in the buffer."""
    cache: Cache
    drafter: Any
    trace: Trace
    done: Bool[Array, "*batch"]


class Block(eqx.Module):
    """The drafts of one cycle, and what the router knows of each."""

    drafted: Int[Array, "*batch"]
    limit: Int[Array, "*batch"]
    """Drafting ends here; the router or the drafter may lower it."""
    ids: Int[Array, "*batch block"]
    q: Float[Array, "*batch block vocab"]
    features: Float[Array, "*batch block n_features"]
    confidence: Float[Array, "*batch block"]
    drafter: Any


class Cycle(NamedTuple):
    """One cycle of one text, as it happened."""

    tokens: np.ndarray
    """The tokens emitted, the primary's own last."""
    drafted: np.ndarray
    """The drafts, accepted or not."""
    accepted: int
    features: np.ndarray
    """float[drafted, n_features]: what the router knew of each draft; empty without a router."""
    acceptance_prob: np.ndarray
    """float[drafted]: Σ_v min(p, q) at each draft."""


@eqx.filter_jit
def decode(decoder: Decoder, request: Request):
    """Cycles until every text is done: the buffers, the lengths of the texts, the trace."""
    limits, state = _begin(decoder, request)

    @squeeze_one
    def write(limits, state, each):
        next_cycle = lambda state: _cycle(decoder, limits, state, each)[0]
        return lax.while_loop(lambda state: ~jnp.all(state.done), next_cycle, state)

    state = write(limits, state)
    return state.buffer, state.n, state.trace


def cycles(decoder: Decoder, request: Request) -> Iterator[list[Cycle | None]]:
    """The same, cycle by cycle: one `Cycle` for each text, `None` for a text that is done."""
    limits, state = _compiled_begin(decoder, request)
    done = np.asarray(state.done)
    while not done.all():
        state, block = _compiled_cycle((decoder, limits), state)
        last = np.maximum(np.asarray(state.trace.cycles) - 1, 0).tolist()
        yield [None if done[i] else _record(state, block, i, last[i]) for i in range(len(done))]
        done = np.asarray(state.done)


def _record(state: DecodeState, block: Block, i: int, entry: int) -> Cycle:
    drafted, end = int(block.drafted[i]), int(state.n[i])
    tokens = np.asarray(state.buffer[i])[end - int(state.trace.emitted[i, entry]) : end]
    parts = block.ids[i], block.features[i], state.trace.acceptance_prob[i, entry]
    ids, features, prob = (np.asarray(x)[:drafted] for x in parts)
    return Cycle(tokens, ids, int(state.trace.accepted[i, entry]), features, prob)


def _begin(decoder: Decoder, request: Request) -> tuple[Limits, DecodeState]:
    """The state after the prompts."""
    texts, width = request.texts, decoder.max_draft_len + 1
    size = texts.buffer.shape[1]
    capacity = size + width

    def read_prompt(text: Text):
        prompt = text.buffer[: request.prompt_bucket]
        hidden, cache = decoder.primary.prefill(prompt, text.prompt_len - 1, capacity)
        output = PrimaryOutput(prompt, hidden, cache, jnp.int32(0))
        return cache, decoder.drafter.start(output, decoder.max_draft_len, jnp.maximum(decoder.block_len, 1))

    cache, drafter = request.begin(read_prompt)
    trace = over_batch(lambda _: Trace.empty(size, decoder.max_draft_len))(texts.end)
    uniforms = over_batch(lambda key: decoder.sampling.uniforms(key, capacity, width))(texts.key)
    buffer = jnp.pad(texts.buffer, ((0, 0), (0, width)))
    done = jnp.zeros(texts.end.shape, bool)
    state = DecodeState(buffer, texts.prompt_len, cache, drafter, trace, done)
    return Limits(texts.end, uniforms), state


def _cycle(decoder: Decoder, limits: Limits, state: DecodeState, each: Callable) -> tuple[DecodeState, Block]:
    block = each(partial(_empty_block, decoder))(limits, state)
    goes_on = lambda block: jnp.any(block.drafted < block.limit)
    draft = each(partial(_draft, decoder))
    block = lax.while_loop(goes_on, lambda block: draft(limits, state, block), block)
    return each(partial(_verify_and_commit, decoder))(limits, state, block), block


_compiled_begin = eqx.filter_jit(_begin)


@eqx.filter_jit(donate="all-except-first")
def _compiled_cycle(constant: tuple[Decoder, Limits], state: DecodeState):
    decoder, limits = constant
    return squeeze_one(partial(_cycle, decoder))(limits, state)


def _empty_block(decoder: Decoder, limits: Limits, state: DecodeState) -> Block:
    size, vocab, dtype = decoder.max_draft_len, decoder.primary.config.vocab_size, jnp.float32
    left = limits.end - state.n - int(decoder.reserve_bonus)
    n_features = 0
    if decoder.router is not None:
        step = lambda: decoder.drafter.step(jnp.int32(0), state.drafter, decoder.primary, state.cache)
        features = eqx.filter_eval_shape(lambda: _features(decoder, step(), jnp.int32(0)))
        n_features = features.shape[0]
    return Block(
        drafted=jnp.int32(0),
        limit=jnp.where(state.done, 0, jnp.minimum(decoder.block_len, left)),
        ids=jnp.zeros(size, jnp.int32),
        q=jnp.zeros((size, vocab), dtype),
        features=jnp.zeros((size, n_features), dtype),
        confidence=jnp.ones(size, dtype),
        drafter=state.drafter,
    )


def _draft(decoder: Decoder, limits: Limits, state: DecodeState, block: Block) -> Block:
    """One more draft, from the drafter's distribution after temperature, top-k and top-p."""
    i, vocab = block.drafted, decoder.primary.config.vocab_size
    last = jnp.where(i == 0, state.buffer[state.n - 1], block.ids[i - 1])
    draft = decoder.drafter.step(last, block.drafter, decoder.primary, state.cache)
    got, fix = f"logits of shape {draft.logits.shape}", "train both with one tokenizer"
    require(draft.logits.shape == (vocab,), f"a drafter over the primary's {vocab} tokens", got, fix)
    q = decoder.sampling.probabilities(draft.logits)
    token = decoder.sampling.draw(q, limits.uniforms[state.n, i, DRAFT])
    features, confidence, goes_on = block.features[0], jnp.float32(1), draft.has_draft
    if decoder.router is not None:
        features = _features(decoder, draft, token)
        confidence = decoder.router.confidence(features)
        goes_on = goes_on & (confidence >= decoder.router.threshold)
    is_drafted = (i < block.limit) & draft.has_draft
    drafted = i + is_drafted.astype(jnp.int32)
    slot = jnp.where(is_drafted, i, decoder.max_draft_len)  # beyond the end nothing is written
    return Block(
        drafted=drafted,
        limit=jnp.where(goes_on, block.limit, jnp.minimum(block.limit, drafted)),
        ids=block.ids.at[slot].set(token, mode="drop"),
        q=block.q.at[slot].set(q, mode="drop"),
        features=block.features.at[slot].set(features, mode="drop"),
        confidence=block.confidence.at[slot].set(confidence, mode="drop"),
        drafter=draft.state,
    )


def _features(decoder: Decoder, draft: Draft, token: Int[Array, ""]) -> Float[Array, " n_features"]:
    embed = lambda ids: decoder.drafter.embed(ids, decoder.primary)
    return decoder.router.features(draft, token, embed)  # pyright: ignore


def _verify_and_commit(decoder: Decoder, limits: Limits, state: DecodeState, block: Block) -> DecodeState:
    tokens = jnp.concatenate([state.buffer[state.n - 1][None], block.ids])
    tokens = tokens if decoder.bonus_token else tokens[:-1]
    logits, hidden, cache = decoder.primary.extend(tokens, state.cache)
    p = decoder.sampling.probabilities(logits)
    u = limits.uniforms[state.n]
    result = decoder.verify(block.ids, block.drafted, block.q, p, decoder.sampling, u)
    emitted_ids = jnp.append(block.ids, 0).at[result.accepted].set(result.token)
    # Where nothing is drafted, as by prompt lookup, the primary's token is emitted: the text must grow.
    emitted = jnp.maximum(result.accepted + int(decoder.bonus_token), 1)
    is_stop = (emitted_ids == decoder.stop_token) & (positions(emitted_ids.shape[0]) < emitted)
    stops = jnp.any(is_stop)
    emitted = jnp.where(stops, jnp.argmax(is_stop).astype(jnp.int32) + 1, emitted)
    emitted = jnp.where(state.done, 0, jnp.minimum(emitted, limits.end - state.n))
    n = state.n + emitted
    cache = cache.with_length(n - 1)
    accepted = jnp.minimum(result.accepted, emitted)
    return DecodeState(
        buffer=lax.dynamic_update_slice(state.buffer, emitted_ids, (state.n,)),
        n=n,
        cache=cache,
        drafter=decoder.drafter.commit(block.drafter, PrimaryOutput(tokens, hidden, cache, state.n - 1)),
        trace=state.trace.record(
            state.done, block.drafted, accepted, emitted, block.ids, result.acceptance_prob, block.confidence
        ),
        done=state.done | stops | (n >= limits.end),
    )
