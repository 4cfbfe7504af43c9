"""`tandem-edu train`: one model, or a router."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tandem_edu.errors import BadInput, require

_KINDS = {
    "tandem": "fused",
    "eagle": "top",
    "eagle-fused": "fused",
    "glide": "last",
    "early-exit": None,
}
_RECIPE = ("steps", "batch_size", "seq_len", "learning_rate", "block_lens", "seed", "remat")
# None given means these: so one that is given in vain is noticed.
_SIZES = {"layers": 4, "width": 192, "heads": 6, "context": 512, "vocab_size": 1024}
_ROUTER = {"temperature": 0.0, "threshold": 0.8, "prompts": 160}
_NEW = (*_SIZES, "kv_heads", "ff", "own_vocabulary")
_READING = ("kind", "exit_layer", "layer_map", "own_history")
_IDLE = {
    "tandem": ("exit_layer",),
    "eagle": ("exit_layer", "own_history"),
    "eagle-fused": ("exit_layer", "own_history"),
    "glide": ("exit_layer", "own_history"),
    "early-exit": ("layer_map", "own_history", "start", *_NEW),
}
"""What means nothing to a kind."""


def add_train(command: argparse.ArgumentParser) -> None:
    """The flags of `train`."""
    from tandem_edu.train.recipes import RECIPES

    command.set_defaults(run=_train, resumes=True)
    add = command.add_argument
    add("recipe", choices=[*RECIPES, "router"], help="what to train, and how")
    add("--text", default="pydocs", help="pydocs, pysource, stdlib, shakespeare, or a text file or folder")
    add("--out", required=True, metavar="FOLDER", help="where the model goes, its checkpoint too")
    add("--primary", metavar="FOLDER", help="the trained primary, for all recipes but primary and secondary")
    add("--start", metavar="FOLDER", help="begin with the weights of this model")
    add("--own-vocabulary", action="store_true", help="do not borrow the primary's embedding and head")
    add(
        "--kind",
        choices=_KINDS,
        help="what a recipe of a tandem trains, if not that: another drafter that reads the primary",
    )
    add("--exit-layer", type=int, metavar="N", help="layers of an early-exit, if not half of the primary's")
    add(
        "--layer-map",
        help="what of the primary is read: last, uniform, middle or fused by a tandem (fused if not given), "
        "last or uniform by a cross-attending (last), top or fused by an eagle",
    )
    add("--own-history", action="store_true", help="a tandem that also keeps its own past")
    for name, usual in _SIZES.items():
        add(_flag(name), type=int, metavar="N", help=f"of a new model, if not {usual}")
    add("--kv-heads", type=int, metavar="N", help="key/value heads, if fewer than heads")
    add("--ff", type=int, metavar="N", help="inner width, if not four times the width")
    add(
        "--block-lens",
        type=int,
        nargs="+",
        metavar="N",
        help="γ, drawn from these for each step; γ_max of a router",
    )
    for name in ("steps", "batch-size", "seq-len", "seed"):
        add(f"--{name}", type=int, metavar="N", help="if not the recipe's")
    add("--remat", action="store_true", help="less memory, more time")
    add("--learning-rate", type=float, metavar="X", help="if not the recipe's")
    losses = "weights of ce, kl, reverse_kl, tv, nla from first to last step, if not the recipe's"
    add("--loss", nargs="+", metavar="NAME=WEIGHT", help=losses)
    router = command.add_argument_group("only with router")
    router.add_argument("--drafter", metavar="FOLDER", help="whose drafts it learns from")
    router.add_argument(
        "--temperature", type=float, metavar="X", help="at which the pair decodes, if not at 0"
    )
    router.add_argument(
        "--threshold", type=float, metavar="X", help="τ, if none is given later; 0.8 if not given"
    )
    router.add_argument("--prompts", type=int, metavar="N", help="texts to learn from, if not 160")


def _train(options: argparse.Namespace) -> None:
    _check_flags(options)
    for name, usual in (_SIZES | _ROUTER).items():
        if getattr(options, name) is None:
            setattr(options, name, usual)
    if options.recipe == "router":
        _train_router(options)
    else:
        _train_model(options)


def _train_model(options: argparse.Namespace) -> None:
    from tandem_edu import data
    from tandem_edu.train import recipe, train
    from tandem_edu.zoo import load_folder, load_primary, save_folder

    given = {name: getattr(options, name) for name in _RECIPE}
    changes = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items() if v is not None}
    if options.loss:
        changes["objectives"] = ((1.0, _objective(options.loss)),)
    settings = recipe(options.recipe, **changes)
    start = load_folder(options.start, options.primary) if options.start else None
    if start and start.primary and not options.primary:
        options.primary = Path(options.start, start.card["primary"])
    _check_folders(options)
    primary = load_primary(options.primary) if options.primary else None
    corpus = data.load_text(options.text)
    train_text, valid_text = corpus.train_valid()
    known = primary or start
    tokenizer = known.tokenizer if known else data.train_tokenizer(train_text, options.vocab_size)
    tokens, valid = data.encode(tokenizer, train_text), data.encode(tokenizer, valid_text)
    model = _new_model(options, settings, primary, start, tokenizer.get_vocab_size())
    lender = primary.model if primary else None
    result = train(model, settings, tokens, valid, primary=lender, folder=Path(options.out, "checkpoint"))
    card = {
        "recipe": settings.to_dict(),
        "data": {"name": corpus.name, "sha256": corpus.digest},
        "held_out": result.history[-1],
    }
    save_folder(options.out, result.model, tokenizer, card, primary=options.primary)
    figures = ", ".join(f"{k} {v:.4g}" for k, v in result.history[-1].items() if isinstance(v, float))
    print(f"{options.out}: {figures}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_flags(options: argparse.Namespace) -> None:
    """Raise `BadInput` for a flag that would be passed over."""
    from tandem_edu.train import recipe

    name = f"train {options.recipe}"
    if options.recipe == "router":
        idle = ("start", "loss", "batch_size", "seq_len", "learning_rate", "remat")
        _refuse(options, (*idle, *_NEW, *_READING), name)
        return
    _refuse(options, ("drafter", *_ROUTER), name)
    if recipe(options.recipe).block_lens:
        _refuse(options, _IDLE[options.kind or "tandem"], f"--kind {options.kind or 'tandem'}")
    else:
        _refuse(options, ("block_lens", *_READING), name, "use tandem-ce or tandem-distil")
    if options.start:
        _refuse(options, _NEW, "--start")
    if options.primary:
        _refuse(options, ("vocab_size",), "--primary")


def _refuse(options: argparse.Namespace, names: Sequence[str], by: str, fix: str = "leave it out") -> None:
    """Raise `BadInput` if one of the flags is given, which `by` has no use for."""
    given = {_flag(name): getattr(options, name) for name in names}
    idle = ", ".join(flag for flag, value in given.items() if value is not None and value is not False)
    require(not idle, f"flags that {by} has a use for", idle, fix)


def _check_folders(options: argparse.Namespace) -> None:
    """The model must not be written over its own primary."""
    same = options.primary and Path(options.out).resolve() == Path(options.primary).resolve()
    require(not same, "another folder for --out than --primary", options.out, "choose a new one")


def _objective(weights: list[str]):
    """`["ce=0.1", "kl=0.9"]` as an objective; what is not named weighs nothing."""
    from tandem_edu.train import Objective

    known = [field.name for field in dataclasses.fields(Objective)]
    given = dict.fromkeys(known, 0.0)
    for part in weights:
        name, _, weight = part.partition("=")
        expected = f"--loss NAME=WEIGHT with a name among {', '.join(known)}"
        require(name in known, expected, repr(part), "for example --loss ce=0.1 kl=0.9")
        try:
            given[name] = float(weight)
        except ValueError:
            raise BadInput(f"a number as weight of {name}", repr(part), f"for example {name}=0.5") from None
    return Objective(**given)


def _new_model(options: argparse.Namespace, settings, primary, saved, vocab_size: int):
    """What the recipe trains, before training."""
    import jax

    from tandem_edu.model import PrimaryReader, Transformer, TransformerConfig

    model_key, attached_key = jax.random.split(jax.random.key(settings.seed))
    lender = None if primary is None or options.own_vocabulary else primary.model
    config = TransformerConfig(
        vocab_size=vocab_size,
        d_model=options.width,
        n_layers=options.layers,
        n_heads=options.heads,
        n_kv_heads=options.heads if options.kv_heads is None else options.kv_heads,
        d_ff=4 * options.width if options.ff is None else options.ff,
        max_len=options.context,
        shared_vocab=lender is not None,
        d_embed=lender.config.embed_dim if lender else None,
        tie_embeddings=lender.config.tie_embeddings if lender else True,
    )
    model = Transformer(config, key=model_key, vocabulary=lender.vocabulary if lender else None)
    start = saved.model if saved else model
    if not settings.block_lens:
        return start
    if isinstance(start, PrimaryReader):
        _refuse(options, _READING, f"--start with a {type(start).__name__}")
        return start
    if primary is None:
        raise BadInput(f"a primary for a {options.kind or 'tandem'}", "none", "pass --primary FOLDER")
    return _attached(options, settings, start, primary.model.config, attached_key)


def _attached(options: argparse.Namespace, settings, secondary, primary_config, key):
    """The model of `--kind`, before training."""
    from tandem_edu.model import Eagle, EarlyExit, Glide, Tandem

    kind = options.kind or "tandem"
    if kind == "early-exit":
        half = max(1, primary_config.n_layers // 2)
        return EarlyExit(primary_config, half if options.exit_layer is None else options.exit_layer, key=key)
    layer_map = options.layer_map or _KINDS[kind]
    if kind == "glide":
        return Glide(secondary, primary_config, layer_map, key=key)
    if kind == "tandem":
        return Tandem(secondary, primary_config, layer_map, options.own_history, key=key)
    return Eagle(secondary, primary_config, layer_map, max(4, *settings.block_lens), key=key)


def _train_router(options: argparse.Namespace) -> None:
    """Decode prompts from the training text with the pair, learn from its drafts, say how well."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from tandem_edu import data, measure
    from tandem_edu.decode import Sampling
    from tandem_edu.train import train_router
    from tandem_edu.zoo import load_folder, save_router

    require(
        options.drafter is not None, "a drafter whose drafts to learn from", None, "pass --drafter FOLDER"
    )
    lens = options.block_lens or [8]
    require(len(lens) == 1, "one γ_max for a router", lens, "pass --block-lens 8")
    saved = load_folder(options.drafter, options.primary)
    if saved.primary is None:
        raise BadInput("a drafter with its primary", f"{options.drafter} alone", "pass --primary FOLDER")
    train_text, _ = data.load_text(options.text).train_valid()
    seed = options.seed or 0
    context = saved.primary.config.max_len
    length = min(32, context // 4)
    prompts = data.prompts(train_text, saved.tokenizer, length, options.prompts, seed)
    router, held_out = train_router(
        saved.primary,
        saved.model,
        prompts,
        lens[0],
        max_new_tokens=min(64, context - length),
        sampling=Sampling(options.temperature),
        threshold=options.threshold,
        key=jax.random.key(seed),
        **{} if options.steps is None else {"steps": options.steps},
    )
    path = Path(options.out, "router.safetensors")
    save_router(router, path)
    confidence = np.asarray(router.confidence(jnp.asarray(held_out.features)))
    found = measure.calibration(confidence, held_out.kept)
    share = held_out.kept.mean()
    print(f"{path}: of {len(held_out.kept)} held-out drafts {share:.1%} accepted, ECE {found.error:.3f}")
