"""Autoregressive decoding: one token, one call of the model. The yardstick for everything else."""

from functools import partial

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import PRNGKeyArray

from tandem_edu.decode.request import Output, Request, Row, finish, make_request
from tandem_edu.decode.sampling import EMIT, Sampling
from tandem_edu.decode.trace import Trace
from tandem_edu.errors import require
from tandem_edu.model import Transformer


def generate(
    model: Transformer,
    prompt,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    key: PRNGKeyArray | None = None,
    *,
    num_samples: int | None = None,
    stop_token: int | None = None,
) -> Output:
    """Continue `prompt` (int32[prompt]) by `max_new_tokens` tokens, greedily unless `sampling` says else.

    One compiled loop over one cache. A `stop_token` is emitted and ends the text. Several prompts, or
    several samples of each, are decoded together: see `speculate`.
    Works under `jax.jit` and under `jax.vmap` over prompts and keys.
    Raises `BadInput` for a prompt or a number of tokens that does not fit.

    >>> import jax
    >>> from tandem_edu.model import TransformerConfig
    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=16)
    >>> generate(Transformer(cfg, key=jax.random.key(0)), [1, 2, 3], max_new_tokens=5).tokens.shape
    (5,)
    """
    got, fix = f"a {type(model).__name__}", "use te.speculate for a drafter, te.block_generate for a tandem"
    require(isinstance(model, Transformer), "a Transformer", got, fix)
    request = make_request(model, prompt, max_new_tokens, sampling, key, stop_token, num_samples)
    text, n, trace = _generate(model, request)
    return finish(request, text, n, max_new_tokens, trace)


@eqx.filter_jit
def _generate(model: Transformer, request: Request):
    capacity = request.row.text.shape[-1]

    def read(row: Row):
        return model.prefill(row.text[: request.prompt_bucket], row.prompt_len - 1, capacity)[1]

    def step(row: Row, u, text, n, cache, stopped):
        logits, after = model.extend(text[n - 1][None], cache)
        p = request.sampling.probabilities(logits[0])
        token = request.sampling.draw(p, u[n, 0, EMIT])
        done = stopped | (n >= row.end)
        text = text.at[jnp.where(done, capacity, n)].set(token, mode="drop")
        n = jnp.where(done, n, n + 1)
        return text, n, after.with_length(n - 1), stopped | (~done & (token == request.stop_token))

    def unfinished(state):
        _, n, _, stopped = state
        return jnp.any((n < request.row.end) & ~stopped)

    row = request.row
    u = request.rows(lambda row: request.sampling.numbers(row.key, capacity, 1))(row)
    state = (row.text, row.prompt_len, request.begin(read), jnp.zeros(row.end.shape, bool))
    text, n, _, _ = lax.while_loop(unfinished, lambda state: request.rows(step)(row, u, *state), state)
    return text, n, request.rows(partial(Trace.of_single_tokens, rows=capacity))(n - row.prompt_len)
