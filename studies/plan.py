"""The shipped models and two rivals: their sizes, their text, and how each is trained.

All speak through the primary's embedding and head. Their text is `tandem_edu.zoo.texts`.
"""

import dataclasses
from typing import Any

import jax

from tandem_edu.drafters import Tandem
from tandem_edu.model import Transformer, TransformerConfig
from tandem_edu.train import Objective, Recipe, recipe

VOCAB, CONTEXT = 1024, 512
SEED = 0

PRIMARY = TransformerConfig(
    vocab_size=VOCAB, d_model=256, n_layers=8, n_heads=8, n_kv_heads=2, d_ff=512, max_len=CONTEXT
)
# A tandem reads its primary through its key/value heads: 2 of 8 would be a quarter of each state's width.
SECONDARY = dataclasses.replace(PRIMARY, n_layers=1, n_kv_heads=8, d_ff=256, shared_vocab=True)
MID_SIZE = dataclasses.replace(SECONDARY, n_layers=2, n_kv_heads=2)
# The rivals, which are not shipped.
WIDER = dataclasses.replace(SECONDARY, d_ff=683)
"""A secondary with as many weights as the tandem: its projections' 5 · 256² are 3 · 256 times 427."""
DEEPER = dataclasses.replace(MID_SIZE, n_layers=4)
"""A mid-size model half as deep as the primary: a plain rival of the tandem without verification."""
STATES = (1, 4, 8)
"""The states that the tandem's one layer reads: a low, a middle and the top one."""
AGREEMENT = Objective(ce=0.0, kl=0.5, tv=1.0)
"""The drafters' loss: 1 - TV is their acceptance, and KL has the larger gradient far from the primary."""
ROUTER_LEN = 8
"""γ_max of the shipped router."""


def settings(name: str) -> Recipe:
    """How a model is trained; all that learn to agree with the primary, in the same way."""
    if name == "primary":
        # Four to five passes over the text.
        return recipe("primary", steps=6_000, learning_rate=2e-3, eval_every=500, eval_windows=200)
    same: dict[str, Any] = {"steps": 6_000, "learning_rate": 3e-3, "eval_every": 500, "eval_windows": 200}
    same["objectives"] = ((1.0, AGREEMENT),)
    if name in ("secondary", "tandem_ce", "mid_size", "deeper"):
        same["objectives"] = ((1.0, Objective(ce=1.0)),)
    if name in ("tandem", "tandem_ce"):
        return dataclasses.replace(recipe("tandem-distil", block_lens=(2, 4, 8), **same), name=name)
    return dataclasses.replace(recipe("distilled", **same), name=name)


def untrained(name: str, primary: Transformer | None) -> Transformer | Tandem:
    """The model before training. All secondaries, tandems included, start with the same weights."""
    primary_key, secondary_key, tandem_key, mid_key = jax.random.split(jax.random.key(SEED), 4)
    if primary is None:
        return Transformer(PRIMARY, key=primary_key)
    if name in ("mid_size", "deeper"):
        config = MID_SIZE if name == "mid_size" else DEEPER
        return Transformer(config, key=mid_key, embedding=primary.embedding)
    config = WIDER if name == "wider" else SECONDARY
    secondary = Transformer(config, key=secondary_key, embedding=primary.embedding)
    if name.startswith("tandem"):
        return Tandem(secondary, PRIMARY, [STATES], own_history=True, key=tandem_key)
    return secondary
