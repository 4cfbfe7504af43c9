"""Arrays in files: safetensors, never pickle. A file also holds one JSON object, the metadata.

An array's name is its path in the model, such as `blocks.0.mlp.w_gate`. An embedding that a model shares
with its primary (`config.shared_vocab`) is the primary's, and neither trained nor stored with that model.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tandem_edu.errors import BadInput, require
from tandem_edu.files import FilePath, written_whole
from tandem_edu.model.transformer import Embedding, Transformer

ARRAYS = jax.Array, np.ndarray, jax.ShapeDtypeStruct
_METADATA = "tandem_edu"  # the name of our JSON in a safetensors header


def trainable(model: PyTree) -> PyTree[bool]:
    """Which arrays are trained and stored, for `eqx.partition`: all but those of a shared embedding."""
    own = jax.tree.map(lambda leaf: isinstance(leaf, ARRAYS), model)
    return _change_shared(own, lambda embedding: jax.tree.map(lambda _: False, embedding))


def share_embedding(model: PyTree, embedding: Embedding) -> PyTree:
    """`model` with `embedding` in each transformer that shares its primary's."""
    return _change_shared(model, lambda _: embedding)


def _change_shared(model: PyTree, change: Callable) -> PyTree:
    """`model` with `change` applied to the embedding of each transformer that shares its primary's."""
    shares = lambda part: isinstance(part, Transformer) and part.config.shared_vocab
    changed = lambda part: eqx.tree_at(lambda t: t.embedding, part, replace_fn=change)
    return jax.tree.map(lambda part: changed(part) if shares(part) else part, model, is_leaf=shares)


def check_float32(model: PyTree) -> None:
    """Raise `BadInput` for weights of another dtype than the files' and the caches'."""
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))}
    fix = "cast them: jax.tree.map(lambda x: x.astype(jnp.float32), model)"
    require(dtypes <= {"float32"}, "weights in float32", ", ".join(sorted(dtypes)), fix)


def named_arrays(tree: PyTree) -> dict[str, Any]:
    """Every array of a tree by its path.

    >>> list(named_arrays({"a": jnp.ones(2), "b": (None, jnp.ones(3))}))
    ['a', 'b.1']
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def fill(like: PyTree, arrays: dict[str, np.ndarray], path: FilePath) -> PyTree:
    """`like` with its own arrays replaced by those of the same names.

    `like` may be the skeleton that `eqx.filter_eval_shape` gives, which needs no memory. Arrays stored as
    float16 become float32. Raises `BadInput`, which names `path`, for other names, shapes or dtypes.
    """
    own = eqx.filter(like, trainable(like))
    wanted = named_arrays(own)
    fix = "load it into the model it was saved from"
    for names, problem in ((wanted.keys() - arrays, "lacks"), (arrays.keys() - wanted, "also has")):
        got = f"a file that {problem} {', '.join(sorted(names)[:3])} ({len(names)} in all)"
        require(not names, f"in {path} the weights of this model", got, fix)
    widened = {name: x.astype(np.float32) if x.dtype == np.float16 else x for name, x in arrays.items()}
    for name, leaf in wanted.items():
        got, want = (f"{x.dtype}{list(x.shape)}" for x in (widened[name], leaf))
        require(got == want, f"{name} in {path} as {want}", got, fix)
    leaves = [jnp.array(widened[name]) for name in wanted]  # copies, because a training step donates them
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(own), leaves), like)


def write_arrays(arrays: dict[str, Any], metadata: dict[str, Any], path: FilePath) -> None:
    """Write arrays by name and a JSON-able dict to a safetensors file, whole or not at all.

    Raises `BadInput` if the disk is full or cannot be written.
    """
    # The format stores memory as it lies, so it must lie in C order.
    plain = {name: np.array(array, order="C") for name, array in arrays.items()}
    with written_whole(path) as part:
        part.write_bytes(save(plain, {_METADATA: json.dumps(metadata)}))


def read_arrays(path: FilePath) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `write_arrays` wrote. Raises `BadInput` for no file, one cut short, or another program's."""
    expected = f"a file of weights at {Path(path)}"
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get(_METADATA, "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except OSError as error:
        raise BadInput(expected, error.strerror or error, "check the path") from error
    except (SafetensorError, ValueError, KeyError) as error:
        fix = "it is cut short or not a safetensors file: write or fetch it again"
        raise BadInput(expected, error, fix) from error
    fix = "pass one that tandem_edu wrote, or read a Hugging Face folder with te.from_hf"
    require(isinstance(metadata, dict), expected, "safetensors of another program", fix)
    return arrays, metadata
