"""A decoding request, always a batch, checked and padded to sizes that share compiled programs."""

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
from tandem_edu.model import LanguageModel, TransformerConfig
from tandem_edu.model.masks import positions
from tandem_edu.model.weights import check_float32


class Output(eqx.Module):
    """The new tokens (a stop token is repeated to the end), how many of them count, and the trace."""

    tokens: Int[Array, "*batch max_new_tokens"]
    length: Int[Array, "*batch"]
    trace: Trace


class Text(eqx.Module):
    """What is given of each text: the buffer with its prompt, where it must end, its key."""

    buffer: Int[Array, "*batch size"]
    prompt_len: Int[Array, "*batch"]
    end: Int[Array, "*batch"]
    key: Shaped[PRNGKeyArray, "*batch"]


class Request(eqx.Module):
    """A batch of texts and the limits, ready for a compiled loop."""

    texts: Text
    stop_token: Int[Array, ""]
    sampling: Sampling
    prompt_bucket: int = eqx.field(static=True)
    one_prompt: bool = eqx.field(static=True)
    """Whether all texts continue the same prompt, which the models then read once."""
    single: bool = eqx.field(static=True)
    """Whether the caller passed one prompt, not a batch."""

    def begin(self, start: Callable[[Text], Any]) -> Any:
        """`start` for every text; if all have one prompt, for the first text, with its result repeated."""
        count = self.texts.buffer.shape[0]
        if not self.one_prompt or count == 1:
            return over_batch(start)(self.texts)
        first = start(jax.tree.map(lambda x: x[0], self.texts))
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), first)


def over_batch(function: Callable) -> Callable:
    """`jax.vmap(function)`; for a batch of one `function` itself, which XLA compiles to faster code."""
    return squeeze_one(lambda *arguments, each: each(function)(*arguments))


def squeeze_one(function: Callable) -> Callable:
    """`function(*arguments, each=jax.vmap)`; for a batch of one without its axis, and `each` does nothing.

    A loop belongs into `function`: where its state has an axis of one, XLA copies the caches at each step.
    """

    def squeezed(*arguments):
        if jax.tree.leaves(arguments)[0].shape[0] > 1:
            return function(*arguments, each=jax.vmap)
        alone = jax.tree.map(lambda x: jnp.squeeze(x, 0), arguments)
        return jax.tree.map(lambda x: jnp.expand_dims(x, 0), function(*alone, each=lambda step: step))

    return squeezed


def bucket(n: int) -> int:
    """The smallest of 32, 48, 64, 96, 128, ... that is at least `n`.

    >>> [bucket(n) for n in (5, 33, 48, 49, 65)]
    [32, 48, 48, 64, 96]
    """
    power = max(32, 1 << (n - 1).bit_length())
    return power * 3 // 4 if 32 < n <= power * 3 // 4 else power


def make_request(
    primary: LanguageModel, prompt, max_new_tokens: int, sampling, key, stop_token, num_samples
) -> Request:
    """Check and pad the arguments of `speculate`. Raises `BadInput`, which names the row of a batch."""
    check_float32(primary)
    config = primary.config
    max_new_tokens = at_least(1, max_new_tokens, "max_new_tokens", "ask for at least one token")
    known = stop_token is None or (hasattr(stop_token, "__index__") and 0 <= stop_token < config.vocab_size)
    fix = "leave it out to decode to the end"
    require(known, f"a stop_token in 0..{config.vocab_size - 1}", stop_token, fix)
    sampling = Sampling() if sampling is None else sampling
    fix = "pass te.Sampling(temperature=1.0), for example"
    require(isinstance(sampling, Sampling), "a te.Sampling", repr(sampling), fix)
    if num_samples is not None:
        at_least(1, num_samples, "num_samples", "leave it out for one")
    if key is not None or not sampling.greedy:
        check_key(key)
    batch = _is_batch(prompt)
    given, where = (prompt, "row {} of the batch: ") if batch else ([prompt], "")
    require(len(given) > 0, "a batch of at least one prompt", "an empty one", "leave this call out")
    prompts = [check_prompt(config, p, max_new_tokens, where.format(row)) for row, p in enumerate(given)]
    longest = max(len(p) for p in prompts)
    size = bucket(longest + max_new_tokens)
    repeated = [p for p in prompts for _ in range(num_samples or 1)]
    single = not batch and num_samples is None
    # For JAX's default generator: what others draw (`rbg`, common on TPUs) depends on the rest of the batch.
    root = jax.random.key_data(jax.random.key(0) if key is None else key)[:2]
    root = jax.random.wrap_key_data(root, impl="threefry2x32")
    keys = root[None] if single else jax.vmap(partial(jax.random.fold_in, root))(positions(len(repeated)))
    # Traced prompts are padded by JAX, which compiles this for each length.
    numpy = jnp if any(isinstance(p, Tracer) for p in prompts) else np
    buffer = jnp.asarray(numpy.stack([numpy.pad(p, (0, size - len(p))) for p in repeated]))
    prompt_len = jnp.array([len(p) for p in repeated], jnp.int32)
    return Request(
        texts=Text(buffer, prompt_len, prompt_len + jnp.int32(max_new_tokens), keys),
        stop_token=jnp.int32(-1 if stop_token is None else stop_token),
        sampling=sampling,
        prompt_bucket=min(size, bucket(longest)),
        one_prompt=len(prompts) == 1,
        single=single,
    )


def resolve_max_draft_len(block_len, max_draft_len: int | None, max_new_tokens: int) -> int:
    """γ_max: as given, or else γ rounded up to a multiple of 8, and no longer than the text to come.

    Raises `BadInput` for γ below 1 or above γ_max. A traced γ is not checked, and needs a γ_max.

    >>> [resolve_max_draft_len(*x) for x in [(3, None, 64), (3, 3, 64), (500, None, 20)]]
    [8, 3, 24]
    """
    if isinstance(block_len, Tracer):
        return at_least(1, max_draft_len, "max_draft_len", "pass it, because block_len is traced")
    block_len = at_least(1, block_len, "block_len (γ)", "try block_len=4")
    if max_draft_len is None:
        return -(-min(block_len, max_new_tokens) // 8) * 8
    return at_least(block_len, max_draft_len, "max_draft_len", "leave it out, or shorten block_len")


def check_key(key) -> None:
    """Raise `BadInput` unless this is one PRNG key, old style or new."""
    is_array = isinstance(key, jax.Array)
    ndim = 0 if is_array and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else 1
    got = f"an array of shape {key.shape}" if is_array else repr(key)
    expected = "one key for sampling, from which each text of a batch gets its own"
    require(is_array and key.ndim == ndim, expected, got, "pass key=jax.random.key(0)")


def _is_batch(prompt) -> bool:
    """Whether this is several prompts: a list of sequences, or an array with two axes."""
    if not isinstance(prompt, list | tuple):
        return getattr(prompt, "ndim", 0) == 2
    return len(prompt) > 0 and all(isinstance(p, Sequence) or getattr(p, "ndim", 0) == 1 for p in prompt)


def check_prompt(
    config: TransformerConfig, prompt, max_new_tokens: int, where: str = ""
) -> Int[Array | np.ndarray, " prompt"]:
    """A prompt as int32[prompt]. Its values are checked unless they are traced."""
    traced = isinstance(prompt, Tracer)
    if not traced:
        try:
            prompt = np.asarray(prompt)  # JAX would compile what follows for each length of prompt
        except ValueError:
            fix = "pass one text's token ids, or a list of such"
            raise BadInput(f"{where}a prompt int32[prompt]", "a ragged list", fix) from None
    is_ids = prompt.ndim == 1 and prompt.size > 0 and np.issubdtype(prompt.dtype, np.integer)
    got = f"shape {tuple(prompt.shape)} of {prompt.dtype}"
    require(is_ids, f"{where}a prompt of one or more token ids, int32[prompt]", got, "encode the text first")
    length, context = prompt.shape[0], config.max_len
    expected = f"{where}prompt and new tokens within the context of {context}"
    got = f"{length} + {max_new_tokens} = {length + max_new_tokens}"
    fix = f"pass max_new_tokens={context - length} at most, or " if length < context else ""
    fix = f"{fix}keep the last {max(1, context - max_new_tokens)} tokens of the prompt"
    require(length + max_new_tokens <= context, expected, got, fix)
    if not traced:
        wrong = prompt[(prompt < 0) | (prompt >= config.vocab_size)].tolist()
        expected = f"{where}token ids in 0..{config.vocab_size - 1}"
        require(not wrong, expected, str(wrong[:1])[1:-1], "encode the prompt with the model's own tokenizer")
    return prompt.astype(np.int32)


def finish(request: Request, buffer, n, trace: Trace, max_new_tokens: int) -> Output:
    """Cut the new tokens out of the buffers; after an early end, repeat the stop token."""
    start = request.texts.prompt_len
    cut = partial(_cut, stop_token=request.stop_token, size=max_new_tokens)
    output = Output(over_batch(cut)(buffer, start, n), n - start, trace)
    return jax.tree.map(lambda x: jnp.squeeze(x, 0), output) if request.single else output


@partial(jax.jit, static_argnames="size")
def _cut(buffer, start, end, stop_token, size: int) -> Int[Array, " size"]:
    new = lax.dynamic_slice(buffer, (start,), (size,))
    return jnp.where(positions(size, start) < end, new, stop_token)
