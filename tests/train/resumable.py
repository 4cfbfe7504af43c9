"""A small run that a test starts in a process of its own, to kill it: `resumable.py KIND FOLDER STEPS`."""

import sys

import jax
from small_runs import DISTIL, NOISE, some

from tandem_edu.drafters import Tandem
from tandem_edu.model import Transformer, TransformerConfig
from tandem_edu.train import TrainResult, train


def run(kind: str, steps: int, folder: str | None = None, on_eval=None) -> TrainResult:
    """Train a model, "plain" or "tandem", the same in every process; a checkpoint after each second step."""
    large, small = TransformerConfig(13, 16, 3, 4, 2, 24, 64), TransformerConfig(13, 12, 2, 2, 1, 20, 64)
    model, primary = (Transformer(c, key=jax.random.key(i)) for i, c in enumerate((small, large)))
    how, options = {"eval_every": 2, "eval_windows": 3}, {"folder": folder, "on_eval": on_eval}
    if kind == "tandem":
        how |= {"block_lens": (2, 3), "objectives": DISTIL}
        model, options["primary"] = Tandem(model, large, key=jax.random.key(3)), primary
    return train(model, some(steps=steps, **how), NOISE, NOISE[:99], progress=False, **options)


if __name__ == "__main__":
    kind, folder, steps = sys.argv[1:]
    run(kind, int(steps), folder, lambda entry: print(entry["step"], flush=True))
