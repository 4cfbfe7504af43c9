"""Recipes: every number of a training run in one frozen dataclass, and the paper's five by name."""

import dataclasses
import json
import math
from itertools import pairwise
from typing import Any

from tandem_edu.errors import at_least, positive, require
from tandem_edu.train.losses import Objective

CROSS_ENTROPY = ((1.0, Objective(ce=1.0)),)
CE_THEN_DISTIL = ((0.5, Objective(ce=1.0)), (1.0, Objective(ce=1.0, kl=0.5)))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train; (recipe, model, text) determine the result. Raises `BadInput` for values out of range.

    - `steps`, `batch_size`, `seq_len`: the run is `steps · batch_size · seq_len` tokens long.
    - `learning_rate`: reached in `warmup_steps`, linearly; then a cosine falls to a tenth of it.
    - `micro_batches`: the batch is read in that many equal parts, in turn, with averaged gradients: less
      memory, and faster on a CPU. By default 4, 2 or 1, whichever divides `batch_size`.
    - `weight_decay`: AdamW's, for the linear maps. `clip_norm`: upper limit of the gradient's norm.
    - `objectives`: the phases, `(until, objective)` with `until` a fraction of the steps; the last is 1.0.
    - `block_lens`: the training block lengths γ of a model that reads a primary; `()` for others. Each step
      draws one, and the end of the first block from 1..γ: a token is seen at every position in a block.
    - `seed`: of the batches and of these draws.
    - `eval_every`: steps between evaluations, each on `eval_windows` windows; the last step has one too.

    >>> quick = Recipe("quick", steps=100, learning_rate=1e-3, warmup_steps=10)
    >>> quick.objective_at(99), quick.micro_batches
    (Objective(ce=1.0, kl=0.0, reverse_kl=0.0, tv=0.0, nla=0.0), 4)
    """

    name: str
    steps: int
    learning_rate: float
    warmup_steps: int
    batch_size: int = 8
    seq_len: int = 256
    micro_batches: int = 0
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    objectives: tuple[tuple[float, Objective], ...] = CROSS_ENTROPY
    block_lens: tuple[int, ...] = ()
    seed: int = 0
    eval_every: int = 500
    eval_windows: int = 64

    def __post_init__(self) -> None:
        fix, limits = "fix the recipe", dict.fromkeys(("micro_batches", "warmup_steps", "seed"), 0)
        limits |= dict.fromkeys(("steps", "batch_size", "seq_len", "eval_every", "eval_windows"), 1)
        checked: dict[str, Any] = {n: at_least(limits[n], getattr(self, n), n, fix) for n in limits}
        checked["micro_batches"] = parts = checked["micro_batches"] or math.gcd(self.batch_size, 4)
        got = f"{parts} for batch_size={self.batch_size}"
        divides = self.batch_size % parts == 0
        require(divides, "micro_batches that divide batch_size", got, "take micro_batches=1")
        require(self.seed < 2**31, "seed below 2**31", self.seed, "take a smaller one")
        got, usual = f"{self.warmup_steps} of {self.steps}", self.steps // 20
        require(self.warmup_steps < self.steps, "warmup_steps below steps", got, f"take warmup_steps={usual}")
        for name, usual in (("learning_rate", 1e-3), ("clip_norm", 1.0)):
            positive(getattr(self, name), name, f"a usual one is {usual}")
        valid = isinstance(self.weight_decay, int | float) and 0 <= self.weight_decay < math.inf
        require(valid, "weight_decay of at least 0", repr(self.weight_decay), "the usual one is 0.1")
        several = isinstance(self.block_lens, tuple | list)
        require(several, "block_lens as a tuple", repr(self.block_lens), "for example block_lens=(2,)")
        # Tuples, because lists have no hash.
        checked["block_lens"] = tuple(at_least(1, n, "each of block_lens", fix) for n in self.block_lens)
        checked["objectives"] = _checked_objectives(self.objectives)
        vars(self).update(checked)

    def objective_at(self, step: int) -> Objective:
        """The objective of step 0 .. steps - 1."""
        return next(goal for until, goal in self.objectives if step < round(until * self.steps))

    def to_dict(self) -> dict[str, Any]:
        """The fields as a JSON-able dict."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


RECIPES: dict[str, tuple[int, tuple, tuple[int, ...]]] = {
    "primary": (4000, CROSS_ENTROPY, ()),
    "secondary": (4000, CROSS_ENTROPY, ()),
    "distilled": (2000, CE_THEN_DISTIL, ()),
    "distilled-second-stage": (2000, ((1.0, Objective(ce=1.0, kl=0.5)),), ()),
    "tandem-ce": (2000, CROSS_ENTROPY, (2,)),
    "tandem-distil": (2000, CE_THEN_DISTIL, (2,)),
    "tandem-distil-balanced": (2000, ((0.5, Objective(ce=1.0)), (1.0, Objective(ce=0.5, kl=0.5))), (2,)),
}
"""name: steps, objectives, block_lens"""


def recipe(name: str, **changes: Any) -> Recipe:
    """One of the paper's recipes, with any field changed.

    `primary` and `secondary` train a model from scratch; `distilled` trains a trained secondary further,
    `tandem-ce` and `tandem-distil` a tandem over one. The loss is CE, in the two that distil then CE + λ·KL.
    `distilled` and `tandem-distil` differ in nothing else: that is the tandem's effect.

    From the paper (arXiv:2402.08644, section 4): both models start trained, the primary is frozen, the loss
    is on the secondary's outputs alone, γ = 2, λ = 0.5. Our choices, where it is silent: each phase has half
    of the steps; λ·KL(primary ‖ model) is *added* to CE, at temperature 1; random offsets; AdamW, its
    schedule, and all sizes. By default warm-up takes 5 % of the steps, and evaluation comes every 10 %.
    Raises `BadInput` for an unknown name or field.

    >>> r = recipe("tandem-distil", steps=1000, block_lens=(2, 4, 8))
    >>> r.block_lens, r.warmup_steps, r.objective_at(499).distils, r.objective_at(500).kl
    ((2, 4, 8), 50, False, 0.5)
    """
    require(name in RECIPES, f"a recipe among {', '.join(RECIPES)}", repr(name), "pick one")
    known = [field.name for field in dataclasses.fields(Recipe)]
    unknown = sorted(changes.keys() - known)
    require(not unknown, f"fields among {', '.join(known)}", ", ".join(unknown), "check the spelling")
    steps, objectives, block_lens = RECIPES[name]
    steps = at_least(1, changes.get("steps", steps), "steps", "fix the recipe")
    usual = {"name": name, "steps": steps, "objectives": objectives, "block_lens": block_lens}
    usual |= {"learning_rate": 1e-3, "warmup_steps": steps // 20, "eval_every": max(1, steps // 10)}
    return Recipe(**{**usual, **changes})


def _checked_objectives(objectives: Any) -> tuple[tuple[float, Objective], ...]:
    try:
        phases = tuple((float(until), goal) for until, goal in objectives)
    except (TypeError, ValueError):
        phases = ()
    ends = [0.0, *(until for until, _ in phases)]
    rising = all(before < after for before, after in pairwise(ends)) and ends[-1] == 1.0
    valid = rising and all(isinstance(goal, Objective) for _, goal in phases)
    fix = "for example ((0.5, Objective()), (1.0, Objective(kl=0.5)))"
    require(valid, "objectives as ((until, Objective), ...) with until rising to 1.0", repr(objectives), fix)
    return phases
