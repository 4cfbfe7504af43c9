"""Hugging Face export and import: what comes back is bit for bit what went out, and `transformers` agrees."""

import dataclasses
import json
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax
import safetensors.numpy

from tandem_edu.data import train_tokenizer
from tandem_edu.decode import generate
from tandem_edu.errors import BadInput
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
    """A model whose norms are not all ones, so that a norm in the wrong place is seen."""
    config = dataclasses.replace(tiny_config, **request.param)
    model = Transformer(config, key=jax.random.key(3))
    return _moved(model)


@pytest.fixture
def folder(tmp_path, tiny_primary):
    """A sound checkpoint, for a test to spoil."""
    to_hf(tiny_primary, tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def llama():
    """`transformers`' own Llama, read from a folder."""
    why = "needs torch and transformers: pip install 'tandem-edu[hf]'"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's imports
        pytest.importorskip("torch", reason=why)
        transformers = pytest.importorskip("transformers", reason=why)
    return transformers.LlamaForCausalLM


def _moved(model: Transformer) -> Transformer:
    """Every weight moved a little by a random number of its own."""
    leaves, tree = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(4), len(leaves))
    leaves = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, leaves)


def _edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_round_trip_is_bit_identical(model, tmp_path):
    to_hf(model, tmp_path)
    back = from_hf(tmp_path)
    assert back.config == model.config
    assert eqx.tree_equal(back, model)


def test_weights_have_torch_orientation(folder, tiny_primary):
    weights = safetensors.numpy.load_file(folder / WEIGHTS)
    block = tiny_primary.blocks[1]
    at = "model.layers.1.self_attn"
    np.testing.assert_array_equal(weights[f"{at}.k_proj.weight"], block.keys_values.wk.T)
    np.testing.assert_array_equal(weights["model.embed_tokens.weight"], tiny_primary.vocabulary.embedding)
    assert "lm_head.weight" not in weights
    assert {weight.dtype for weight in weights.values()} == {np.dtype(np.float32)}


def test_shards_are_read(folder, tiny_primary):
    weights = safetensors.numpy.load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(weights)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, held in shards.items():
        safetensors.numpy.save_file({name: weights[name] for name in held}, folder / shard)
    where = {name: shard for shard, held in shards.items() for name in held}
    (folder / INDEX).write_text(json.dumps({"weight_map": where}))
    assert eqx.tree_equal(from_hf(folder), tiny_primary)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_weights_become_float32(folder, tiny_primary, dtype):
    weights = safetensors.flax.load_file(folder / WEIGHTS)
    halved = {name: weight.astype(dtype) for name, weight in weights.items()}
    safetensors.flax.save_file(halved, folder / WEIGHTS)
    expected = jax.tree.map(lambda leaf: leaf.astype(dtype).astype(jnp.float32), tiny_primary)
    assert eqx.tree_equal(from_hf(folder), expected)


def test_older_and_sparser_configs_are_read(folder, tiny_primary):
    fields = json.loads((folder / CONFIG).read_text())
    for name in ("rope_parameters", "architectures", "head_dim", "hidden_act", "mlp_bias"):
        del fields[name]
    fields |= {"rope_scaling": None, "rope_theta": 500}
    (folder / CONFIG).write_text(json.dumps(fields))
    assert from_hf(folder).config == dataclasses.replace(tiny_primary.config, rope_theta=500.0)


def test_newer_configs_keep_rope_theta_in_rope_parameters(folder):
    fields = json.loads((folder / CONFIG).read_text())
    del fields["rope_theta"]
    fields["rope_parameters"]["rope_theta"] = 700.0
    (folder / CONFIG).write_text(json.dumps(fields))
    assert from_hf(folder).config.rope_theta == 700.0


@pytest.mark.parametrize("tied", [True, False])
def test_a_borrowed_vocabulary_of_its_own_width_is_copied(tied, tiny_primary, tmp_path):
    config = dataclasses.replace(tiny_primary.config, n_layers=1, tie_embeddings=tied)
    owner = Transformer(config, key=jax.random.key(4))
    config = dataclasses.replace(tiny_primary.config, n_layers=1, shared_vocab=True)
    model = Transformer(config, key=jax.random.key(5), vocabulary=owner.vocabulary)
    to_hf(model, tmp_path)
    back = from_hf(tmp_path)
    assert json.loads((tmp_path / CONFIG).read_text())["tie_word_embeddings"] == tied
    assert not back.config.shared_vocab
    assert eqx.tree_equal(jax.tree.leaves(back), jax.tree.leaves(model))


def test_a_borrowed_vocabulary_of_another_width_is_refused(tiny_primary, tiny_secondary_config, tmp_path):
    config = dataclasses.replace(tiny_secondary_config, shared_vocab=True, d_embed=16)
    model = Transformer(config, key=jax.random.key(5), vocabulary=tiny_primary.vocabulary)
    with pytest.raises(BadInput, match="d_model=12 and d_embed=16"):
        to_hf(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_tandem_is_refused(tiny_tandem, tmp_path):
    with pytest.raises(BadInput, match="expected a Transformer, got Tandem"):
        to_hf(tiny_tandem, tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "mistral"),
        ("architectures", ["MistralForCausalLM"]),
        ("hidden_act", "gelu"),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("quantization_config", {"bits": 4}),
        ("head_dim", 8),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}),
        ("rope_parameters", {"rope_type": "default", "partial_rotary_factor": 0.5}),
        ("rope_theta", "big"),
        ("rope_parameters", []),
        ("rms_norm_eps", "small"),
        ("tie_word_embeddings", 1),
        ("vocab_size", None),
        ("hidden_size", 2.5),
        ("intermediate_size", -3),
        ("num_attention_heads", 0),
        ("num_key_value_heads", 3),
    ],
)
def test_a_field_we_cannot_hold_is_named(folder, field, value):
    # As in older files, where `rope_theta` is a field of its own.
    _edit(folder / CONFIG, **({"rope_parameters": None} | {field: value}))
    named = {"num_key_value_heads": "n_kv_heads"}.get(field, field)
    with pytest.raises(BadInput, match=named):
        from_hf(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("model.norm.weight"), "model.norm.weight of shape .16,., got no such"),
        (lambda weights: weights.update({"model.norm.weight": np.ones(9)}), "got F64"),
        (
            lambda weights: weights.update({"model.norm.weight": np.ones(9, np.float32)}),
            "of shape .16,., got .9",
        ),
        (
            lambda weights: weights.update({"model.layers.0.self_attn.q_proj.bias": np.ones(16, np.float32)}),
            "bias",
        ),
        (lambda weights: weights.update({"lm_head.weight": np.ones((13, 16), np.float32)}), "tied"),
    ],
    ids=["missing", "dtype", "shape", "bias", "untied"],
)
def test_a_weight_we_cannot_hold_is_named(folder, change, message):
    weights = safetensors.numpy.load_file(folder / WEIGHTS)
    change(weights)
    safetensors.numpy.save_file(weights, folder / WEIGHTS)
    with pytest.raises(BadInput, match=message):
        from_hf(folder)


def test_a_copy_of_the_tied_head_and_rotary_tables_are_passed_over(folder, tiny_primary):
    weights = safetensors.numpy.load_file(folder / WEIGHTS)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    safetensors.numpy.save_file(weights, folder / WEIGHTS)
    assert eqx.tree_equal(from_hf(folder), tiny_primary)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / WEIGHTS).unlink(), "no such file"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"\x10"), "header too small"),
        (
            lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]),
            "safetensors file",
        ),
        (lambda folder: (folder / CONFIG).unlink(), "folder with a Llama checkpoint"),
        (lambda folder: (folder / CONFIG).write_text('{"vocab'), "JSON object"),
        (lambda folder: (folder / CONFIG).write_text("[]"), "JSON object"),
        (
            lambda folder: (folder / WEIGHTS).rename(folder / "x") and (folder / INDEX).write_text("{}"),
            "weight_map",
        ),
    ],
    ids=["no weights", "no header", "cut short", "no config", "cut config", "a list", "empty index"],
)
def test_a_spoiled_folder_is_one_bad_input(folder, spoil, message):
    spoil(folder)
    with pytest.raises(BadInput, match=message):
        from_hf(folder)


def test_a_hub_name_is_no_folder():
    with pytest.raises(BadInput, match="folder with a Llama checkpoint"):
        from_hf("somebody/some-model")


def test_the_tokenizer_must_fit(tiny_primary, tmp_path):
    with pytest.raises(BadInput, match="a tokenizer of 13 tokens, as the model has, got 257"):
        to_hf(tiny_primary, tmp_path, train_tokenizer("", vocab_size=257))
    assert list(tmp_path.iterdir()) == []


def test_the_end_of_a_text_has_the_name_that_the_tokenizer_gives_it(getkey, tmp_path):
    tokenizer = train_tokenizer("", vocab_size=257)
    config = TransformerConfig(257, d_model=8, n_layers=1, n_heads=2, n_kv_heads=1, d_ff=8, max_len=16)
    model = Transformer(config, key=getkey())
    for end_id, name in [(0, "<|endoftext|>"), (1, "!"), (None, None)]:
        to_hf(model, tmp_path, tokenizer, end_id)
        fields, told = (
            json.loads((tmp_path / name).read_text()) for name in (CONFIG, "tokenizer_config.json")
        )
        assert fields["bos_token_id"] == fields["eos_token_id"] == end_id
        assert told.get("bos_token") == told.get("eos_token") == name
    with pytest.raises(BadInput, match="end_id below vocab_size = 257, got 257"):
        to_hf(model, tmp_path, tokenizer, end_id=257)


def test_transformers_gives_the_same_logits(llama, model, tmp_path):
    import torch

    to_hf(model, tmp_path)
    theirs = llama.from_pretrained(tmp_path, dtype="float32")
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, 50)
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(tokens)[None]).logits[0].numpy()
    np.testing.assert_allclose(model(jnp.asarray(tokens, jnp.int32)), expected, rtol=0, atol=1e-4)


def test_transformers_writes_the_same_text(llama, model, tmp_path):
    import torch

    to_hf(model, tmp_path)
    theirs = llama.from_pretrained(tmp_path, dtype="float32")
    assert theirs.generation_config.eos_token_id == 0
    prompt = [1, 2, 3, 4, 5]
    given = torch.tensor([prompt])
    written = theirs.generate(
        given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=40
    )
    written = written[0, len(prompt) :].tolist()
    ours = generate(model, prompt, max_new_tokens=40, stop_token=0).tokens.tolist()
    assert ours[: len(written)] == written
    assert len(written) == 40 or written[-1] == 0


def test_what_transformers_writes_is_read(llama, tmp_path):
    import torch
    from transformers import LlamaConfig

    sizes = {"vocab_size": 13, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    theirs = llama(LlamaConfig(**sizes, **heads, tie_word_embeddings=False, max_position_embeddings=64))
    theirs.save_pretrained(tmp_path)
    model = from_hf(tmp_path)
    assert model.config == TransformerConfig(13, 16, 2, 4, 2, 24, 64, norm_eps=1e-6, tie_embeddings=False)
    with torch.inference_mode():
        expected = theirs.eval()(torch.arange(13)[None]).logits[0].numpy()
    np.testing.assert_allclose(model(jnp.arange(13)), expected, rtol=0, atol=1e-4)


def test_transformers_reads_the_tokenizer(llama, getkey, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = train_tokenizer(["the cat, the hat, the bat"] * 2, vocab_size=262)
    config = TransformerConfig(262, d_model=8, n_layers=1, n_heads=2, n_kv_heads=1, d_ff=8, max_len=16)
    to_hf(Transformer(config, key=getkey()), tmp_path, tokenizer)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = "the hats , é\r\n"
    assert theirs(text)["input_ids"] == tokenizer.encode(text).ids
    assert theirs.decode(tokenizer.encode(text).ids) == text
    assert (theirs.eos_token_id, theirs.model_max_length) == (0, 16)
