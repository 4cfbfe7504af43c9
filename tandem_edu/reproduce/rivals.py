"""Models to compare the tandem with that the package has no room for: trained when they are asked for.

"wider", a distilled secondary with as many weights as the tandem; "deeper", a mid-size model half as deep as
the primary. Each is trained as long as the shipped pair, by the same recipe, and keeps its checkpoint.
"""

from pathlib import Path

from tandem_edu import data
from tandem_edu.model.weights import Model
from tandem_edu.reproduce.plan import settings, untrained
from tandem_edu.train import train_together
from tandem_edu.zoo.shipped import Pair
from tandem_edu.zoo.split import Texts


def rival(name: str, pair: Pair, parts: Texts, folder: Path) -> Model:
    """The model `name`, "wider" or "deeper", trained in `folder / name` (resumable)."""
    tokens = data.encode(pair.tokenizer, parts.train)
    models = {name: (untrained(name, pair.primary), settings(name))}
    return train_together(models, tokens, primary=pair.primary, folder=folder / name)[name].model
