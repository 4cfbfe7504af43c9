"""Speculative decoding (SPEED in the paper): draft γ tokens, verify them in one call of the primary.

What happens in a cycle is in `tandem_edu.decode.cycle`; which drafts may stay, in `verify` (token by
token) and `block_verify` (the block as a whole).
"""

from collections.abc import Iterator
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from tandem_edu.decode.block_verify import verify_block
from tandem_edu.decode.cycle import Decoder, State, begin, cycle, decode
from tandem_edu.decode.drafters import Drafter, as_drafter
from tandem_edu.decode.request import Output, Request, finish, longest_block, make_request
from tandem_edu.decode.routers import Router, check_router
from tandem_edu.decode.sampling import Sampling
from tandem_edu.decode.verify import verify
from tandem_edu.errors import require
from tandem_edu.model import PrimaryReader, Transformer

VERIFICATIONS = {"token": verify, "block": verify_block}


def speculate(
    primary: Transformer,
    drafter: Transformer | PrimaryReader | Drafter,
    prompt,
    max_new_tokens: int,
    block_len: int | Int[Array, ""] = 4,
    sampling: Sampling | None = None,
    key: PRNGKeyArray | None = None,
    router: Router | None = None,
    *,
    num_samples: int | None = None,
    verification: str = "token",
    stop_token: int | None = None,
    max_block_len: int | None = None,
) -> Output:
    """Continue `prompt` exactly as `primary` would, with `drafter` guessing `block_len` (γ) tokens ahead.

    Greedy output equals `generate(primary, ...)` token for token (up to ties of two logits within
    rounding, which is coarse on a TPU or a recent GPU unless `jax_default_matmul_precision` is
    "highest"); sampled output has exactly the primary's distribution. The last cycle drafts no more
    than can still be emitted. `out.trace` tells what was drafted and accepted.

    **Arguments:**

    - `router`: may end a block early (γ is then the most it can be), see `tandem_edu.decode.routers`.
    - `prompt`: int32[prompt]; or a list of them, decoded together. Row r is decoded as if alone with
      the key `jax.random.fold_in(key, r)`; its neighbours do not matter to it.
    - `num_samples`: so many continuations of each prompt. The output then has a leading axis `rows`.
    - `verification`: "token" (Leviathan et al., Chen et al.) or "block" (Sun et al.); both lossless.
    - `stop_token`: it is emitted and ends the text.
    - `max_block_len` (γ_max) is part of the compiled program, `block_len` is not: the primary reads
      γ_max + 1 tokens in each cycle. Left out it is `block_len` rounded up to a multiple of 8, so that
      a sweep over γ compiles once; `max_block_len=block_len` is faster where few rows are cheaper. A
      traced γ needs one.

    Raises `BadInput` for `block_len` below 1 or above `max_block_len`, an unknown `verification`, a
    router of another drafter or γ, and whatever `generate` raises.

    >>> import jax
    >>> from tandem_edu.decode.autoregressive import generate
    >>> from tandem_edu.model import TransformerConfig
    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=32)
    >>> primary, drafter = (Transformer(cfg, key=jax.random.key(i)) for i in (0, 1))
    >>> out = speculate(primary, drafter, [1, 2, 3], max_new_tokens=9, block_len=3)
    >>> bool(jnp.array_equal(out.tokens, generate(primary, [1, 2, 3], 9).tokens))
    True
    """
    request = make_request(primary, prompt, max_new_tokens, sampling, key, stop_token, num_samples)
    most = longest_block(block_len, max_block_len, max_new_tokens)
    decoder = _decoder(primary, drafter, request, block_len, most, router, verification)
    text, n, trace = decode(decoder, request)
    return finish(request, text, n, max_new_tokens, trace)


class Cycle(NamedTuple):
    """One cycle as it happened."""

    tokens: np.ndarray
    """The tokens emitted, the primary's own last."""
    drafted: np.ndarray
    """The drafts, kept or not."""
    accepted: int


def stream(
    primary: Transformer,
    drafter: Transformer | PrimaryReader | Drafter,
    prompt,
    max_new_tokens: int,
    block_len: int = 4,
    sampling: Sampling | None = None,
    key: PRNGKeyArray | None = None,
    router: Router | None = None,
    *,
    verification: str = "token",
    stop_token: int | None = None,
    max_block_len: int | None = None,
) -> Iterator[Cycle]:
    """`speculate`, cycle by cycle: yields what each one emits as soon as it has ended, for live views.

    The same arguments (one prompt), the same tokens, the same errors. The cycles are compiled, the
    loop over them is Python's, so it is somewhat slower.
    """
    request = make_request(primary, prompt, max_new_tokens, sampling, key, stop_token)
    one = f"a batch of {request.row.text.shape[0]}"
    require(request.row.text.ndim == 1, "one prompt to stream", one, "stream them one by one")
    most = longest_block(block_len, max_block_len, max_new_tokens)
    decoder = _decoder(primary, drafter, request, block_len, most, router, verification)
    return _cycles(decoder, request)


def _cycles(decoder: Decoder, request: Request) -> Iterator[Cycle]:
    state = _begin(decoder, request)
    while not bool(state.done):
        before = int(state.n)
        state, drafted, ids = _cycle(decoder, state)
        tokens = np.asarray(state.text[before : int(state.n)])
        accepted = int(state.trace.accepted[int(state.trace.cycles) - 1])
        yield Cycle(tokens, np.asarray(ids)[: int(drafted)], accepted)


def _decoder(
    primary, drafter, request: Request, block_len, max_block_len: int, router, verification: str
) -> Decoder:
    known = ", ".join(VERIFICATIONS)
    require(verification in VERIFICATIONS, f"a verification among {known}", repr(verification), "pick one")
    drafter = as_drafter(drafter, primary)
    if router is not None:
        check_router(router, drafter, block_len)
    return Decoder(
        primary=primary,
        drafter=drafter,
        router=router,
        sampling=request.sampling,
        stop_token=request.stop_token,
        block_len=jnp.int32(block_len),
        max_block_len=max_block_len,
        judge=VERIFICATIONS[verification],
    )


_begin = eqx.filter_jit(begin)


@eqx.filter_jit(donate="all-except-first")
def _cycle(decoder: Decoder, state: State):
    state, draft = cycle(decoder, state, lambda function: function)
    return state, draft.drafted, draft.ids
