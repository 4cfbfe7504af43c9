"""Teach a router which of a drafter's drafts its primary accepts (paper, section 3: adaptive block length).

The pair drafts and verifies with a constant γ. Each draft that is verified is an example: its features, and
whether it was accepted. The drafts after a rejected one are not examples, because verification does not reach
them. The loss is binary cross-entropy, so the router's output is a probability.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, PRNGKeyArray

from tandem_edu.decode import LearnedRouter, Sampling, cycles
from tandem_edu.decode.request import check_prompt, make_request
from tandem_edu.decode.routers import fingerprint
from tandem_edu.decode.speculative import as_drafter, make_decoder
from tandem_edu.drafters import Drafter, PrimaryOutput
from tandem_edu.errors import at_least, require
from tandem_edu.model import Transformer
from tandem_edu.progress import progress_bar

BATCH_SIZE, RATE = 8, 3e-3
"""Prompts decoded together; the learning rate at the start."""


class Examples(NamedTuple):
    """Verified drafts."""

    features: Float[np.ndarray, "n n_features"]
    accepted: Float[np.ndarray, " n"]
    """1 where the primary accepted the draft, else 0."""


def train_router(
    primary: Transformer,
    drafter: Transformer | Drafter,
    prompts: Sequence[np.ndarray],
    block_len: int = 8,
    *,
    max_new_tokens: int = 64,
    sampling: Sampling | None = None,
    steps: int = 1000,
    threshold: float = 0.8,
    key: PRNGKeyArray,
    progress: bool = True,
) -> tuple[LearnedRouter, Examples]:
    """A router for this pair at this γ_max (`block_len`), and examples that it has not learned from.

    **Arguments:**

    - `prompts`: from the training text. The last tenth of them (at least one) is held out.
    - `sampling`: how the pair decodes. A router for greedy decoding expects greedy decoding.
    - `max_new_tokens`: after each prompt. `steps`: of AdamW (see `fit`), on 256 examples each.

    Raises `BadInput` for fewer than two prompts, if nothing is drafted, and where `speculate` does; it
    names the prompt.
    """
    require(len(prompts) >= 2, "at least two prompts", len(prompts), "one is held out, so pass more")
    for name, number in {"block_len": block_len, "steps": steps}.items():
        at_least(1, number, name, "leave it out")
    # Here, because in a batch they are named by their row.
    for number, prompt in enumerate(prompts):
        check_prompt(primary.config, prompt, max_new_tokens, f"prompt {number}: ")
    drafter = as_drafter(drafter, primary)
    train_key, held_out_key, init_key, order_key = jax.random.split(key, 4)
    made_for, top_k = (fingerprint(drafter), block_len), min(8, primary.config.vocab_size)
    d_hidden = _hidden_size(primary, drafter, block_len)
    untrained = LearnedRouter(d_hidden, made_for, threshold, top_k, key=init_key)
    settings = {"max_new_tokens": max_new_tokens, "sampling": sampling, "progress": progress}
    learned, held_out = np.split(np.arange(len(prompts)), [-max(1, len(prompts) // 10)])
    examples, others = (
        collect(primary, drafter, untrained, [prompts[i] for i in part], key=key, **settings)
        for part, key in ((learned, train_key), (held_out, held_out_key))
    )
    return fit(untrained, examples, steps, order_key), others


def collect(
    primary: Transformer,
    drafter: Drafter,
    router: LearnedRouter,
    prompts: Sequence[np.ndarray],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    key: PRNGKeyArray,
    progress: bool = False,
) -> Examples:
    """The verified drafts of decoding `prompts` with the constant γ that `router` is made for."""
    never_stops, block_len = router.with_threshold(0.0), router.made_for[1]
    batches = [prompts[start : start + BATCH_SIZE] for start in range(0, len(prompts), BATCH_SIZE)]
    features, accepted = [], []
    for number, batch in enumerate(progress_bar(batches, show=progress, desc="drafts")):
        full = [*batch, *[batch[0]] * (BATCH_SIZE - len(batch))]  # one compiled program for all batches
        request = make_request(primary, full, max_new_tokens, sampling, jax.random.fold_in(key, number), None)
        decoder = make_decoder(primary, drafter, request, block_len, block_len, never_stops)
        for texts in cycles(decoder, request):
            for cycle in filter(None, texts[: len(batch)]):
                verified = min(cycle.accepted + 1, len(cycle.drafted))
                features.append(cycle.features[:verified])
                accepted.append((np.arange(verified) < cycle.accepted).astype(np.float32))
    fix = "ask for more tokens after each prompt, or use another drafter"
    require(sum(map(len, accepted)) > 0, "at least one verified draft to learn from", "none", fix)
    return Examples(np.concatenate(features), np.concatenate(accepted))


def fit(router: LearnedRouter, examples: Examples, steps: int, key: PRNGKeyArray) -> LearnedRouter:
    """Standardise the features, then minimise binary cross-entropy with AdamW.

    Its weight decay is 0.01; the learning rate falls along a cosine to 0.
    """
    features, accepted = jnp.asarray(examples.features), jnp.asarray(examples.accepted)
    moments = jnp.mean(features, axis=0), 1 / jnp.maximum(jnp.std(features, axis=0), 1e-3)
    router = eqx.tree_at(lambda r: (r.mean, r.scale), router, moments)
    trained = lambda r: (r.w_in, r.b_in, r.w_out, r.b_out)
    adam = optax.adamw(optax.cosine_decay_schedule(RATE, steps), weight_decay=0.01)

    def loss(weights, batch):
        score = eqx.tree_at(trained, router, weights).score(features[batch])
        return jnp.mean(optax.sigmoid_binary_cross_entropy(score, accepted[batch]))

    def step(carry, key):
        weights, opt_state = carry
        batch = jax.random.randint(key, (256,), 0, accepted.shape[0])
        updates, opt_state = adam.update(jax.grad(loss)(weights, batch), opt_state, weights)
        return (optax.apply_updates(weights, updates), opt_state), None

    start, keys = trained(router), jax.random.split(key, steps)
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to its integer step count
        (weights, _), _ = jax.jit(partial(jax.lax.scan, step))((start, adam.init(start)), keys)
    return eqx.tree_at(trained, router, weights)


def _hidden_size(primary: Transformer, drafter: Drafter, block_len: int) -> int:
    """The number of hidden values of a draft."""

    def first_step() -> Any:
        prompt = jnp.zeros(1, jnp.int32)
        hidden, cache = primary.prefill(prompt, 0, block_len + 2)
        output = PrimaryOutput(prompt, hidden, cache, jnp.int32(0))
        state = drafter.start(output, block_len, jnp.int32(block_len))
        return drafter.step(jnp.int32(0), state, primary, cache).hidden

    return eqx.filter_eval_shape(first_step).shape[0]
