"""The tandem alone, without verification (paper, section 3): fast, and no longer the primary's text.

The secondary writes a block of γ tokens, the primary reads it in one pass, and so on. A pass yields

- *representation generation only* (the paper's figure 4): γ tokens, all the secondary's;
- *with token prediction* (figure 2): γ + 1, the primary's *free token* is the next block's first.

In both the block begins with the last token that the primary has not read: the prompt's last one, then the
last token of the block before, or the free token. The primary reads it with the block.

γ = 0 with the free token is the primary alone, γ above `max_new_tokens` the secondary and its encoder.
"""

import dataclasses

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Int, PRNGKeyArray

from tandem_edu.decode.cycle import decode
from tandem_edu.decode.request import Output, finish
from tandem_edu.decode.sampling import EMIT, Sampling
from tandem_edu.decode.speculative import prepare
from tandem_edu.decode.verify import Verification, acceptance_prob
from tandem_edu.drafters import Drafter
from tandem_edu.errors import at_least
from tandem_edu.model import LanguageModel, Transformer


def block_generate(
    primary: Transformer,
    tandem: LanguageModel | Drafter,
    prompt,
    max_new_tokens: int,
    block_len: int | Int[Array, ""] = 3,
    free_token: bool = True,
    sampling: Sampling | None = None,
    key: PRNGKeyArray | None = None,
    *,
    num_samples: int | None = None,
    stop_token: int | None = None,
    max_draft_len: int | None = None,
) -> Output:
    """Continue `prompt` in blocks of `block_len` (γ) tokens without verification.

    With `free_token` a pass of the primary yields γ + 1 tokens, else γ. Table 3 of the paper has γ = 3, with.
    Other arguments are those of `speculate`. In the trace, the secondary's tokens count as accepted drafts;
    what a cycle emits beyond those is the free token. Raises `BadInput` for `block_len` below 1 (without the
    free token; below 0 with it) or above `max_draft_len`, and whatever `generate` raises.

    >>> import jax
    >>> from tandem_edu.model import TransformerConfig
    >>> cfg = TransformerConfig(8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=16, max_len=32)
    >>> primary, secondary = (Transformer(cfg, key=jax.random.key(i)) for i in (0, 1))
    >>> out = block_generate(primary, secondary, [1, 2, 3], max_new_tokens=12, block_len=3)
    >>> out.trace.summary()["cycles"], out.trace.summary()["block_efficiency"]
    (3, 4.0)
    """
    if not isinstance(block_len, Tracer):
        block_len = at_least(0 if free_token else 1, block_len, "block_len (γ)", "the paper has block_len=3")
    given = primary, tandem, prompt, max_new_tokens, jnp.maximum(block_len, 1), sampling, key
    decoder, request = prepare(*given, None, num_samples, "token", stop_token, max_draft_len)
    changed = {"verify": accept_all, "bonus_token": free_token, "reserve_bonus": False}
    decoder = dataclasses.replace(decoder, block_len=jnp.asarray(block_len, jnp.int32), **changed)
    return finish(request, *decode(decoder, request), max_new_tokens)


def accept_all(drafts, drafted, q, p, sampling: Sampling, u) -> Verification:
    """No verification: every draft is accepted; the primary's next token is drawn from p."""
    token = sampling.draw(p[drafted], u[drafted, EMIT])
    return Verification(drafted, token, acceptance_prob(p, q))
