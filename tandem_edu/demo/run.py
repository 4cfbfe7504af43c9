"""The main job, end to end: train a small pair on the documentation that comes with Python, and look.

Three trainings (a primary; a distilled secondary; the same secondary as a tandem, with the same data,
steps and losses), then the same held-out prompts decoded by all, then one page with what came out.
"""

import time
from collections.abc import Callable
from pathlib import Path

import jax

from tandem_edu import data, show
from tandem_edu.decode import Sampling
from tandem_edu.demo.plan import BLOCK_LENS, DISTILLED, FULL, QUICK, SHOWN, TANDEM, VOCAB, Plan, settings
from tandem_edu.demo.report import Demo, quality_rows, report, verdict
from tandem_edu.files import written_whole
from tandem_edu.measure import Comparison, compare, quality
from tandem_edu.model import Tandem, Transformer
from tandem_edu.train import Recipe, TrainResult, train


def demo(folder: Path, quick: bool = False, say: Callable[[str], None] = print) -> Path:
    """Run it all and write `report.html` in `folder`; its path. Stopped half-way, it goes on next time."""
    began = time.perf_counter()
    plan = QUICK if quick else FULL
    say("1/4  pydocs: the documentation that comes with Python, cut into documents and tokens")
    corpus = data.load_text("pydocs")
    train_text, valid_text = corpus.train_valid()
    tokenizer = data.train_tokenizer(train_text, vocab_size=VOCAB)
    tokens, valid = data.encode(tokenizer, train_text), data.encode(tokenizer, valid_text)
    say(f"     {len(tokens):,} tokens to learn from, {len(valid):,} held out")
    say("2/4  training: the primary, then two drafters with the same data, steps and losses")
    results = train_all(plan, tokens, valid, folder / ("runs-quick" if quick else "runs"))
    say("3/4  measuring on text that no model has seen")
    primary, windows = results["primary"].model, data.windows(valid, plan.seq_len, plan.valid_windows)
    qualities = {name: quality(r.model, windows, primary) for name, r in results.items()}
    prompts = data.prompts(valid_text, tokenizer, length=48, count=plan.n_prompts)
    greedy, sampled = decode_all(plan, results, prompts)
    done = Demo(plan, tokenizer, results, qualities, greedy, sampled, time.perf_counter() - began)
    say("4/4  the report")
    path = folder / "report.html"
    with written_whole(path) as part:
        part.write_text(report(done), "utf-8")
    say("\n" + show.text_table(quality_rows(done)))
    say("\n" + show.text_table(show.decoding_rows(greedy)))
    say(f"\n{verdict(done)}\n\nPictures and coloured text: {path}")
    return path


def train_all(plan: Plan, tokens, valid, folder: Path) -> dict[str, TrainResult]:
    """The primary, the distilled secondary and the tandem."""
    primary_key, secondary_key, tandem_key = jax.random.split(jax.random.key(0), 3)

    def run(name: str, model, settings: Recipe, primary=None) -> TrainResult:
        place = folder / name.replace(" ", "-")
        return train(model, settings, tokens, valid, primary=primary, folder=place)

    result = run("primary", Transformer(plan.primary, key=primary_key), settings(plan, "primary"))
    primary = result.model
    secondary = Transformer(plan.secondary, key=secondary_key, vocabulary=primary.vocabulary)
    tandem = Tandem(secondary, plan.primary, "fused", key=tandem_key)
    return {
        "primary": result,
        DISTILLED: run(DISTILLED, secondary, settings(plan, "distilled"), primary),
        TANDEM: run(TANDEM, tandem, settings(plan, "tandem-distil"), primary),
    }


def decode_all(plan: Plan, results, prompts) -> tuple[Comparison, Comparison]:
    """Greedy at every block length; and sampled at one, because greedy text repeats itself."""
    drafters = {name: results[name].model for name in (DISTILLED, TANDEM)}
    given = (results["primary"].model, drafters, prompts, plan.new_tokens)
    how = {"repetitions": plan.repetitions, "progress": True}
    greedy = compare(*given, BLOCK_LENS, **how)
    sampled = compare(*given, (SHOWN,), Sampling(temperature=1.0), jax.random.key(1), **how)
    return greedy, sampled
