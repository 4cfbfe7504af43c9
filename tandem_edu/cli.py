"""The command line: each subcommand a few lines around what the rooms below offer.

A mistake of the person at the keyboard is answered with one line and exit status 2, never a traceback.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from tandem_edu.errors import BadInput, require


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except BadInput as error:
        print(f"tandem-edu: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tandem-edu: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _demo(options: argparse.Namespace) -> None:
    from tandem_edu.demo import demo

    demo(Path(options.out), quick=options.quick)


def _train(options: argparse.Namespace) -> None:
    from tandem_edu import data
    from tandem_edu.train import recipe, train
    from tandem_edu.zoo import load_primary, save_folder

    given = {name: getattr(options, name) for name in _RECIPE}
    changes = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items() if v is not None}
    if options.loss:
        changes["objectives"] = ((1.0, _objective(options.loss)),)
    settings = recipe(options.recipe, **changes)
    primary = load_primary(options.primary) if options.primary else None
    corpus = data.load_text(options.text)
    train_text, valid_text = corpus.train_valid()
    tokenizer = primary.tokenizer if primary else data.train_tokenizer(train_text, options.vocab_size)
    tokens, valid = data.encode(tokenizer, train_text), data.encode(tokenizer, valid_text)
    model = _new_model(options, settings, primary, tokenizer.get_vocab_size())
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


def _new_model(options: argparse.Namespace, settings, primary, vocab_size: int):
    """What the recipe trains, before training."""
    import jax

    from tandem_edu.model import Attached, Transformer, TransformerConfig
    from tandem_edu.zoo import load_folder

    model_key, attached_key = jax.random.split(jax.random.key(settings.seed))
    lender = None if primary is None or options.own_vocabulary else primary.model
    config = TransformerConfig(
        vocab_size=vocab_size,
        d_model=options.width,
        n_layers=options.layers,
        n_heads=options.heads,
        n_kv_heads=options.kv_heads or options.heads,
        d_ff=options.ff or 4 * options.width,
        max_len=options.context,
        shared_vocab=lender is not None,
        d_embed=lender.config.embed_dim if lender else None,
    )
    model = Transformer(config, key=model_key, vocabulary=lender.vocabulary if lender else None)
    start = load_folder(options.start, options.primary).model if options.start else model
    expected, mend = f"a recipe for --kind {options.kind}", "use tandem-ce or tandem-distil"
    require(bool(settings.block_lens) or options.kind == "tandem", expected, options.recipe, mend)
    if not settings.block_lens or isinstance(start, Attached):
        return start
    if primary is None:
        raise BadInput(f"a primary for a {options.kind}", "none", "pass --primary FOLDER")
    return _attached(options, settings, start, primary.model.config, attached_key)


def _attached(options: argparse.Namespace, settings, secondary, primary_config, key):
    """The model of `--kind`, before training."""
    from tandem_edu.model import CrossAttending, Eagle, EarlyExit, Tandem

    if options.kind == "early-exit":
        half = max(1, primary_config.n_layers // 2)
        return EarlyExit(primary_config, half if options.exit_layer is None else options.exit_layer, key=key)
    layer_map = options.layer_map or _KINDS[options.kind]
    if options.kind == "cross-attending":
        return CrossAttending(secondary, primary_config, layer_map, key=key)
    if options.kind == "tandem":
        return Tandem(secondary, primary_config, layer_map, options.own_history, key=key)
    return Eagle(secondary, primary_config, layer_map, max(4, *settings.block_lens), key=key)


def _generate(options: argparse.Namespace) -> None:
    from tandem_edu import data
    from tandem_edu.decode import generate
    from tandem_edu.model import Transformer
    from tandem_edu.zoo import load_folder

    saved = load_folder(options.model, options.primary)
    if not isinstance(saved.model, Transformer):
        raise BadInput("a Transformer", "a tandem", "use tandem-edu speculate with it")
    prompt, settings = _decoding(options, saved.tokenizer, saved.model)
    out = generate(saved.model, prompt, stop_token=data.END_ID, **settings)
    print(_plain(saved.tokenizer, [*prompt, *out.tokens[: int(out.length)].tolist()]))


def _speculate(options: argparse.Namespace) -> None:
    from tandem_edu import data, show
    from tandem_edu.decode import speculate
    from tandem_edu.zoo import load_folder

    saved = load_folder(options.drafter, options.primary)
    if saved.primary is None:
        raise BadInput("a drafter with its primary", f"{options.drafter} alone", "pass --primary FOLDER")
    prompt, settings = _decoding(options, saved.tokenizer, saved.primary)
    settings |= {"block_len": options.block_len, "stop_token": data.END_ID}
    out = speculate(saved.primary, saved.model, prompt, **settings)
    print(show.terminal_view(saved.tokenizer, prompt, out, colour=sys.stdout.isatty()))
    rows = [{"measure": name, "value": _short(value)} for name, value in out.trace.summary().items()]
    print(show.text_table(rows), file=sys.stderr)


def _decoding(options: argparse.Namespace, tokenizer, model) -> tuple[list[int], dict[str, Any]]:
    """The prompt's ids, and how to go on from there."""
    import jax

    from tandem_edu.decode import Sampling

    prompt = tokenizer.encode(options.prompt, add_special_tokens=False).ids
    require(bool(prompt), "a prompt of at least one character", "an empty one", "pass --prompt TEXT")
    room = max(1, model.config.max_len - len(prompt))
    return prompt, {
        "max_new_tokens": min(64, room) if options.tokens is None else options.tokens,
        "sampling": Sampling(options.temperature, options.top_k, options.top_p),
        "key": jax.random.key(options.seed),
    }


def _plain(tokenizer, ids: list[int]) -> str:
    from tandem_edu.show.tokens import printable

    return printable(tokenizer.decode(ids))


def _short(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(_short(entry) for entry in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)


# What --kind may be, and the --layer-map of each.
_KINDS = {
    "tandem": "fused",
    "eagle": "top",
    "eagle-fused": "fused",
    "cross-attending": "last",
    "early-exit": None,
}
_RECIPE = ("steps", "batch_size", "seq_len", "learning_rate", "block_lens", "seed")


class _Parser(argparse.ArgumentParser):
    """Mistakes in one line, as everywhere else."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"tandem-edu: {message}: see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tandem-edu", description="Tandem Transformers, to train and to decode with.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_train(commands)
    _add_generate(commands)
    _add_speculate(commands)
    return parser


def _command(commands, name: str, run, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text, formatter_class=_Help)
    command.set_defaults(run=run)
    return command


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells defaults, but not that a flag is False or an option None."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def _add_demo(commands) -> None:
    demo = _command(
        commands, "demo", _demo, "Train a small pair, decode with it, write a report (6 minutes)."
    )
    demo.add_argument("--quick", action="store_true", help="a smaller pair, in a minute and a half")
    demo.add_argument("--out", default="demo", metavar="FOLDER", help="where report.html goes")


def _add_train(commands) -> None:
    from tandem_edu.train.recipes import RECIPES

    command = _command(commands, "train", _train, "Train one model; killed, it goes on where it was.")
    add = command.add_argument
    add("recipe", choices=RECIPES, help="what to train, and how")
    add("--text", default="pydocs", help="pydocs, pysource, stdlib, shakespeare, or a text file or folder")
    add("--out", required=True, metavar="FOLDER", help="where the model goes, its checkpoint too")
    add("--primary", metavar="FOLDER", help="the trained primary, for all recipes but primary and secondary")
    add("--start", metavar="FOLDER", help="begin with the weights of this model")
    add("--own-vocabulary", action="store_true", help="do not borrow the primary's embedding and head")
    add(
        "--kind",
        choices=_KINDS,
        default="tandem",
        help="what a recipe of a tandem trains: that, or another drafter that reads the primary",
    )
    add("--exit-layer", type=int, metavar="N", help="layers of an early-exit, if not half of the primary's")
    add(
        "--layer-map",
        help="what of the primary is read: last, uniform or fused by a tandem (fused if not given), "
        "last or uniform by a cross-attending (last), top or fused by an eagle",
    )
    add("--own-history", action="store_true", help="a tandem that also keeps its own past")
    for name, default in (
        ("layers", 4),
        ("width", 192),
        ("heads", 6),
        ("context", 512),
        ("vocab-size", 1024),
    ):
        add(f"--{name}", type=int, default=default, metavar="N", help="of the model")
    add("--kv-heads", type=int, metavar="N", help="key/value heads, if fewer than heads")
    add("--ff", type=int, metavar="N", help="inner width, if not four times the width")
    add("--block-lens", type=int, nargs="+", metavar="N", help="γ, drawn from these for each step")
    for name in ("steps", "batch-size", "seq-len", "seed"):
        add(f"--{name}", type=int, metavar="N", help="if not the recipe's")
    add("--learning-rate", type=float, metavar="X", help="if not the recipe's")
    losses = "weights of ce, kl, reverse_kl, tv, nla from first to last step, if not the recipe's"
    add("--loss", nargs="+", metavar="NAME=WEIGHT", help=losses)


def _add_generate(commands) -> None:
    command = _command(commands, "generate", _generate, "Continue a text with one model alone.")
    command.add_argument("model", metavar="FOLDER", help="a model that tandem-edu train has written")
    _add_decoding(command)


def _add_speculate(commands) -> None:
    text = "Continue a text with a primary and a drafter: the primary's own text, faster."
    command = _command(commands, "speculate", _speculate, text)
    command.add_argument("drafter", metavar="FOLDER", help="a secondary or a tandem that train has written")
    command.add_argument("--block-len", type=int, default=4, metavar="N", help="γ, tokens drafted at a time")
    _add_decoding(command)


def _add_decoding(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--prompt", required=True, help="the text to continue")
    add("--tokens", type=int, metavar="N", help="new tokens, if not 64 or what the context has room for")
    add("--temperature", type=float, default=0.0, metavar="X", help="0 is greedy")
    add("--top-k", type=int, metavar="N", help="only the N likeliest tokens")
    add("--top-p", type=float, metavar="X", help="only the likeliest tokens that together have X")
    add("--seed", type=int, default=0, metavar="N", help="of the sampling")
    add("--primary", metavar="FOLDER", help="where the primary is, if not where it was")


if __name__ == "__main__":
    sys.exit(main())
