"""Section 5 of the paper: the deep tandem and block prediction, each beside a whole model of its depth."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from studies.plan import PRIMARY, SEED
from studies.prompts import LENGTH
from studies.quality import ACCURACY, CROSS_ENTROPY, document_scores, document_windows, of, ratio
from studies.table import Lab, Table
from studies.variants import BlockPrediction
from tandem_edu import data
from tandem_edu.decode import generate
from tandem_edu.drafters import DeepTandem
from tandem_edu.drafters.deep import with_unit_embeddings
from tandem_edu.measure import PRESETS, Interval, read_time, spread, timed
from tandem_edu.model import LanguageModel, Transformer
from tandem_edu.train import Recipe, recipe, train_together

STEPS, WINDOWS, NEW_TOKENS, PROMPTS, ROUNDS = 1_000, 8, 128, 4, 9
WHOLE, DEEP = "whole model", "deep tandem, 4 + 4 layers, γ = 2"
CHIPS = [chip for chip in PRESETS if "T4" in chip.name or "TPU" in chip.name]


def study(lab: Lab) -> list[Table]:
    """Train the three side by side (resumable in `lab.work`), measure them on the test part."""
    models = untrained()
    tokens, held_out = (data.encode(lab.pair.tokenizer, text) for text in (lab.parts.train, lab.parts.dev))
    plans = {name: (model, settings(STEPS)) for name, model in models.items()}
    results = train_together(plans, tokens, held_out, folder=lab.work / "deep-tandem")
    trained = {name: result.model for name, result in results.items()}
    units = [windows[:WINDOWS] for windows in document_windows(lab.pair.tokenizer, lab.parts.test)]
    scores = {name: document_scores(one, units, lab.pair.primary, 1) for name, one in trained.items()}
    speeds, rows = _speeds(trained, lab), []
    for name in trained:
        rows.append(
            {
                "model": name,
                "accuracy": of(scores[name], ACCURACY),
                "accuracy / whole": ratio(scores[name], scores[WHOLE], ACCURACY),
                "cross-entropy": of(scores[name], CROSS_ENTROPY),
                "speed / whole": speeds.get(name),
                "layers alone": estimate(2) if name == DEEP else None,
                **{chip.name.split(",")[0]: _roofline(chip) if name == DEEP else None for chip in CHIPS},
            }
        )
    return [Table("deep-tandem", rows)]


def untrained() -> dict[str, LanguageModel]:
    """The three models, with the sizes of the shipped primary and the deep tandem's kind of embedding."""
    key = jax.random.key(SEED)
    whole = with_unit_embeddings(Transformer(dataclasses.replace(PRIMARY, tie_embeddings=False), key=key))
    deep = DeepTandem(PRIMARY, block_len=2, key=key)
    blocks = BlockPrediction(large=whole, config=whole.config, block_len=8)
    return {WHOLE: whole, DEEP: deep, "block prediction, 8 layers, γ = 8": blocks}


def settings(steps: int) -> Recipe:
    """The shipped primary's recipe, shorter."""
    return recipe("primary", steps=steps, learning_rate=2e-3, eval_windows=100)


def estimate(block_len: int) -> float:
    """1 / (1/2 + 1 / (2γ)): two equal halves, one of which runs once a block, the head not counted.

    >>> round(estimate(2), 3)
    1.333
    """
    return 1 / (0.5 + 0.5 / block_len)


def _roofline(chip: Any, block_len: int = 2) -> float:
    """The speed over the whole model by the roofline, with the output layer."""
    half = dataclasses.replace(PRIMARY, n_layers=PRIMARY.n_layers // 2)
    head = PRIMARY.vocab_size * PRIMARY.d_model
    layers = _layer_weights() * half.n_layers
    deep = read_time(chip, layers, block_len) / block_len + read_time(chip, layers + head, 1)
    return read_time(chip, 2 * layers + head, 1) / deep


def _layer_weights() -> int:
    """Weights of one layer."""
    block = Transformer(PRIMARY, key=jax.random.key(0)).blocks[0]
    return sum(leaf.size for leaf in jax.tree.leaves(block))


def _speeds(trained: Mapping[str, LanguageModel], lab: Lab) -> dict[str, Interval]:
    """The whole model and the deep tandem write as many tokens, in turns."""
    prompts = data.prompts(lab.parts.test, lab.pair.tokenizer, LENGTH, PROMPTS)
    write = lambda model: [np.asarray(generate(model, prompt, NEW_TOKENS).tokens) for prompt in prompts]
    seconds, _ = timed({name: partial(write, trained[name]) for name in (WHOLE, DEEP)}, ROUNDS)
    return {name: spread(seconds[WHOLE] / taken) for name, taken in seconds.items()}
