"""To and from Hugging Face: the Llama format of `transformers`, a folder of JSON and safetensors.

    config.json         the sizes
    model.safetensors   the weights, float32; or shards that `model.safetensors.index.json` lists
    tokenizer.json      the tokenizer, if one was given

Our transformer *is* a Llama, so nothing is computed on the way: each weight gets another name, and a
linear map is transposed, because `torch` keeps it as [d_out, d_in] and we as [d_in, d_out]. Neither
`torch` nor `transformers` is needed.
"""

import dataclasses
import json
import os
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

from tandem_edu.data.files import read_utf8
from tandem_edu.data.tokenizer import END_ID, save_tokenizer
from tandem_edu.errors import BadInput, require
from tandem_edu.files import written_whole
from tandem_edu.model import Transformer, TransformerConfig
from tandem_edu.zoo.llama_config import from_llama, to_llama

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def to_hf(
    model: Transformer,
    folder: str | os.PathLike[str],
    tokenizer: Tokenizer | None = None,
    end_id: int | None = END_ID,
) -> None:
    """Write `model` so that `transformers.AutoModelForCausalLM.from_pretrained(folder)` reads it.

    With `tokenizer` also what `transformers.AutoTokenizer` reads. A secondary that borrows a vocabulary
    of its own width is written as an ordinary model, with a copy of it. `end_id` is the token that ends a
    text, by our tokenizers 0; None if there is none.

    Raises `BadInput` for a vocabulary of another width (Llama has no maps between the two), for a
    tokenizer of another vocabulary, an `end_id` outside it, or if the folder cannot be written.

    >>> import tempfile
    >>> cfg = TransformerConfig(vocab_size=8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1,
    ...                         d_ff=16, max_len=16)
    >>> model = Transformer(cfg, key=jax.random.key(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_hf(model, folder)
    ...     bool(eqx.tree_equal(from_hf(folder), model))
    True
    """
    got = type(model).__name__
    require(
        isinstance(model, Transformer), "a Transformer", got, "a tandem has no Llama form: save its parts"
    )
    # A borrowed vocabulary is tied or not as its owner has it.
    config = dataclasses.replace(model.config, tie_embeddings=model.vocabulary.head is None)
    folder = Path(folder)
    require(
        model.embed_in is None,
        "a vocabulary of the model's own width (Llama has no maps between two widths)",
        f"d_model={config.d_model} and d_embed={config.embed_dim}",
        "export a model without shared_vocab, or with its primary's width",
    )
    known = end_id is None or 0 <= end_id < config.vocab_size
    require(
        known, f"end_id below vocab_size = {config.vocab_size}", end_id, "pass None if no token ends a text"
    )
    if tokenizer is not None:
        _write_tokenizer(tokenizer, config, folder, end_id)
    weights = {name: _turned(name, np.asarray(weight, np.float32)) for name, weight in _named(model).items()}
    with written_whole(folder / "model.safetensors") as part:
        # `transformers` refuses a file that does not say so.
        part.write_bytes(
            save({name: np.ascontiguousarray(w) for name, w in weights.items()}, {"format": "pt"})
        )
    _write_json(folder / "config.json", to_llama(config, end_id))


def from_hf(folder: str | os.PathLike[str]) -> Transformer:
    """Read a Llama checkpoint of `transformers`, in float32.

    Raises `BadInput`, naming the field or the weight, for what our transformer does not have: another
    architecture or activation, biases, scaled rotary embeddings, heads of another width than
    `hidden_size / num_attention_heads`, quantised weights; and for files that are missing or spoiled.
    """
    folder = Path(folder)
    config = from_llama(_read_json(folder / "config.json"))
    empty = eqx.filter_eval_shape(Transformer, config, key=jax.random.key(0))
    weights = _read_weights(folder, _named(empty))
    return eqx.tree_at(lambda model: list(_named(model).values()), empty, weights)


def _named(model: Transformer) -> dict[str, Array]:
    """Every weight under its Llama name."""
    named = {EMBEDDING: model.vocabulary.embedding, "model.norm.weight": model.final_norm.scale}
    if model.vocabulary.head is not None:
        named[HEAD] = model.vocabulary.head
    for layer, block in enumerate(model.blocks):
        parts = {
            "input_layernorm": block.attention_norm.scale,
            "self_attn.q_proj": block.wq,
            "self_attn.k_proj": block.keys_values.wk,
            "self_attn.v_proj": block.keys_values.wv,
            "self_attn.o_proj": block.wo,
            "post_attention_layernorm": block.mlp_norm.scale,
            "mlp.gate_proj": block.mlp.w_gate,
            "mlp.up_proj": block.mlp.w_up,
            "mlp.down_proj": block.mlp.w_down,
        }
        named |= {f"model.layers.{layer}.{part}.weight": weight for part, weight in parts.items()}
    return named


def _turned(name: str, weight: Any) -> Any:
    """Our orientation to torch's, or back: only linear maps differ."""
    return weight if name == EMBEDDING else weight.T


def _read_weights(folder: Path, wanted: dict[str, Any]) -> list[Array]:
    """The arrays of `wanted`, in its order and in our orientation."""
    found: dict[str, Array] = {}
    for path in _weight_files(folder):
        found |= _read_safetensors(path)
    if HEAD not in wanted and HEAD in found:
        head = found.pop(HEAD)
        same = EMBEDDING in found and np.array_equal(head, found[EMBEDDING])
        require(
            same, f"{HEAD} equal to the embedding it is tied to", "another", "set tie_word_embeddings false"
        )
    odd = sorted(name for name in found.keys() - wanted.keys() if not name.endswith("rotary_emb.inv_freq"))
    require(not odd, "the weights of a plain Llama", ", ".join(odd[:3]), "take another checkpoint")
    for name, leaf in wanted.items():
        shape = leaf.shape if name == EMBEDDING else leaf.shape[::-1]
        require(name in found, f"{name} of shape {shape}", "no such weight", "is the checkpoint whole?")
        got = found[name].shape
        require(got == shape, f"{name} of shape {shape}", got, "config.json and the weights must go together")
    return [_turned(name, found[name]) for name in wanted]


def _weight_files(folder: Path) -> list[Path]:
    """The one file, or the shards of the index."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists() or not index.exists():
        return [whole]
    shards = _read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise BadInput(f"weight_map in {index}", json.dumps(shards), "fetch the checkpoint again")
    return [folder / Path(shard).name for shard in sorted(set(shards.values()))]


def _read_safetensors(path: Path) -> dict[str, Array]:
    expected = f"a safetensors file at {path}"
    try:
        with safe_open(path, framework="flax") as file:  # the one array type here that knows bfloat16
            return {name: _float32(file, name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except FileNotFoundError:
        fix = "other formats hold pickles, which are never read: convert the checkpoint"
        raise BadInput(expected, "no such file", fix) from None
    except (SafetensorError, OSError) as error:
        raise BadInput(expected, error, "fetch the checkpoint again") from error


def _float32(file: Any, name: str) -> Array:
    kind = file.get_slice(name).get_dtype()
    kinds = ("F32", "F16", "BF16")  # float32 holds each of them to the last bit
    require(kind in kinds, f"{name} of a kind in {kinds}", kind, "take another checkpoint")
    return file.get_tensor(name).astype(jnp.float32)


def _read_json(path: Path) -> dict[str, Any]:
    expected = f"a JSON object in {path}"
    try:
        fields = json.loads(read_utf8(path, "folder with a Llama checkpoint"))
    except json.JSONDecodeError as error:
        raise BadInput(expected, error, "fetch the checkpoint again") from error
    require(isinstance(fields, dict), expected, type(fields).__name__, "fetch the checkpoint again")
    return fields


def _write_json(path: Path, fields: dict[str, Any]) -> None:
    with written_whole(path) as part:
        part.write_text(json.dumps(fields, indent=2) + "\n", "utf-8")


def _write_tokenizer(
    tokenizer: Tokenizer, config: TransformerConfig, folder: Path, end_id: int | None
) -> None:
    size = tokenizer.get_vocab_size()
    expected = f"a tokenizer of {config.vocab_size} tokens, as the model has"
    require(size == config.vocab_size, expected, size, "pass the tokenizer it was trained with")
    save_tokenizer(tokenizer, folder / "tokenizer.json")
    name = None if end_id is None else tokenizer.id_to_token(end_id)
    end = {} if name is None else {"bos_token": name, "eos_token": name}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    _write_json(folder / "tokenizer_config.json", kind | end | {"model_max_length": config.max_len})
