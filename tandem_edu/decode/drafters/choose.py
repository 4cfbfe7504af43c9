"""The drafter for a model: `speculate` takes either."""

from tandem_edu.decode.drafters.plain import PlainDrafter
from tandem_edu.decode.drafters.protocol import Drafter
from tandem_edu.decode.drafters.tandem import TandemDrafter
from tandem_edu.errors import BadInput, require
from tandem_edu.model import Tandem, Transformer
from tandem_edu.model.tandem import check_same_vocabulary


def as_drafter(drafter: Transformer | Tandem | Drafter, primary: Transformer) -> Drafter:
    """The drafter for a model. Raises `BadInput` for another vocabulary or another primary's tandem."""
    if isinstance(drafter, Drafter):
        return drafter
    if not isinstance(drafter, Transformer | Tandem):
        raise BadInput("a Transformer, a Tandem or a te.Drafter", type(drafter).__name__, "pass one of these")
    check_same_vocabulary(primary.config, drafter.config)
    if isinstance(drafter, Transformer):
        return PlainDrafter(drafter)
    mine, theirs = primary.config, drafter.primary_config
    require(
        (mine.n_layers, mine.d_model) == (theirs.n_layers, theirs.d_model),
        f"a drafter made for a primary of {mine.n_layers} layers x {mine.d_model}",
        f"one for {theirs.n_layers} x {theirs.d_model}",
        "pass the primary it was trained with",
    )
    return TandemDrafter(drafter)
