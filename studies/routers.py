"""Section 3 of the paper: what a router sees, what it estimates, and how long a block may be."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

from studies.adaptive import PROMPTS, THRESHOLDS, decoded_ways, fastest, figures
from studies.plan import SEED
from studies.prompts import LENGTH, prompts_of_kinds
from studies.table import Lab, Row, Table
from tandem_edu import data
from tandem_edu.decode import ConfidenceRule, LearnedRouter, Sampling
from tandem_edu.decode.routers import INPUTS, TARGETS
from tandem_edu.files import written_whole
from tandem_edu.measure import calibration
from tandem_edu.train import train_router
from tandem_edu.zoo import load_router, save_router

LONGEST = (4, 8, 16)
"""γ_max."""
CONSTANT = (2, 3, 4, 6)
LEARN_FROM, REPETITIONS, KIND = 200, 7, "documentation"
SAMPLING = Sampling(temperature=1.0)
SEES = {
    "embeddings": "entropy, top probabilities, embeddings",
    "hidden": "hidden state instead of embeddings",
}
ESTIMATES = {"tv": "1 - TV(p, q)", "accepted": "accepted or not"}


def study(lab: Lab) -> list[Table]:
    """Train a router for each choice (kept in `lab.work`), then decode with all of them in turns."""
    pair, errors = lab.pair, {}
    families = {("constant", "", None): {f"γ = {n}": (n, None) for n in CONSTANT}}
    for longest in LONGEST:
        rules = {f"τ = {tau}": (longest, ConfidenceRule(tau)) for tau in THRESHOLDS}
        families["own probability of the draft", "", longest] = rules
        for sees, target in product(INPUTS, TARGETS):
            router, error = _trained(lab, sees, target, longest)
            name = SEES[sees], ESTIMATES[target], longest
            families[name] = {f"τ = {tau}": (longest, router.with_threshold(tau)) for tau in THRESHOLDS}
            errors[name] = error
    chosen, prompts = (
        prompts_of_kinds(pair.tokenizer, lab.parts, part, PROMPTS)[KIND] for part in ("dev", "test")
    )
    best = {}
    for name, ways in families.items():
        lab.say(f"  {', '.join(map(str, name))}")
        best[name] = fastest(pair, ways, chosen, SAMPLING)
    ways = {name if name[2] else "constant": families[name][how] for name, how in best.items()}
    seconds, outputs = decoded_ways(pair, ways, prompts, SAMPLING, REPETITIONS)
    rows: list[Row] = []
    for name, how in best.items():
        sees, target, longest = name
        row: Row = {
            "sees": sees,
            "estimates": target,
            "γ ≤": longest,
            "fastest at": how,
            "ECE": errors.get(name),
        }
        rows.append(row | figures(name if longest else "constant", seconds, outputs))
    return [Table("routers", rows)]


def _trained(lab: Lab, sees: str, target: str, longest: int) -> tuple[LearnedRouter, float]:
    """The router and its calibration error on drafts that it has not learned from."""
    path = lab.work / "routers" / f"{sees}-{target}-{longest}.safetensors"
    figure = path.with_suffix(".txt")
    if not figure.exists():
        pair = lab.pair
        prompts = data.prompts(lab.parts.train, pair.tokenizer, LENGTH, LEARN_FROM, SEED)
        lab.say(f"  training: {path.stem}")
        made, held_out = train_router(
            pair.primary,
            pair.tandem,
            prompts,
            longest,
            sampling=SAMPLING,
            target=target,
            features=sees,
            key=jax.random.key(SEED),
            progress=False,
        )
        confidence = np.asarray(made.confidence(jnp.asarray(held_out.features)))
        save_router(made, path)
        with written_whole(figure) as part:
            part.write_text(repr(calibration(confidence, held_out.accepted).error))
    return load_router(path), float(figure.read_text())
