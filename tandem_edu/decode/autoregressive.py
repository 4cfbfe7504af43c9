"""Autoregressive decoding: one token, one forward pass. Every speedup is measured against it."""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import PRNGKeyArray

from tandem_edu.decode.request import Output, Request, Text, finish, make_request, over_batch, squeeze_one
from tandem_edu.decode.sampling import EMIT, Sampling
from tandem_edu.decode.trace import Trace
from tandem_edu.errors import require
from tandem_edu.model import LanguageModel


def generate(
    model: LanguageModel,
    prompt,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    key: PRNGKeyArray | None = None,
    *,
    num_samples: int | None = None,
    stop_token: int | None = None,
) -> Output:
    """Continue `prompt` (int32[prompt]) by `max_new_tokens` tokens, greedily unless `sampling` is given.

    A `stop_token` is emitted and ends the text. Several prompts, or several samples of each, are decoded
    together: see `speculate`. Works under `jax.jit`, and under `jax.vmap` over prompts and keys. Raises
    `BadInput` for a prompt or a number of tokens that does not fit.

    >>> import jax
    >>> from tandem_edu.model import Transformer, TransformerConfig
    >>> cfg = TransformerConfig(8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=16, max_len=16)
    >>> generate(Transformer(cfg, key=jax.random.key(0)), [1, 2, 3], max_new_tokens=5).tokens.shape
    (5,)
    """
    got, fix = f"a {type(model).__name__}", "use te.speculate for a drafter, te.block_generate for a tandem"
    require(isinstance(model, LanguageModel), "a Transformer", got, fix)
    request = make_request(model, prompt, max_new_tokens, sampling, key, stop_token, num_samples)
    return finish(request, *_generate(model, request), max_new_tokens)


@eqx.filter_jit
def _generate(model: LanguageModel, request: Request):
    texts, size, sampling = request.texts, request.texts.buffer.shape[1], request.sampling

    def read_prompt(text: Text):
        return model.prefill(text.buffer[: request.prompt_bucket], text.prompt_len - 1, size)[1]

    def step(u, end, buffer, n, cache, done):
        logits, _, longer = model.extend(buffer[n - 1][None], cache)
        token = sampling.draw(sampling.probabilities(logits[0]), u[n, 0, EMIT])
        buffer = buffer.at[jnp.where(done, size, n)].set(token, mode="drop")
        n = jnp.where(done, n, n + 1)
        return buffer, n, longer.with_length(n - 1), done | (token == request.stop_token) | (n >= end)

    u = over_batch(lambda key: sampling.uniforms(key, size, 1))(texts.key)
    state = (texts.buffer, texts.prompt_len, request.begin(read_prompt), jnp.zeros(texts.end.shape, bool))

    @squeeze_one
    def write(u, end, state, each):
        next_token = lambda state: each(step)(u, end, *state)
        return lax.while_loop(lambda state: ~jnp.all(state[-1]), next_token, state)

    buffer, n, _, _ = write(u, texts.end, state)
    trace = over_batch(lambda cycles: Trace.of_single_tokens(cycles, entries=size))(n - texts.prompt_len)
    return buffer, n, trace
