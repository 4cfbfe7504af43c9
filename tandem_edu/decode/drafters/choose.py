"""The drafter for a model: `speculate` takes either."""

from tandem_edu.decode.drafters.cross_attending import GlideDrafter
from tandem_edu.decode.drafters.eagle import EagleDrafter
from tandem_edu.decode.drafters.early_exit import EarlyExitDrafter
from tandem_edu.decode.drafters.plain import PlainDrafter
from tandem_edu.decode.drafters.protocol import Drafter
from tandem_edu.decode.drafters.tandem import TandemDrafter
from tandem_edu.decode.request import check_float32
from tandem_edu.errors import BadInput, require
from tandem_edu.model import Eagle, EarlyExit, Glide, PrimaryReader, Tandem, Transformer
from tandem_edu.model.tandem import check_same_vocabulary


def as_drafter(drafter: Transformer | PrimaryReader | Drafter, primary: Transformer) -> Drafter:
    """The drafter for a model. Raises `BadInput` for another vocabulary or one made for another primary."""
    if not isinstance(primary, Transformer):
        got = f"a {type(primary).__name__}"
        raise BadInput("a Transformer as the primary", got, "pass the primary first and then the drafter")
    if isinstance(drafter, Drafter):
        return drafter
    if not isinstance(drafter, Transformer | PrimaryReader):
        expected = "a Transformer, a Tandem or a te.Drafter"
        raise BadInput(expected, type(drafter).__name__, "pass one of these")
    check_same_vocabulary(primary.config, drafter.config)
    check_float32(drafter)
    if isinstance(drafter, Transformer):
        return PlainDrafter(drafter)
    mine, theirs = primary.config, drafter.primary_config
    require(
        (mine.n_layers, mine.d_model) == (theirs.n_layers, theirs.d_model),
        f"a drafter made for a primary of {mine.n_layers} layers x {mine.d_model}",
        f"one for {theirs.n_layers} x {theirs.d_model}",
        "pass the primary it was trained with",
    )
    if isinstance(drafter, Glide | EarlyExit):
        # They read the primary's own keys and values.
        built = lambda config: (config.n_heads, config.n_kv_heads, config.rope_theta)
        expected = f"a drafter for (heads, key/value heads, rope's theta) = {built(mine)}"
        require(built(mine) == built(theirs), expected, built(theirs), "pass the primary it was trained with")
    match drafter:
        case Tandem():
            return TandemDrafter(drafter)
        case Eagle():
            return EagleDrafter(drafter)
        case Glide():
            return GlideDrafter(drafter)
        case EarlyExit():
            return EarlyExitDrafter(drafter, primary)
    raise BadInput("a model that a drafter is known for", type(drafter).__name__, "wrap it in a te.Drafter")
