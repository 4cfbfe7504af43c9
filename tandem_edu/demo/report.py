"""The demo's report: what was trained, how it drafts, what that buys. Every figure is from this run."""

from collections.abc import Mapping
from dataclasses import dataclass

import equinox as eqx
import jax
import numpy as np
from tokenizers import Tokenizer

from tandem_edu import show
from tandem_edu.demo.plan import DISTILLED, SHOWN, TANDEM, Plan
from tandem_edu.measure import Comparison, Quality, machine, repetition_rate, spread
from tandem_edu.model.weights import Model
from tandem_edu.train import TrainResult

PAPER = "https://arxiv.org/abs/2402.08644"


@dataclass(frozen=True)
class Demo:
    """Everything the report tells of."""

    plan: Plan
    tokenizer: Tokenizer
    models: Mapping[str, Model]
    results: Mapping[str, TrainResult]
    """What was trained in this run."""
    quality: Mapping[str, Quality]
    greedy: Comparison
    sampled: Comparison
    seconds: float


def report(done: Demo) -> str:
    """The page, as HTML."""
    return show.page(
        "A small model that may look at the large one's representations",
        [
            ("What came out", _summary(done)),
            ("What was trained", _training(done)),
            ("Which drafts were accepted", _tokens(done)),
            ("Acceptance, position by position", _acceptance(done)),
            ("What it buys", _speed(done)),
            ("How this was measured", _method(done)),
        ],
    )


def verdict(done: Demo) -> str:
    """The result in three sentences, with the figures of this run whatever they are."""
    like = {name: done.quality[name].agreement for name in (DISTILLED, TANDEM)}
    best = {name: done.greedy.fastest(name) for name in (DISTILLED, TANDEM)}
    fast = {name: f"{spread(run.speedup)[0]:.2f} times (γ = {run.block_len})" for name, run in best.items()}
    per_call = {name: done.sampled.run(name, SHOWN).summary["block_efficiency"] for name in best}
    return (
        f"On held-out text the {TANDEM} agrees with the primary at {like[TANDEM]:.1%} of the tokens, the "
        f"{DISTILLED} at {like[DISTILLED]:.1%}. Sampled at temperature 1 with γ = {SHOWN}, a call of the "
        f"primary yields {per_call[TANDEM]:.2f} tokens with the {TANDEM} and {per_call[DISTILLED]:.2f} "
        f"with the {DISTILLED}. Greedy decoding at its fastest is, in units of the primary alone, "
        f"{fast[TANDEM]} as fast with the {TANDEM} and {fast[DISTILLED]} with the {DISTILLED}."
    )


def quality_rows(done: Demo) -> list[dict[str, str]]:
    """One row a model."""
    return [
        {
            "model": name,
            "parameters": f"{_parameters(model):,}",
            "steps": str(done.results[name].history[-1]["step"]) if name in done.results else "shipped",
            "accuracy": f"{done.quality[name].accuracy:.1%}",
            "cross-entropy": f"{done.quality[name].cross_entropy:.3f}",
            "agreement with primary": f"{done.quality[name].agreement:.1%}",
            "TV to primary": f"{done.quality[name].total_variation:.3f}",
        }
        for name, model in done.models.items()
    ]


def _summary(done: Demo) -> list:
    return [
        show.paragraph(verdict(done), "key"),
        show.paragraph(
            "Both drafters start as the same secondary, which speaks through the primary's embedding and "
            "head, and were trained on the same batches with the same losses. Only the tandem may look, "
            "through projections and key and value maps that are its only additional parameters, at what "
            "the primary made of the text before the block. That helps where the primary knows more than "
            "the drafter can know by itself."
        ),
        show.tokens_per_call(done.greedy),
        show.html_table(show.decoding_rows(done.greedy), "Greedy decoding of held-out prompts"),
    ]


def _training(done: Demo) -> list:
    primary, small = done.models["primary"].config, done.models[DISTILLED].config
    took = {name: f"{result.history[-1]['seconds']:.0f} s" for name, result in done.results.items()}
    before = f"; its own training took {took['primary']}" if "primary" in took else ""
    return [
        show.paragraph(
            f"Text: the topics and source files that come with Python, split by file. Primary: "
            f"{primary.n_layers} layers of width {primary.d_model}; secondary: {small.n_layers}. "
            f"The primary is frozen while the drafters learn{before}. They learned side by side in "
            f"{took[TANDEM]}, from the same batches. Models this small, trained this shortly, write no good "
            f"text: what counts here is how well the small one foresees the large one."
        ),
        show.loss_curves({name: result.history for name, result in done.results.items()}),
        show.html_table(quality_rows(done), "Next-token quality on held-out text (tandem: γ = 2)"),
    ]


def _tokens(done: Demo) -> list:
    pieces = [
        show.paragraph(
            f"One held-out prompt, continued at temperature 1 with γ = {SHOWN}. Hover over a token for what "
            "it is. Text sampled from one primary with one seed differs between drafters, its distribution "
            "does not; greedy text is the same whoever drafts."
        ),
        show.legend(),
    ]
    for run in done.sampled.runs:
        out = run.outputs[0]
        calls = out.trace.summary()["cycles"]
        pieces.append(
            show.paragraph(f"{run.drafter}: {int(out.length)} tokens in {calls} calls of the primary")
        )
        pieces.append(show.token_view(done.tokenizer, done.sampled.prompts[0], out, run.drafter))
    return pieces


def _acceptance(done: Demo) -> list:
    return [
        show.paragraph(
            "A draft is reached only if all before it were accepted. Greedy text of a small model tends to "
            f"repeat itself, which flatters every drafter ({_looping(done.greedy):.0%} of the greedy text "
            f"below repeats, {_looping(done.sampled):.0%} of the sampled), so both are shown: greedy first."
        ),
        show.acceptance_by_position(done.greedy, SHOWN),
        show.acceptance_by_position(done.sampled, SHOWN),
        show.html_table(show.decoding_rows(done.sampled), f"Sampled at temperature 1, γ = {SHOWN}"),
    ]


def _speed(done: Demo) -> list:
    equal = "is the same, token for token, in every run" if done.greedy.identical else "DIFFERS in some run"
    return [
        show.paragraph(
            f"Greedy text with and without a drafter {equal}. Speed is that of this machine; the bars are "
            f"the quartiles of {len(done.greedy.primary_seconds)} repetitions in which all took turns."
        ),
        show.speedups(done.greedy),
    ]


def _method(done: Demo) -> list:
    facts = ", ".join(f"{name} {value}" for name, value in machine().items())
    plan = done.plan
    return [
        show.paragraph(
            f"{len(done.greedy.prompts)} prompts of {len(done.greedy.prompts[0])} tokens, {plan.new_tokens} "
            "new tokens each, one request at a time, the reading of the prompt included, compilation "
            "excluded. Tokens per call count the primary's own token and every cycle alike; a block cut "
            "short at the end counts as far as it went. Quality is teacher-forced on the text itself."
        ),
        show.paragraph(f"Machine: {facts}. Seeds are fixed. The whole demo took {done.seconds:.0f} s."),
        f'<p>The idea: <a href="{PAPER}">Tandem Transformers for Inference Efficient LLMs</a>.</p>',
    ]


def _looping(comparison: Comparison) -> float:
    return repetition_rate([np.asarray(out.tokens)[: int(out.length)] for out in comparison.primary_outputs])


def _parameters(model) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array)))
