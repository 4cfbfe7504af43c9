"""Teach a router which of a drafter's drafts its primary accepts (paper, section 3: adaptive block length).

The pair drafts and verifies with a constant γ. Every draft is an example: its features (`draft_features`),
and the target that the router learns to estimate by cross-entropy:

- "tv", the paper's, is soft: 1 - TV(p, q) = Σ_v min(p, q), the probability that such a draft is accepted. All
  γ drafts have it, also those after a rejection. For greedy decoding p and q are those at temperature 1;
- "accepted" is hard: whether this draft was accepted, known of those that verification reached.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from tandem_edu.decode import LearnedRouter, Sampling, cycles
from tandem_edu.decode.request import check_prompt
from tandem_edu.decode.routers import INPUTS, TARGETS, draft_features, fingerprint
from tandem_edu.decode.speculative import as_drafter, prepare
from tandem_edu.decode.verify import Verification, acceptance_prob
from tandem_edu.drafters import Drafter, PrimaryOutput
from tandem_edu.errors import at_least, require
from tandem_edu.model import LanguageModel, Transformer
from tandem_edu.model.masks import positions
from tandem_edu.progress import progress_bar

BATCH_SIZE, RATE = 8, 3e-3
"""Prompts decoded together; the learning rate at the start."""


class Examples(NamedTuple):
    """Drafts, one a row."""

    features: Float[np.ndarray, "n n_features"]
    acceptance_prob: Float[np.ndarray, " n"]
    """1 - TV(p, q)."""
    accepted: Float[np.ndarray, " n"]
    """1 where the primary accepted the draft, 0 where it did not, NaN where verification did not reach it."""

    def verified(self) -> "Examples":
        """The drafts that verification reached."""
        reached = ~np.isnan(self.accepted)
        return Examples(*(x[reached] for x in self))


def train_router(
    primary: Transformer,
    drafter: LanguageModel | Drafter,
    prompts: Sequence[np.ndarray],
    block_len: int = 8,
    *,
    max_new_tokens: int = 64,
    sampling: Sampling | None = None,
    steps: int = 1000,
    threshold: float = 0.8,
    target: str = "tv",
    features: str = "embeddings",
    key: PRNGKeyArray,
    progress: bool = True,
) -> tuple[LearnedRouter, Examples]:
    """A router for this pair at this γ_max (`block_len`), and verified drafts that it has not learned from.

    **Arguments:**

    - `prompts`: from the training text. The last tenth of them (at least one) is held out.
    - `sampling`: how the pair decodes. A router for greedy decoding expects greedy decoding.
    - `max_new_tokens`: after each prompt. `steps`: of AdamW (see `fit`), on 256 examples each.
    - `target`, `features`: what it estimates and what it sees. The paper's are "tv" and "embeddings"; the
      alternatives are "accepted" and "hidden".

    Raises `BadInput` for fewer than two prompts, if nothing is drafted, and where `speculate` does.
    """
    require(len(prompts) >= 2, "at least two prompts", len(prompts), "one is held out, so pass more")
    at_least(1, block_len, "block_len", "leave it out")
    at_least(1, steps, "steps", "leave it out")
    for name, given, known in (("target", target, TARGETS), ("features", features, INPUTS)):
        require(given in known, f"{name} among {', '.join(known)}", repr(given), "pick one")
    # Here, because in a batch they are named by their row.
    for number, prompt in enumerate(prompts):
        check_prompt(primary.config, prompt, max_new_tokens, f"prompt {number}: ")
    drafter = as_drafter(drafter, primary)
    train_key, held_out_key, init_key, order_key = jax.random.split(key, 4)
    made_for, top_k = (fingerprint(drafter), block_len), min(8, primary.config.vocab_size)
    n_features = _count_features(primary, drafter, top_k, features)
    router = LearnedRouter(n_features, made_for, threshold, top_k, features, target, key=init_key)
    learned, held_out = np.split(np.arange(len(prompts)), [-max(1, len(prompts) // 10)])
    examples, others = (
        collect(primary, drafter, router, [prompts[i] for i in part], max_new_tokens, sampling, key, progress)
        for part, key in ((learned, train_key), (held_out, held_out_key))
    )
    return fit(router, examples, steps, order_key), others.verified()


def collect(primary, drafter, router, prompts, max_new_tokens, sampling, key, progress=False) -> Examples:
    """The drafts of decoding `prompts` with the constant γ that `router` is made for."""
    never_stops, block_len = router.with_threshold(0.0), router.made_for[1]
    greedy = sampling is None or sampling.greedy
    batches = [prompts[start : start + BATCH_SIZE] for start in range(0, len(prompts), BATCH_SIZE)]
    columns: list[tuple] = []
    for number, batch in enumerate(progress_bar(batches, show=progress, desc="drafts")):
        full = [*batch, *[batch[0]] * (BATCH_SIZE - len(batch))]  # one compiled program for all batches
        how = (_Likeliest() if greedy else sampling, jax.random.fold_in(key, number), never_stops)
        decoder, request = prepare(
            primary, drafter, full, max_new_tokens, block_len, *how, max_draft_len=block_len
        )
        if greedy:
            decoder = dataclasses.replace(decoder, verify=_verify_likeliest)
        for cycle in (cycle for texts in cycles(decoder, request) for cycle in texts[: len(batch)] if cycle):
            index = np.arange(len(cycle.drafted))
            accepted = np.where(index > cycle.accepted, np.nan, index < cycle.accepted)
            columns.append((cycle.features, cycle.acceptance_prob, accepted.astype(np.float32)))
    fix = "ask for more tokens after each prompt, or use another drafter"
    drafted = sum(len(accepted) for *_, accepted in columns)
    require(drafted > 0, "at least one verified draft to learn from", "none", fix)
    return Examples(*map(np.concatenate, zip(*columns, strict=True)))


class _Likeliest(Sampling):
    """Greedy decoding whose p and q are those at temperature 1."""

    def __init__(self):
        super().__init__(temperature=1.0)

    def draw(self, p, u):
        return jnp.argmax(p).astype(jnp.int32)


def _verify_likeliest(drafts, drafted, q, p, sampling, u) -> Verification:
    """`verify` as greedy decoding has it: drafts stay while they are the primary's most probable tokens."""
    stays = (drafts == jnp.argmax(p[:-1], axis=-1)) & (positions(drafts.shape[0]) < drafted)
    accepted = jnp.argmin(jnp.append(stays, False)).astype(jnp.int32)
    return Verification(accepted, sampling.draw(p[accepted], u), acceptance_prob(p, q))


def fit(router: LearnedRouter, examples: Examples, steps: int, key: PRNGKeyArray) -> LearnedRouter:
    """Standardise the features, then minimise binary cross-entropy; the rate falls along a cosine to 0."""
    soft = router.target == "tv"
    examples = examples if soft else examples.verified()
    features = jnp.asarray(examples.features)
    targets = jnp.asarray(examples.acceptance_prob if soft else examples.accepted)
    moments = jnp.mean(features, axis=0), 1 / jnp.maximum(jnp.std(features, axis=0), 1e-3)
    router = eqx.tree_at(lambda r: (r.mean, r.scale), router, moments)
    trained = lambda r: (r.w_in, r.b_in, r.w_out, r.b_out)
    adam = optax.adamw(optax.cosine_decay_schedule(RATE, steps), weight_decay=0.01)

    def loss(weights, batch):
        score = eqx.tree_at(trained, router, weights).score(features[batch])
        return jnp.mean(optax.sigmoid_binary_cross_entropy(score, targets[batch]))

    def step(carry, key):
        weights, opt_state = carry
        batch = jax.random.randint(key, (256,), 0, targets.shape[0])
        updates, opt_state = adam.update(jax.grad(loss)(weights, batch), opt_state, weights)
        return (optax.apply_updates(weights, updates), opt_state), None

    start, keys = trained(router), jax.random.split(key, steps)
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to its integer step count
        (weights, _), _ = jax.jit(partial(jax.lax.scan, step))((start, adam.init(start)), keys)
    return eqx.tree_at(trained, router, weights)


def _count_features(primary: Transformer, drafter: Drafter, top_k: int, features: str) -> int:
    """The number of features of a draft."""

    def of_one_draft() -> Array:
        prompt, token = jnp.zeros(1, jnp.int32), jnp.int32(0)
        output = PrimaryOutput(prompt, *primary.prefill(prompt, 0, 3), jnp.int32(0))
        state = drafter.start(output, 1, jnp.int32(1))
        draft = drafter.step(token, state, primary, output.cache)
        return draft_features(draft, token, lambda ids: drafter.embed(ids, primary), top_k, features)

    return eqx.filter_eval_shape(of_one_draft).shape[0]
