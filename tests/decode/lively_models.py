"""Random models to decode with, made so that their texts vary and their drafters agree sometimes.

Fresh weights write one token over and over, and any decoder gets that right. Noise on every weight and
a large embedding give texts that wander; a drafter is its primary with a little more noise.
"""

from functools import cache
from itertools import cycle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tandem_edu.decode import PlainDrafter, PromptLookup, generate
from tandem_edu.model import Eagle, EarlyExit, Glide, Tandem, Transformer, TransformerConfig
from tandem_edu.train import Objective, recipe, train

TANDEMS = [(layers, own) for layers in ("last", "uniform", "fused") for own in (False, True)]
OTHERS = ["lookup", "eagle-top", "eagle-fused", "cross-last", "cross-uniform", "exit"]
DRAFTERS = ["plain", *(f"{layers}-{'own' if own else 'paper'}" for layers, own in TANDEMS), *OTHERS]
TRAINED = ["plain", "last-paper", "fused-own", "eagle-fused", "cross-last", "exit"]
"""One of each kind that has weights."""
ONE_OF_A_KIND = [*TRAINED, "lookup"]
ROUNDING = 1e-4
"""How far Σ min(p, q) may be from itself, computed another way: in float32 these models' logits are up to
2e-5 off those in float64, it follows p's and q's one to one, and each of the two ways has its errors."""


def by_turns(names: list[str]) -> list[tuple[str, str]]:
    """Each drafter with one verification, the two taking turns: for what has little to do with both."""
    return list(zip(names, cycle(("token", "block")), strict=False))


def lively(model, seed: int, noise: float):
    """`model` with normal noise on every weight."""
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)
    leaves, tree = jax.tree.flatten(arrays)
    normal = np.random.default_rng(seed).standard_normal
    return eqx.combine(
        jax.tree.unflatten(tree, [w + jnp.float32(noise * normal(w.shape)) for w in leaves]), rest
    )


@cache
def writer(max_len: int) -> Transformer:
    """A primary over 48 tokens whose greedy texts wander. The weights do not depend on `max_len`."""
    config = TransformerConfig(
        vocab_size=48,
        d_model=16,
        n_layers=2,
        n_heads=2,
        n_kv_heads=1,
        d_ff=24,
        max_len=max_len,
        tie_embeddings=False,
    )
    model = lively(Transformer(config, key=jax.random.key(0)), 0, 0.5)
    return eqx.tree_at(lambda m: m.vocabulary.embedding, model, model.vocabulary.embedding * 3)


@cache
def writer_drafters(max_len: int) -> dict:
    """Every kind of drafter for `writer`, by the names in `DRAFTERS`."""
    primary = writer(max_len)
    return _drafters(primary, lively(primary, 7, 0.03))


@cache
def speaker() -> Transformer:
    """A primary over 5 tokens, for enumerating every text it can write."""
    config = TransformerConfig(
        vocab_size=5,
        d_model=4,
        n_layers=2,
        n_heads=1,
        n_kv_heads=1,
        d_ff=4,
        max_len=32,
        tie_embeddings=False,
    )
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
        models[f"cross-{layers}"] = Glide(secondary, config, layers)
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
    """`untrained` after a short training on the primary's own texts, to be like the primary."""
    tandem = not isinstance(untrained, Transformer)
    settings = recipe(
        "tandem-distil" if tandem else "distilled",
        steps=80,
        seq_len=24,
        learning_rate=3e-3,
        objectives=((1.0, Objective(ce=0.1, kl=0.9)),),
        **({"block_lens": (2, 4)} if tandem else {}),
    )
    prompts = np.arange(24)[:, None] % primary.config.vocab_size
    text = np.asarray(generate(primary, prompts, 30).tokens).reshape(-1)
    return train(untrained, settings, text, text, primary=primary, progress=False).model


def retraced(model: Transformer) -> PlainDrafter:
    """A plain drafter of a type of its own: no compiled loop fits it, so the next call traces anew.

    A patched piece of the decoder would otherwise go unseen behind what is compiled already.
    """

    class Retraced(PlainDrafter):
        pass

    return Retraced(model)
