"""Is it the looking, or the weights it takes? A control with as many weights, trained as long."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tandem_edu.model.weights import Model
from tandem_edu.reproduce.decoding import MODES, SHOWN, accepted, accepted_ratio, counted_drafts, fastest
from tandem_edu.reproduce.plan import WIDER
from tandem_edu.reproduce.prompts import prompts_of_kinds
from tandem_edu.reproduce.quality import document_scores, document_windows, of, ratio
from tandem_edu.reproduce.rivals import rival
from tandem_edu.reproduce.table import Table, quartiles
from tandem_edu.zoo.shipped import Pair
from tandem_edu.zoo.split import Texts

BLOCK_LEN = 2
"""At which the tandem is judged teacher-forced: the paper's."""
SCORES = {"same likeliest token as the primary": 2, "TV distance to the primary": 3}
CONTROL = f"distilled, d_ff {WIDER.d_ff}"
Rows = list[dict[str, Any]]


def weights_table(
    pair: Pair, parts: Texts, folder: Path, count: int = 24, say: Callable[[str], None] = print
) -> Table:
    """The distilled secondary, the wider one and the tandem: likeness, drafts accepted, wall-clock.

    The wider one is trained first (`rival`). Prompts as for the tables of decoding.
    """
    drafters = {
        "distilled": pair.distilled,
        CONTROL: rival("wider", pair, parts, folder),
        "tandem": pair.tandem,
    }
    say("  likeness")
    rows = _likeness(pair, parts, drafters)
    timed_count = max(2, count // 3)
    chosen = prompts_of_kinds(pair.tokenizer, parts, "dev", timed_count)
    clock: Rows = []
    for kind, prompts in prompts_of_kinds(pair.tokenizer, parts, "test", count).items():
        for mode, sampling in MODES.items():
            where = f"{kind}, {mode}"
            say(f"  {where}")
            counted = counted_drafts(pair.primary, drafters, prompts, sampling)
            runs = {name: counted.run(name, SHOWN) for name in drafters}
            cells = {name: accepted(run) for name, run in runs.items()}
            against = accepted_ratio(runs["tandem"], runs[CONTROL])
            rows.append(_row(f"drafts accepted of {SHOWN}, {where}", cells, against))
            best = fastest(pair.primary, drafters, chosen[kind], prompts[:timed_count], sampling)
            cells = {name: quartiles(run.speedup) for name, run in best.items()}
            against = quartiles(best[CONTROL].seconds / best["tandem"].seconds)
            clock.append(_row(f"times as fast as the primary alone, {where}", cells, against))
    note = (
        f"The tandem has weights to look with that the distilled secondary has not. Here is one that has as "
        f"many, in its SwiGLU (d_ff {WIDER.d_ff}), trained as the shipped ones were and as long; it does not "
        f"fit into the package. It pays for its weights in every draft, the tandem for most of its own once "
        f"a block. Likeness teacher-forced at γ = {BLOCK_LEN} on the test documents, drafts and times as in "
        f"the tables above: in brackets 95 % of 2,000 resamplings of documents or prompts, of times the "
        f"quartiles of the rounds."
    )
    return Table("weights", "A control with as many weights as the tandem", note, [*rows, *clock])


def _likeness(pair: Pair, parts: Texts, drafters: dict[str, Model]) -> Rows:
    """Teacher-forced, a row per score."""
    units = document_windows(pair.tokenizer, parts.test)
    scores = {
        name: document_scores(model, units, pair.primary, BLOCK_LEN if name == "tandem" else 1)
        for name, model in drafters.items()
    }
    return [
        _row(
            measure,
            {name: of(found, score) for name, found in scores.items()},
            ratio(scores["tandem"], scores[CONTROL], score),
        )
        for measure, score in SCORES.items()
    ]


def _row(measure: str, cells: dict[str, Any], against: Any) -> dict[str, Any]:
    return {"": measure, **cells, f"tandem / {CONTROL}": against}
