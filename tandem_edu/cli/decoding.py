"""`tandem-edu generate` and `tandem-edu speculate`."""

import argparse
import sys
from typing import Any

import jax

from tandem_edu import data
from tandem_edu.decode import Sampling, generate, speculate
from tandem_edu.errors import BadInput, require
from tandem_edu.model import Transformer
from tandem_edu.zoo import load_folder, load_router


def add_generate(command: argparse.ArgumentParser) -> None:
    """The flags of `generate`."""
    command.set_defaults(run=_generate)
    command.add_argument("model", metavar="FOLDER", help="a model that tandem-edu train has written")
    _add_decoding(command.add_argument)


def add_speculate(command: argparse.ArgumentParser) -> None:
    """The flags of `speculate`."""
    command.set_defaults(run=_speculate)
    add = command.add_argument
    add("drafter", metavar="FOLDER", help="a model that tandem-edu train has written")
    add("--block-len", type=int, default=4, metavar="N", help="γ, tokens drafted at a time, if not 4")
    rule = "the acceptance rule, if not token"
    add("--verification", choices=("token", "block"), default="token", help=rule)
    add("--router", metavar="FILE", help="of tandem-edu train router, to end blocks early")
    add("--threshold", type=float, metavar="X", help="τ of the router, if not the one in its file")
    _add_decoding(add)


def _add_decoding(add) -> None:
    greedy = "of the sampling, if not 0, which is greedy"
    add("--prompt", required=True, help="the text to continue")
    add("--tokens", type=int, metavar="N", help="new tokens, if not 64 or as many as the context holds")
    add("--temperature", type=float, default=0.0, metavar="X", help=greedy)
    add("--top-k", type=int, metavar="N", help="sample from the N most probable tokens")
    add("--top-p", type=float, metavar="X", help="sample from the smallest set of tokens of probability X")
    add("--seed", type=int, default=0, metavar="N", help="of the sampling, if not 0")
    add("--primary", metavar="FOLDER", help="the primary's folder, if it moved")


def _generate(options: argparse.Namespace) -> None:
    from tandem_edu.show.tokens import printable  # here, because matplotlib comes with it

    saved = load_folder(options.model, options.primary)
    if not isinstance(saved.model, Transformer):
        got = f"a {type(saved.model).__name__}, which reads a primary"
        raise BadInput("a Transformer", got, "use tandem-edu speculate with it")
    prompt, settings = _decoding(options, saved.tokenizer, saved.model)
    out = generate(saved.model, prompt, **settings)
    ids = [*prompt, *out.tokens[: int(out.length)].tolist()]
    print(printable(data.text_of(saved.tokenizer, ids)))


def _speculate(options: argparse.Namespace) -> None:
    from tandem_edu.show.tokens import terminal_view

    primary, drafter, tokenizer = load_drafter(options)
    prompt, settings = _decoding(options, tokenizer, primary)
    router = load_router(options.router) if options.router else None
    if options.threshold is not None:
        if router is None:
            raise BadInput("--threshold with a router", "none", "pass --router FILE")
        router = router.with_threshold(options.threshold)
    settings |= {"block_len": options.block_len, "max_draft_len": options.block_len}
    settings |= {"verification": options.verification, "router": router}
    out = speculate(primary, drafter, prompt, **settings)
    print(terminal_view(tokenizer, prompt, out, colour=sys.stdout.isatty()))
    for name, value in out.trace.summary().items():
        print(f"{name:23}", _short(value), file=sys.stderr)


def load_drafter(options: argparse.Namespace):
    """The primary, the drafter and the tokenizer of `options.drafter`."""
    saved = load_folder(options.drafter, options.primary)
    if saved.primary is None:
        raise BadInput("a drafter with its primary", f"{options.drafter} alone", "pass --primary FOLDER")
    return saved.primary, saved.model, saved.tokenizer


def _decoding(options: argparse.Namespace, tokenizer, model) -> tuple[list[int], dict[str, Any]]:
    """The prompt's ids, and how to continue it."""
    unicode = options.prompt.encode("utf-8", "ignore").decode() == options.prompt
    require(unicode, "a prompt in UTF-8", ascii(options.prompt), "set the terminal to UTF-8")
    prompt = tokenizer.encode(options.prompt, add_special_tokens=False).ids
    require(bool(prompt), "a prompt of at least one character", "an empty one", "pass --prompt TEXT")
    usual = min(64, max(1, model.config.max_len - len(prompt)))
    return prompt, {
        "max_new_tokens": usual if options.tokens is None else options.tokens,
        "sampling": Sampling(options.temperature, options.top_k, options.top_p),
        "key": random_key(options.seed),
        "stop_token": data.END_ID,
    }


def random_key(seed: int):
    """The PRNG key of `--seed`."""
    require(0 <= seed < 2**31, "--seed of at least 0, below 2**31", seed, "try --seed 1")
    return jax.random.key(seed)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_short, value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)
