"""A trained router in a file: its numbers, and what drafter and block length it was made for."""

import os

import equinox as eqx
import jax

from tandem_edu.decode import LearnedRouter
from tandem_edu.errors import BadInput
from tandem_edu.model.weights import fill, named_arrays, read_arrays, write_arrays


def save_router(router: LearnedRouter, path: str | os.PathLike[str]) -> None:
    """Write `router` to `path`, whole or not at all. Raises `BadInput` if it cannot be written."""
    made = {"drafter": router.made_for[0], "block_len": router.made_for[1]}
    sizes = {"d_hidden": router.d_hidden, "d_router": len(router.b_in), "top_k": router.top_k}
    write_arrays(named_arrays(router), {"router": {**made, **sizes}}, path)


def load_router(path: str | os.PathLike[str]) -> LearnedRouter:
    """The router that `save_router` wrote. Raises `BadInput` if there is none at `path`, or a damaged one."""
    arrays, metadata = read_arrays(path)
    fields = {"drafter", "block_len", "d_hidden", "d_router", "top_k"}
    made = metadata.get("router")
    if not isinstance(made, dict) or made.keys() != fields:
        raise BadInput(f"a router at {path}", "another kind of file", "train one: tandem-edu train router")

    def build(key):
        made_for = (made["drafter"], made["block_len"])
        return LearnedRouter(
            made["d_hidden"], made_for, top_k=made["top_k"], d_router=made["d_router"], key=key
        )

    return fill(eqx.filter_eval_shape(build, jax.random.key(0)), arrays, path)
