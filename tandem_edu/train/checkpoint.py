"""Checkpoints: one file with all that a run needs to go on, and with the run's fingerprints.

It holds the trained arrays, AdamW's moments, the step counts, the histories and the fingerprints.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import PyTree

from tandem_edu.drafters import Model, describe
from tandem_edu.errors import BadInput, require
from tandem_edu.files import FilePath
from tandem_edu.model import Transformer
from tandem_edu.model.weights import fill, named_arrays, read_arrays, write_arrays
from tandem_edu.train.recipes import Recipe
from tandem_edu.train.step import TrainState

History = list[dict[str, Any]]
"""One dict for each evaluation."""
States = dict[str, TrainState]
Models = Mapping[str, tuple[Model, Recipe]]
NAME = "checkpoint.safetensors"


class Checkpoint:
    """The checkpoint of the run with these fingerprints. Raises `BadInput` if `folder` cannot be made."""

    def __init__(self, folder: FilePath, run: dict[str, Any]):
        self.path, self.run = Path(folder, NAME), json.loads(json.dumps(run))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"a folder at {folder}", error.strerror, "choose another folder") from error

    def save(self, states: States, histories: dict[str, History]) -> None:
        """Replace the checkpoint. Raises `BadInput` if it cannot be written."""
        write_arrays(named_arrays(states), {"run": self.run, "history": histories}, self.path)

    def load(self, states: States, histories: dict[str, History]) -> tuple[States, dict[str, History]]:
        """The saved ones, else those given. Raises `BadInput` for a damaged file or another run's."""
        if not self.path.exists():
            return states, histories
        for part in self.path.parent.glob(f".{NAME}.*.part"):  # left half-written by a killed run
            part.unlink(missing_ok=True)
        fix = f"choose another folder, or delete {self.path} to start anew"
        try:
            arrays, metadata = read_arrays(self.path)
        except BadInput as error:
            raise BadInput(f"a whole checkpoint at {self.path}", f"a damaged one ({error})", fix) from error
        got = f"one that differs in {'; '.join(_differences(metadata.get('run'), self.run, 'run'))}"
        same = metadata.get("run") == self.run
        require(same, f"a checkpoint of this run at {self.path}", got, f"use its values, {fix}")
        return fill(states, arrays, self.path), metadata["history"]


def fingerprints(
    models: Models, tokens: np.ndarray, valid_tokens: np.ndarray | None, primary: Transformer | None
) -> dict[str, dict[str, Any]]:
    """What determines each model's training, JSON-able: runs with equal fingerprints are the same run."""
    shared = {
        "the primary": None if primary is None else [describe(primary), _digest(primary)],
        "the training text": _digest(tokens),
        "the held-out text": None if valid_tokens is None else _digest(valid_tokens),
    }
    own = lambda model: {"model": describe(model), "the model's starting weights": _digest(model)}
    return {name: {"recipe": r.to_dict(), **own(model), **shared} for name, (model, r) in models.items()}


def _differences(there: Any, here: Any, path: str) -> list[str]:
    """The fields that differ, each with its values; a field whose name starts with "the" holds digests."""
    if isinstance(there, dict) and isinstance(here, dict):
        pairs = {f"{path}.{name}": (there.get(name), here.get(name)) for name in there | here}
        return [each for name, pair in pairs.items() for each in _differences(*pair, name)]
    values = "" if ".the " in path else f" ({there!s:.12} there, {here!s:.12} here)"
    return [] if there == here else [path + values]


def _digest(tree: PyTree) -> str:
    """SHA-256 of every array of a tree, or of one row of tokens, which may be memory-mapped."""
    digest = hashlib.sha256()
    for name, leaf in named_arrays(tree).items():
        digest.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).reshape(-1).data)
    return digest.hexdigest()
