"""Random models to decode with, made so that their texts vary and their drafters agree sometimes.

Fresh weights repeat one token, and any decoder gets that right. Noise on every weight and a large embedding
give varied texts; a drafter is its primary with a little more noise.

`writer` has 48 tokens, for greedy texts. `speaker` has 5, so that every short text can be enumerated.
"""

from functools import cache
from itertools import cycle

import equinox as eqx
import jax
import numpy as np
import pytest
from oracle import lively

from tandem_edu.decode import generate
from tandem_edu.drafters import Eagle, EarlyExit, Glide, Plain, PromptLookup, Tandem
from tandem_edu.model import Transformer, TransformerConfig

TANDEMS = [(layers, own) for layers in ("last", "uniform", "fused") for own in (False, True)]
OTHERS = ["lookup", "eagle-top", "eagle-fused", "glide-last", "glide-uniform", "exit"]
DRAFTERS = ["plain", *(f"{layers}-{'own' if own else 'paper'}" for layers, own in TANDEMS), *OTHERS]
TRAINED = ["plain", "last-paper", "fused-own", "eagle-fused", "glide-last", "exit"]
"""One of each kind that has weights."""
ONE_OF_A_KIND = [*TRAINED, "lookup"]
ROUNDING = 1e-4
"""Tolerance of Σ min(p, q): in float32 these models' logits are up to 2e-5 from those in float64."""


def slow(*cases) -> list:
    """Cases of `pytest.mark.parametrize` that the quick tests leave out."""
    return [pytest.param(*(c if isinstance(c, tuple) else (c,)), marks=pytest.mark.slow) for c in cases]


def alternating(names: list[str]) -> list[tuple[str, str]]:
    """Each drafter with one verification, the two alternating: for what depends little on either."""
    return list(zip(names, cycle(("token", "block")), strict=False))


@cache
def writer(max_len: int) -> Transformer:
    """A primary over 48 tokens with varied greedy texts. The weights do not depend on `max_len`."""
    config = TransformerConfig(48, 16, 2, 2, 1, 24, max_len, tie_embeddings=False)
    model = lively(Transformer(config, key=jax.random.key(0)), 0, 0.5)
    return eqx.tree_at(lambda m: m.embedding.table, model, model.embedding.table * 3)


@cache
def writer_drafters(max_len: int) -> dict:
    """Every kind of drafter for `writer`, by the names in `DRAFTERS`."""
    return _drafters(writer(max_len), lively(writer(max_len), 7, 0.03))


@cache
def speaker() -> Transformer:
    """A primary over 5 tokens."""
    config = TransformerConfig(5, 4, 2, 1, 1, 4, 32, tie_embeddings=False)
    return lively(Transformer(config, key=jax.random.key(0)), 0, 0.6)


@cache
def speaker_drafters() -> dict:
    """Every kind of drafter for `speaker`."""
    return _drafters(speaker(), lively(speaker(), 1, 0.5))


def _drafters(primary: Transformer, secondary: Transformer) -> dict:
    config, key = primary.config, jax.random.key(3)
    models = {"plain": secondary}
    for name, (layers, own) in zip(DRAFTERS[1:], TANDEMS, strict=False):
        models[name] = Tandem(secondary, config, layer_map=layers, own_history=own, key=key)
    models["lookup"] = PromptLookup(config.vocab_size, ngram=2)
    for layers in ("top", "fused"):
        # Noise again, because the feature's half of `fc` starts at zero.
        models[f"eagle-{layers}"] = lively(Eagle(secondary, config, layers, key=key), 5, 0.05)
    for layers in ("last", "uniform"):
        models[f"glide-{layers}"] = Glide(secondary, config, layers)
    models["exit"] = EarlyExit(config, exit_layer=1)
    return models


@cache
def writer_trained(name: str, max_len: int):
    """A drafter for `writer` after a short training."""
    return _trained(writer(max_len), writer_drafters(max_len)[name])


@cache
def speaker_trained(name: str):
    """A drafter for `speaker` after a short training."""
    return _trained(speaker(), speaker_drafters()[name])


def _trained(primary: Transformer, untrained):
    """`untrained` after a short training on the primary's own texts."""
    from tandem_edu.train import Objective, recipe, train

    reader = not isinstance(untrained, Transformer)
    how = {"steps": 80, "seq_len": 24, "learning_rate": 3e-3, **({"block_lens": (2, 4)} if reader else {})}
    objectives = ((1.0, Objective(ce=0.1, kl=0.9)),)
    settings = recipe("tandem-distil" if reader else "distilled", objectives=objectives, **how)
    prompts = np.arange(24)[:, None] % primary.config.vocab_size
    text = np.asarray(generate(primary, prompts, 30).tokens).reshape(-1)
    return train(untrained, settings, text, text, primary=primary, progress=False).model


def retraced(model: Transformer) -> Plain:
    """A plain drafter of a new type: the next call compiles anew, and so sees a patched decoder."""

    class Retraced(Plain):
        pass

    return Retraced(model)
