"""One choice at a time, each with its control: short trainings of drafters on the shipped, frozen primary.

All variants of a study start from the same random weights and are trained together, on the same batches.
They are trained a fraction as long as the shipped ones, so compare them with each other only.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from tandem_edu import data
from tandem_edu.decode import Sampling, block_generate, generate
from tandem_edu.files import written_whole
from tandem_edu.measure import Interval, interleaved
from tandem_edu.model import BlockPrediction, Eagle, Glide, Joint, Tandem, Transformer
from tandem_edu.model.weights import Model
from tandem_edu.reproduce.plan import LIKENESS, PRIMARY, SECONDARY, SEED, STATES, WIDER
from tandem_edu.reproduce.prompts import LENGTH
from tandem_edu.reproduce.quality import document_scores, document_windows, of
from tandem_edu.reproduce.table import Table, quartiles
from tandem_edu.train import Objective, Recipe, recipe, train_together
from tandem_edu.zoo.shipped import Pair
from tandem_edu.zoo.split import Texts

STEPS, LONGER, RATE = 500, 2_000, 3e-3
WINDOWS = 8
"""Of a document, at most."""
MIXED = (2, 4, 8)
OWN_TEXTS, OWN_LENGTH = 2_048, 208
"""What the primary writes to be learned from: so many texts, so many tokens each after a file's beginning."""
HALF = dataclasses.replace(PRIMARY, n_layers=PRIMARY.n_layers // 2)


class Variant(NamedTuple):
    """A model to train, and how."""

    build: Callable[[Pair], Model]
    objective: Objective = LIKENESS
    block_lens: tuple[int, ...] = MIXED
    learning_rate: float = RATE
    own_text: bool = False
    """Trained on what the primary writes (`own_text`) instead of the files."""


class Study(NamedTuple):
    """What is compared, on equal terms."""

    title: str
    variants: Mapping[str, Variant]
    steps: int = STEPS
    note: str = ""
    """What has to be said besides; what the paper found, where it asked the same."""


def _secondary(pair: Pair, **changes: Any) -> Transformer:
    config = dataclasses.replace(SECONDARY, **changes)
    vocabulary = pair.primary.vocabulary if config.shared_vocab else None
    return Transformer(config, key=jax.random.key(SEED), vocabulary=vocabulary)


def _tandem(pair: Pair, layer_map: Any = (STATES,), own_history: bool = True, **changes: Any) -> Tandem:
    key = jax.random.key(SEED + 1)
    return Tandem(_secondary(pair, **changes), PRIMARY, layer_map, own_history, key=key)


def _eagle(pair: Pair, layers: str) -> Eagle:
    return Eagle(_secondary(pair), PRIMARY, layers, unroll=max(MIXED), key=jax.random.key(SEED + 1))


def _cross_attending(pair: Pair) -> Glide:
    secondary = _secondary(pair, n_kv_heads=PRIMARY.n_kv_heads)  # it borrows the primary's keys and values
    return Glide(secondary, PRIMARY, "last")


def _joint(pair: Pair) -> Joint:
    """The shipped primary, to be trained on with the tandem."""
    return Joint(pair.primary, _tandem(pair))


def _whole(pair: Pair) -> Transformer:
    return Transformer(PRIMARY, key=jax.random.key(SEED))


def _deep(pair: Pair, own_history: bool = False) -> Joint:
    """A model of the primary's depth in two halves, from nothing; the upper one shares the vocabulary."""
    primary_key, secondary_key, tandem_key = jax.random.split(jax.random.key(SEED), 3)
    lower = Transformer(HALF, key=primary_key)
    config = dataclasses.replace(HALF, shared_vocab=True)
    upper = Transformer(config, key=secondary_key, vocabulary=lower.vocabulary)
    # "last" would stop one state below the lower half's top.
    return Joint(lower, Tandem(upper, HALF, "uniform", own_history, key=tandem_key))


PLAIN = Variant(_secondary, block_lens=())
OURS = Variant(_tandem)

ABLATIONS: dict[str, Study] = {
    "states": Study(
        "Which of the primary's states the tandem reads",
        {
            "distilled, no tandem": PLAIN,
            "last": Variant(partial(_tandem, layer_map="last", own_history=False)),
            "uniform": Variant(partial(_tandem, layer_map="uniform", own_history=False)),
            "state 1": Variant(partial(_tandem, layer_map=((1,),), own_history=False)),
            "state 4": Variant(partial(_tandem, layer_map=((4,),), own_history=False)),
            "fused (1, 4, 8)": Variant(partial(_tandem, own_history=False)),
            "states 2, 5, 8": Variant(partial(_tandem, layer_map=((2, 5, 8),), own_history=False)),
        },
    ),
    "states-longer": Study(
        "Which states, after a longer training",
        {
            "distilled, no tandem": PLAIN,
            "state 4": Variant(partial(_tandem, layer_map="middle")),
            "fused (1, 4, 8)": OURS,
        },
        LONGER,
    ),
    "heads": Study(
        "How many heads of keys and values: the width through which the tandem sees its primary",
        {
            f"{kind}, {heads} of 8": Variant(partial(build, n_kv_heads=heads), block_lens=block_lens)
            for heads in (1, 2, 8)
            for kind, build, block_lens in (("distilled", _secondary, ()), ("tandem", _tandem, MIXED))
        },
    ),
    "readers": Study(
        "Other ways to look at the primary",
        {
            "distilled, looks at nothing": PLAIN,
            "tandem": OURS,
            "EAGLE, top state as input": Variant(partial(_eagle, layers="top")),
            "EAGLE, three states as input": Variant(partial(_eagle, layers="fused")),
            "GLIDE, attends to the last keys and values": Variant(_cross_attending),
        },
        note="GLIDE has as many heads of keys and values as the primary, 2; for others with as many see the "
        "study of heads.",
    ),
    "history": Study(
        "Its own keys and values of past blocks",
        {
            "distilled, no tandem": PLAIN,
            "without, as in the paper": Variant(partial(_tandem, own_history=False)),
            "with": OURS,
        },
    ),
    "vocabulary": Study(
        "The primary's embedding and head, or its own",
        {
            "distilled, shared": PLAIN,
            "distilled, own": Variant(partial(_secondary, shared_vocab=False), block_lens=()),
            "tandem, shared": OURS,
            "tandem, own": Variant(partial(_tandem, shared_vocab=False)),
        },
    ),
    "loss": Study(
        "What it learns from",
        {
            "cross-entropy alone": Variant(_tandem, Objective(ce=1.0)),
            "CE + 0.5 KL, the paper's": Variant(_tandem, Objective(ce=1.0, kl=0.5)),
            "0.1 CE + 0.9 KL": Variant(_tandem, Objective(ce=0.1, kl=0.9)),
            "KL alone": Variant(_tandem, Objective(ce=0.0, kl=1.0)),
            "TV alone": Variant(_tandem, Objective(ce=0.0, tv=1.0)),
            "0.5 KL + TV": OURS,
        },
        note="The paper: cross-entropy first, then CE + 0.5 KL.",
    ),
    "own-text": Study(
        "The files, or what the primary itself writes",
        {
            f"{kind}, {text}": Variant(build, block_lens=block_lens, own_text=own)
            for own, text in ((False, "files"), (True, "the primary's own text"))
            for kind, build, block_lens in (("distilled", _secondary, ()), ("tandem", _tandem, MIXED))
        },
        note="Its own text is sampled at temperature 1 after beginnings of the training files, which precede "
        "it. The paper trains on files.",
    ),
    "blocks-in-training": Study(
        "Block length in training",
        {
            "distilled, no tandem": PLAIN,
            **{f"γ = {gamma}": Variant(_tandem, block_lens=(gamma,)) for gamma in (1, 2, 4, 8)},
            "γ from {2, 4, 8}": OURS,
        },
        note="The paper trains at γ = 2.",
    ),
    "size": Study(
        "A smaller secondary (the paper's XXXS), and a larger one that may not look",
        {
            "distilled, d_ff 256": PLAIN,
            "tandem, d_ff 256": OURS,
            f"distilled, d_ff {WIDER.d_ff}: as many weights as the tandem": Variant(
                partial(_secondary, d_ff=WIDER.d_ff), block_lens=()
            ),
            "distilled, d_ff 32": Variant(partial(_secondary, d_ff=32), block_lens=()),
            "tandem, d_ff 32": Variant(partial(_tandem, d_ff=32)),
        },
        note="The paper: with XXXS 3.04 times as fast as the primary alone, 2.445 without the tandem.",
    ),
    "frozen": Study(
        "A frozen primary, or one that learns with the tandem",
        {
            f"{kind}, learning rate {rate:g}": Variant(build, learning_rate=rate)
            for rate in (RATE, RATE / 10)
            for kind, build in (("frozen", _tandem), ("trained", _joint))
        },
        note="The one that learns is a copy that only the tandem reads: agreement and TV are to the shipped "
        "primary, so that drafting would take both. The paper: best of those tried with a frozen primary.",
    ),
    "deep-tandem": Study(
        "Deep tandem: one model cut in two, trained from nothing (the paper's appendix)",
        {
            "whole model, 8 layers": Variant(_whole, Objective(ce=1.0), ()),
            "deep tandem, 4 + 4, γ = 2": Variant(_deep, Objective(ce=1.0), (2,)),
            "the same with its own keys and values of past blocks": Variant(
                partial(_deep, own_history=True), Objective(ce=1.0), (2,)
            ),
        },
        note="The paper, of 16 layers: accuracy 45.1 → 43.3 %, cross-entropy 2.71 → 2.85, an estimated 1.25 "
        "times as fast.",
    ),
    "block-prediction": Study(
        "A block predicted at once, without reading its own tokens (the paper's appendix)",
        {
            "token by token, γ = 8": Variant(partial(_tandem, own_history=False), Objective(ce=1.0), (8,)),
            "8 at once": Variant(
                lambda pair: BlockPrediction(_tandem(pair, own_history=False)), Objective(ce=1.0), (8,)
            ),
        },
        note="The paper: cross-entropy 2.71 → 5.55, where the first is a model that reads every token.",
    ),
}


def ablation_table(
    name: str, pair: Pair, parts: Texts, folder: Path, say: Callable[[str], None] = print
) -> Table:
    """Train the variants of one study (resumable in `folder`) and measure them on the test part."""
    title, variants, steps, besides = ABLATIONS[name]
    units = [windows[:WINDOWS] for windows in document_windows(pair.tokenizer, parts.test)]
    trained: dict[str, Model] = {}
    for own in dict.fromkeys(variant.own_text for variant in variants.values()):
        place = folder / name / "own" if own else folder / name
        tokens = own_text(pair, parts, place) if own else data.encode(pair.tokenizer, parts.train)
        models = {
            label: (variant.build(pair), settings(variant, steps))
            for label, variant in variants.items()
            if variant.own_text == own
        }
        results = train_together(models, tokens, primary=pair.primary, folder=place)
        trained |= {label: result.model for label, result in results.items()}
    rows = []
    speeds = _speeds(trained, pair, parts) if name == "deep-tandem" else {}
    for label, model in trained.items():
        say(f"  {label}")
        rows.append({"variant": label, **_figures(model, pair, units)})
        if speeds:
            rows[-1]["times as fast as the whole model"] = speeds.get(label)
    note = (
        f"{steps:,} steps of 2,048 tokens each, everything else as the shipped drafters. Agreement and TV to "
        f"the primary, teacher-forced on the first {WINDOWS} windows of each test document, in brackets 95 % "
        "of 2,000 resamplings of the documents."
    )
    if speeds:
        note += " Speeds: 128 greedy tokens after prompts of 48; in brackets the quartiles of the rounds."
    return Table(name, title, f"{note} {besides}".strip(), rows)


def own_text(pair: Pair, parts: Texts, folder: Path) -> np.ndarray:
    """Texts sampled from the primary, each behind the beginning of a file that it goes on from.

    Kept in `folder`, because writing them takes some minutes.
    """
    path = folder / "text.npy"
    if not path.exists():
        prompts, rows = data.prompts(parts.train, pair.tokenizer, LENGTH, OWN_TEXTS), []
        for start in range(0, OWN_TEXTS, 64):
            some, key = prompts[start : start + 64], jax.random.fold_in(jax.random.key(SEED), start)
            out = generate(pair.primary, some, OWN_LENGTH, Sampling(temperature=1.0), key)
            rows += [np.concatenate([some, np.asarray(out.tokens)], axis=1).reshape(-1)]
        with written_whole(path) as part, part.open("wb") as file:
            np.save(file, np.concatenate(rows).astype(np.int32), allow_pickle=False)
    return np.load(path, allow_pickle=False)


def _speeds(trained: Mapping[str, Model], pair: Pair, parts: Texts) -> dict[str, Interval]:
    """The whole model and the deep tandem write the same number of tokens, in turns, prompts included."""
    prompts = data.prompts(parts.test, pair.tokenizer, LENGTH, 4)
    ways: dict[str, Callable[..., Any]] = {}
    for label, model in trained.items():
        if isinstance(model, Transformer):
            ways[label] = partial(generate, model)
        elif isinstance(model, Joint):
            how = {"block_len": 2, "max_block_len": 2, "free_token": False}
            ways[label] = partial(block_generate, model.primary, model.tied, **how)
    write = lambda way: [way(prompt=prompt, max_new_tokens=128).tokens for prompt in prompts]
    seconds, _ = interleaved({label: partial(write, way) for label, way in ways.items()}, repetitions=9)
    (whole, *_) = ways
    return {label: quartiles(seconds[whole] / taken) for label, taken in seconds.items()}


def settings(variant: Variant, steps: int) -> Recipe:
    """The shipped drafters' recipe, shorter."""
    how: dict[str, Any] = {"steps": steps, "learning_rate": variant.learning_rate}
    base = "tandem-distil" if variant.block_lens else "distilled"
    objectives = ((1.0, variant.objective),)
    return recipe(base, objectives=objectives, block_lens=variant.block_lens, **how)


def _figures(model: Model, pair: Pair, units) -> dict[str, Any]:
    """At a short block and a long one; a plain transformer has no blocks, so there the two are one."""
    lengths = (1, 1) if isinstance(model, Transformer) else (2, 8)
    short, long = (document_scores(model, units, pair.primary, length) for length in lengths)
    return {
        "agreement at γ = 2": of(short, 2),
        "at γ = 8": of(long, 2),
        "TV at γ = 2": of(short, 3),
        "TV at γ = 8": of(long, 3),
        "accuracy": of(short, 1),
        "cross-entropy at γ = 2": of(short, 0),
        "cross-entropy at γ = 8": of(long, 0),
    }
