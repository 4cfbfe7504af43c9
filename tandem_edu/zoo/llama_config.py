"""The `config.json` of a Llama checkpoint, and ours: the same numbers under other names.

What a file leaves out, or gives as null, has the value that `transformers` takes then.
"""

import json
from typing import Any

from tandem_edu.data.tokenizer import END_ID
from tandem_edu.errors import require
from tandem_edu.model import TransformerConfig

Fields = dict[str, Any]
ARCHITECTURE = "LlamaForCausalLM"
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
"""Our name of a size and Llama's."""
DEFAULTS: Fields = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
WORDS: dict[type, str] = {int: "positive whole number", float: "positive number", bool: "truth value"}
PLAIN = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "quantization_config": None}
"""Fields with the one value that our transformer has built in."""


def to_llama(config: TransformerConfig, end_id: int | None = END_ID) -> Fields:
    """The fields that `transformers` reads, 4.57 and later as well as 5.

    `end_id` begins and ends a text; None says that no token does, which leaving it out would not.

    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=16)
    >>> to_llama(cfg)["hidden_size"], from_llama(to_llama(cfg)) == cfg
    (8, True)
    """
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "llama",
        **{theirs: getattr(config, ours) for ours, theirs in SIZES.items()},
        **{name: value for name, value in PLAIN.items() if value is not None},
        "head_dim": config.head_dim,
        # transformers 4 reads the first, 5 the second; each lets the other pass.
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "torch_dtype": "float32",
    }


def from_llama(fields: Fields) -> TransformerConfig:
    """Our config. Raises `BadInput`, naming the field, for whatever we have no part for."""
    fields = {name: value for name, value in fields.items() if value is not None}
    _check(fields, "model_type", "llama", default=None)
    _check(fields, "architectures", [ARCHITECTURE], default=[ARCHITECTURE])
    for name, only in PLAIN.items():
        _check(fields, name, only, default=only)
    sizes = {ours: _size(fields, theirs) for ours, theirs in SIZES.items()}
    config = TransformerConfig.from_dict(sizes | {"rope_theta": _rope_theta(fields)})
    _check(fields, "head_dim", config.head_dim, default=config.head_dim)
    return config


def _size(fields: Fields, name: str) -> Any:
    """A number of `config.json`, or its default."""
    if name == "num_key_value_heads" and name not in fields:
        return _size(fields, "num_attention_heads")
    value: Any = fields.get(name, DEFAULTS.get(name))
    kind = type(DEFAULTS.get(name, 1))
    right = type(value) is kind and (kind is bool or value > 0)
    require(right, f"{name} in config.json, a {WORDS[kind]}", json.dumps(value), "fix the file")
    return value


def _rope_theta(fields: Fields) -> float:
    """The base of the rotary angles: a field of its own, in newer files one of `rope_parameters`."""
    theta = fields.get("rope_theta", 10_000.0)
    for name in ("rope_scaling", "rope_parameters"):
        rope = fields.get(name, {})
        require(isinstance(rope, dict), f"{name} to be an object", json.dumps(rope), "fix config.json")
        kind = rope.get("rope_type", rope.get("type", "default"))
        plain = kind == "default" and rope.get("partial_rotary_factor", 1.0) == 1.0
        fix = "only plain rotary embeddings are built in: take another checkpoint"
        require(plain, f"{name} without scaling", json.dumps(rope), fix)
        theta = rope.get("rope_theta", theta)
    number = isinstance(theta, int | float) and theta > 0
    require(number, "rope_theta to be a positive number", json.dumps(theta), "fix config.json")
    return float(theta)


def _check(fields: Fields, name: str, only: object, *, default: object) -> None:
    got = fields.get(name, default)
    fix = "our transformer has no other form: take another checkpoint"
    require(got == only, f"{name} {json.dumps(only)} in config.json", json.dumps(got), fix)
