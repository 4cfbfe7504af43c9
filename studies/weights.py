"""Does the tandem gain by reading its primary, or by having more weights? A control with as many."""

from typing import Any

from studies import decoding
from studies.decoding import MODES, SHOWN, accepted, accepted_ratio, counted_drafts, fastest
from studies.plan import WIDER
from studies.prompts import prompts_of_kinds
from studies.quality import AGREEMENT, TV, document_scores, document_windows, of, ratio
from studies.table import Lab, Row, Table
from studies.zoo import rival
from tandem_edu.drafters import Model
from tandem_edu.measure import spread

BLOCK_LEN = 2
"""The paper's; the tandem reads its primary in such blocks, teacher-forced."""
SCORES = {"same most likely token as the primary": AGREEMENT, "TV distance to the primary": TV}
CONTROL = f"distilled, d_ff {WIDER.d_ff}"


def study(lab: Lab) -> list[Table]:
    """The distilled secondary, the wider one and the tandem: agreement, drafts accepted, wall-clock.

    The wider one is trained first (`rival`). Prompts as for the tables of decoding.
    """
    pair = lab.pair
    drafters = {"distilled": pair.distilled, CONTROL: rival("wider", lab), "tandem": pair.tandem}
    rows, clock = _agreement(lab, drafters), []
    chosen = prompts_of_kinds(pair.tokenizer, lab.parts, "dev", decoding.TIMED_PROMPTS)
    for kind, prompts in prompts_of_kinds(pair.tokenizer, lab.parts, "test", decoding.PROMPTS).items():
        for mode, sampling in MODES.items():
            where = f"{kind}, {mode}"
            lab.say(f"  {where}")
            counted = counted_drafts(pair.primary, drafters, prompts, sampling)
            runs = {name: counted.run(name, SHOWN) for name in drafters}
            cells = {name: accepted(run) for name, run in runs.items()}
            against = accepted_ratio(runs["tandem"], runs[CONTROL])
            rows.append(_row(f"drafts accepted of {SHOWN}, {where}", cells, against))
            best = fastest(pair.primary, drafters, chosen[kind], prompts[: decoding.TIMED_PROMPTS], sampling)
            cells = {name: spread(run.speedup) for name, run in best.items()}
            against = spread(best[CONTROL].seconds / best["tandem"].seconds)
            clock.append(_row(f"times as fast as the primary alone, {where}", cells, against))
    return [Table("weights", [*rows, *clock])]


def _agreement(lab: Lab, drafters: dict[str, Model]) -> list[Row]:
    """Teacher-forced, a row per score."""
    units = document_windows(lab.pair.tokenizer, lab.parts.test)
    scores = {
        name: document_scores(model, units, lab.pair.primary, BLOCK_LEN if name == "tandem" else 1)
        for name, model in drafters.items()
    }
    return [
        _row(
            measure,
            {name: of(one, score) for name, one in scores.items()},
            ratio(scores["tandem"], scores[CONTROL], score),
        )
        for measure, score in SCORES.items()
    ]


def _row(measure: str, cells: dict[str, Any], against: Any) -> Row:
    return {"": measure, **cells, f"tandem / {CONTROL}": against}
