"""One choice at a time, each with its control: short trainings of drafters on the shipped, frozen primary.

All variants of a study start from the same random weights and are trained together, on the same batches.
They are trained a fraction as long as the shipped ones, so compare them with each other only.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tandem_edu import data
from tandem_edu.model import BlockPrediction, Joint, Tandem, Transformer
from tandem_edu.model.weights import Model
from tandem_edu.reproduce.plan import PRIMARY, SECONDARY, SEED, STATES
from tandem_edu.reproduce.quality import document_scores, document_windows, of
from tandem_edu.reproduce.table import Table
from tandem_edu.train import Objective, Recipe, recipe, train_together
from tandem_edu.zoo.shipped import Pair
from tandem_edu.zoo.split import Texts

STEPS = 1_000
DISTIL = Objective(ce=0.1, kl=0.9)
MIXED = (2, 4, 8)
HALF = dataclasses.replace(PRIMARY, n_layers=PRIMARY.n_layers // 2)


class Variant(NamedTuple):
    """A model to train, and how."""

    build: Callable[[Pair], Model]
    objective: Objective = DISTIL
    block_lens: tuple[int, ...] = MIXED


def _secondary(pair: Pair, **changes: Any) -> Transformer:
    config = dataclasses.replace(SECONDARY, **changes)
    vocabulary = pair.primary.vocabulary if config.shared_vocab else None
    return Transformer(config, key=jax.random.key(SEED), vocabulary=vocabulary)


def _tandem(pair: Pair, layer_map: Any = (STATES,), own_history: bool = True, **changes: Any) -> Tandem:
    key = jax.random.key(SEED + 1)
    return Tandem(_secondary(pair, **changes), PRIMARY, layer_map, own_history, key=key)


def _whole(pair: Pair) -> Transformer:
    return Transformer(PRIMARY, key=jax.random.key(SEED))


def _deep(pair: Pair) -> Joint:
    """A model of the primary's depth in two halves, from nothing; the upper one shares the vocabulary."""
    primary_key, secondary_key, tandem_key = jax.random.split(jax.random.key(SEED), 3)
    lower = Transformer(HALF, key=primary_key)
    config = dataclasses.replace(HALF, shared_vocab=True)
    upper = Transformer(config, key=secondary_key, vocabulary=lower.vocabulary)
    return Joint(lower, Tandem(upper, HALF, "last", key=tandem_key))


PLAIN = Variant(_secondary, block_lens=())
OURS = Variant(_tandem)

ABLATIONS: dict[str, tuple[str, Mapping[str, Variant]]] = {
    "states": (
        "Which of the primary's states the tandem reads",
        {
            "distilled, no tandem": PLAIN,
            "last": Variant(partial(_tandem, layer_map="last", own_history=False)),
            "uniform": Variant(partial(_tandem, layer_map="uniform", own_history=False)),
            "state 1": Variant(partial(_tandem, layer_map=((1,),), own_history=False)),
            "state 4": Variant(partial(_tandem, layer_map=((4,),), own_history=False)),
            "fused (1, 4, 8)": Variant(partial(_tandem, own_history=False)),
            "states 2, 5, 8": Variant(partial(_tandem, layer_map=((2, 5, 8),), own_history=False)),
        },
    ),
    "history": (
        "Its own keys and values of past blocks",
        {
            "distilled, no tandem": PLAIN,
            "without, as in the paper": Variant(partial(_tandem, own_history=False)),
            "with": OURS,
        },
    ),
    "vocabulary": (
        "The primary's embedding and head, or its own",
        {
            "distilled, shared": PLAIN,
            "distilled, own": Variant(partial(_secondary, shared_vocab=False), block_lens=()),
            "tandem, shared": OURS,
            "tandem, own": Variant(partial(_tandem, shared_vocab=False)),
        },
    ),
    "loss": (
        "What it learns from",
        {
            "cross-entropy alone": Variant(_tandem, Objective(ce=1.0)),
            "CE + 0.5 KL, the paper's": Variant(_tandem, Objective(ce=1.0, kl=0.5)),
            "0.1 CE + 0.9 KL": OURS,
            "KL alone": Variant(_tandem, Objective(ce=0.0, kl=1.0)),
            "TV alone": Variant(_tandem, Objective(ce=0.0, tv=1.0)),
        },
    ),
    "blocks-in-training": (
        "Block length in training",
        {
            "distilled, no tandem": PLAIN,
            **{f"γ = {gamma}": Variant(_tandem, block_lens=(gamma,)) for gamma in (1, 2, 4, 8)},
            "γ from {2, 4, 8}": OURS,
        },
    ),
    "size": (
        "A smaller secondary (the paper's XXXS)",
        {
            "distilled, d_ff 256": PLAIN,
            "tandem, d_ff 256": OURS,
            "distilled, d_ff 32": Variant(partial(_secondary, d_ff=32), block_lens=()),
            "tandem, d_ff 32": Variant(partial(_tandem, d_ff=32)),
        },
    ),
    "frozen": (
        "A frozen primary, or one that learns with the tandem",
        {
            "frozen": OURS,
            "trained": Variant(lambda pair: Joint(pair.primary, _tandem(pair))),
        },
    ),
    "appendix": (
        "Deep tandem, and block prediction",
        {
            "whole model, 8 layers": Variant(_whole, Objective(ce=1.0), ()),
            "deep tandem, 4 + 4, γ = 2": Variant(_deep, Objective(ce=1.0), (2,)),
            "tandem, γ = 8": Variant(_tandem, Objective(ce=1.0), (8,)),
            "block prediction, 8 at once": Variant(
                lambda pair: BlockPrediction(_tandem(pair)), Objective(ce=1.0), (8,)
            ),
        },
    ),
}


def ablation_table(
    name: str, pair: Pair, parts: Texts, folder: Path, say: Callable[[str], None] = print
) -> Table:
    """Train the variants of one study (resumable in `folder`) and measure them on the test part."""
    title, variants = ABLATIONS[name]
    tokens = data.encode(pair.tokenizer, parts.train)
    units = document_windows(pair.tokenizer, parts.test)
    models = {label: (variant.build(pair), settings(variant)) for label, variant in variants.items()}
    trained = train_together(models, tokens, primary=pair.primary, folder=folder / name)
    rows = []
    for label, model in trained.items():
        say(f"  {label}")
        rows.append({"variant": label, **_figures(model, pair, units)})
    note = (
        f"{STEPS:,} steps of 2,048 tokens each, everything else as the shipped drafters. Agreement and TV to "
        "the primary, teacher-forced on test documents, in brackets 95 % of 2,000 resamplings of the "
        "documents."
    )
    return Table(name, title, note, rows)


def settings(variant: Variant) -> Recipe:
    """The shipped drafters' recipe, shorter."""
    how: dict[str, Any] = {"steps": STEPS, "learning_rate": 3e-3}
    base = "tandem-distil" if variant.block_lens else "distilled"
    objectives = ((1.0, variant.objective),)
    return recipe(base, objectives=objectives, block_lens=variant.block_lens, **how)


def _figures(model: Model, pair: Pair, units) -> dict[str, Any]:
    """At a short block and a long one; a plain transformer has no blocks, so there the two are one."""
    lengths = (1, 1) if isinstance(model, Transformer) else (2, 8)
    short, long = (document_scores(model, units, pair.primary, length) for length in lengths)
    return {
        "agreement at γ = 2": of(short, 2),
        "at γ = 8": of(long, 2),
        "TV at γ = 2": of(short, 3),
        "TV at γ = 8": of(long, 3),
        "accuracy": of(short, 1),
        "cross-entropy at γ = 2": of(short, 0),
        "cross-entropy at γ = 8": of(long, 0),
    }
