"""Models in files: a file says which model it holds, so that `load_model` can rebuild it."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from tandem_edu.drafters.protocol import PrimaryReader, build_reader, readers
from tandem_edu.errors import BadInput, require
from tandem_edu.model import Embedding, Transformer, TransformerConfig
from tandem_edu.model.weights import (
    FilePath,
    fill,
    named_arrays,
    read_arrays,
    share_embedding,
    trainable,
    write_arrays,
)

Model = Transformer | PrimaryReader


def describe(model: Model) -> dict[str, Any]:
    """All that defines a model except its weights, JSON-able."""
    if isinstance(model, Transformer):
        return {"kind": "transformer", "config": model.config.to_dict()}
    if not isinstance(model, PrimaryReader):
        raise BadInput("a Transformer or a PrimaryReader", type(model).__name__, "pass one of these")
    primary = {"kind": model.kind, "primary_config": model.primary_config.to_dict()}
    own = {"config": model.config.to_dict()} if model.needs_secondary else {}
    return primary | own | {"settings": model.settings()}


def save_model(model: Model, path: FilePath, half: bool = False) -> None:
    """Write `model` to `path`, whole or not at all; with `half` as float16, which `load_model` widens.

    Raises `BadInput` if the file cannot be written, or if the model is not float32.

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
    dtypes = {str(array.dtype) for array in arrays.values()}
    fix = "cast it: jax.tree.map(lambda weight: weight.astype(jnp.float32), model)"
    require(dtypes == {"float32"}, "a model in float32", ", ".join(sorted(dtypes)), fix)
    if half:
        arrays = {name: np.asarray(array, np.float16) for name, array in arrays.items()}
    write_arrays(arrays, {"model": describe(model)}, path)


def load_model(path: FilePath, embedding: Embedding | None = None) -> Model:
    """The model that `save_model` wrote to `path`.

    A model with `config.shared_vocab` needs its primary's `embedding`; others ignore it.
    Raises `BadInput` if that is missing or of other sizes, if there is no such file, if it is cut short, or
    if it holds no model.
    """
    arrays, metadata = read_arrays(path)
    description = metadata.get("model")
    fix = "pass a file that save_model wrote with this version"
    if not isinstance(description, dict) or not isinstance(description.get("kind"), str):
        raise BadInput(f"a model at {path}", "another kind of file", fix)
    try:
        known = {"transformer", *readers()}
        require(description["kind"] in known, f"a kind among {sorted(known)}", description["kind"], fix)
        configs = {
            name: TransformerConfig.from_dict(description[name])
            for name in ("config", "primary_config")
            if name in description
        }
        shares = "config" in configs and configs["config"].shared_vocab
        expected = f"the embedding that the model in {path} shares with its primary"
        require(embedding is not None or not shares, expected, "none", "pass embedding=primary.embedding")
        shared = embedding if shares else None
        skeleton = eqx.filter_eval_shape(_build, description, configs, shared, jax.random.key(0))
    except KeyError as error:
        raise BadInput(f"a description of the model at {path}", f"one without {error}", fix) from error
    return fill(skeleton if shared is None else share_embedding(skeleton, shared), arrays, path)


def _build(
    description: dict[str, Any],
    configs: dict[str, TransformerConfig],
    embedding: Embedding | None,
    key: PRNGKeyArray,
) -> Model:
    secondary = Transformer(configs["config"], key=key, embedding=embedding) if "config" in configs else None
    if description["kind"] == "transformer":
        if secondary is None:
            raise KeyError("config")
        return secondary
    settings = description["settings"]
    return build_reader(description["kind"], secondary, configs["primary_config"], settings, key)
