"""The tandem alone, without verification (paper, section 3): fast, and no longer the primary's text.

The secondary writes a block, the primary reads it in one pass and refreshes its representations, and so
on. That pass also predicts the next block's first token, at no extra cost: the *free token*. So a block
of γ tokens is γ - 1 of the secondary's and one of the primary's, or γ of the secondary's without it.

γ = 1 with the free token is the primary alone; γ at least `max_new_tokens` is the secondary with the
primary as the prompt's encoder.
"""

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from tandem_edu.decode.cycle import Decoder, decode
from tandem_edu.decode.drafters import Drafter, as_drafter
from tandem_edu.decode.request import Output, finish, make_request
from tandem_edu.decode.sampling import EMIT, Sampling
from tandem_edu.decode.verify import Verdict
from tandem_edu.errors import at_least, require
from tandem_edu.model import Attached, Transformer


def block_generate(
    primary: Transformer,
    tandem: Attached | Transformer | Drafter,
    prompt,
    max_new_tokens: int,
    block_len: int = 4,
    free_token: bool = True,
    sampling: Sampling | None = None,
    key: PRNGKeyArray | None = None,
    *,
    num_samples: int | None = None,
    stop_token: int | None = None,
    max_block_len: int | None = None,
) -> Output:
    """Continue `prompt` in blocks of `block_len` (γ) tokens that nobody verifies.

    The arguments are those of `speculate`. In the trace a drafted token is the secondary's and counts
    as accepted; what a cycle emits beyond those is the free token. The primary reads each block once
    it is whole, the last one too.

    Raises `BadInput` for `block_len` below 1 and whatever `generate` raises.

    >>> import jax
    >>> from tandem_edu.decode.autoregressive import generate
    >>> from tandem_edu.model import Tandem, TransformerConfig
    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=32)
    >>> primary = Transformer(cfg, key=jax.random.key(0))
    >>> tandem = Tandem(Transformer(cfg, key=jax.random.key(1)), cfg, key=jax.random.key(2))
    >>> out = block_generate(primary, tandem, [1, 2, 3], max_new_tokens=9, block_len=3)
    >>> out.trace.summary()["cycles"]
    3
    """
    at_least(1, block_len, "block_len (γ)", "try block_len=4")
    drafts = min(block_len - 1 if free_token else block_len, max_new_tokens)
    request = make_request(primary.config, prompt, max_new_tokens, sampling, key, stop_token, num_samples)
    most = -(-max(1, drafts) // 8) * 8 if max_block_len is None else max_block_len
    got = f"{most} for {drafts} drafts a block"
    fits = most >= max(1, drafts)
    require(fits, "max_block_len of at least 1 and of the drafts in a block", got, "leave it out")
    decoder = Decoder(
        primary=primary,
        drafter=as_drafter(tandem, primary),
        router=None,
        sampling=request.sampling,
        stop_token=request.stop_token,
        block_len=jnp.int32(drafts),
        max_block_len=most,
        judge=keep_all,
        adds_token=free_token,
    )
    text, n, trace = decode(decoder, request)
    return finish(request, text, n, max_new_tokens, trace)


def keep_all(drafts, drafted, q, p, sampling: Sampling, u) -> Verdict:
    """No verification: every draft stays, and the primary's next token is drawn from p."""
    token = sampling.draw(p[drafted], u[drafted, EMIT])
    return Verdict(drafted, token, jnp.sum(jnp.minimum(p[:-1], q), axis=-1))
