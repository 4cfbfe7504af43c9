"""The tandem alone, without verification (paper, section 3): fast, and no longer the primary's text.

The secondary writes a block, the primary reads it in one pass and updates its representations, and so on.
That pass also predicts the next block's first token, at no extra cost: the *free token*. With it, a block of
γ tokens is γ - 1 of the secondary's and one of the primary's; without it, γ of the secondary's.

γ = 1 with the free token is the primary alone. γ above `max_new_tokens` is the secondary with the primary as
the encoder of the prompt.
"""

import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from tandem_edu.decode.cycle import Decoder, decode
from tandem_edu.decode.request import Output, finish, make_request, resolve_max_draft_len
from tandem_edu.decode.sampling import EMIT, Sampling
from tandem_edu.decode.speculative import as_drafter
from tandem_edu.decode.verify import Verification, acceptance_prob
from tandem_edu.drafters import Drafter
from tandem_edu.model import Transformer


def block_generate(
    primary: Transformer,
    tandem: Transformer | Drafter,
    prompt,
    max_new_tokens: int,
    block_len: int | Int[Array, ""] = 4,
    free_token: bool = True,
    sampling: Sampling | None = None,
    key: PRNGKeyArray | None = None,
    *,
    num_samples: int | None = None,
    stop_token: int | None = None,
    max_draft_len: int | None = None,
) -> Output:
    """Continue `prompt` in blocks of `block_len` (γ) tokens without verification.

    The arguments are those of `speculate`. In the trace a drafted token is the secondary's and counts as
    accepted; what a cycle emits beyond those is the free token. The primary reads each complete block, γ_max
    tokens a pass. The prompt's last token is the first of the first block, so the text begins with γ - 1
    tokens of the secondary's before a free token. A shorter text is the beginning of a longer one.

    Raises `BadInput` for `block_len` below 1 or above `max_draft_len`, and whatever `generate` raises.

    >>> import jax
    >>> from tandem_edu.drafters import Tandem
    >>> from tandem_edu.model import TransformerConfig
    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=32)
    >>> primary = Transformer(cfg, key=jax.random.key(0))
    >>> tandem = Tandem(Transformer(cfg, key=jax.random.key(1)), cfg, key=jax.random.key(2))
    >>> out = block_generate(primary, tandem, [1, 2, 3], max_new_tokens=9, block_len=3)
    >>> out.trace.summary()["cycles"]
    3
    """
    request = make_request(primary, prompt, max_new_tokens, sampling, key, stop_token, num_samples)
    free = int(free_token)
    # The last block may be the secondary's alone, up to `max_new_tokens` drafts.
    longest = resolve_max_draft_len(block_len, max_draft_len, max_new_tokens + free)
    decoder = Decoder(
        primary=primary,
        drafter=as_drafter(tandem, primary),
        router=None,
        sampling=request.sampling,
        stop_token=request.stop_token,
        block_len=jnp.asarray(block_len, jnp.int32) - free,
        max_draft_len=max(1, longest - free),
        verify=accept_all,
        bonus_token=free_token,
        reserve_bonus=False,
    )
    return finish(request, *decode(decoder, request), max_new_tokens)


def accept_all(drafts, drafted, q, p, sampling: Sampling, u) -> Verification:
    """No verification: every draft is accepted; the primary's next token is drawn from p."""
    token = sampling.draw(p[drafted], u[drafted, EMIT])
    return Verification(drafted, token, acceptance_prob(p, q))
