"""To and from Hugging Face: the Llama format of `transformers`, a folder of JSON and safetensors.

Our transformer *is* a Llama, so sizes and weights only change names, and linear maps are transposed: `torch`
keeps them as [d_out, d_in], we as [d_in, d_out]. Neither `torch` nor `transformers` is needed.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tokenizers import Tokenizer

from tandem_edu.data.tokenizer import END_ID, save_tokenizer
from tandem_edu.errors import BadInput, at_least, positive, require
from tandem_edu.files import FilePath, read_json, write_json, written_whole
from tandem_edu.model import Transformer, TransformerConfig

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
FETCH = "fetch the checkpoint again"
ARCHITECTURE = "LlamaForCausalLM"
# Our name of each size, and Llama's.
SIZES = {
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "d_ff": "intermediate_size",
    "max_len": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
}
# What `transformers` takes for a field that is missing or null.
DEFAULTS = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
# Fields with the one value that our transformer supports.
PLAIN = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "quantization_config": None}


def to_hf(
    model: Transformer, folder: FilePath, tokenizer: Tokenizer | None = None, end_id: int | None = END_ID
) -> None:
    """Write `model` so that `transformers.AutoModelForCausalLM.from_pretrained(folder)` reads it.

    With `tokenizer`, `transformers.AutoTokenizer` reads the folder too. A secondary that shares its
    primary's embedding is written with a copy of it. `end_id` is the token that ends a text, or None.
    Raises `BadInput` for an embedding of another width than the model's, a tokenizer with another number of
    tokens, an `end_id` outside the vocabulary, and a folder that cannot be written.
    """
    got, fix = type(model).__name__, "export its primary and its secondary"
    require(isinstance(model, Transformer), "a Transformer", got, fix)
    # A shared embedding is tied or not as its primary's config says.
    config = dataclasses.replace(model.config, tie_embeddings=model.embedding.head is None)
    got = f"d_model={config.d_model} and d_embed={config.embed_dim}"
    fix = "export a model without shared_vocab, or with its primary's width"
    require(model.embed_in is None, "an embedding of the model's own width, as in a Llama", got, fix)
    known, fix = end_id is None or 0 <= end_id < config.vocab_size, "pass None if no token ends a text"
    require(known, f"end_id below vocab_size = {config.vocab_size}", end_id, fix)
    folder = Path(folder)
    if tokenizer is not None:
        size, fix = tokenizer.get_vocab_size(), "pass the tokenizer it was trained with"
        expected = f"a tokenizer of {config.vocab_size} tokens, as the model has"
        require(size == config.vocab_size, expected, size, fix)
        save_tokenizer(tokenizer, folder / "tokenizer.json")
        name = None if end_id is None else tokenizer.id_to_token(end_id)
        end = {} if name is None else {"bos_token": name, "eos_token": name}
        kind = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        write_json(folder / "tokenizer_config.json", kind | end | {"model_max_length": config.max_len})
    transposed = {name: _transposed(name, weight) for name, weight in _named(model).items()}
    weights = {name: np.array(weight, np.float32, order="C") for name, weight in transposed.items()}
    with written_whole(folder / "model.safetensors") as part:
        part.write_bytes(save(weights, {"format": "pt"}))  # `transformers` requires this entry
    write_json(folder / "config.json", to_llama(config, end_id))


def from_hf(folder: FilePath) -> Transformer:
    """Read a Llama checkpoint of `transformers`, in float32.

    Raises `BadInput` for missing or damaged files and, naming it, for what our transformer does not have:
    another architecture, activation or head width, biases, scaled rotary embeddings, quantised weights.
    """
    folder = Path(folder)
    config = from_llama(read_json(folder / "config.json", "folder with a Llama checkpoint", FETCH))
    empty = eqx.filter_eval_shape(Transformer, config, key=jax.random.key(0))
    weights = _read_weights(folder, _named(empty))
    return eqx.tree_at(lambda model: list(_named(model).values()), empty, weights)


def _named(model: Transformer) -> dict[str, Array]:
    """Every weight under its Llama name."""
    named = {EMBEDDING: model.embedding.table, "model.norm.weight": model.final_norm.scale}
    if model.embedding.head is not None:
        named[HEAD] = model.embedding.head
    for layer, block in enumerate(model.blocks):
        parts = {
            "input_layernorm": block.attention_norm.scale,
            "self_attn.q_proj": block.wq,
            "self_attn.k_proj": block.kv.wk,
            "self_attn.v_proj": block.kv.wv,
            "self_attn.o_proj": block.wo,
            "post_attention_layernorm": block.mlp_norm.scale,
            "mlp.gate_proj": block.mlp.w_gate,
            "mlp.up_proj": block.mlp.w_up,
            "mlp.down_proj": block.mlp.w_down,
        }
        named |= {f"model.layers.{layer}.{part}.weight": weight for part, weight in parts.items()}
    return named


def _transposed(name: str, weight: Any) -> Any:
    return weight if name == EMBEDDING else weight.T


def _read_weights(folder: Path, expected: dict[str, Any]) -> list[Array]:
    """The arrays that `expected` names, in its order and in our orientation."""
    weights = dict(pair for path in _weight_files(folder) for pair in _read_safetensors(path).items())
    if HEAD not in expected and HEAD in weights:
        tied = EMBEDDING in weights and np.array_equal(weights.pop(HEAD), weights[EMBEDDING])
        fix = "set tie_word_embeddings false"
        require(tied, f"{HEAD} equal to the embedding it is tied to", "another", fix)
    unknown = sorted(weights.keys() - expected.keys())
    extra = [name for name in unknown if not name.endswith("rotary_emb.inv_freq")]
    require(not extra, "the weights of a plain Llama", ", ".join(extra[:3]), "use another checkpoint")
    fix = "fetch config.json and all weights of the same checkpoint"
    for name, leaf in expected.items():
        shape = leaf.shape if name == EMBEDDING else leaf.shape[::-1]
        got = weights[name].shape if name in weights else "no such weight"
        require(got == shape, f"{name} of shape {shape}", got, fix)
    return [_transposed(name, weights[name]) for name in expected]


def _weight_files(folder: Path) -> list[Path]:
    """The one file, or the shards of the index."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists() or not index.exists():
        fix = "convert the checkpoint to safetensors: other formats hold pickles, which are never read"
        require(whole.exists(), f"a safetensors file at {whole}", "no such file", fix)
        return [whole]
    shards = read_json(index, "index", FETCH).get("weight_map", {})
    require(bool(shards), f"weight_map in {index}", "none", FETCH)
    paths = [folder / Path(shard).name for shard in sorted(set(shards.values()))]
    missing = ", ".join(path.name for path in paths if not path.exists())
    require(not missing, f"all shards that {index} lists", f"no {missing}", "fetch the missing shards")
    return paths


def _read_safetensors(path: Path) -> dict[str, Array]:
    kinds, weights = ("F32", "F16", "BF16"), {}  # float32 holds each of them exactly
    try:
        with safe_open(path, framework="flax") as file:  # the one framework here that reads bfloat16
            for name in file.keys():  # noqa: SIM118 (it is no dict)
                kind = file.get_slice(name).get_dtype()
                require(kind in kinds, f"{name} of a kind in {kinds}", kind, "use another checkpoint")
                weights[name] = file.get_tensor(name).astype(jnp.float32)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"a safetensors file at {path}", error, FETCH) from error
    return weights


def to_llama(config: TransformerConfig, end_id: int | None) -> dict[str, Any]:
    """The fields that `transformers` 4.57 and 5 read. `end_id` begins and ends a text, if one does."""
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "llama",
        **{llama: getattr(config, ours) for ours, llama in SIZES.items()},
        **{name: value for name, value in PLAIN.items() if value is not None},
        "head_dim": config.head_dim,
        # transformers 4 reads the first, 5 the second, and each ignores the other.
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "bos_token_id": end_id,  # null if there is none: a missing field would mean a default
        "eos_token_id": end_id,
        "torch_dtype": "float32",
    }


def from_llama(fields: dict[str, Any]) -> TransformerConfig:
    """Our config. Raises `BadInput`, naming the field, for what our transformer does not support."""
    fields = PLAIN | {"architectures": [ARCHITECTURE], "model_type": None} | DEFAULTS | _without_nulls(fields)
    fields.setdefault("num_key_value_heads", fields.get("num_attention_heads"))
    if fields["hidden_act"] == "swish":  # another name of silu
        fields["hidden_act"] = "silu"
    for name, only in ({"model_type": "llama", "architectures": [ARCHITECTURE]} | PLAIN).items():
        _check(fields, name, only)
    sizes = {ours: _size(fields, llama) for ours, llama in SIZES.items()}
    config = TransformerConfig.from_dict(sizes | {"rope_theta": _rope_theta(fields)})
    _check({"head_dim": config.head_dim} | fields, "head_dim", config.head_dim)
    return config


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: _without_nulls(entry) for name, entry in value.items() if entry is not None}


def _size(fields: dict[str, Any], name: str) -> Any:
    value, usual, fix = fields.get(name), DEFAULTS.get(name), "fix config.json"
    if isinstance(usual, bool):
        require(isinstance(value, bool), f"{name} to be true or false", json.dumps(value), fix)
        return value
    return positive(value, name, fix) if isinstance(usual, float) else at_least(1, value, name, fix)


def _rope_theta(fields: dict[str, Any]) -> float:
    """The base of the rotary angles: a field of its own, in newer files inside `rope_parameters`."""
    theta = fields.get("rope_theta", 10_000.0)
    for name in ("rope_scaling", "rope_parameters"):
        rope = fields.get(name, {})
        require(isinstance(rope, dict), f"{name} to be an object", json.dumps(rope), "fix config.json")
        kind = rope.get("rope_type", rope.get("type", "default"))
        plain = kind == "default" and rope.get("partial_rotary_factor", 1.0) == 1.0
        fix = "only plain rotary embeddings are supported: use another checkpoint"
        require(plain, f"{name} without scaling", json.dumps(rope), fix)
        theta = rope.get("rope_theta", theta)
    return positive(theta, "rope_theta in config.json", "fix the file")


def _check(fields: dict[str, Any], name: str, only: object) -> None:
    got, fix = fields[name], "our transformer supports nothing else: use another checkpoint"
    require(got == only, f"{name} {json.dumps(only)} in config.json", json.dumps(got), fix)
