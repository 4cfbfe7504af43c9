"""Recipes: every number of a training run in one frozen dataclass, and the paper's five by name."""

import dataclasses
import math
from itertools import pairwise
from typing import Any

from tandem_edu.errors import BadInput, at_least, positive, require
from tandem_edu.train.losses import Objective

# Each objective holds until its fraction of the steps.
CROSS_ENTROPY = ((1.0, Objective(ce=1.0)),)
CE_THEN_DISTIL = ((0.5, Objective(ce=1.0)), (1.0, Objective(ce=1.0, kl=0.5)))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train: with (recipe, model, text) given, the result is determined.

    **Arguments:**

    - `name`: shown in reports.
    - `steps`, `batch_size`, `seq_len`: the run is `steps · batch_size · seq_len` tokens long.
    - `learning_rate`, `warmup_steps`: it rises linearly to `learning_rate` during the first
      `warmup_steps`, then falls along a cosine to a tenth of it at the last step.
    - `micro_batches`: each batch is read in so many parts, whose gradients are averaged: less memory,
      and on a CPU faster too. A divisor of `batch_size`; left out, 4, 2 or 1.
    - `remat`: compute the layers' activations again for the gradient instead of keeping them: less
      memory, more time (`benchmarks/tandem_step.py` says how much).
    - `weight_decay`: AdamW's, on the linear maps only. `clip_norm`: longest gradient.
    - `objectives`: the phases, `(until, objective)` with `until` a rising fraction of the steps that
      ends at 1.0.
    - `block_lens`: the tandem's training block lengths γ, one of them drawn at each step; `()` for a
      plain transformer. `random_offsets`: let the first block end anywhere in 1..γ (drawn each step),
      so that every token is seen at every place in a block.
    - `seed`: of the batches and of these draws.
    - `eval_every`, `eval_windows`: after so many steps, and at the end, look at so many windows
      (`seq_len` tokens each) of held-out text.

    Raises `BadInput` for values out of range.

    >>> quick = Recipe("quick", steps=100, learning_rate=1e-3, warmup_steps=10)
    >>> quick.objective_at(99) == Objective(ce=1.0), quick.tokens
    (True, 204800)
    """

    name: str
    steps: int
    learning_rate: float
    warmup_steps: int
    batch_size: int = 8
    seq_len: int = 256
    micro_batches: int = 0
    remat: bool = False
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    objectives: tuple[tuple[float, Objective], ...] = CROSS_ENTROPY
    block_lens: tuple[int, ...] = ()
    random_offsets: bool = True
    seed: int = 0
    eval_every: int = 500
    eval_windows: int = 64

    def __post_init__(self) -> None:
        whole = dict.fromkeys(("steps", "batch_size", "seq_len", "eval_every", "eval_windows"), 1)
        whole |= dict.fromkeys(("micro_batches", "warmup_steps", "seed"), 0)
        for name, least in whole.items():
            # Frozen, hence this way.
            object.__setattr__(self, name, at_least(least, getattr(self, name), name, "fix the recipe"))
        object.__setattr__(self, "micro_batches", self.micro_batches or math.gcd(self.batch_size, 4))
        got = f"{self.micro_batches} for batch_size={self.batch_size}"
        expected = "micro_batches that divide batch_size"
        require(self.batch_size % self.micro_batches == 0, expected, got, "take micro_batches=1")
        require(isinstance(self.remat, bool), "remat to be True or False", repr(self.remat), "fix the recipe")
        require(self.seed < 2**31, "seed below 2**31", self.seed, "take a smaller one")
        fix = f"take warmup_steps={self.steps // 20}"
        got = f"{self.warmup_steps} of {self.steps}"
        require(self.warmup_steps < self.steps, "warmup_steps below steps", got, fix)
        for name, usual in (("learning_rate", 1e-3), ("clip_norm", 1.0)):
            positive(getattr(self, name), name, f"a usual one is {usual}")
        fine = isinstance(self.weight_decay, int | float) and 0 <= self.weight_decay < math.inf
        require(fine, "weight_decay of at least 0", repr(self.weight_decay), "the usual one is 0.1")
        several = isinstance(self.block_lens, tuple | list)
        require(several, "block_lens as a tuple", repr(self.block_lens), "for example block_lens=(2,)")
        # Tuples, because lists have no hash.
        lens = tuple(at_least(1, each, "each of block_lens", "fix the recipe") for each in self.block_lens)
        object.__setattr__(self, "block_lens", lens)
        object.__setattr__(self, "objectives", _checked_objectives(self.objectives))

    @property
    def tokens(self) -> int:
        """Tokens of training text the run reads."""
        return self.steps * self.batch_size * self.seq_len

    @property
    def uses_teacher(self) -> bool:
        """Whether some phase needs the primary's logits."""
        return any(objective.distils for _, objective in self.objectives)

    def objective_at(self, step: int) -> Objective:
        """The objective of step 0 .. steps - 1."""
        return next(goal for until, goal in self.objectives if step < round(until * self.steps))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict; `from_dict` is its inverse."""
        phases = [[until, _weights(goal)] for until, goal in self.objectives]
        return dataclasses.asdict(self) | {"objectives": phases, "block_lens": list(self.block_lens)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Recipe":
        """The recipe of `to_dict`. Raises `BadInput` for missing or unknown fields."""
        try:
            phases = tuple((until, Objective(**goal)) for until, goal in fields["objectives"])
            return cls(**{**fields, "objectives": phases, "block_lens": tuple(fields["block_lens"])})
        except (TypeError, KeyError, ValueError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput("the fields of a Recipe", error, "was this written by another version?") from None


# name: steps, objectives, block_lens
RECIPES: dict[str, tuple[int, tuple, tuple[int, ...]]] = {
    "primary": (4000, CROSS_ENTROPY, ()),
    "secondary": (4000, CROSS_ENTROPY, ()),
    "distilled": (2000, CE_THEN_DISTIL, ()),
    "tandem-ce": (2000, CROSS_ENTROPY, (2,)),
    "tandem-distil": (2000, CE_THEN_DISTIL, (2,)),
}


def recipe(name: str, **changes: Any) -> Recipe:
    """One of the paper's recipes, with any field changed.

    | name | model | objective | γ |
    |---|---|---|---|
    | `primary` | the large one, from scratch | CE | |
    | `secondary` | the small one, from scratch | CE | |
    | `distilled` | a trained secondary | CE, then CE + λ·KL | |
    | `tandem-ce` | a tandem over a trained secondary | CE | 2 |
    | `tandem-distil` | a tandem over a trained secondary | CE, then CE + λ·KL | 2 |

    The paper's (arXiv:2402.08644, section 4): two trained models to start from, the primary frozen,
    the loss on the secondary's outputs alone, γ = 2, the two phases of Tandem-Distil and λ = 0.5, and
    the baseline distilled without tandem attention. (The shipped pair, the demo and the notebooks train
    their drafters from random weights.) Our choice, which the paper leaves open: both
    phases half of the steps; λ as the weight of KL *added* to CE; the direction KL(primary ‖ model) at
    temperature 1; random offsets; AdamW, its numbers, the schedule, sizes and length of the run.
    `distilled` is `tandem-distil` without the tandem, number for number, so that comparing the two
    shows the tandem's part alone.

    Where only `steps` is changed, warm-up and evaluation follow: 5 % and every 10 % of them.
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
    steps = changes.get("steps", steps)
    steps = at_least(1, steps, "steps", "fix the recipe")
    usual = {
        "name": name,
        "steps": steps,
        "learning_rate": 1e-3,
        "warmup_steps": steps // 20,
        "eval_every": max(1, steps // 10),
        "objectives": objectives,
        "block_lens": block_lens,
    }
    return Recipe(**{**usual, **changes})


def _checked_objectives(objectives: Any) -> tuple[tuple[float, Objective], ...]:
    expected = "objectives as ((until, Objective), ...) with until rising to 1.0"
    fix = "for example ((0.5, Objective()), (1.0, Objective(kl=0.5)))"
    try:
        phases = tuple((float(until), goal) for until, goal in objectives)
    except (TypeError, ValueError):
        raise BadInput(expected, repr(objectives), fix) from None
    ends = [0.0, *(until for until, _ in phases)]
    rising = all(before < after for before, after in pairwise(ends))
    fine = rising and ends[-1] == 1.0 and all(isinstance(goal, Objective) for _, goal in phases)
    require(fine, expected, repr(objectives), fix)
    return phases


def _weights(objective: Objective) -> dict[str, float]:
    """`ce` and `kl`, and the others where they are not 0.

    So a recipe that can do without the others is written as it was before there were any.
    """
    weights = dataclasses.asdict(objective).items()
    return {name: weight for name, weight in weights if weight or name in ("ce", "kl")}
