"""One choice at a time, each with its control: short trainings of drafters on the shipped, frozen primary.

All variants of a study start from the same random weights and are trained together, on the same batches.
They are trained for a fraction of the shipped drafters' steps, so compare them with each other only.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from studies import quality
from studies.plan import AGREEMENT, PRIMARY, SECONDARY, SEED, STATES, WIDER
from studies.prompts import LENGTH
from studies.quality import document_scores, document_windows, of
from studies.table import Lab, Row, Table
from tandem_edu import data
from tandem_edu.decode import Sampling, generate
from tandem_edu.drafters import Eagle, Glide, Model, Tandem
from tandem_edu.files import written_whole
from tandem_edu.model import Transformer
from tandem_edu.train import Objective, Recipe, recipe, train_together
from tandem_edu.zoo.shipped import Pair

STEPS, LONGER, RATE = 500, 2_000, 3e-3
WINDOWS = 8
"""Of a document, at the most."""
MIXED = (2, 4, 8)
OWN_TEXTS, OWN_LENGTH = 2_048, 208
"""Texts sampled from the primary to train on, and the new tokens of each."""


class Variant(NamedTuple):
    """A model to train, and how."""

    build: Callable[[Pair], Model]
    objective: Objective = AGREEMENT
    block_lens: tuple[int, ...] = MIXED
    learning_rate: float = RATE
    own_text: bool = False
    """Trained on text sampled from the primary (`self_generated`) instead of the files."""


def _secondary(pair: Pair, **changes: Any) -> Transformer:
    config = dataclasses.replace(SECONDARY, **changes)
    vocabulary = pair.primary.embedding if config.shared_vocab else None
    return Transformer(config, key=jax.random.key(SEED), embedding=vocabulary)


def _tandem(pair: Pair, layer_map: Any = (STATES,), own_history: bool = True, **changes: Any) -> Tandem:
    key = jax.random.key(SEED + 1)
    return Tandem(_secondary(pair, **changes), PRIMARY, layer_map, own_history, key=key)


def _eagle(pair: Pair, layers: str) -> Eagle:
    return Eagle(_secondary(pair), PRIMARY, layers, unroll=max(MIXED), key=jax.random.key(SEED + 1))


def _glide(pair: Pair) -> Glide:
    secondary = _secondary(pair, n_kv_heads=PRIMARY.n_kv_heads)  # it attends to the primary's keys and values
    return Glide(secondary, PRIMARY, "last")


PLAIN = Variant(_secondary, block_lens=())
OURS = Variant(_tandem)

ABLATIONS: dict[str, Mapping[str, Variant]] = {
    "states": {
        "distilled, no tandem": PLAIN,
        "last": Variant(partial(_tandem, layer_map="last", own_history=False)),
        "uniform": Variant(partial(_tandem, layer_map="uniform", own_history=False)),
        "state 1": Variant(partial(_tandem, layer_map=((1,),), own_history=False)),
        "state 4": Variant(partial(_tandem, layer_map=((4,),), own_history=False)),
        "fused (1, 4, 8)": Variant(partial(_tandem, own_history=False)),
        "states 2, 5, 8": Variant(partial(_tandem, layer_map=((2, 5, 8),), own_history=False)),
    },
    "states-longer": {
        "distilled, no tandem": PLAIN,
        "state 4": Variant(partial(_tandem, layer_map="middle")),
        "fused (1, 4, 8)": OURS,
    },
    "heads": {
        f"{kind}, {heads} of 8": Variant(partial(build, n_kv_heads=heads), block_lens=block_lens)
        for heads in (1, 2, 8)
        for kind, build, block_lens in (("distilled", _secondary, ()), ("tandem", _tandem, MIXED))
    },
    "readers": {
        "distilled, reads no primary": PLAIN,
        "tandem": OURS,
        "EAGLE, top state as input": Variant(partial(_eagle, layers="top")),
        "EAGLE, three states as input": Variant(partial(_eagle, layers="fused")),
        "GLIDE, attends to the last keys and values": Variant(_glide),
    },
    "history": {
        "distilled, no tandem": PLAIN,
        "without, as in the paper": Variant(partial(_tandem, own_history=False)),
        "with": OURS,
    },
    "vocabulary": {
        "distilled, shared": PLAIN,
        "distilled, own": Variant(partial(_secondary, shared_vocab=False), block_lens=()),
        "tandem, shared": OURS,
        "tandem, own": Variant(partial(_tandem, shared_vocab=False)),
    },
    "loss": {
        "cross-entropy alone": Variant(_tandem, Objective(ce=1.0)),
        "CE + 0.5 KL, the paper's": Variant(_tandem, Objective(ce=1.0, kl=0.5)),
        "0.1 CE + 0.9 KL": Variant(_tandem, Objective(ce=0.1, kl=0.9)),
        "KL alone": Variant(_tandem, Objective(ce=0.0, kl=1.0)),
        "TV alone": Variant(_tandem, Objective(ce=0.0, tv=1.0)),
        "0.5 KL + TV": OURS,
    },
    "own-text": {
        f"{kind}, {text}": Variant(build, block_lens=block_lens, own_text=own)
        for own, text in ((False, "files"), (True, "the primary's own text"))
        for kind, build, block_lens in (("distilled", _secondary, ()), ("tandem", _tandem, MIXED))
    },
    "blocks-in-training": {
        "distilled, no tandem": PLAIN,
        **{f"γ = {gamma}": Variant(_tandem, block_lens=(gamma,)) for gamma in (1, 2, 4, 8)},
        "γ from {2, 4, 8}": OURS,
    },
    "size": {
        "distilled, d_ff 256": PLAIN,
        "tandem, d_ff 256": OURS,
        f"distilled, d_ff {WIDER.d_ff}: as many weights as the tandem": Variant(
            partial(_secondary, d_ff=WIDER.d_ff), block_lens=()
        ),
        "distilled, d_ff 32": Variant(partial(_secondary, d_ff=32), block_lens=()),
        "tandem, d_ff 32": Variant(partial(_tandem, d_ff=32)),
    },
}


def study(name: str, lab: Lab) -> list[Table]:
    """Train the variants of one study (resumable in `lab.work`) and measure them on the test part."""
    pair, rows = lab.pair, []
    units = [windows[:WINDOWS] for windows in document_windows(pair.tokenizer, lab.parts.test)]
    for label, model in _trained(name, lab).items():
        lab.say(f"  {label}")
        rows.append({"variant": label, **figures(model, pair.primary, units)})
    return [Table(name, rows)]


def settings(variant: Variant, steps: int) -> Recipe:
    """The shipped drafters' recipe, shorter."""
    how: dict[str, Any] = {"steps": steps, "learning_rate": variant.learning_rate}
    base = "tandem-distil" if variant.block_lens else "distilled"
    return recipe(base, objectives=((1.0, variant.objective),), block_lens=variant.block_lens, **how)


def self_generated(lab: Lab, folder: Path) -> np.ndarray:
    """Texts sampled from the primary, each behind the first tokens of a file that it continues.

    Kept in `folder`, because writing them takes some minutes.
    """
    path = folder / "text.npy"
    if not path.exists():
        prompts, texts = data.prompts(lab.parts.train, lab.pair.tokenizer, LENGTH, OWN_TEXTS), []
        for start in range(0, OWN_TEXTS, 64):
            some, key = prompts[start : start + 64], jax.random.fold_in(jax.random.key(SEED), start)
            out = generate(lab.pair.primary, some, OWN_LENGTH, Sampling(temperature=1.0), key)
            texts.append(np.concatenate([some, np.asarray(out.tokens)], axis=1).reshape(-1))
        with written_whole(path) as part, part.open("wb") as file:
            np.save(file, np.concatenate(texts).astype(np.int32), allow_pickle=False)
    return np.load(path, allow_pickle=False)


def _trained(name: str, lab: Lab) -> dict[str, Model]:
    """The variants of a study, trained side by side on each of its texts."""
    pair, variants, trained = lab.pair, ABLATIONS[name], {}
    steps = LONGER if name == "states-longer" else STEPS
    for own in dict.fromkeys(variant.own_text for variant in variants.values()):
        folder = lab.work / "ablations" / name / ("own" if own else "")
        tokens = self_generated(lab, folder) if own else data.encode(pair.tokenizer, lab.parts.train)
        models = {
            label: (variant.build(pair), settings(variant, steps))
            for label, variant in variants.items()
            if variant.own_text == own
        }
        results = train_together(models, tokens, primary=pair.primary, folder=folder)
        trained |= {label: result.model for label, result in results.items()}
    return trained


def figures(model: Model, primary: Transformer, units) -> Row:
    """At a short block and a long one; a plain transformer has no blocks, so its figures are the same."""
    lengths = (1, 1) if isinstance(model, Transformer) else (2, 8)
    short, long = (document_scores(model, units, primary, length) for length in lengths)
    return {
        "agreement at γ = 2": of(short, quality.AGREEMENT),
        "at γ = 8": of(long, quality.AGREEMENT),
        "TV at γ = 2": of(short, quality.TV),
        "TV at γ = 8": of(long, quality.TV),
        "accuracy": of(short, quality.ACCURACY),
        "cross-entropy at γ = 2": of(short, quality.CROSS_ENTROPY),
        "cross-entropy at γ = 8": of(long, quality.CROSS_ENTROPY),
    }
