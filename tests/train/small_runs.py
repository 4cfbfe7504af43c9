"""What the tests of training share: a text, small recipes, and comparisons to the last bit.

Equal recipes share compiled programs, so the tests use these few. One part a batch compiles fastest.
"""

import jax
import numpy as np

from tandem_edu.model.weights import named_arrays
from tandem_edu.train import Objective, Recipe

TEXT = np.tile(np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 12, 0], np.uint16), 60)
NOISE = np.random.default_rng(0).integers(0, 13, 400).astype(np.uint16)
CE, CE_KL = Objective(ce=1.0), Objective(ce=1.0, kl=0.5)
DISTIL = ((0.5, CE), (1.0, CE_KL))


def some(**changes):
    usual = {"steps": 8, "learning_rate": 1e-2, "warmup_steps": 2, "batch_size": 2, "seq_len": 12}
    usual |= {"name": "some", "eval_every": 3, "eval_windows": 5, "micro_batches": 1}
    return Recipe(**usual | changes)


PLAIN, READER = some(), some(block_lens=(2, 3), objectives=DISTIL)


def batch(seed=0, rows=2, width=13):
    return jax.random.randint(jax.random.key(seed), (rows, width), 0, 13)


def bits(tree):
    return {name: np.asarray(leaf).tobytes() for name, leaf in named_arrays(tree).items()}


def without_seconds(history):
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in history]


def summary(result):
    """All that must not differ between equal runs: the weights' bytes, the history but for its seconds."""
    return bits(result.model), without_seconds(result.history)
