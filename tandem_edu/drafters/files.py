"""Models in files: a file says which model it holds, so that `load_model` can rebuild it."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from tandem_edu.drafters.deep import DeepTandem
from tandem_edu.drafters.protocol import PrimaryReader, build_reader
from tandem_edu.errors import BadInput
from tandem_edu.files import FilePath
from tandem_edu.model import Embedding, LanguageModel, Transformer, TransformerConfig, weights

Model = LanguageModel | PrimaryReader


def describe(model: Model) -> dict[str, Any]:
    """All that defines a model except its weights, JSON-able."""
    if isinstance(model, LanguageModel):
        settings = {"settings": model.settings()} if model.settings() else {}
        return {"kind": model.kind, "config": model.config.to_dict(), **settings}
    if not isinstance(model, PrimaryReader):
        raise BadInput("a LanguageModel or a PrimaryReader", type(model).__name__, "pass one of these")
    primary = {"kind": model.kind, "primary_config": model.primary_config.to_dict()}
    own = {"config": model.config.to_dict()} if model.needs_secondary else {}
    return primary | own | {"settings": model.settings()}


def save_model(model: Model, path: FilePath, half: bool = False) -> None:
    """Write `model` to `path`, whole or not at all; with `half` as float16, which `load_model` widens.

    Raises `BadInput` if the file cannot be written, or if the model is not float32.

    >>> import tempfile
    >>> cfg = TransformerConfig(8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=16, max_len=16)
    >>> model = Transformer(cfg, key=jax.random.key(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(model, f"{folder}/model.safetensors")
    ...     loaded = load_model(f"{folder}/model.safetensors")
    >>> bool(eqx.tree_equal(model, loaded))
    True
    """
    weights.check_float32(model)
    arrays = weights.named_arrays(eqx.filter(model, weights.trainable(model)))
    if half:
        arrays = {name: np.asarray(array, np.float16) for name, array in arrays.items()}
    weights.write_arrays(arrays, {"model": describe(model)}, path)


def load_model(path: FilePath, embedding: Embedding | None = None) -> Model:
    """The model that `save_model` wrote to `path`.

    A model with `config.shared_vocab` needs its primary's `embedding`; others ignore it.
    Raises `BadInput` if that is missing or of other sizes, or if the file is missing, cut short or no model.
    """
    arrays, metadata = weights.read_arrays(path)
    description = metadata.get("model")
    fix = "pass a file that save_model wrote with this version"
    if not isinstance(description, dict) or not isinstance(description.get("kind"), str):
        raise BadInput(f"a model at {path}", "another kind of file", fix)
    try:
        skeleton = eqx.filter_eval_shape(partial(_build, description, embedding), jax.random.key(0))
    except KeyError as error:
        raise BadInput(f"a description of the model at {path}", f"one without {error}", fix) from error
    if embedding is not None:
        skeleton = weights.share_embedding(skeleton, embedding)
    return weights.fill(skeleton, arrays, path)


def _build(description: dict[str, Any], embedding: Embedding | None, key: PRNGKeyArray) -> Model:
    """A new model of this description. Raises `KeyError` for what is missing in it."""
    kind, secondary = description["kind"], None
    if kind == DeepTandem.kind:
        config = TransformerConfig.from_dict(description["config"])
        return DeepTandem(config, **description["settings"], key=key)
    if "config" in description or kind == Transformer.kind:
        config = TransformerConfig.from_dict(description["config"])
        secondary = Transformer(config, key=key, embedding=embedding if config.shared_vocab else None)
    if kind == Transformer.kind:
        return secondary  # pyright: ignore
    primary_config = TransformerConfig.from_dict(description["primary_config"])
    return build_reader(kind, secondary, primary_config, description["settings"], key)
