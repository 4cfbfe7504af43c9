"""Autoregressive decoding: one token, one call of the model. The yardstick for everything else."""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PRNGKeyArray

from tandem_edu.decode.request import Output, Request, finish, make_request
from tandem_edu.decode.sampling import EMIT, Sampling, role_key
from tandem_edu.decode.trace import Trace
from tandem_edu.model import Transformer


def generate(
    model: Transformer,
    prompt,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    key: PRNGKeyArray | None = None,
    *,
    stop_token: int | None = None,
) -> Output:
    """Continue `prompt` (int32[prompt]) by `max_new_tokens` tokens, greedily unless `sampling` says else.

    One compiled loop over one cache. A `stop_token` is emitted and ends the text.
    Works under `jax.jit` and under `jax.vmap` over prompts and keys.
    Raises `BadInput` for a prompt or a number of tokens that does not fit.

    >>> import jax
    >>> from tandem_edu.model import TransformerConfig
    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=16)
    >>> generate(Transformer(cfg, key=jax.random.key(0)), [1, 2, 3], max_new_tokens=5).tokens.shape
    (5,)
    """
    request = make_request(model.config, prompt, max_new_tokens, sampling, key, stop_token)
    text, n, trace = _generate(model, request)
    return finish(request, text, n, max_new_tokens, trace)


@eqx.filter_jit
def _generate(model: Transformer, request: Request):
    text = request.text
    _, cache = model.prefill(text[: request.prompt_bucket], request.prompt_len - 1, text.shape[0])

    def step(state):
        text, n, cache, _ = state
        logits, cache = model.extend(text[n - 1][None], cache)
        p = request.sampling.probabilities(logits[0])
        token = request.sampling.draw(p, role_key(request.key, n, n, EMIT))
        return text.at[n].set(token), n + 1, cache, (token == request.stop_token)

    def unfinished(state):
        _, n, _, stopped = state
        return (n < request.end) & ~stopped

    text, n, _, _ = lax.while_loop(unfinished, step, (text, request.prompt_len, cache, jnp.array(False)))
    return text, n, _trace(n - request.prompt_len, text.shape[0])


def _trace(cycles: Int[Array, ""], rows: int) -> Trace:
    """Each cycle emits one token; nothing is drafted."""
    none, drafts = jnp.zeros(rows, jnp.int32), jnp.zeros((rows, 0))
    emitted = (jnp.arange(rows) < cycles).astype(jnp.int32)
    return Trace(cycles, none, none, emitted, drafts.astype(jnp.int32), drafts)
