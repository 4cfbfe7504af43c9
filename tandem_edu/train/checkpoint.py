"""Checkpoints: one file that holds all a run needs to go on, and that says which run it belongs to.

The file is safetensors: the trained arrays, AdamW's opt_state and the step count, beside the history
and the run's *fingerprint* as JSON. It is renamed into place when it is complete, so whenever a run is
killed, what lies there is the last whole checkpoint. Batches and block draws are pure functions of
(seed, step), so this is all there is to remember.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import PyTree

from tandem_edu.errors import BadInput, require
from tandem_edu.model import BlockPrediction, Joint, Transformer
from tandem_edu.model.weights import Model, describe, fill, named_arrays, read_arrays, write_arrays
from tandem_edu.train.recipes import Recipe
from tandem_edu.train.step import State

History = list[dict[str, Any]]
"""A dict an evaluation."""
NAME = "checkpoint.safetensors"
_CHUNK = 2**22  # tokens hashed at a time, so that a memory-mapped text is never read whole


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
        "the held-out text": _digest(tokens[:0] if valid_tokens is None else valid_tokens),
    }
    return {
        name: {
            "recipe": recipe.to_dict(),
            "model": _described(model),
            "the model's starting weights": _digest(model),
            **shared,
        }
        for name, (model, recipe) in models.items()
    }


def save_checkpoint(
    folder: Path, states: dict[str, State], histories: dict[str, History], run: dict[str, Any]
) -> None:
    """Write the checkpoint, each model by its name, over the one before.

    Raises `BadInput` if it cannot be written.
    """
    write_arrays(named_arrays(states), {"run": run, "history": histories}, folder / NAME)


def load_checkpoint(
    folder: Path, states: dict[str, State], run: dict[str, Any]
) -> tuple[dict[str, State], dict[str, History]]:
    """The states and histories kept in `folder`; `states` and no history if there is no checkpoint.

    Raises `BadInput` if the checkpoint is of another run, saying what differs, or if it is damaged.
    It is never removed or written over in these cases.
    """
    path = folder / NAME
    if not path.exists():
        return states, {}
    # What a killed run had half-written; it was never a checkpoint.
    for part in folder.glob(f".{NAME}.*.part"):
        with suppress(OSError):
            part.unlink()
    fix = f"choose another folder, or delete {path} to start anew"
    try:
        arrays, metadata = read_arrays(path)
    except BadInput as error:
        raise BadInput(f"a whole checkpoint at {path}", f"a damaged one ({error})", fix) from error
    require(metadata.keys() == {"run", "history"}, f"a checkpoint at {path}", "another kind of file", fix)
    differing = _differences(metadata["run"], json.loads(json.dumps(run)))
    got = f"one that differs in {'; '.join(differing)}"
    require(not differing, f"the checkpoint in {path} to be of this run", got, f"use its values, {fix}")
    return fill(states, arrays, path), metadata["history"]


def _described(model: Model) -> dict[str, Any]:
    """`describe`, also of models that are trained but never stored."""
    if isinstance(model, Joint):
        return {"kind": "joint", "primary": describe(model.primary), "tandem": describe(model.tandem)}
    if isinstance(model, BlockPrediction):
        return {"kind": "block-prediction", "tandem": describe(model.tandem)}
    return describe(model)


def _differences(kept: dict[str, Any], now: dict[str, Any], path: str = "") -> list[str]:
    """In words what differs, down to the field; what the fingerprint knows by its digest is only named."""
    found = []
    for name in kept | now:
        before, after = kept.get(name), now.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{path}{name}.")
        elif name not in kept or name not in now:
            found.append(f"{path}{name} ({'here' if name in now else 'there'} only)")
        elif before != after:
            values = "" if name.startswith("the ") else f" ({before!r} there, {after!r} here)"
            found.append(f"{path}{name}{values}")
    return found


def _digest(tree: PyTree) -> str:
    """SHA-256 of every array of a tree, or of one row of tokens."""
    digest = hashlib.sha256()
    for name, leaf in named_arrays(tree).items():
        digest.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        row = np.asarray(leaf).reshape(-1)
        for start in range(0, row.size, _CHUNK):
            digest.update(np.ascontiguousarray(row[start : start + _CHUNK]).data)
    return digest.hexdigest()
