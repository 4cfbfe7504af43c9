"""A decoding request, checked and padded: what all decoders share.

Prompts and results live in one text buffer whose size is a power of two, so that requests of about the
same size share one compiled loop. A request is one text, or a batch of them with a leading axis `rows`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Int, PRNGKeyArray, Shaped

from tandem_edu.decode.sampling import Sampling
from tandem_edu.decode.trace import Trace
from tandem_edu.errors import BadInput, at_least, require
from tandem_edu.model import Transformer, TransformerConfig


class Output(eqx.Module):
    """New tokens `int32[max_new_tokens]` (the prompt not included) and how they came about.

    Where a stop token ended the text early, `length` is less than `max_new_tokens` and the rest of
    `tokens` repeats the stop token. Of a batch, everything has a leading axis `rows`.
    """

    tokens: Int[Array, "*rows max_new_tokens"]
    length: Int[Array, "*rows"]
    trace: Trace


class Row(eqx.Module):
    """What belongs to one text."""

    text: Int[Array, "*rows size"]
    prompt_len: Int[Array, "*rows"]
    end: Int[Array, "*rows"]
    key: Shaped[PRNGKeyArray, "*rows"]


class Request(eqx.Module):
    """The text buffers and the limits, ready for a compiled loop."""

    row: Row
    stop_token: Int[Array, ""]
    sampling: Sampling
    prompt_bucket: int = eqx.field(static=True)
    one_prompt: bool = eqx.field(static=True)
    """Whether all rows continue the same prompt, which then is read once."""

    @property
    def rows(self) -> Callable[[Callable], Callable]:
        """Makes a function of one row into one of all of them; for a single text, the function itself."""
        return jax.vmap if self.row.text.ndim == 2 else lambda function: function

    def begin(self, start: Callable[[Row], Any]) -> Any:
        """`start` of every row; of one prompt once, and its result repeated."""
        if not self.one_prompt or self.row.text.ndim == 1:
            return self.rows(start)(self.row)
        count = self.row.text.shape[0]
        first = start(jax.tree.map(lambda x: x[0], self.row))
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), first)


def bucket(n: int, smallest: int = 32) -> int:
    """The next power of two, at least `smallest`.

    >>> bucket(5), bucket(33), bucket(64)
    (32, 64, 64)
    """
    return max(smallest, 1 << (n - 1).bit_length())


def prompt_bucket(n: int) -> int:
    """`bucket`, or three quarters of it where that will do: what is padded is read for nothing.

    >>> prompt_bucket(5), prompt_bucket(48), prompt_bucket(49)
    (32, 48, 64)
    """
    size = bucket(n)
    return size * 3 // 4 if 32 < n <= size * 3 // 4 else size


def make_request(
    primary: Transformer,
    prompt,
    max_new_tokens: int,
    sampling: Sampling | None,
    key: PRNGKeyArray | None,
    stop_token: int | None,
    num_samples: int | None = None,
) -> Request:
    """Check what a person passed, and pad it. Raises `BadInput`, which names the row of a batch."""
    check_float32(primary)
    config = primary.config
    max_new_tokens = at_least(1, max_new_tokens, "max_new_tokens", "ask for a token")
    require(
        stop_token is None or (hasattr(stop_token, "__index__") and 0 <= stop_token < config.vocab_size),
        f"a stop_token in 0..{config.vocab_size - 1}",
        stop_token,
        "leave it out to go on to the end",
    )
    sampling = Sampling() if sampling is None else sampling
    right = isinstance(sampling, Sampling)
    require(right, "a te.Sampling", repr(sampling), "pass te.Sampling(temperature=1.0), for example")
    if num_samples is not None:
        at_least(1, num_samples, "num_samples", "ask for one")
    if key is not None or not sampling.greedy:
        check_key(key)
    batch = _is_batch(prompt)
    prompts = _checked_prompts(config, prompt if batch else [prompt], max_new_tokens, batch)
    size = bucket(max(len(p) for p in prompts) + max_new_tokens)
    one_prompt = num_samples is not None and len(prompts) == 1
    repeated = [p for p in prompts for _ in range(num_samples or 1)]
    rows = [_row(p, max_new_tokens, size) for p in repeated]
    root = jax.random.key(0) if key is None else key
    if batch or num_samples is not None:
        text, length, end = (jnp.stack(column) for column in zip(*rows, strict=True))
        root = jax.vmap(lambda row: jax.random.fold_in(root, row))(jnp.arange(len(rows)))
    else:
        text, length, end = rows[0]
    return Request(
        row=Row(text, length, end, root),
        stop_token=jnp.int32(-1 if stop_token is None else stop_token),
        sampling=sampling,
        prompt_bucket=min(size, prompt_bucket(max(len(p) for p in prompts))),
        one_prompt=one_prompt,
    )


def check_float32(model: eqx.Module) -> None:
    """Raise `BadInput` for weights of another kind: the caches are float32, and so is the comparison."""
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))}
    fix = "cast them with jax.tree.map, or load the model again"
    require(kinds <= {"float32"}, "weights in float32 to decode with", ", ".join(sorted(kinds)), fix)


def longest_block(block_len: int | Int[Array, ""], max_block_len: int | None, max_new_tokens: int) -> int:
    """γ_max: as given, or else γ rounded up to a multiple of 8, and no longer than the text to come.

    Raises `BadInput` for γ below 1 or above γ_max. A traced γ is not looked at, and needs a γ_max.

    >>> longest_block(3, None, 64), longest_block(3, 3, 64), longest_block(500, None, 20)
    (8, 3, 24)
    """
    if isinstance(block_len, Tracer):
        return at_least(1, max_block_len, "max_block_len", "pass it, as block_len is traced")
    block_len = at_least(1, block_len, "block_len (γ)", "try block_len=4")
    if max_block_len is None:
        return -(-min(block_len, max_new_tokens) // 8) * 8
    return at_least(block_len, max_block_len, "max_block_len", "leave it out, or shorten block_len")


def check_key(key) -> None:
    """Raise `BadInput` unless this is one PRNG key, old style or new."""
    fix = "pass key=jax.random.key(0)"
    require(key is not None, "a key for sampling", None, fix)
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    one = isinstance(key, jax.Array) and key.ndim == (0 if typed else 1)
    got = f"an array of shape {key.shape}" if isinstance(key, jax.Array) else repr(key)
    require(one, "one key for sampling, from which each row gets its own", got, fix)


def _is_batch(prompt) -> bool:
    """Whether this is several prompts: a list of sequences, or an array with two axes."""
    if isinstance(prompt, jax.Array | np.ndarray):
        return prompt.ndim == 2
    if not isinstance(prompt, Sequence) or isinstance(prompt, str):
        return False
    return len(prompt) > 0 and all(isinstance(p, Sequence) or getattr(p, "ndim", 0) == 1 for p in prompt)


def _checked_prompts(config: TransformerConfig, prompts, max_new_tokens: int, batch: bool) -> list:
    # An empty list may be meant as either.
    nothing = len(prompts) == 0 or (isinstance(prompts[0], Sequence) and len(prompts[0]) == 0 and not batch)
    expected = "a prompt of one or more token ids, or a batch of at least one prompt"
    require(not nothing, expected, "an empty one", "encode some text first, or leave this call out")
    return [
        check_prompt(config, prompt, max_new_tokens, f"row {row} of the batch: " if batch else "")
        for row, prompt in enumerate(prompts)
    ]


def _row(prompt, max_new_tokens: int, size: int):
    pad = jnp.pad if isinstance(prompt, jax.Array) else np.pad
    length = prompt.shape[0]
    text = jnp.asarray(pad(prompt, (0, size - length)))
    return text, jnp.int32(length), jnp.int32(length + max_new_tokens)


def check_prompt(
    config: TransformerConfig, prompt, max_new_tokens: int, where: str = ""
) -> Int[Array | np.ndarray, " prompt"]:
    """A prompt as int32[prompt]. Its values are checked unless they are being traced."""
    if not isinstance(prompt, Tracer):
        # NumPy: JAX would compile what follows anew for each length of prompt.
        try:
            prompt = np.asarray(prompt)
        except ValueError:
            fix = "pass one text's token ids, or a list of such"
            raise BadInput(f"{where}a prompt int32[prompt]", "a ragged list", fix) from None
    right = prompt.ndim == 1 and prompt.size > 0 and np.issubdtype(prompt.dtype, np.integer)
    got = f"shape {tuple(prompt.shape)} of {prompt.dtype}"
    require(right, f"{where}a prompt of one or more token ids, int32[prompt]", got, "encode the text first")
    length = prompt.shape[0]
    require(
        length < config.max_len,
        f"{where}a prompt shorter than the context of {config.max_len} tokens",
        f"{length} tokens",
        f"keep its last {config.max_len - 1} tokens at most",
    )
    require(
        length + max_new_tokens <= config.max_len,
        f"{where}prompt and new tokens within the context of {config.max_len}",
        f"{length} + {max_new_tokens} = {length + max_new_tokens}",
        f"pass max_new_tokens={max(config.max_len - length, 0)} at most or shorten the prompt",
    )
    if not isinstance(prompt, Tracer):
        low, high = int(prompt.min()), int(prompt.max())
        if low < 0 or high >= config.vocab_size:
            raise BadInput(
                f"{where}token ids in 0..{config.vocab_size - 1}",
                low if low < 0 else high,
                "encode the prompt with the model's own tokenizer",
            )
    return prompt.astype(np.int32)


def finish(request: Request, text, n, max_new_tokens: int, trace: Trace) -> Output:
    """Cut the new tokens out of the text buffer; after an early end repeat the stop token."""
    start = request.row.prompt_len
    cut = partial(_cut, stop_token=request.stop_token, size=max_new_tokens)
    return Output(request.rows(cut)(text, start, n), n - start, trace)


@partial(jax.jit, static_argnames="size")
def _cut(text, start, end, stop_token, size: int) -> Int[Array, " size"]:
    new = lax.dynamic_slice(text, (start,), (size,))
    return jnp.where(start + jnp.arange(size) < end, new, stop_token)
