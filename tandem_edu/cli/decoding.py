"""`tandem-edu generate` and `tandem-edu speculate`."""

import argparse
import sys
from typing import Any

from tandem_edu.errors import BadInput, require


def add_generate(command: argparse.ArgumentParser) -> None:
    """The flags of `generate`."""
    command.set_defaults(run=_generate)
    command.add_argument("model", metavar="FOLDER", help="a model that tandem-edu train has written")
    _add_decoding(command)


def add_speculate(command: argparse.ArgumentParser) -> None:
    """The flags of `speculate`."""
    command.set_defaults(run=_speculate)
    add = command.add_argument
    add("drafter", metavar="FOLDER", help="a model that tandem-edu train has written")
    add("--block-len", type=int, default=4, metavar="N", help="γ, tokens drafted at a time")
    add("--verification", choices=("token", "block"), default="token", help="how drafts are judged")
    add("--router", metavar="FILE", help="end blocks early, by what tandem-edu train router has written")
    add("--threshold", type=float, metavar="X", help="τ of the router, if not the one it was trained with")
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


def _generate(options: argparse.Namespace) -> None:
    from tandem_edu import data
    from tandem_edu.decode import generate
    from tandem_edu.model import Transformer
    from tandem_edu.zoo import load_folder

    saved = load_folder(options.model, options.primary)
    if not isinstance(saved.model, Transformer):
        got = f"a {type(saved.model).__name__}, which reads a primary"
        raise BadInput("a Transformer", got, "use tandem-edu speculate with it")
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
    settings |= {"block_len": options.block_len, "max_block_len": options.block_len}
    settings |= {"stop_token": data.END_ID}
    settings |= {"verification": options.verification, "router": _router(options)}
    out = speculate(saved.primary, saved.model, prompt, **settings)
    print(show.terminal_view(saved.tokenizer, prompt, out, colour=sys.stdout.isatty()))
    rows = [{"measure": name, "value": _short(value)} for name, value in out.trace.summary().items()]
    print(show.text_table(rows), file=sys.stderr)


def _router(options: argparse.Namespace):
    """The router of `--router`, with the threshold asked for."""
    from tandem_edu.zoo import load_router

    if options.router is None:
        require(options.threshold is None, "--threshold with a router", "none", "pass --router FILE")
        return None
    router = load_router(options.router)
    return router if options.threshold is None else router.with_threshold(options.threshold)


def _decoding(options: argparse.Namespace, tokenizer, model) -> tuple[list[int], dict[str, Any]]:
    """The prompt's ids, and how to go on from there."""
    import jax

    from tandem_edu.decode import Sampling

    unicode = options.prompt.encode("utf-8", "ignore").decode() == options.prompt
    require(unicode, "a prompt in UTF-8", ascii(options.prompt), "set the terminal to UTF-8")
    prompt = tokenizer.encode(options.prompt, add_special_tokens=False).ids
    require(bool(prompt), "a prompt of at least one character", "an empty one", "pass --prompt TEXT")
    require(0 <= options.seed < 2**31, "--seed of at least 0, below 2**31", options.seed, "try --seed 1")
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
