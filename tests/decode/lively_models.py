"""Random models to decode with, made so that their texts vary and their drafters agree sometimes.

Fresh weights write one token over and over, and any decoder gets that right. Noise on every weight and
a large embedding give texts that wander; a drafter is its primary with a little more noise.
"""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tandem_edu.decode import PlainDrafter
from tandem_edu.model import Tandem, Transformer, TransformerConfig

TANDEMS = [(layers, own) for layers in ("last", "uniform", "fused") for own in (False, True)]
DRAFTERS = ["plain", *(f"{layers}-{'own' if own else 'paper'}" for layers, own in TANDEMS)]


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
        n_layers=1,
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
    models = {"plain": secondary}
    for name, (layers, own) in zip(DRAFTERS[1:], TANDEMS, strict=True):
        models[name] = Tandem(
            secondary, primary.config, layer_map=layers, own_history=own, key=jax.random.key(3)
        )
    return models


def retraced(model: Transformer) -> PlainDrafter:
    """A plain drafter of a type of its own: no compiled loop fits it, so the next call traces anew.

    A patched piece of the decoder would otherwise go unseen behind what is compiled already.
    """

    class Retraced(PlainDrafter):
        pass

    return Retraced(model)
