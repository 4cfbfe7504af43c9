"""Speculative decoding (SPEED in the paper): draft γ tokens, verify them in one pass of the primary."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from tandem_edu.decode.cycle import Cycle, Decoder, cycles, decode
from tandem_edu.decode.request import Output, Request, finish, make_request, resolve_max_draft_len
from tandem_edu.decode.routers import Router, check_router
from tandem_edu.decode.sampling import Sampling
from tandem_edu.decode.verify import verify, verify_block
from tandem_edu.drafters import Drafter, Plain
from tandem_edu.errors import BadInput, require
from tandem_edu.model import LanguageModel, Transformer
from tandem_edu.model.weights import check_float32

VERIFICATIONS = {"token": verify, "block": verify_block}


def speculate(
    primary: Transformer,
    drafter: LanguageModel | Drafter,
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
    max_draft_len: int | None = None,
) -> Output:
    """Continue `prompt` exactly as `primary` would, with `drafter` proposing `block_len` (γ) tokens.

    (vLLM calls γ `num_speculative_tokens`.) Greedy output equals `generate(primary, ...)` token for token,
    except where two logits are equal within rounding, which is coarse on a TPU or a recent GPU unless
    `jax_default_matmul_precision` is "highest". Sampled output has exactly the primary's distribution. The
    last cycle drafts no more than can still be emitted. `out.trace` records what was drafted and accepted.

    - `router`: may end a block early (γ is then the limit), see `tandem_edu.decode.routers`.
    - `prompt`: int32[prompt]; or a list of them, decoded together. Row r is decoded as if alone with
      the key `jax.random.fold_in(key, r)`, whatever the other rows are.
    - `num_samples`: this many continuations of each prompt. The output then has a leading axis `batch`.
    - `verification`: "token" (Leviathan et al., Chen et al.) or "block" (Sun et al.); both are exact.
    - `stop_token`: it is emitted and ends the text.
    - `max_draft_len` (γ_max): part of the compiled program, while γ is not; the primary reads γ_max + 1
      tokens in each cycle. By default γ rounded up to a multiple of 8, so that a sweep over γ compiles once;
      γ itself is faster where each token that is read costs time. A traced γ needs it.

    Raises `BadInput` for `block_len` below 1 or above `max_draft_len`, an unknown `verification`, a router
    of another drafter or γ, a drafter for another primary, and whatever `generate` raises.

    >>> import jax
    >>> from tandem_edu.decode.autoregressive import generate
    >>> from tandem_edu.model import TransformerConfig
    >>> cfg = TransformerConfig(8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=16, max_len=32)
    >>> primary, drafter = (Transformer(cfg, key=jax.random.key(i)) for i in (0, 1))
    >>> out = speculate(primary, drafter, [1, 2, 3], max_new_tokens=9, block_len=3)
    >>> bool(jnp.array_equal(out.tokens, generate(primary, [1, 2, 3], 9).tokens))
    True
    """
    options = router, num_samples, verification, stop_token, max_draft_len
    decoder, request = prepare(primary, drafter, prompt, max_new_tokens, block_len, sampling, key, *options)
    return finish(request, *decode(decoder, request), max_new_tokens)


def stream(
    primary: Transformer,
    drafter: LanguageModel | Drafter,
    prompt,
    max_new_tokens: int,
    block_len: int = 4,
    sampling: Sampling | None = None,
    key: PRNGKeyArray | None = None,
    **options: Any,
) -> Iterator[Cycle]:
    """`speculate` cycle by cycle, for live views: its arguments (one prompt), tokens and errors; slower."""
    decoder, request = prepare(primary, drafter, prompt, max_new_tokens, block_len, sampling, key, **options)
    got = f"a batch of {request.texts.buffer.shape[0]}"
    require(request.single, "one prompt to stream", got, "stream them one by one")
    return (cycle for (cycle,) in cycles(decoder, request) if cycle is not None)


def prepare(
    primary: Transformer,
    drafter: LanguageModel | Drafter,
    prompt,
    max_new_tokens: int,
    block_len: int | Int[Array, ""],
    sampling: Sampling | None,
    key: PRNGKeyArray | None,
    router: Router | None = None,
    num_samples: int | None = None,
    verification: str = "token",
    stop_token: int | None = None,
    max_draft_len: int | None = None,
) -> tuple[Decoder, Request]:
    """What `speculate` decodes with and what it decodes. Raises `BadInput` as `speculate` does."""
    request = make_request(primary, prompt, max_new_tokens, sampling, key, stop_token, num_samples)
    expected = f"a verification among {', '.join(VERIFICATIONS)}"
    require(verification in VERIFICATIONS, expected, repr(verification), "choose one")
    drafter = as_drafter(drafter, primary)
    if router is not None:
        check_router(router, drafter, block_len)
    decoder = Decoder(
        primary=primary,
        drafter=drafter,
        router=router,
        sampling=request.sampling,
        stop_token=request.stop_token,
        block_len=jnp.asarray(block_len, jnp.int32),
        max_draft_len=resolve_max_draft_len(block_len, max_draft_len, max_new_tokens),
        verify=VERIFICATIONS[verification],
    )
    return decoder, request


def as_drafter(drafter: LanguageModel | Drafter, primary: Transformer) -> Drafter:
    """The drafter, `Plain` for a `Transformer`. Raises `BadInput` if it cannot draft for `primary`."""
    got, fix = f"a {type(primary).__name__}", "pass the primary first and then the drafter"
    require(isinstance(primary, Transformer), "a Transformer as the primary", got, fix)
    drafter = Plain(drafter) if isinstance(drafter, LanguageModel) else drafter
    if not isinstance(drafter, Drafter):
        raise BadInput("a Transformer, a Tandem or a te.Drafter", type(drafter).__name__, "pass one of these")
    check_float32(drafter)
    drafter.check_primary(primary)
    return drafter
