"""Recipes: what the names stand for, their phases, and every value that is refused."""

import dataclasses
import inspect
import json

import numpy as np
import pytest
from refusal import refuses

from tandem_edu.train import Objective, Recipe, recipe

NAMES = ["primary", "secondary", "distilled", "tandem-ce", "tandem-distil"]
CE, DISTIL = Objective(ce=1.0), Objective(ce=1.0, kl=0.5)


def some(**changes):
    return Recipe(**{"name": "some", "steps": 100, "learning_rate": 1e-3, "warmup_steps": 10, **changes})


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_json_and_has_a_hash(name):
    fields = recipe(name).to_dict()
    assert json.loads(json.dumps(fields)) == fields and fields["name"] == name
    assert fields["objectives"][-1][1] == dataclasses.asdict(recipe(name).objectives[-1][1])
    assert hash(recipe(name)) == hash(recipe(name))


def test_the_papers_numbers():
    assert all(not recipe(name).block_lens for name in ("primary", "secondary", "distilled"))
    assert recipe("tandem-ce").block_lens == recipe("tandem-distil").block_lens == (2,)
    assert all(recipe(name).objectives == ((1.0, CE),) for name in ("primary", "secondary", "tandem-ce"))
    assert [goal for _, goal in recipe("tandem-distil").objectives] == [CE, DISTIL]
    # The baseline is trained as the tandem is.
    same = dataclasses.replace(recipe("distilled"), name="tandem-distil", block_lens=(2,))
    assert same == recipe("tandem-distil")


def test_phases_meet_where_they_say():
    r = some(objectives=((0.25, CE), (0.75, DISTIL), (1.0, CE)))
    assert [step for step in range(100) if r.objective_at(step) == DISTIL] == list(range(25, 75))
    # However short the run, each step has an objective.
    for steps in range(1, 9):
        r = some(steps=steps, warmup_steps=0, objectives=((0.5, CE), (1.0, DISTIL)))
        distilling = [r.objective_at(step) for step in range(steps)].count(DISTIL)
        assert distilling in (steps // 2, steps - steps // 2)


def test_numpys_numbers_are_written_as_json():
    plain = some(seed=3, block_lens=(2,))
    numbers = {"steps": np.int64(100), "seed": np.uint8(3), "block_lens": (np.int32(2),)}
    numpys = object.__new__(Recipe)
    # Without the run-time type check, which would refuse them.
    inspect.unwrap(Recipe.__init__)(numpys, **{**vars(plain), **numbers})
    assert json.dumps(numpys.to_dict()) == json.dumps(plain.to_dict())


def test_changes():
    changed = recipe("tandem-distil", steps=300, block_lens=(2, 4, 8), objectives=((1.0, DISTIL),), seed=3)
    assert changed.block_lens == (2, 4, 8) and changed.objectives == ((1.0, DISTIL),)
    assert (changed.warmup_steps, changed.eval_every) == (15, 30)
    assert recipe("primary", steps=300, warmup_steps=7, eval_every=9).warmup_steps == 7
    assert recipe("primary", steps=1).warmup_steps == 0
    assert dataclasses.replace(changed, learning_rate=0.5).learning_rate == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps of at least 1, got 0: fix the recipe"),
        *(({name: 0}, name) for name in ("batch_size", "seq_len", "eval_every", "eval_windows")),
        ({"steps": True}, "steps"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"warmup_steps": 100}, "warmup_steps below steps.*take warmup_steps=5"),
        ({"learning_rate": 0.0}, "learning_rate above 0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"clip_norm": -1.0}, "clip_norm above 0"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed below"),
        ({"block_lens": (2, 0)}, "each of block_lens"),
        ({"objectives": ()}, "rising to 1.0"),
        ({"objectives": ((0.5, CE),)}, "rising to 1.0"),
        ({"objectives": ((0.5, CE), (0.5, DISTIL), (1.0, CE))}, "rising to 1.0"),
        ({"objectives": ((1.5, CE), (1.0, DISTIL))}, "rising to 1.0"),
    ],
)
def test_bad_values(changes, message):
    refuses(message, some, **changes)


def test_bad_names_and_fields():
    refuses("tandem-distil", recipe, "tandem")
    refuses(r"learning_rate.*got lr", recipe, "primary", lr=1e-3)
    refuses("steps", recipe, "primary", steps=0)
