"""Checkpoints: one file with all that a run needs to go on, and with the run's fingerprints.

The file is safetensors: the trained arrays, AdamW's moments and the step counts, with the histories and the
fingerprints as JSON. It is written under another name and renamed when complete, so a run that is killed
leaves a whole checkpoint. Batches and block draws are pure functions of (seed, step) and need no state.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import PyTree

from tandem_edu.drafters import Model, describe
from tandem_edu.errors import BadInput, require
from tandem_edu.model import Transformer
from tandem_edu.model.weights import fill, named_arrays, read_arrays, write_arrays
from tandem_edu.train.recipes import Recipe
from tandem_edu.train.step import TrainState

History = list[dict[str, Any]]
"""One dict for each evaluation."""
States = dict[str, TrainState]
NAME = "checkpoint.safetensors"


class Checkpoint:
    """The checkpoint in `folder` of the run with these fingerprints; `step` is 0 while there is none.

    Raises `BadInput` if the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], run: dict[str, Any]):
        self.path, self.run, self.step = Path(folder, NAME), json.loads(json.dumps(run)), 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"a folder at {folder}", error.strerror, "choose another folder") from error

    def save(self, states: States, histories: dict[str, History], step: int) -> None:
        """Replace the checkpoint. Raises `BadInput` if it cannot be written."""
        write_arrays(named_arrays(states), {"run": self.run, "history": histories}, self.path)
        self.step = step

    def load(self, states: States, histories: dict[str, History]) -> tuple[States, dict[str, History]]:
        """The states and histories in the file; the arguments themselves if there is none.

        Raises `BadInput` if the file is damaged or belongs to another run, and says what differs. It never
        removes or overwrites such a file.
        """
        if not self.path.exists():
            return states, histories
        for part in self.path.parent.glob(f".{NAME}.*.part"):  # left half-written by a killed run
            with suppress(OSError):
                part.unlink()
        fix = f"choose another folder, or delete {self.path} to start anew"
        try:
            arrays, metadata = read_arrays(self.path)
        except BadInput as error:
            raise BadInput(f"a whole checkpoint at {self.path}", f"a damaged one ({error})", fix) from error
        differing = "; ".join(_differences(metadata.get("run", {}), self.run))
        expected, got = f"a checkpoint of this run at {self.path}", f"one that differs in {differing}"
        require(not differing, expected, got, f"use its values, {fix}")
        states = fill(states, arrays, self.path)
        self.step = int(next(iter(states.values())).step)
        return states, metadata["history"]


def fingerprints(
    models: Mapping[str, tuple[Model, Recipe]],
    tokens: np.ndarray,
    valid_tokens: np.ndarray | None,
    primary: Transformer | None,
) -> dict[str, dict[str, Any]]:
    """What determines each model's training, JSON-able: runs with equal fingerprints are the same run."""
    shared = {
        "the primary": None if primary is None else [describe(primary), _digest(primary)],
        "the training text": _digest(tokens),
        "the held-out text": None if valid_tokens is None else _digest(valid_tokens),
    }
    return {
        name: {
            "recipe": recipe.to_dict(),
            "model": describe(model),
            "the model's starting weights": _digest(model),
            **shared,
        }
        for name, (model, recipe) in models.items()
    }


def _differences(there: dict[str, Any], here: dict[str, Any], path: str = "") -> list[str]:
    """What differs, down to the field; a field that starts with "the" is named without its values."""
    differing = []
    for name in there | here:
        old, new = there.get(name), here.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            differing += _differences(old, new, f"{path}{name}.")
        elif name not in there or name not in here:
            differing.append(f"{path}{name} ({'here' if name in here else 'there'} only)")
        elif old != new:
            values = "" if name.startswith("the ") else f" ({old!r} there, {new!r} here)"
            differing.append(f"{path}{name}{values}")
    return differing


def _digest(tree: PyTree) -> str:
    """SHA-256 of every array of a tree, or of one row of tokens, which may be memory-mapped."""
    digest = hashlib.sha256()
    for name, leaf in named_arrays(tree).items():
        digest.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).reshape(-1).data)
    return digest.hexdigest()
