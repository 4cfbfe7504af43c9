"""Make the shipped pair: train the primary, then all models that learn from it, then the router.

Also the rivals, which the package does not ship. Each training keeps its checkpoint in a folder of its own,
and continues from there when it was stopped.
"""

import datetime
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from studies.plan import ROUTER_LEN, SEED, VOCAB, settings, untrained
from studies.table import Lab
from tandem_edu import data
from tandem_edu.decode import LearnedRouter, Sampling
from tandem_edu.drafters import Model
from tandem_edu.measure import calibration, quality
from tandem_edu.model import Transformer
from tandem_edu.train import train, train_router, train_together
from tandem_edu.zoo.shipped import FOLDER, MODELS, Pair, Texts, load_pair, save_pair, texts


def make_pair(folder: Path, out: Path = FOLDER, say: Callable[[str], None] = print) -> Pair:
    """Train in `folder` (two to three hours on two cores), write the pair to `out`."""
    parts = texts()
    tokenizer = data.train_tokenizer(parts.train, vocab_size=VOCAB)
    models = train_models(folder, tokenizer, parts, say)
    cards = {name: _card(name, models, tokenizer, parts) for name in MODELS}
    blank = LearnedRouter(1, ("none", ROUTER_LEN), key=jax.random.key(SEED))
    pair = Pair(tokenizer=tokenizer, router=blank, card={**cards, "router": {}}, **models)
    with tempfile.TemporaryDirectory() as temporary:
        # The router learns from the models as they will be loaded: rounded to float16.
        save_pair(pair, temporary)
        pair = load_pair(temporary)
    say("3/3  router")
    save_pair(_with_router(pair, parts), out)
    return load_pair(out)


def train_models(folder: Path, tokenizer, parts: Texts, say: Callable[[str], None]) -> dict[str, Any]:
    """Every model by its name. The primary comes first: the others use its vocabulary.

    The others are trained side by side, because the primary then reads each batch once for all of them.
    """
    tokens, dev = data.encode(tokenizer, parts.train), data.encode(tokenizer, parts.dev)
    say("1/3  primary")
    result = train(untrained("primary", None), settings("primary"), tokens, dev, folder=folder / "primary")
    primary = as_shipped(result.model)
    names = [name for name in MODELS if name != "primary"]
    say(f"2/3  {', '.join(names)}")
    models = {name: (untrained(name, primary), settings(name)) for name in names}
    trained = train_together(models, tokens, primary=primary, folder=folder / "drafters")
    return {"primary": primary, **{name: result.model for name, result in trained.items()}}


def rival(name: str, lab: Lab) -> Model:
    """A model to compare the tandem with: "wider" has as many weights, "deeper" half the primary's depth.

    Trained as long as the shipped models, by the same recipe.
    """
    tokens, folder = data.encode(lab.pair.tokenizer, lab.parts.train), lab.work / "rivals" / name
    models = {name: (untrained(name, lab.pair.primary), settings(name))}
    return train_together(models, tokens, primary=lab.pair.primary, folder=folder)[name].model


def as_shipped(model: Transformer) -> Transformer:
    """Rounded to float16 and back: drafters learn from the primary that they will draft for."""
    return jax.tree.map(lambda x: x.astype(jnp.float16).astype(x.dtype) if eqx.is_array(x) else x, model)


def _with_router(pair: Pair, parts: Texts) -> Pair:
    """The pair with a router for its tandem, trained on sampled text."""
    prompts = data.prompts(parts.train, pair.tokenizer, length=48, count=400, seed=SEED)
    router, held_out = train_router(
        pair.primary,
        pair.tandem,
        prompts,
        ROUTER_LEN,
        sampling=Sampling(temperature=1.0),
        key=jax.random.key(SEED),
    )
    confidence = jax.device_get(router.confidence(jax.numpy.asarray(held_out.features)))
    card = {
        "target": router.target,
        "features": router.inputs,
        "drafts held out": len(held_out.accepted),
        "accepted": float(held_out.accepted.mean()),
        "expected calibration error": calibration(confidence, held_out.accepted).error,
        **_made(),
    }
    return Pair(**{**vars(pair), "router": router, "card": {**pair.card, "router": card}})


def _card(name: str, models: dict[str, Any], tokenizer, parts: Texts) -> dict[str, Any]:
    """Where a model comes from, and its figures on the development split."""
    windows = data.windows(data.encode(tokenizer, parts.dev), seq_len=256)
    primary: Transformer = models["primary"]
    measured = quality(models[name], windows, None if name == "primary" else primary)
    return {
        "name": name,
        "recipe": settings(name).to_dict(),
        "data": {
            "corpus": parts.train.name,
            "sha256": parts.train.digest,
            "python": platform.python_version(),
        },
        "development split": measured._asdict(),
        **_made(),
    }


def _made() -> dict[str, str]:
    return {"date": datetime.date.today().isoformat(), "jax": jax.__version__}
