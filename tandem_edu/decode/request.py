"""A decoding request, checked and padded: what `generate` and `speculate` share.

Prompts and results live in one text buffer whose size is a power of two, so that requests of about the
same size share one compiled loop.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Int, PRNGKeyArray

from tandem_edu.decode.sampling import Sampling
from tandem_edu.decode.trace import Trace
from tandem_edu.errors import BadInput, require
from tandem_edu.model import TransformerConfig


class Output(eqx.Module):
    """New tokens `int32[max_new_tokens]` (the prompt not included) and how they came about.

    Where a stop token ended the text early, `length` is less than `max_new_tokens` and the rest of
    `tokens` repeats the stop token.
    """

    tokens: Int[Array, " max_new_tokens"]
    length: Int[Array, ""]
    trace: Trace


class Request(eqx.Module):
    """The text buffer and the limits, ready for a compiled loop."""

    text: Int[Array, " size"]
    prompt_len: Int[Array, ""]
    end: Int[Array, ""]
    stop_token: Int[Array, ""]
    sampling: Sampling
    key: PRNGKeyArray
    prompt_bucket: int = eqx.field(static=True)


def bucket(n: int, smallest: int = 32) -> int:
    """The next power of two, at least `smallest`.

    >>> bucket(5), bucket(33), bucket(64)
    (32, 64, 64)
    """
    return max(smallest, 1 << (n - 1).bit_length())


def make_request(
    config: TransformerConfig,
    prompt,
    max_new_tokens: int,
    sampling: Sampling | None,
    key: PRNGKeyArray | None,
    stop_token: int | None,
) -> Request:
    """Check what a person passed, and pad it. Raises `BadInput`."""
    prompt = check_prompt(config, prompt)
    length = prompt.shape[0]
    require(max_new_tokens >= 1, "max_new_tokens of at least 1", max_new_tokens, "ask for a token")
    require(
        length + max_new_tokens <= config.max_len,
        f"prompt and new tokens within the context of {config.max_len}",
        f"{length} + {max_new_tokens} = {length + max_new_tokens}",
        f"pass max_new_tokens={max(config.max_len - length, 0)} at most or shorten the prompt",
    )
    require(
        stop_token is None or 0 <= stop_token < config.vocab_size,
        f"a stop_token in 0..{config.vocab_size - 1}",
        stop_token,
        "leave it out to go on to the end",
    )
    sampling = Sampling() if sampling is None else sampling
    require(sampling.greedy or key is not None, "a key for sampling", None, "pass key=jax.random.key(0)")
    size = bucket(length + max_new_tokens)
    return Request(
        text=_padded(prompt, size),
        prompt_len=jnp.int32(length),
        end=jnp.int32(length + max_new_tokens),
        stop_token=jnp.int32(-1 if stop_token is None else stop_token),
        sampling=sampling,
        key=jax.random.key(0) if key is None else key,
        prompt_bucket=min(size, bucket(length)),
    )


def _padded(prompt, size: int) -> Int[Array, " size"]:
    # NumPy, where it can be: JAX would compile the padding anew for each length of prompt.
    pad = jnp.pad if isinstance(prompt, jax.Array) else np.pad
    return jnp.asarray(pad(prompt, (0, size - prompt.shape[0])))


def check_prompt(config: TransformerConfig, prompt) -> Int[Array | np.ndarray, " prompt"]:
    """A prompt as int32[prompt]. Its values are checked unless they are being traced."""
    if not isinstance(prompt, jax.Array):
        try:
            prompt = np.asarray(prompt)
        except ValueError:
            raise BadInput("a prompt int32[prompt]", "a ragged list", "pass one text's token ids") from None
    right = prompt.ndim == 1 and prompt.size > 0 and np.issubdtype(prompt.dtype, np.integer)
    got = f"shape {tuple(prompt.shape)} of {prompt.dtype}"
    require(right, "a prompt of one or more token ids, int32[prompt]", got, "encode the text first")
    require(
        prompt.shape[0] < config.max_len,
        f"a prompt shorter than the context of {config.max_len} tokens",
        f"{prompt.shape[0]} tokens",
        f"keep its last {config.max_len - 1} tokens at most",
    )
    if not isinstance(prompt, Tracer):
        low, high = int(prompt.min()), int(prompt.max())
        if low < 0 or high >= config.vocab_size:
            raise BadInput(
                f"token ids in 0..{config.vocab_size - 1}",
                low if low < 0 else high,
                "encode the prompt with the model's own tokenizer",
            )
    return prompt.astype(np.int32)


def finish(request: Request, text, n, max_new_tokens: int, trace: Trace) -> Output:
    """Cut the new tokens out of the text buffer; after an early end repeat the stop token."""
    text = text[: request.text.shape[0]]
    new = _cut(text, request.prompt_len, n, request.stop_token, max_new_tokens)
    return Output(new, n - request.prompt_len, trace)


@partial(jax.jit, static_argnums=4)
def _cut(text, start, end, stop_token, size: int) -> Int[Array, " size"]:
    new = lax.dynamic_slice(text, (start,), (size,))
    return jnp.where(start + jnp.arange(size) < end, new, stop_token)
