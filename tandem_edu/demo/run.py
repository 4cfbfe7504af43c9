"""The main job, end to end: train a tandem and its control on the shipped primary, and look.

Two drafters trained side by side (a distilled secondary; the same secondary as a tandem, with the same data,
steps and losses), then the same held-out prompts decoded by both, then one page with what came out.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from tandem_edu import data, show
from tandem_edu.decode import Sampling
from tandem_edu.demo.plan import (
    BLOCK_LENS,
    DISTILLED,
    FROM_SCRATCH,
    FULL,
    LAYER_MAP,
    QUICK,
    SHOWN,
    TANDEM,
    Plan,
    secondary_of,
    settings,
)
from tandem_edu.demo.report import Demo, quality_rows, report, verdict
from tandem_edu.files import written_whole
from tandem_edu.measure import Comparison, compare, qualities
from tandem_edu.model import Tandem, Transformer
from tandem_edu.train import TrainResult, train, train_together
from tandem_edu.zoo import load_pair
from tandem_edu.zoo.split import texts


def demo(
    folder: Path, quick: bool = False, from_scratch: bool = False, say: Callable[[str], None] = print
) -> Path:
    """Run it all and write `report.html` in `folder`; its path. Stopped half-way, it goes on next time.

    With `from_scratch` a small primary is trained first, in the place of the shipped one.
    """
    began = time.perf_counter()
    plan = QUICK if quick else FROM_SCRATCH if from_scratch else FULL
    say("1/4  the shipped primary, and text that it has not seen")
    pair, parts = load_pair(), texts()
    tokens, valid = (data.encode(pair.tokenizer, part) for part in (parts.train, parts.dev))
    say(f"     {len(tokens):,} tokens to learn from, {len(valid):,} held out")
    first = "" if plan.primary is None else "a primary, then "
    say(f"2/4  training {first}two drafters with the same data, steps and losses")
    primary, results = train_all(plan, pair.primary, tokens, valid, folder / _runs(plan))
    say("3/4  measuring on text that no model has seen")
    models: dict[str, Any] = {"primary": primary, **{name: result.model for name, result in results.items()}}
    windows = data.windows(valid, plan.seq_len, plan.valid_windows)
    found = qualities(models, windows, primary)
    prompts = data.prompts(parts.dev, pair.tokenizer, length=48, count=plan.n_prompts)
    greedy, sampled = decode_all(plan, models, prompts)
    took = time.perf_counter() - began
    done = Demo(plan, pair.tokenizer, models, results, found, greedy, sampled, took)
    say("4/4  the report")
    path = folder / "report.html"
    with written_whole(path) as part:
        part.write_text(report(done), "utf-8")
    say("\n" + show.text_table(quality_rows(done)))
    say("\n" + show.text_table(show.decoding_rows(greedy)))
    say(f"\n{verdict(done)}\n\nPictures and coloured text: {path}")
    return path


def train_all(
    plan: Plan, primary: Transformer, tokens, valid, folder: Path
) -> tuple[Transformer, dict[str, TrainResult]]:
    """The primary used, and what was trained: the distilled secondary and the tandem at least."""
    primary_key, secondary_key, tandem_key = jax.random.split(jax.random.key(0), 3)
    results: dict[str, TrainResult] = {}
    if plan.primary is not None:
        untrained, how = Transformer(plan.primary, key=primary_key), settings(plan, "primary")
        results["primary"] = train(untrained, how, tokens, valid, folder=folder / "primary")
        primary = results["primary"].model
    small = secondary_of(primary.config)
    secondary = Transformer(small, key=secondary_key, vocabulary=primary.vocabulary)
    tandem = Tandem(secondary, primary.config, LAYER_MAP, own_history=True, key=tandem_key)
    drafters = {
        DISTILLED: (secondary, settings(plan, "distilled")),
        TANDEM: (tandem, settings(plan, "tandem-distil")),
    }
    place = folder / "drafters"
    return primary, results | train_together(drafters, tokens, valid, primary=primary, folder=place)


def decode_all(plan: Plan, models: Mapping[str, Any], prompts) -> tuple[Comparison, Comparison]:
    """Greedy at every block length; and sampled at one, because greedy text repeats itself."""
    drafters = {name: models[name] for name in (DISTILLED, TANDEM)}
    given = (models["primary"], drafters, prompts, plan.new_tokens)
    how = {"repetitions": plan.repetitions, "progress": True}
    greedy = compare(*given, BLOCK_LENS, **how)
    sampled = compare(*given, (SHOWN,), Sampling(temperature=1.0), jax.random.key(1), **how)
    return greedy, sampled


def _runs(plan: Plan) -> str:
    """Runs of different plans do not share checkpoints."""
    return {QUICK: "runs-quick", FULL: "runs"}.get(plan, "runs-from-scratch")
