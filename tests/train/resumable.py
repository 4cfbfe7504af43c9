"""A small run that a test starts in a process of its own, to kill it: `python resumable.py FOLDER STEPS`."""

import sys

import jax
import numpy as np

from tandem_edu.model import Tandem, Transformer, TransformerConfig
from tandem_edu.train import Objective, Recipe, TrainResult, train

TEXT = np.random.default_rng(0).integers(0, 13, 2000).astype(np.uint16)


def models() -> tuple[Tandem, Transformer]:
    """A tandem and its primary, the same in every process."""
    large = TransformerConfig(13, 16, 3, 4, 2, 24, 64)
    small = TransformerConfig(13, 12, 2, 2, 1, 20, 64)
    primary = Transformer(large, key=jax.random.key(1))
    return Tandem(Transformer(small, key=jax.random.key(2)), large, key=jax.random.key(3)), primary


def run(steps: int, folder: str | None = None, on_eval=None) -> TrainResult:
    """Train, with a checkpoint after each second step."""
    recipe = Recipe(
        "resumable",
        steps=steps,
        learning_rate=1e-2,
        warmup_steps=3,
        batch_size=2,
        seq_len=12,
        objectives=((0.5, Objective()), (1.0, Objective(kl=0.5))),
        block_lens=(2, 3),
        eval_every=2,
        eval_windows=3,
    )
    tandem, primary = models()
    return train(
        tandem, recipe, TEXT, TEXT[:99], primary=primary, folder=folder, progress=False, on_eval=on_eval
    )


if __name__ == "__main__":
    run(int(sys.argv[2]), sys.argv[1], lambda entry: print(entry["step"], flush=True))
