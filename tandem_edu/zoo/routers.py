"""A trained router in a file: its weights, and the drafter and block length it was trained for."""

import equinox as eqx
import jax

from tandem_edu.decode import LearnedRouter
from tandem_edu.errors import BadInput
from tandem_edu.model.weights import FilePath, fill, named_arrays, read_arrays, write_arrays


def save_router(router: LearnedRouter, path: FilePath) -> None:
    """Write `router` to `path`, whole or not at all. Raises `BadInput` if it cannot be written."""
    drafter, block_len = router.made_for
    sizes = {"d_hidden": router.d_hidden, "d_router": len(router.b_in), "top_k": router.top_k}
    metadata = {"router": {"drafter": drafter, "block_len": block_len, **sizes}}
    write_arrays(named_arrays(router), metadata, path)


def load_router(path: FilePath) -> LearnedRouter:
    """The router that `save_router` wrote. Raises `BadInput` if there is none at `path`, or a damaged one."""
    arrays, metadata = read_arrays(path)
    saved = metadata.get("router")
    if not isinstance(saved, dict) or saved.keys() != {
        "drafter",
        "block_len",
        "d_hidden",
        "d_router",
        "top_k",
    }:
        raise BadInput(f"a router at {path}", "another kind of file", "train one: tandem-edu train router")
    sizes = {name: saved[name] for name in ("d_hidden", "top_k", "d_router")}
    build = lambda key: LearnedRouter(made_for=(saved["drafter"], saved["block_len"]), **sizes, key=key)
    return fill(eqx.filter_eval_shape(build, jax.random.key(0)), arrays, path)
