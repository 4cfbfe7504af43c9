"""What the demo trains and decodes, and how much of it."""

from dataclasses import dataclass
from typing import Any

from tandem_edu.model import TransformerConfig
from tandem_edu.train import Objective, Recipe, recipe

VOCAB, CONTEXT = 1024, 256
DISTILLED, TANDEM = "distilled secondary", "tandem"
BLOCK_LENS = (1, 2, 4, 8)
SHOWN = 4
"""The block length whose tokens and positions the report shows."""


@dataclass(frozen=True)
class Plan:
    """How much of everything. `FULL` takes up to six minutes on two cores, `QUICK` up to one and a half."""

    primary: TransformerConfig
    secondary: TransformerConfig
    primary_steps: int
    drafter_steps: int
    seq_len: int
    batch_size: int
    n_prompts: int
    new_tokens: int
    repetitions: int
    valid_windows: int


def _configs(d_model: int, n_layers: int, n_heads: int, d_ff: int) -> dict[str, TransformerConfig]:
    """A primary, and a one-layer secondary that speaks through the primary's embedding and head."""
    heads: dict[str, Any] = {"n_heads": n_heads, "n_kv_heads": n_heads, "max_len": CONTEXT}
    primary = TransformerConfig(vocab_size=VOCAB, d_model=d_model, n_layers=n_layers, d_ff=d_ff, **heads)
    secondary = TransformerConfig(
        vocab_size=VOCAB, d_model=d_model, n_layers=1, d_ff=d_ff, shared_vocab=True, **heads
    )
    return {"primary": primary, "secondary": secondary}


FULL = Plan(
    **_configs(d_model=192, n_layers=6, n_heads=6, d_ff=512),
    primary_steps=500,
    drafter_steps=400,
    seq_len=128,
    batch_size=8,
    n_prompts=10,
    new_tokens=64,
    repetitions=4,
    valid_windows=64,
)
QUICK = Plan(
    **_configs(d_model=64, n_layers=3, n_heads=2, d_ff=128),
    primary_steps=600,
    drafter_steps=400,
    seq_len=64,
    batch_size=8,
    n_prompts=4,
    new_tokens=32,
    repetitions=3,
    valid_windows=32,
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
