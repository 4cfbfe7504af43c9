"""Teach a router which of a drafter's drafts its primary accepts (paper, section 3: adaptive block length).

The pair drafts and verifies with a constant γ; each draft that was judged is an example: what the
router can know of it, and whether it stayed. Drafts behind a rejected one are none, because nobody
asked the primary about them. The loss is binary cross-entropy, so what comes out is a probability.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, PRNGKeyArray

from tandem_edu.decode import Drafter, LearnedRouter, Sampling
from tandem_edu.decode.cycle import Decoder, State, begin, cycle
from tandem_edu.decode.drafters import PrimaryOutput, as_drafter
from tandem_edu.decode.request import check_prompt, make_request
from tandem_edu.decode.routers import fingerprint
from tandem_edu.decode.verify import verify
from tandem_edu.errors import at_least, require
from tandem_edu.model import PrimaryReader, Transformer
from tandem_edu.progress import progress_bar


class Examples(NamedTuple):
    """Judged drafts."""

    features: Float[np.ndarray, "n n_features"]
    kept: Float[np.ndarray, " n"]
    """1 where the primary accepted the draft, else 0."""


class TrainedRouter(NamedTuple):
    """The router, and the examples it has not learned from."""

    router: LearnedRouter
    held_out: Examples


def train_router(
    primary: Transformer,
    drafter: Transformer | PrimaryReader | Drafter,
    prompts: Sequence[np.ndarray],
    block_len: int = 8,
    *,
    max_new_tokens: int = 64,
    sampling: Sampling | None = None,
    steps: int = 1000,
    learning_rate: float = 3e-3,
    threshold: float = 0.8,
    rows: int = 8,
    key: PRNGKeyArray,
    progress: bool = True,
) -> TrainedRouter:
    """A router for this pair at this γ_max (`block_len`), from the drafts it makes after `prompts`.

    **Arguments:**

    - `prompts`: from the training text. The last tenth of them (at least one) is held out.
    - `sampling`: how the pair decodes: a router for greedy decoding expects greedy decoding.
    - `max_new_tokens`, `rows`: tokens after each prompt; prompts decoded together.
    - `steps`, `learning_rate`: of AdamW along a cosine (see `fit`), on 256 examples each.

    Raises `BadInput` for fewer than two prompts, where nothing is drafted, and whatever `speculate`
    raises; it names the prompt.
    """
    require(len(prompts) >= 2, "at least two prompts", len(prompts), "one is held out, so pass more")
    for name, number in {"block_len": block_len, "rows": rows, "steps": steps}.items():
        at_least(1, number, name, "leave it out")
    # Here, because later their rows are those of a chunk.
    for number, prompt in enumerate(prompts):
        check_prompt(primary.config, prompt, max_new_tokens, f"prompt {number}: ")
    drafter = as_drafter(drafter, primary)
    learn_key, check_key, init_key, order_key = jax.random.split(key, 4)
    blank = _blank(primary, drafter, block_len, threshold, init_key)
    sizes = {"block_len": block_len, "max_new_tokens": max_new_tokens, "rows": rows}
    decode = partial(collect, primary, drafter, blank, sampling=sampling, progress=progress, **sizes)
    held_out = max(1, len(prompts) // 10)
    learn = decode(prompts[:-held_out], key=learn_key)
    check = decode(prompts[-held_out:], key=check_key)
    return TrainedRouter(fit(blank, learn, steps, learning_rate, order_key), check)


def collect(
    primary: Transformer,
    drafter: Drafter,
    router: LearnedRouter,
    prompts: Sequence[np.ndarray],
    block_len: int,
    max_new_tokens: int,
    sampling: Sampling | None,
    rows: int,
    *,
    key: PRNGKeyArray,
    progress: bool = False,
) -> Examples:
    """The judged drafts of decoding `prompts` with a constant γ, `rows` prompts at a time."""
    chunks = [prompts[start : start + rows] for start in range(0, len(prompts), rows)]
    examples = []
    for number, chunk in enumerate(progress_bar(chunks, show=progress, desc="drafts")):
        full = [*chunk, *[chunk[0]] * (rows - len(chunk))]  # one compiled program for all chunks
        request = make_request(primary, full, max_new_tokens, sampling, jax.random.fold_in(key, number), None)
        decoder = Decoder(
            primary=primary,
            drafter=drafter,
            router=router.with_threshold(0.0),  # it looks at every draft and stops none
            sampling=request.sampling,
            stop_token=request.stop_token,
            block_len=jnp.int32(block_len),
            max_block_len=block_len,
            judge=verify,
        )
        examples += _judged(decoder, request, len(chunk))
    features, kept = (np.concatenate(column) for column in zip(*examples, strict=True))
    fix = "ask for more tokens after each prompt, or take a drafter that drafts"
    require(len(kept) > 0, "at least one judged draft to learn from", "none", fix)
    return Examples(features, kept)


def _judged(decoder: Decoder, request, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The examples of the first `count` rows, cycle by cycle."""
    state, found = _begin(decoder, request), []
    while not bool(jnp.all(state.done)):
        live = ~np.asarray(state.done)
        state, drafted, accepted, features = _cycle(decoder, state)
        drafted, accepted, features = np.asarray(drafted), np.asarray(accepted), np.asarray(features)
        for row in np.flatnonzero(live[:count]):
            judged = min(int(accepted[row]) + 1, int(drafted[row]))
            kept = (np.arange(judged) < accepted[row]).astype(np.float32)
            found.append((features[row, :judged], kept))
    return found


_begin = eqx.filter_jit(begin)


@eqx.filter_jit(donate="all-except-first")
def _cycle(decoder: Decoder, state: State):
    state, draft = cycle(decoder, state, jax.vmap)
    latest = jax.vmap(lambda trace: trace.accepted[jnp.maximum(trace.cycles - 1, 0)])(state.trace)
    return state, draft.drafted, latest, draft.features


def fit(
    router: LearnedRouter, examples: Examples, steps: int, learning_rate: float, key: PRNGKeyArray
) -> LearnedRouter:
    """Standardise the features, then minimise binary cross-entropy with AdamW.

    Its weight decay is 0.01; the learning rate falls along a cosine to 0.
    """
    spread = np.maximum(examples.features.std(0), 1e-3)
    router = eqx.tree_at(
        lambda r: (r.mean, r.scale),
        router,
        (jnp.asarray(examples.features.mean(0)), jnp.asarray(1 / spread, jnp.float32)),
    )
    learned = lambda r: (r.w_in, r.b_in, r.w_out, r.b_out)
    adam = optax.adamw(optax.cosine_decay_schedule(learning_rate, steps), weight_decay=0.01)
    features, kept = jnp.asarray(examples.features), jnp.asarray(examples.kept)

    def loss(weights, batch):
        score = eqx.tree_at(learned, router, weights).score(features[batch])
        return jnp.mean(optax.sigmoid_binary_cross_entropy(score, kept[batch]))

    def step(carry, key):
        weights, opt_state = carry
        batch = jax.random.randint(key, (256,), 0, kept.shape[0])
        updates, opt_state = adam.update(jax.grad(loss)(weights, batch), opt_state, weights)
        return (optax.apply_updates(weights, updates), opt_state), None

    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to its whole-number count
        start = learned(router)
        (weights, _), _ = jax.jit(partial(jax.lax.scan, step))(
            (start, adam.init(start)), jax.random.split(key, steps)
        )
    return eqx.tree_at(learned, router, weights)


def _blank(
    primary: Transformer, drafter: Drafter, block_len: int, threshold: float, key: PRNGKeyArray
) -> LearnedRouter:
    """An untrained router with the right number of inputs."""

    def first_step():
        prompt = jnp.zeros(1, jnp.int32)
        states, cache = primary.prefill(prompt, 0, block_len + 2)
        state = drafter.start(
            PrimaryOutput(prompt, states, cache, jnp.int32(0)), block_len + 1, jnp.int32(block_len)
        )
        return drafter.step(jnp.int32(0), state, cache).hidden

    hidden = eqx.filter_eval_shape(first_step).shape[0]
    top_k = min(8, primary.config.vocab_size)
    return LearnedRouter(hidden, (fingerprint(drafter), block_len), threshold, top_k, key=key)
