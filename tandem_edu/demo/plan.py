"""What the demo trains and decodes, and how much of it."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from tandem_edu.model import TransformerConfig
from tandem_edu.train import Objective, Recipe, recipe

DISTILLED, TANDEM = "distilled secondary", "tandem"
LAYER_MAP = "middle"
"""Of what a tandem reads, what a short training makes most of."""
BLOCK_LENS = (1, 2, 4, 8)
SHOWN = 4
"""The block length whose tokens and positions the report shows."""


@dataclass(frozen=True)
class Plan:
    """How much of everything. `FULL` takes about five minutes on two cores, `QUICK` one."""

    drafter_steps: int
    n_prompts: int
    new_tokens: int
    repetitions: int
    valid_windows: int
    seq_len: int = 128
    batch_size: int = 8
    primary: TransformerConfig | None = None
    """To train a primary of these sizes from nothing; `None` takes the shipped one."""
    primary_steps: int = 0


FULL = Plan(drafter_steps=600, n_prompts=10, new_tokens=64, repetitions=4, valid_windows=64)
QUICK = Plan(drafter_steps=60, n_prompts=3, new_tokens=32, repetitions=2, valid_windows=16)
FROM_SCRATCH = dataclasses.replace(
    FULL,
    primary=TransformerConfig(
        vocab_size=1024, d_model=192, n_layers=6, n_heads=6, n_kv_heads=6, d_ff=512, max_len=256
    ),
    primary_steps=500,
    drafter_steps=400,
)


def secondary_of(primary: TransformerConfig) -> TransformerConfig:
    """One narrow layer that speaks through the primary's embedding and head.

    Every query has keys and values of its own: through them a tandem sees its primary.
    """
    n_kv_heads = primary.n_heads
    return dataclasses.replace(
        primary, n_layers=1, n_kv_heads=n_kv_heads, d_ff=primary.d_model, shared_vocab=True
    )


def settings(plan: Plan, name: str) -> Recipe:
    """A named recipe at the demo's size. Both drafters learn mostly to copy the primary."""
    sizes: dict[str, Any] = {"batch_size": plan.batch_size, "seq_len": plan.seq_len, "learning_rate": 4e-3}
    if name == "primary":
        return recipe(name, steps=plan.primary_steps, **sizes)
    sizes["objectives"] = ((1.0, Objective(ce=0.1, kl=0.9)),)
    if name == "tandem-distil":
        sizes["block_lens"] = (2, 4, 8)
    return recipe(name, steps=plan.drafter_steps, **sizes)
