"""Weights in files: safetensors, never pickle, and a file says by itself which model it holds.

A file is a header (names, shapes and one JSON text of ours, the metadata) and the raw numbers. A
name is the path to the array in the model, such as `blocks.0.mlp.w_gate`.

`save_model`, `load_model`       a whole model: the file rebuilds it
`save_weights`, `load_weights`   the arrays of anything, into something that has the same shape
`write_arrays`, `read_arrays`    what they stand on, for files of another kind (checkpoints)

A vocabulary borrowed from the primary (`config.shared_vocab`) is the primary's: it is never stored
with the one that borrows it.
"""

import json
import os
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
from tandem_edu.files import written_whole
from tandem_edu.model.attached import PrimaryReader
from tandem_edu.model.config import TransformerConfig
from tandem_edu.model.cross_attending import Glide
from tandem_edu.model.eagle import Eagle
from tandem_edu.model.early_exit import EarlyExit
from tandem_edu.model.tandem import Tandem
from tandem_edu.model.transformer import Embedding, Transformer

Model = Transformer | PrimaryReader
FilePath = str | os.PathLike[str]
_OURS = "tandem_edu"  # the key of our JSON in the header


def save_model(model: Model, path: FilePath, half: bool = False) -> None:
    """Write `model` to `path`, whole or not at all. `BadInput` if it cannot be written, or is not float32.

    With `half` the numbers are stored as float16, in half the space; loaded they are float32 again.

    >>> import tempfile
    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=16)
    >>> model = Transformer(cfg, key=jax.random.key(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(model, f"{folder}/model.safetensors")
    ...     loaded = load_model(f"{folder}/model.safetensors")
    >>> bool(eqx.tree_equal(model, loaded))
    True
    """
    arrays = named_arrays(eqx.filter(model, trainable(model)))
    kinds = {str(array.dtype) for array in arrays.values()}
    fix = "cast it: jax.tree.map(lambda weight: weight.astype(jnp.float32), model)"
    require(kinds == {"float32"}, "a model in float32", ", ".join(sorted(kinds)), fix)
    if half:
        arrays = {name: np.asarray(array, np.float16) for name, array in arrays.items()}
    write_arrays(arrays, {"model": describe(model)}, path)


def load_model(path: FilePath, vocabulary: Embedding | None = None) -> Model:
    """The model that `save_model` wrote to `path`.

    One with `config.shared_vocab` needs its primary's `vocabulary`; for the others it is ignored. What
    was stored as float16 becomes float32.
    Raises `BadInput` if the vocabulary is missing or of other sizes, if there is no such file, if it is cut
    short, or if it is no model of ours.
    """
    arrays, metadata = read_arrays(path)
    skeleton = _skeleton(metadata.get("model"), path, vocabulary)
    return fill(skeleton, arrays, path)


def save_weights(model: PyTree, path: FilePath, **extra_metadata: Any) -> None:
    """Write the model's own arrays, and any JSON-able `extra_metadata`, to `path`."""
    write_arrays(named_arrays(eqx.filter(model, trainable(model))), extra_metadata, path)


def load_weights(model_like: PyTree, path: FilePath) -> PyTree:
    """`model_like` with the arrays of `path` in place of its own; a borrowed vocabulary stays.

    `model_like` may be the skeleton that `eqx.filter_eval_shape` gives, which costs no memory.
    Raises `BadInput` if names, shapes or number types are not those of `model_like`.
    """
    return fill(model_like, read_arrays(path)[0], path)


def describe(model: Model) -> dict[str, Any]:
    """All that defines a model but its weights, JSON-able."""
    config = {"config": model.config.to_dict()}
    if isinstance(model, Transformer):
        return {"kind": "transformer", **config}
    primary = {"primary_config": model.primary_config.to_dict()}
    if isinstance(model, EarlyExit):
        return {"kind": "early-exit", **primary, "exit_layer": model.exit_layer}
    if isinstance(model, Eagle):
        states = {"layer_map": list(model.projection.states), "unroll": model.unroll}
        return {"kind": "eagle", **config, **primary, **states}
    if isinstance(model, Glide):
        return {"kind": "glide", **config, **primary, "layer_map": list(model.layers)}
    if isinstance(model, Tandem):
        layer_map = [list(projection.states) for projection in model.projections]
        more = {"layer_map": layer_map, "own_history": model.own_history}
        return {"kind": "tandem", **config, **primary, **more}
    raise BadInput("a model of this package", type(model).__name__, "write its arrays with save_weights")


def trainable(model: PyTree) -> PyTree[bool]:
    """`True` at each array that is the model's own; `False` in a vocabulary it borrows.

    What is trained and what is stored, as a filter for `eqx.partition`.
    """
    return jax.tree.map(_owned_part, model, is_leaf=_is_transformer)


def _owned_part(part: Any) -> PyTree[bool]:
    marks = jax.tree.map(_is_array, part)
    if not _borrows(part):
        return marks
    lent = jax.tree.map(lambda _: False, part.vocabulary)
    return eqx.tree_at(lambda transformer: transformer.vocabulary, marks, lent)


def named_arrays(tree: PyTree) -> dict[str, Any]:
    """Every array of a tree by its path.

    >>> list(named_arrays({"a": jnp.ones(2), "b": (None, jnp.ones(3))}))
    ['a', 'b.1']
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def fill(like: PyTree, arrays: dict[str, np.ndarray], path: FilePath) -> PyTree:
    """`like` with its own arrays replaced by those of the same names; `path` is for the errors."""
    mine = eqx.filter(like, trainable(like))
    wanted = named_arrays(mine)
    fix = "load it into the model it was saved from"
    for names, problem in ((wanted.keys() - arrays, "lacks"), (arrays.keys() - wanted, "also has")):
        got = f"a file that {problem} {', '.join(sorted(names)[:3])} ({len(names)} in all)"
        require(not names, f"in {path} the weights of this model", got, fix)
    widened = {name: x.astype(np.float32) if x.dtype == np.float16 else x for name, x in arrays.items()}
    for name, leaf in wanted.items():
        got, want = (f"{x.dtype}{list(x.shape)}" for x in (widened[name], leaf))
        require(got == want, f"{name} in {path} as {want}", got, fix)
    leaves = [jnp.array(widened[name]) for name in wanted]  # copies: a training step gives memory away
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(mine), leaves), like)


def write_arrays(arrays: dict[str, Any], metadata: dict[str, Any], path: FilePath) -> None:
    """Write arrays by name and a JSON-able dict to one safetensors file, whole or not at all.

    Raises `BadInput` if the disk is full or may not be written; what was there stays.
    """
    # The format takes the memory as it lies, so it must lie in C order.
    plain = {name: np.array(array, order="C") for name, array in arrays.items()}
    with written_whole(path) as part:
        part.write_bytes(save(plain, {_OURS: json.dumps(metadata)}))


def read_arrays(path: FilePath) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the dict that `write_arrays` wrote.

    Raises `BadInput` if there is no such file, if it is cut short, or if another program wrote it.
    """
    expected = f"a file of weights at {Path(path)}"
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get(_OURS, "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except OSError as error:
        raise BadInput(expected, error.strerror or error, "check the path") from error
    except (SafetensorError, ValueError, KeyError) as error:
        fix = "it is cut short or no safetensors file: write or fetch it again"
        raise BadInput(expected, error, fix) from error
    fix = "pass one that tandem_edu wrote; Hugging Face folders have a reader of their own"
    require(isinstance(metadata, dict), expected, "safetensors of another program", fix)
    return arrays, metadata


def _skeleton(description: Any, path: FilePath, vocabulary: Embedding | None) -> Model:
    """The model without its numbers, but for the borrowed vocabulary."""
    known = isinstance(description, dict) and description.get("kind") in _KINDS
    known = known and description.keys() - {"kind"} == _KINDS[description["kind"]]
    fix = "load_weights reads files of save_weights; else it was written by another version"
    require(known, f"a model written by save_model at {path}", "another kind of file", fix)
    configs = {name: TransformerConfig.from_dict(description[name]) for name in _CONFIGS & description.keys()}
    borrows = "config" in configs and configs["config"].shared_vocab
    fix = "pass vocabulary=primary.vocabulary"
    if borrows:
        require(vocabulary is not None, f"the vocabulary that the model in {path} borrows", "none", fix)
    lent = vocabulary if borrows else None
    skeleton = eqx.filter_eval_shape(_build, {**description, **configs}, lent, jax.random.key(0))
    lend = lambda part: eqx.tree_at(lambda one: one.vocabulary, part, lent) if _borrows(part) else part
    return jax.tree.map(lend, skeleton, is_leaf=_is_transformer)


_CONFIGS = {"config", "primary_config"}
_KINDS = {
    "transformer": {"config"},
    "tandem": {*_CONFIGS, "layer_map", "own_history"},
    "eagle": {*_CONFIGS, "layer_map", "unroll"},
    "glide": {*_CONFIGS, "layer_map"},
    "early-exit": {"primary_config", "exit_layer"},
}


def _build(said: dict[str, Any], vocabulary: Embedding | None, key) -> Model:
    """The model of a description whose configs have been read."""
    if said["kind"] == "early-exit":
        return EarlyExit(said["primary_config"], said["exit_layer"], key=key)
    secondary = Transformer(said["config"], key=key, vocabulary=vocabulary)
    if said["kind"] == "transformer":
        return secondary
    both, layer_map = (secondary, said["primary_config"]), said["layer_map"]
    if said["kind"] == "eagle":
        return Eagle(*both, layer_map, said["unroll"], key=key)
    if said["kind"] == "glide":
        return Glide(*both, layer_map, key=key)
    return Tandem(*both, layer_map, said["own_history"], key=key)


def _is_transformer(part: Any) -> bool:
    return isinstance(part, Transformer)


def _borrows(part: Any) -> bool:
    return isinstance(part, Transformer) and part.config.shared_vocab


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)
