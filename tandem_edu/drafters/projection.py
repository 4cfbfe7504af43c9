"""Which of the primary's residual states a drafter reads, and the matrix that takes them to its own width."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from tandem_edu.errors import require
from tandem_edu.model.layers import init_weight, linear, normalise

LayerMap = str | Sequence[Sequence[int]]


def resolve_layer_map(layer_map: LayerMap, n_primary: int, n_secondary: int) -> tuple[tuple[int, ...], ...]:
    """Which of the primary's residual states each secondary layer reads: ℓ(j), j = 0 .. n_secondary - 1.

    State 0 is the embeddings, state l the output of layer l. The paper leaves ℓ open.

    - `"last"`: ℓ(j) = n_primary - n_secondary + j. Both models are aligned at the top: the input of the
      secondary's layer j is as far below its output as state ℓ(j) is below the primary's;
    - `"uniform"`: ℓ(j) = round((j + 1) · n_primary / n_secondary), evenly spaced, ending at the top;
    - `"middle"`: all read the state half-way up. A short training gains most from it (study `states`);
    - `"fused"`: all read a low, a middle and the top state, concatenated as in EAGLE-3. A longer training
      gains more from it (study `states-longer`);
    - or the states themselves, one sequence for each secondary layer.

    >>> resolve_layer_map("last", 6, 2), resolve_layer_map("uniform", 6, 2)
    (((4,), (5,)), ((3,), (6,)))
    >>> resolve_layer_map("middle", 6, 1), resolve_layer_map("fused", 6, 1)
    (((3,),), ((1, 3, 6),))
    """
    middle = (n_primary + 1) // 2
    named = {
        "last": [(n_primary - n_secondary + j,) for j in range(n_secondary)],
        "uniform": [(round((j + 1) * n_primary / n_secondary),) for j in range(n_secondary)],
        "middle": [(middle,)] * n_secondary,
        "fused": [tuple(sorted({1, middle, n_primary}))] * n_secondary,
    }
    if layer_map == "last":
        expected = 'n_layers of the secondary at most the primary\'s for layer_map="last"'
        fix = 'make the secondary shallower or use layer_map="uniform"'
        require(n_secondary <= n_primary, expected, f"{n_secondary} and {n_primary}", fix)
    if isinstance(layer_map, str):
        expected = 'layer_map "last", "uniform", "middle", "fused" or a list of states per layer'
        require(layer_map in named, expected, repr(layer_map), "pick one")
        return tuple(named[layer_map])
    is_list = lambda x: isinstance(x, list | tuple) and len(x) > 0
    is_states = lambda x: is_list(x) and all(state in range(n_primary + 1) for state in x)
    fits = is_list(layer_map) and len(layer_map) == n_secondary and all(map(is_states, layer_map))
    expected = f"{n_secondary} non-empty lists of states in 0..{n_primary}"
    require(fits, expected, repr(layer_map), "give one list per layer, such as [(2, 5)]")
    return tuple(tuple(map(int, states)) for states in layer_map)


class Projection(eqx.Module):
    """W^(j) of the paper's FF_Tandem: the states that are read, each at unit RMS, concatenated, times W.

    The unit RMS keeps the largest of several states from drowning the others. The secondary's norm follows.
    """

    weight: Float[Array, "states_width d_model"]
    states: tuple[int, ...] = eqx.field(static=True)
    eps: float = eqx.field(static=True)

    def __init__(
        self, states: tuple[int, ...], d_primary: int, d_model: int, eps: float, *, key: PRNGKeyArray
    ):
        """The mean of the states where the widths agree, else a random matrix."""
        if d_primary == d_model:
            self.weight = jnp.tile(jnp.eye(d_model, dtype=jnp.float32), (len(states), 1)) / len(states)
        else:
            self.weight = init_weight(key, len(states) * d_primary, d_model)
        self.states, self.eps = states, eps

    def __call__(
        self, hidden: Float[Array, "*batch depth seq d_primary"]
    ) -> Float[Array, "*batch seq d_model"]:
        parts = [normalise(hidden[..., state, :, :], self.eps) for state in self.states]
        return linear(jnp.concatenate(parts, axis=-1), self.weight)
