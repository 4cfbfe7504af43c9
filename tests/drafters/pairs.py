"""Every kind of drafter that reads a primary, with a primary, and one cached decoder for all of them."""

from functools import cache
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import oracle

from tandem_edu.drafters import Eagle, EarlyExit, Glide, PrimaryOutput, PrimaryReader, Tandem
from tandem_edu.model import Transformer, TransformerConfig

VOCAB, PROMPT, CAPACITY, MAX_DRAFT = 13, 10, 48, 8
KEY = jax.random.key(7)
LAYER_MAPS = {"last": "last", "uniform": "uniform", "fused": "fused", "explicit": [[0, 3], [2]]}
TANDEMS = [f"tandem-{layers}{own}" for own in ("", "-own") for layers in LAYER_MAPS]
EAGLES = ["eagle-1", "eagle-2", "eagle-shared"]
GLIDES = ["glide-1", "glide-2", "glide-shared"]
KINDS = [*TANDEMS, "tandem-shared", *EAGLES, *GLIDES, "exit-1", "exit-2"]
ONE_OF_EACH = ["tandem-fused", "tandem-explicit-own", "eagle-2", "glide-2", "exit-2"]


class Pair(NamedTuple):
    primary: Transformer
    model: PrimaryReader


def config(d_model: int, n_layers: int, n_heads: int, n_kv_heads: int = 2, **more) -> TransformerConfig:
    return TransformerConfig(VOCAB, d_model, n_layers, n_heads, n_kv_heads, 20, 64, **more)


@cache
def pair(kind: str) -> Pair:
    """The primary and the model of a kind. "shared": the model has the primary's embedding."""
    primary = _primary(wide=kind.endswith("shared") or kind == "exit-2")
    return Pair(primary, oracle.lively(_model(kind, primary), 22))


@cache
def _primary(wide: bool) -> Transformer:
    if not wide:
        return oracle.lively(Transformer(config(16, 3, 4), key=KEY), 20)
    # Its head is not its embedding, and its embedding has another width than its layers.
    owner = Transformer(config(10, 1, 1, 1, tie_embeddings=False), key=KEY)
    sizes = config(16, 3, 4, shared_vocab=True, d_embed=10, tie_embeddings=False)
    return oracle.lively(Transformer(sizes, key=KEY, embedding=owner.embedding), 21)


def _model(kind: str, primary: Transformer) -> PrimaryReader:
    family, variant, *own = kind.split("-")
    shared = variant == "shared"

    def secondary(*sizes: int) -> Transformer:
        more = {"shared_vocab": True, "d_embed": 10, "tie_embeddings": False} if shared else {}
        return Transformer(config(*sizes, **more), key=KEY, embedding=primary.embedding if shared else None)

    sizes = primary.config
    if family == "tandem":
        return Tandem(secondary(12, 2, 2, 1), sizes, LAYER_MAPS.get(variant, "last"), bool(own), key=KEY)
    if family == "exit":
        return EarlyExit(sizes, int(variant))
    return {
        "eagle-1": lambda: Eagle(secondary(12, 1, 2, 1), sizes, key=KEY),
        "eagle-2": lambda: Eagle(secondary(16, 2, 2, 1), sizes, "fused", key=KEY),
        "eagle-shared": lambda: Eagle(secondary(12, 1, 2, 1), sizes, [0, 2], unroll=3, key=KEY),
        "glide-1": lambda: Glide(secondary(8, 1, 2), sizes),
        "glide-2": lambda: Glide(secondary(16, 2, 4), sizes, "uniform"),
        "glide-shared": lambda: Glide(secondary(8, 2, 2), sizes, [3, 1]),
    }[kind]()


def some_tokens(seed: int, *shape: int) -> jax.Array:
    return jax.random.randint(jax.random.key(seed), shape, 0, VOCAB)


read = eqx.filter_jit(Transformer.__call__)


def read_hidden(primary: Transformer, tokens: jax.Array) -> jax.Array:
    return read(primary, tokens, return_hidden=True)[1]


traced = []
"""The models for which `forced` was compiled."""


@eqx.filter_jit
def _forced(model, primary, tokens, hidden, block_len, offset):
    traced.append(type(model))
    return model.teacher_forced(primary, tokens, hidden, block_len, offset)


def forced(pair: Pair, tokens, hidden, block_len: int, offset: int = 0) -> jax.Array:
    """Teacher-forced logits, with γ and the offset traced: compiled once for each model and shape."""
    return _forced(pair.model, pair.primary, tokens, hidden, jnp.int32(block_len), jnp.int32(offset))


prefill = eqx.filter_jit(Transformer.prefill)
extend = eqx.filter_jit(Transformer.extend)


@eqx.filter_jit
def start(model, output, block_len):
    return model.start(output, MAX_DRAFT, block_len)


@eqx.filter_jit
def step(model, token, state, primary, cache):
    return model.step(token, state, primary, cache)


@eqx.filter_jit
def commit(model, state, output):
    return model.commit(state, output)


def decode(pair, tokens, prompt_len, block_len, accepted=(), unread=False, step=step, commit=commit):
    """`tokens[prompt_len:]` as a decoder reads them: the logits of each token, and the start of its block.

    In each cycle the drafter reads `block_len` tokens and a rejected one, and the primary all of them and
    more. Of these tokens, the first `accepted` (a number for each cycle, else all of the block) are those of
    the text, the rest is junk. With `unread` the drafter does not read the last token of a block; its logits
    are None then.
    """
    primary, model = pair
    padded = jnp.concatenate([tokens[:prompt_len], some_tokens(1, PROMPT - prompt_len)])
    hidden, cache = prefill(primary, padded, jnp.int32(prompt_len), CAPACITY)
    state = start(model, PrimaryOutput(padded, hidden, cache, jnp.int32(0)), jnp.int32(block_len))
    shapes = lambda state: jax.tree.map(lambda x: (x.shape, x.dtype), state)
    shape_at_start, starts = shapes(state), oracle.block_starts(prompt_len, block_len, prompt_len)
    logits, accepted = [], iter(accepted)
    while (at := len(starts)) < len(tokens):
        count = min(next(accepted, block_len), len(tokens) - at)
        block = jnp.concatenate([tokens[at : at + count], some_tokens(at, MAX_DRAFT + 1 - count)])
        steps = []
        for token in block[: max(1, count - 1) if unread else block_len + 1]:
            draft = step(model, token, state, primary, cache)
            assert draft.logits.shape == (VOCAB,) and draft.hidden.shape == (model.config.d_model,)
            assert bool(draft.has_draft)
            state = draft.state
            steps.append(draft.logits)
        _, hidden, longer = extend(primary, block, cache)
        cache = longer.with_length(at + count)
        state = commit(model, state, PrimaryOutput(block, hidden, cache, jnp.int32(at)))
        assert shapes(state) == shape_at_start
        logits += [*steps, None][:count]
        starts += [at] * count
    return logits, starts
