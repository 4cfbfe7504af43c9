"""The `config.json` of a Llama checkpoint and our config: the same numbers under other names.

A missing field, or one that is null, has the default of `transformers`.
"""

import json
from typing import Any

from tandem_edu.errors import at_least, positive, require
from tandem_edu.model import TransformerConfig

Fields = dict[str, Any]
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
DEFAULTS: Fields = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
# Fields with the one value that our transformer supports.
PLAIN = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "quantization_config": None}


def to_llama(config: TransformerConfig, end_id: int | None) -> Fields:
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


def from_llama(fields: Fields) -> TransformerConfig:
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


def _size(fields: Fields, name: str) -> Any:
    value, usual, fix = fields.get(name), DEFAULTS.get(name), "fix config.json"
    if isinstance(usual, bool):
        require(isinstance(value, bool), f"{name} to be true or false", json.dumps(value), fix)
        return value
    return positive(value, name, fix) if isinstance(usual, float) else at_least(1, value, name, fix)


def _rope_theta(fields: Fields) -> float:
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


def _check(fields: Fields, name: str, only: object) -> None:
    got, fix = fields[name], "our transformer supports nothing else: use another checkpoint"
    require(got == only, f"{name} {json.dumps(only)} in config.json", json.dumps(got), fix)
