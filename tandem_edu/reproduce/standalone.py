"""Table 3 of the paper: the tandem alone, without verification, against a faster and worse model."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tandem_edu import data
from tandem_edu.decode import block_generate, generate
from tandem_edu.measure import interleaved
from tandem_edu.model.weights import Model
from tandem_edu.reproduce.plan import DEEPER
from tandem_edu.reproduce.prompts import LENGTH
from tandem_edu.reproduce.quality import document_scores, document_windows, of
from tandem_edu.reproduce.rivals import rival
from tandem_edu.reproduce.table import Table, quartiles
from tandem_edu.zoo.shipped import Pair
from tandem_edu.zoo.split import Texts

BLOCK_LENS = (2, 4, 8)
NEW_TOKENS, REPETITIONS, PROMPTS = 128, 7, 4
DEEP = f"mid-size, {DEEPER.n_layers} layers"


def standalone_table(pair: Pair, parts: Texts, folder: Path) -> Table:
    """Cross-entropy and time per token: tandem at several γ, secondary, two mid-size models, primary.

    The deeper one is trained first (`rival`).
    """
    text, deeper = parts.test, rival("deeper", pair, parts, folder)
    contenders = _contenders(pair, deeper)
    prompts = data.prompts(text, pair.tokenizer, LENGTH, PROMPTS)
    seconds, _ = interleaved(
        {name: partial(_write, one, prompts) for name, (_, _, one) in contenders.items()}, REPETITIONS
    )
    units = document_windows(pair.tokenizer, text)
    rows: list[dict[str, Any]] = []
    for name, (model, block_len, _) in contenders.items():
        found = document_scores(model, units, pair.primary, block_len)
        rows.append(
            {
                "model": name,
                "cross-entropy": of(found, 0),
                "accuracy": of(found, 1),
                "milliseconds per token": quartiles(1e3 * seconds[name] / (PROMPTS * NEW_TOKENS)),
                f"speed / {DEEPER.n_layers} layers'": quartiles(seconds[DEEP] / seconds[name]),
                "speed / primary's": quartiles(seconds["primary"] / seconds[name]),
            }
        )
    note = (
        f"The tandem (trained on the text) writes blocks of γ tokens that nobody verifies; the primary "
        f"reads each when it is whole. The free token is left out in both columns: quality is "
        f"teacher-forced, every token the secondary's own; times are of {NEW_TOKENS} greedy tokens after "
        f"{PROMPTS} prompts of {LENGTH}, prompt included. In brackets, of quality: 95 % of 2,000 resamplings "
        f"of the documents; of times: the quartiles of the rounds. The paper: 1.16 times Otter's speed at "
        f"like quality. {_verdict(rows)}"
    )
    return Table("standalone", "The tandem alone", note, rows)


def _verdict(rows: list[dict[str, Any]]) -> str:
    """How each of the two rivals does beside the tandem at its fastest."""
    by_name = {row["model"]: row for row in rows}
    tandem = by_name[f"tandem, γ = {BLOCK_LENS[-1]}"]

    def than_the_tandem(name: str) -> str:
        less = lambda column: by_name[name][column].value < tandem[column].value
        faster, better = less("milliseconds per token"), less("cross-entropy")
        return f"{'faster' if faster else 'slower'} and {'better' if better else 'worse'}"

    return (
        f"Beside the tandem at γ = {BLOCK_LENS[-1]} the mid-size model is {than_the_tandem('mid-size')}, the "
        f"one of {DEEPER.n_layers} layers, which is not shipped, {than_the_tandem(DEEP)}."
    )


Contender = tuple[Model, int, Callable[..., Any]]


def _contenders(pair: Pair, deeper: Model) -> dict[str, Contender]:
    """Model, the block length it is judged at, and how it writes."""
    alone = {"secondary": pair.secondary, "mid-size": pair.mid_size, DEEP: deeper, "primary": pair.primary}
    found: dict[str, Contender] = {
        name: (model, 1, partial(generate, model)) for name, model in alone.items()
    }
    for block_len in BLOCK_LENS:
        how = {"block_len": block_len, "max_block_len": block_len, "free_token": False}
        one = partial(block_generate, pair.primary, pair.tandem_ce, **how)
        found[f"tandem, γ = {block_len}"] = (pair.tandem_ce, block_len, one)
    return found


def _write(one: Callable[..., Any], prompts) -> list[Any]:
    return [one(prompt=prompt, max_new_tokens=NEW_TOKENS) for prompt in prompts]
