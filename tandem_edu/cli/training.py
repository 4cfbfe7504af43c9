"""`tandem-edu train`: one model, or a router."""

import argparse
import dataclasses
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tandem_edu import data, measure
from tandem_edu.cli.decoding import load_drafter, random_key
from tandem_edu.decode import Sampling
from tandem_edu.decode.routers import INPUTS, TARGETS
from tandem_edu.drafters import PrimaryReader, build_reader, readers
from tandem_edu.errors import BadInput, require
from tandem_edu.model import Transformer, TransformerConfig
from tandem_edu.train import Objective, recipe, train, train_router
from tandem_edu.zoo import load_folder, load_primary, save_folder, save_router

_TEXTS = {
    "primary": "a large model, by cross-entropy",
    "secondary": "a small model, by cross-entropy",
    "distilled": "a small model, distilled from the primary",
    "tandem-ce": "a drafter that reads the primary, by cross-entropy",
    "tandem-distil": "a drafter that reads the primary, distilled from it",
    "router": "a router that ends blocks early, from a drafter's own drafts",
}
_SIZES = {"layers": 4, "width": 192, "heads": 6, "context": 512, "vocab_size": 1024}
_RECIPE = {"steps", "batch_size", "seq_len", "learning_rate", "block_lens", "seed"}


def add_train(command: argparse.ArgumentParser) -> None:
    """One command for each recipe, and one for the router."""
    recipes = command.add_subparsers(dest="recipe", required=True, metavar="RECIPE")
    for name, text in _TEXTS.items():
        # What a recipe is not given is absent, so that a flag without effect is noticed.
        default = None if name == "router" else argparse.SUPPRESS
        one = recipes.add_parser(name, help=text, description=f"Train {text}.", argument_default=default)
        add = one.add_argument
        add("--text", default="pydocs", help=f"a path, or one of {', '.join(data.CORPORA)}, if not pydocs")
        add("--out", required=True, metavar="FOLDER", help="for what is trained")
        add("--primary", default=None, metavar="FOLDER", help="the trained primary, if there is one")
        if name == "router":
            one.set_defaults(run=_train_router)
            _add_router(add)
        else:
            one.set_defaults(run=_train_model, resumes=True)
            _add_model(add)
        if name.startswith("tandem"):
            _add_reader(add)


def _add_model(add) -> None:
    add("--start", metavar="FOLDER", help="begin with the weights of this model")
    for name, usual in _SIZES.items():
        add(_flag(name), type=int, metavar="N", help=f"of a new model, if not {usual}")
    for name in ("steps", "batch-size", "seq-len", "seed"):
        add(f"--{name}", type=int, metavar="N", help="if not the recipe's")
    add("--learning-rate", type=float, metavar="X", help="if not the recipe's")
    losses = "weights of ce, kl, reverse_kl, tv, nla in all steps, if not the recipe's"
    add("--loss", nargs="+", type=weight, metavar="NAME=WEIGHT", help=losses)


def _add_reader(add) -> None:
    add("--kind", choices=readers(), help="of the drafter, if not tandem")
    settings = "settings of this kind, such as layer_map=fused own_history=true (values as in JSON)"
    add("--set", nargs="+", type=_pair, metavar="NAME=VALUE", help=settings)
    add("--block-lens", type=int, nargs="+", metavar="N", help="γ, one of these for each step, if not 2")


def _add_router(add) -> None:
    add("--drafter", required=True, metavar="FOLDER", help="the drafter whose drafts it learns from")
    add("--block-len", type=int, default=8, metavar="N", help="γ_max, if not 8")
    add("--temperature", type=float, default=0.0, metavar="X", help="of the pair, if not 0")
    add("--threshold", type=float, default=0.8, metavar="X", help="τ when none is given later, if not 0.8")
    estimates = "what it estimates: 1 - TV(p, q), or whether the draft is accepted; if not tv"
    add("--target", choices=TARGETS, default="tv", help=estimates)
    sees = "what it sees beside entropy and probabilities: embeddings of likely tokens, or the hidden state"
    add("--features", choices=INPUTS, default="embeddings", help=f"{sees}; if not embeddings")
    add("--prompts", type=int, default=160, metavar="N", help="texts to learn from, if not 160")
    add("--steps", type=int, default=1000, metavar="N", help="of the training, if not 1000")
    add("--seed", type=int, default=0, metavar="N", help="if not 0")


def _train_model(options: argparse.Namespace) -> None:
    given = vars(options)
    if "kind" in given and not readers()[options.kind].needs_secondary:
        _refuse(given, {"start", *_SIZES}, f"--kind {options.kind}")
    if "start" in given:
        _refuse(given, _SIZES, "--start")
    if options.primary:
        _refuse(given, {"vocab_size"}, "--primary")
    changes: dict[str, Any] = {name: given[name] for name in given.keys() & _RECIPE}
    if "loss" in given:
        weights, none = dict(options.loss), {field.name: 0.0 for field in dataclasses.fields(Objective)}
        names, fix = ", ".join(weights), "for example --loss ce=0.1 kl=0.9"
        require(weights.keys() <= none.keys(), f"losses among {', '.join(none)}", names, fix)
        changes["objectives"] = ((1.0, Objective(**none | weights)),)
    settings = recipe(options.recipe, **changes)
    start = load_folder(options.start, options.primary) if "start" in given else None
    if start and start.primary and not options.primary:
        options.primary = Path(options.start, start.card["primary"])
    same = options.primary and Path(options.out).resolve() == Path(options.primary).resolve()
    require(not same, "another folder for --out than --primary", options.out, "choose a new one")
    primary, tokenizer = load_primary(options.primary) if options.primary else (None, None)
    corpus = data.load_text(options.text)
    train_text, valid_text = corpus.train_valid()
    if tokenizer is None:
        size = given.get("vocab_size", _SIZES["vocab_size"])
        tokenizer = start.tokenizer if start else data.train_tokenizer(train_text, size)
    model = _untrained(given, settings, primary, start and start.model, tokenizer.get_vocab_size())
    tokens, valid = data.encode(tokenizer, train_text), data.encode(tokenizer, valid_text)
    trained, history = train(
        model, settings, tokens, valid, primary=primary, folder=f"{options.out}/checkpoint"
    )
    source, figures = {"name": corpus.name, "sha256": corpus.digest}, history[-1]
    card = {"recipe": settings.to_dict(), "data": source, "held_out": figures}
    save_folder(options.out, trained, tokenizer, card, primary=options.primary)
    figures = ", ".join(f"{k} {v:.4g}" for k, v in figures.items() if isinstance(v, float))
    print(f"{options.out}: {figures}")


def _untrained(given: dict[str, Any], settings, primary, start, vocab_size: int):
    """The model before its training."""
    model_key, reader_key = jax.random.split(jax.random.key(settings.seed))
    if not settings.block_lens:
        return start or _new_transformer(given, primary, vocab_size, model_key)
    if isinstance(start, PrimaryReader):
        _refuse(given, {"kind", "set"}, f"--start with a {start.kind}")
        return start
    kind, secondary = given.get("kind", "tandem"), None
    if primary is None:
        raise BadInput(f"a primary for a {kind}", "none", "pass --primary FOLDER")
    if readers()[kind].needs_secondary:
        secondary = start or _new_transformer(given, primary, vocab_size, model_key)
    return build_reader(kind, secondary, primary.config, dict(given.get("set", [])), reader_key)


def _new_transformer(given: dict[str, Any], primary, vocab_size: int, key):
    """A small model; beside a primary it shares the primary's embedding and output layer."""
    size = _SIZES | given
    width, heads = size["width"], size["heads"]
    config = TransformerConfig(vocab_size, width, size["layers"], heads, heads, 4 * width, size["context"])
    if primary is None:
        return Transformer(config, key=key)
    shared = {"shared_vocab": True, "tie_embeddings": primary.config.tie_embeddings}
    config = dataclasses.replace(config, d_embed=primary.config.embed_dim, **shared)
    return Transformer(config, key=key, embedding=primary.embedding)


def _refuse(given: dict[str, Any], names: Collection[str], user: str) -> None:
    """Raise `BadInput` if one of these flags is given, which would have no effect."""
    unused = ", ".join(_flag(name) for name in given if name in names)
    require(not unused, f"flags that {user} uses", unused, "leave it out")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _pair(text: str) -> tuple[str, Any]:
    """The name and the value of NAME=VALUE; a value that is not JSON is a string."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def weight(text: str) -> tuple[str, float]:
    """The name and the number of NAME=WEIGHT; argparse reports other text as an "invalid weight"."""
    name, number = _pair(text)
    return name, float(number)


def _train_router(options: argparse.Namespace) -> None:
    """Decode prompts from the training text with the pair, learn from its drafts, print the calibration."""
    key = random_key(options.seed)
    primary, drafter, tokenizer = load_drafter(options)
    train_text, _ = data.load_text(options.text).train_valid()
    context = primary.config.max_len
    length = min(32, context // 4)
    prompts = data.prompts(train_text, tokenizer, length, options.prompts, options.seed)
    settings = {"sampling": Sampling(options.temperature), "threshold": options.threshold}
    settings |= {"max_new_tokens": min(64, context - length), "steps": options.steps, "key": key}
    settings |= {"target": options.target, "features": options.features}
    router, held_out = train_router(primary, drafter, prompts, options.block_len, **settings)
    path = Path(options.out, "router.safetensors")
    save_router(router, path)
    confidence = np.asarray(router.confidence(jnp.asarray(held_out.features)))
    error = measure.calibration(confidence, held_out.accepted).error
    accepted = f"{held_out.accepted.mean():.1%} of {len(held_out.accepted)} held-out drafts accepted"
    print(f"{path}: {accepted}, calibration error (ECE) {error:.3f}")
