"""Table 3 of the paper: the tandem alone, without verification, against smaller plain models."""

from collections.abc import Callable
from functools import partial
from typing import Any

from studies.plan import DEEPER
from studies.prompts import LENGTH
from studies.quality import ACCURACY, CROSS_ENTROPY, document_scores, document_windows, of
from studies.table import Lab, Table
from studies.zoo import rival
from tandem_edu import data
from tandem_edu.decode import block_generate, generate
from tandem_edu.drafters import Model
from tandem_edu.measure import spread, timed

WAYS = ((2, False), (4, False), (8, False), (3, True))
"""γ, and whether the primary adds the free token; the last is the paper's table 3."""
NEW_TOKENS, REPETITIONS, PROMPTS = 128, 7, 4
DEEP = f"mid-size, {DEEPER.n_layers} layers"


def study(lab: Lab) -> list[Table]:
    """Cross-entropy and time per token: tandem at several γ, secondary, two mid-size models, primary.

    The deeper mid-size model is trained first (`rival`).
    """
    pair, text = lab.pair, lab.parts.test
    contenders = _contenders(lab)
    prompts = data.prompts(text, pair.tokenizer, LENGTH, PROMPTS)
    write = lambda one: [one(prompt=prompt, max_new_tokens=NEW_TOKENS).tokens for prompt in prompts]
    seconds, _ = timed({name: partial(write, one) for name, (*_, one) in contenders.items()}, REPETITIONS)
    units = document_windows(pair.tokenizer, text)
    rows: list[dict[str, Any]] = []
    for name, (model, block_len, free_token, _) in contenders.items():
        scores = document_scores(model, units, pair.primary, block_len, free_token)
        rows.append(
            {
                "model": name,
                "cross-entropy": of(scores, CROSS_ENTROPY),
                "accuracy": of(scores, ACCURACY),
                "milliseconds per token": spread(1e3 * seconds[name] / (PROMPTS * NEW_TOKENS)),
                f"speed / {DEEPER.n_layers} layers'": spread(seconds[DEEP] / seconds[name]),
                "speed / primary's": spread(seconds["primary"] / seconds[name]),
            }
        )
    return [Table("standalone", rows)]


def _contenders(lab: Lab) -> dict[str, tuple[Model, int, bool, Callable[..., Any]]]:
    """Model, the block length of its quality, whether with the free token, and how it writes."""
    pair = lab.pair
    plain = {"secondary": pair.secondary, "mid-size": pair.mid_size, DEEP: rival("deeper", lab)}
    plain["primary"] = pair.primary
    contenders = {name: (model, 1, False, partial(generate, model)) for name, model in plain.items()}
    for block_len, free_token in WAYS:
        how = {"block_len": block_len, "max_draft_len": block_len, "free_token": free_token}
        write = partial(block_generate, pair.primary, pair.tandem_ce, **how)
        name = f"tandem, γ = {block_len}{' and the free token' if free_token else ''}"
        contenders[name] = (pair.tandem_ce, block_len, free_token, write)
    return contenders
