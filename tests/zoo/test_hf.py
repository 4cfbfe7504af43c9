"""Hugging Face export and import: what is read back equals what was written, and `transformers` agrees."""

import dataclasses
import json
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import safetensors.flax
import safetensors.numpy
from refusal import refuses

from tandem_edu.data import train_tokenizer
from tandem_edu.decode import generate
from tandem_edu.model import Transformer, TransformerConfig
from tandem_edu.zoo import from_hf, to_hf

WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"
FORMS = {
    "tied, grouped": {},
    "untied": {"tie_embeddings": False},
    "one key/value head": {"n_kv_heads": 1},
    "as many key/value heads": {"n_kv_heads": 4, "rope_theta": 500.0, "norm_eps": 1e-3},
}


@pytest.fixture(params=FORMS.values(), ids=FORMS)
def model(request, tiny_config) -> Transformer:
    """A model whose norms are not all ones, so that a norm in the wrong layer is seen."""
    config = dataclasses.replace(tiny_config, **request.param)
    return oracle.lively(Transformer(config, key=jax.random.key(3)), 4)


@pytest.fixture
def folder(tmp_path, tiny_primary):
    """A sound checkpoint, for a test to spoil."""
    to_hf(tiny_primary, tmp_path)
    return tmp_path


def test_round_trip_is_bit_identical(model, tmp_path):
    to_hf(model, tmp_path)
    back = from_hf(tmp_path)
    assert back.config == model.config
    assert eqx.tree_equal(back, model)


def test_weights_have_torch_orientation(folder, tiny_primary):
    weights = safetensors.numpy.load_file(folder / WEIGHTS)
    keys = weights["model.layers.1.self_attn.k_proj.weight"]
    np.testing.assert_array_equal(keys, tiny_primary.blocks[1].kv.wk.T)
    np.testing.assert_array_equal(weights["model.embed_tokens.weight"], tiny_primary.embedding.table)
    assert "lm_head.weight" not in weights
    assert {weight.dtype for weight in weights.values()} == {np.dtype(np.float32)}


def test_shards_are_read_and_a_missing_one_is_named(folder, tiny_primary):
    weights = safetensors.numpy.load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    where = {name: f"{'ab'[index % 2]}.safetensors" for index, name in enumerate(sorted(weights))}
    for shard in set(where.values()):
        held = {name: weight for name, weight in weights.items() if where[name] == shard}
        safetensors.numpy.save_file(held, folder / shard)
    (folder / INDEX).write_text(json.dumps({"weight_map": where}))
    assert eqx.tree_equal(from_hf(folder), tiny_primary)
    (folder / "b.safetensors").unlink()
    refuses(r"all shards that .*, got no b\.safetensors: fetch the missing", from_hf, folder)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_weights_become_float32(folder, tiny_primary, dtype):
    weights = safetensors.flax.load_file(folder / WEIGHTS)
    halved = {name: weight.astype(dtype) for name, weight in weights.items()}
    safetensors.flax.save_file(halved, folder / WEIGHTS)
    expected = jax.tree.map(lambda leaf: leaf.astype(dtype).astype(jnp.float32), tiny_primary)
    assert eqx.tree_equal(from_hf(folder), expected)


NULLS = dict.fromkeys(["factor", "partial_rotary_factor", "rope_type", "original_max_position_embeddings"])


@pytest.mark.parametrize(
    ("fields", "theta"),
    [
        ({"rope_scaling": None, "rope_theta": 500}, 500.0),
        ({"rope_theta": 500, "hidden_act": None, "architectures": None, "rms_norm_eps": 1e-5}, 500.0),
        ({"rope_parameters": {"rope_theta": 700.0}}, 700.0),
        ({"rope_parameters": NULLS | {"rope_theta": 700.0}, "rope_scaling": NULLS}, 700.0),
        ({"rope_parameters": NULLS | {"rope_theta": None}, "hidden_act": "swish"}, 10_000.0),
    ],
)
def test_older_and_sparser_configs_are_read_and_null_is_absent(folder, tiny_primary, fields, theta):
    written = json.loads((folder / CONFIG).read_text())
    for name in ("rope_theta", "rope_parameters", "architectures", "head_dim", "hidden_act", "mlp_bias"):
        del written[name]
    (folder / CONFIG).write_text(json.dumps(written | fields))
    assert from_hf(folder).config == dataclasses.replace(tiny_primary.config, rope_theta=theta)


@pytest.mark.parametrize("tied", [True, False])
def test_a_shared_embedding_of_the_models_own_width_is_copied(tied, tiny_primary, tmp_path):
    config = dataclasses.replace(tiny_primary.config, n_layers=1, tie_embeddings=tied)
    primary = Transformer(config, key=jax.random.key(4))
    config = dataclasses.replace(tiny_primary.config, n_layers=1, shared_vocab=True)
    model = Transformer(config, key=jax.random.key(5), embedding=primary.embedding)
    to_hf(model, tmp_path)
    back = from_hf(tmp_path)
    assert json.loads((tmp_path / CONFIG).read_text())["tie_word_embeddings"] == tied
    assert not back.config.shared_vocab
    assert eqx.tree_equal(jax.tree.leaves(back), jax.tree.leaves(model))


def test_what_cannot_be_exported(tiny_primary, tiny_secondary_config, tiny_tandem, tmp_path):
    config = dataclasses.replace(tiny_secondary_config, shared_vocab=True, d_embed=16)
    narrower = Transformer(config, key=jax.random.key(5), embedding=tiny_primary.embedding)
    tokenizer = train_tokenizer("", vocab_size=257)
    for arguments, message in [
        ((narrower, tmp_path), "d_model=12 and d_embed=16"),
        ((tiny_tandem, tmp_path), "expected a Transformer, got Tandem"),
        ((tiny_primary, tmp_path, tokenizer), "a tokenizer of 13 tokens, as the model has, got 257"),
        ((tiny_primary, tmp_path, None, 13), "end_id below vocab_size = 13, got 13"),
    ]:
        refuses(message, to_hf, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "mistral"),
        ("architectures", ["MistralForCausalLM"]),
        ("hidden_act", "gelu"),
        ("mlp_bias", True),
        ("quantization_config", {"bits": 4}),
        ("head_dim", 8),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}),
        ("rope_parameters", {"rope_type": "default", "partial_rotary_factor": 0.5}),
        ("rope_theta", "big"),
        ("rope_parameters", []),
        ("rms_norm_eps", "small"),
        ("tie_word_embeddings", 1),
        ("vocab_size", None),
        ("hidden_size", 2.5),
        ("intermediate_size", -3),
        ("num_key_value_heads", 3),
    ],
)
def test_a_field_that_is_not_supported_is_named(folder, field, value):
    # As in older files, where `rope_theta` is a field of its own.
    fields = json.loads((folder / CONFIG).read_text()) | {"rope_parameters": None, field: value}
    (folder / CONFIG).write_text(json.dumps(fields))
    named = {"num_key_value_heads": "n_kv_heads"}.get(field, field)
    refuses(named, from_hf, folder)


NORM, BIAS = "model.norm.weight", "model.layers.0.self_attn.q_proj.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({NORM: None}, "model.norm.weight of shape .16,., got no such"),
        ({NORM: np.ones(9)}, "got F64"),
        ({NORM: np.ones(9, np.float32)}, "of shape .16,., got .9"),
        ({BIAS: np.ones(16, np.float32)}, "bias"),
        ({"lm_head.weight": np.ones((13, 16), np.float32)}, "tied"),
    ],
)
def test_a_weight_that_is_not_supported_is_named(folder, change, message):
    weights = safetensors.numpy.load_file(folder / WEIGHTS) | change
    weights = {name: weight for name, weight in weights.items() if weight is not None}
    safetensors.numpy.save_file(weights, folder / WEIGHTS)
    refuses(message, from_hf, folder)


def test_a_copy_of_the_tied_head_and_rotary_tables_are_ignored(folder, tiny_primary):
    weights = safetensors.numpy.load_file(folder / WEIGHTS)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    safetensors.numpy.save_file(weights, folder / WEIGHTS)
    assert eqx.tree_equal(from_hf(folder), tiny_primary)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / WEIGHTS).unlink(), "no such file: convert"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"\x10"), "header too small"),
        (lambda folder: os.truncate(folder / WEIGHTS, 9000), "safetensors file"),
        (lambda folder: (folder / CONFIG).unlink(), "folder with a Llama checkpoint"),
        (lambda folder: (folder / CONFIG).write_text('{"vocab'), "JSON object"),
        (lambda folder: (folder / CONFIG).write_text("[]"), "JSON object"),
        (lambda folder: (folder / WEIGHTS).rename(folder / INDEX).write_text("{}"), "weight_map"),
    ],
)
def test_a_damaged_folder_is_one_bad_input(folder, spoil, message):
    spoil(folder)
    refuses(message, from_hf, folder)


def test_the_end_of_a_text_has_the_name_that_the_tokenizer_gives_it(getkey, tmp_path):
    tokenizer = train_tokenizer("", vocab_size=257)
    config = TransformerConfig(257, d_model=8, n_layers=1, n_heads=2, n_kv_heads=1, d_ff=8, max_len=16)
    model = Transformer(config, key=getkey())
    for end_id, name in [(0, "<|endoftext|>"), (1, "!"), (None, None)]:
        to_hf(model, tmp_path, tokenizer, end_id)
        files = (CONFIG, "tokenizer_config.json")
        fields, settings = (json.loads((tmp_path / file).read_text()) for file in files)
        assert fields["bos_token_id"] == fields["eos_token_id"] == end_id
        assert settings.get("bos_token") == settings.get("eos_token") == name


def test_transformers_gives_the_same_logits_and_the_same_text(llama, model, tmp_path):
    import torch

    to_hf(model, tmp_path)
    reference = llama.from_pretrained(tmp_path, dtype="float32")
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, 50)
    with torch.inference_mode():
        expected = reference(torch.from_numpy(tokens)[None]).logits[0].numpy()
    np.testing.assert_allclose(model(jnp.asarray(tokens, jnp.int32)), expected, rtol=0, atol=1e-4)
    assert reference.generation_config.eos_token_id == 0
    prompt = torch.tensor([[1, 2, 3, 4, 5]])
    settings = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "max_new_tokens": 40}
    written = reference.generate(prompt, **settings)[0, 5:].tolist()
    ours = generate(model, prompt[0].tolist(), max_new_tokens=40, stop_token=0).tokens.tolist()
    assert ours[: len(written)] == written
    assert len(written) == 40 or written[-1] == 0


def test_what_transformers_writes_is_read(llama, tmp_path):
    import torch
    from transformers import LlamaConfig

    sizes = {"vocab_size": 13, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    reference = llama(LlamaConfig(**sizes, **heads, tie_word_embeddings=False, max_position_embeddings=64))
    reference.save_pretrained(tmp_path)
    model = from_hf(tmp_path)
    assert model.config == TransformerConfig(13, 16, 2, 4, 2, 24, 64, norm_eps=1e-6, tie_embeddings=False)
    with torch.inference_mode():
        expected = reference.eval()(torch.arange(13)[None]).logits[0].numpy()
    np.testing.assert_allclose(model(jnp.arange(13)), expected, rtol=0, atol=1e-4)


def test_transformers_reads_the_tokenizer(llama, getkey, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = train_tokenizer(["the cat, the hat, the bat"] * 2, vocab_size=262)
    config = TransformerConfig(262, d_model=8, n_layers=1, n_heads=2, n_kv_heads=1, d_ff=8, max_len=16)
    to_hf(Transformer(config, key=getkey()), tmp_path, tokenizer)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    text = "the hats , é\r\n"
    assert reference(text)["input_ids"] == tokenizer.encode(text).ids
    assert reference.decode(tokenizer.encode(text).ids) == text
    assert (reference.eos_token_id, reference.model_max_length) == (0, 16)
