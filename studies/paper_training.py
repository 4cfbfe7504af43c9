"""Section 4 of the paper: training from a trained secondary, its two stages, λ, and what learns beside it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from studies.plan import SECONDARY, SEED, STATES
from studies.quality import ACCURACY, AGREEMENT, CROSS_ENTROPY, TV, document_scores, document_windows, of
from studies.table import Lab, Row, Table
from tandem_edu import data
from tandem_edu.drafters import Model, Tandem, load_model, save_model
from tandem_edu.model import Transformer
from tandem_edu.model.layers import init_weight
from tandem_edu.model.weights import share_embedding, trainable
from tandem_edu.progress import progress_bar
from tandem_edu.train import LOSSES, Recipe, recipe, train_together
from tandem_edu.train.step import draw_block, optimizer
from tandem_edu.zoo.shipped import Pair

STEPS, WINDOWS, BLOCK_LEN = 500, 8, 2
RATE, LOW_RATE = 1e-3, 1e-4
"""The recipes' learning rate, and one for weights that have been trained already."""
FROZEN = {
    "distilled, second stage only (the paper's control)": ("distilled-second-stage", True),
    "distilled, both stages (our control)": ("distilled", True),
    "tandem-CE": ("tandem-ce", True),
    "tandem-distil, CE + 0.5 KL": ("tandem-distil", True),
    "tandem-distil, 0.5 CE + 0.5 KL": ("tandem-distil-balanced", True),
    "tandem-distil from random weights": ("tandem-distil", False),
}
"""Recipe, and whether the secondary has been trained on the text before."""
LEARNING = {
    f"(b) both learn, loss on the secondary, rate {LOW_RATE:g}": (False, LOW_RATE),
    f"(c) both learn, loss on both, rate {LOW_RATE:g}": (True, LOW_RATE),
    f"(b) both learn, loss on the secondary, rate {RATE:g}": (False, RATE),
    f"(c) both learn, loss on both, rate {RATE:g}": (True, RATE),
}
"""Whether the primary's own loss counts too, and the learning rate."""


def study(lab: Lab) -> list[Table]:
    """Train all for as many steps, kept in `lab.work`, and measure them on the test part."""
    pair, folder = lab.pair, lab.work / "paper-training"
    tokens = data.encode(pair.tokenizer, lab.parts.train)
    units = [windows[:WINDOWS] for windows in document_windows(pair.tokenizer, lab.parts.test)]
    plans = {
        name: (start(pair, kind, warm), recipe(kind, steps=STEPS)) for name, (kind, warm) in FROZEN.items()
    }
    results = train_together(plans, tokens, primary=pair.primary, folder=folder)
    rows = [_row(name, result.model, pair.primary, units) for name, result in results.items()]
    for number, (name, (both, rate)) in enumerate(LEARNING.items()):
        lab.say(f"  {name}")
        paths = [folder / f"{part}-{number}.safetensors" for part in ("primary", "tandem")]
        if not all(path.exists() for path in paths):
            settings = recipe("tandem-ce", steps=STEPS, learning_rate=rate)
            models = train_jointly(pair.primary, start(pair, "tandem-ce", True), settings, tokens, both)
            for model, path in zip(models, paths, strict=True):
                save_model(model, path)
        primary: Any = load_model(paths[0])
        rows.append(_row(name, load_model(paths[1], primary.embedding), primary, units))
    return [Table("paper-training", rows)]


def start(pair: Pair, kind: str, trained: bool) -> Transformer | Tandem:
    """The model before its training: in the paper's form, with random projections."""
    key, projection_key = jax.random.split(jax.random.key(SEED))
    config = dataclasses.replace(SECONDARY, vocab_size=pair.primary.config.vocab_size)
    fresh = lambda: Transformer(config, key=key, embedding=pair.primary.embedding)
    secondary = pair.secondary if trained else fresh()
    if not kind.startswith("tandem"):
        return secondary
    tandem = Tandem(secondary, pair.primary.config, [STATES] * secondary.config.n_layers, key=key)
    shapes = [projection.weight.shape for projection in tandem.projections]
    keys = jax.random.split(projection_key, len(shapes))
    weights = [init_weight(k, *shape) for k, shape in zip(keys, shapes, strict=True)]
    return eqx.tree_at(lambda t: [projection.weight for projection in t.projections], tandem, weights)


def train_jointly(
    primary: Transformer, tandem: Tandem, settings: Recipe, tokens: np.ndarray, both: bool
) -> tuple[Transformer, Tandem]:
    """Both learn, by the secondary's loss, or by the sum of both models' cross-entropies."""
    batches = data.Batches(tokens, settings.batch_size, settings.seq_len, settings.seed)
    mine = trainable(primary), trainable(tandem)
    learning, frozen = eqx.partition((primary, tandem), mine)
    adamw, (_, objective) = optimizer(settings), settings.objectives[-1]

    def models(learning) -> tuple[Transformer, Tandem]:
        primary, tandem = eqx.combine(learning, frozen)
        return primary, share_embedding(tandem, primary.embedding)

    def loss(learning, batch, step):
        primary, tandem = models(learning)
        inputs, targets = batch[:, :-1], batch[:, 1:]
        p, hidden = primary(inputs, return_hidden=True)
        total = objective(tandem(inputs, hidden, *draw_block(settings, step)), targets, p)
        return total + jnp.mean(LOSSES["ce"](p, targets, p)) if both else total

    @eqx.filter_jit(donate="all")
    def next_state(learning, opt_state, batch, step):
        gradient = jax.grad(loss)(learning, batch, step)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to its integer count
            updates, opt_state = adamw.update(gradient, opt_state, learning)
        return optax.apply_updates(learning, updates), opt_state

    learning = jax.tree.map(lambda x: jnp.array(x, copy=True), learning)  # the caller's own are not donated
    opt_state = adamw.init(learning)
    for step in progress_bar(range(settings.steps), desc="joint training"):
        learning, opt_state = next_state(learning, opt_state, jnp.asarray(batches(step)), jnp.int32(step))
    return models(learning)


def _row(name: str, model: Model, primary: Transformer, units: Any) -> Row:
    """Agreement and TV are to the primary that the model would draft for."""
    scores = document_scores(model, units, primary, BLOCK_LEN)
    columns: Mapping[str, int] = {
        "accuracy": ACCURACY,
        "cross-entropy": CROSS_ENTROPY,
        "agreement": AGREEMENT,
        "TV": TV,
    }
    own = of(document_scores(primary, units, primary, 1), ACCURACY)
    return {
        "variant": name,
        **{column: of(scores, score) for column, score in columns.items()},
        "primary's accuracy": own,
    }
