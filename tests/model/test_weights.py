"""Weights in files: what comes back, what the file says, and everything that can be wrong with one."""

import errno
import json
import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from tandem_edu.errors import BadInput
from tandem_edu.model import Embedding, Tandem, Transformer, TransformerConfig
from tandem_edu.model.weights import (
    describe,
    load_model,
    load_weights,
    named_arrays,
    read_arrays,
    save_model,
    save_weights,
    trainable,
    write_arrays,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture(scope="module")
def borrower(tiny_primary) -> Transformer:
    """A secondary that speaks the primary's language, at a width of its own."""
    cfg = TransformerConfig(13, 12, 2, 2, 1, 20, 64, shared_vocab=True, d_embed=16)
    return Transformer(cfg, key=jax.random.key(5), vocabulary=tiny_primary.vocabulary)


@pytest.fixture(params=["primary", "untied", "last", "fused", "own_history"])
def model(request, tiny_primary, tiny_secondary, tiny_config):
    if request.param == "primary":
        return tiny_primary
    if request.param == "untied":
        cfg = TransformerConfig(13, 12, 1, 2, 1, 20, 64, rope_theta=500.0, tie_embeddings=False)
        return Transformer(cfg, key=jax.random.key(6))
    own_history, layer_map = request.param == "own_history", request.param
    layer_map = [[0, 3], [2]] if own_history else layer_map
    return Tandem(tiny_secondary, tiny_config, layer_map, own_history, key=jax.random.key(7))


def identical(one, other) -> bool:
    """Same structure, same configs, same bits."""
    return bool(eqx.tree_equal(one, other, typematch=True))


# There and back


def test_a_model_comes_back_bit_for_bit(model, path):
    save_model(model, path)
    assert identical(model, load_model(path))


def test_loading_draws_no_random_weights(model, path, monkeypatch):
    save_model(model, path)
    drawn = []
    real = jax.random.normal
    monkeypatch.setattr(jax.random, "normal", lambda *args: drawn.append(real(*args)) or drawn[-1])
    assert identical(model, load_model(path))
    assert drawn and all(isinstance(each, jax.core.Tracer) for each in drawn)


def test_names_are_paths_and_the_metadata_is_json(tiny_tandem, path):
    save_model(tiny_tandem, path)
    with safetensors.safe_open(path, "numpy") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert {"secondary.blocks.0.mlp.w_gate", "projections.1.weight"} <= names
    said = json.loads(metadata["tandem_edu"])["model"]
    assert said == describe(tiny_tandem)
    assert said["kind"] == "tandem" and said["layer_map"] == [[1], [2]] and said["own_history"] is False


def test_equal_models_make_equal_files(tiny_primary, tmp_path):
    for name in ("a", "b"):
        save_model(tiny_primary, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("tied", [True, False])
def test_a_borrowed_vocabulary_is_not_stored(tiny_primary, borrower, tiny_config, path, tied):
    vocabulary = tiny_primary.vocabulary
    if not tied:
        cfg = TransformerConfig(13, 16, 1, 2, 1, 20, 64, tie_embeddings=False)
        vocabulary = Embedding(cfg, key=jax.random.key(8))
        borrower = Transformer(borrower.config, key=jax.random.key(5), vocabulary=vocabulary)
    for model in (borrower, Tandem(borrower, tiny_config, key=jax.random.key(9))):
        save_model(model, path)
        assert not any("vocabulary" in name for name in read_arrays(path)[0])
        loaded = load_model(path, vocabulary)
        assert identical(model, loaded)
        inner = loaded.secondary if isinstance(loaded, Tandem) else loaded
        assert inner.vocabulary.embedding is vocabulary.embedding


def test_a_vocabulary_that_nobody_borrows_is_ignored(tiny_secondary, tiny_primary, path):
    save_model(tiny_secondary, path)
    assert identical(tiny_secondary, load_model(path, tiny_primary.vocabulary))


def test_weights_of_anything_with_metadata(path):
    mlp = eqx.nn.MLP(3, 1, 4, 2, key=jax.random.key(0))
    save_weights(mlp, path, threshold=0.8, features=["entropy"])
    assert identical(mlp, load_weights(eqx.nn.MLP(3, 1, 4, 2, key=jax.random.key(1)), path))
    assert read_arrays(path)[1] == {"threshold": 0.8, "features": ["entropy"]}


def test_load_weights_fills_a_skeleton_and_leaves_the_borrowed_vocabulary(borrower, tiny_config, path):
    save_weights(borrower, path)
    moved = jax.tree.map(lambda leaf: leaf + 1.0, borrower)
    loaded = load_weights(moved, path)
    assert identical(loaded.blocks, borrower.blocks)
    assert identical(loaded.vocabulary, moved.vocabulary)
    plain = Transformer(tiny_config, key=jax.random.key(3))
    skeleton = eqx.filter_eval_shape(lambda key: Transformer(tiny_config, key=key), jax.random.key(0))
    save_weights(plain, path)
    assert identical(plain, load_weights(skeleton, path))


def test_any_number_survives_and_so_does_any_memory_layout(path):
    odd = np.array([[np.nan, -0.0, np.inf], [1e-45, 3e38, -1.0]], np.float32)
    arrays = {"t": odd.T, "scalar": np.int32(7), "empty": np.zeros((0, 2), np.float32)}
    write_arrays(arrays, {}, path)
    back, _ = read_arrays(path)
    assert back["t"].tobytes() == odd.T.tobytes() and back["t"].shape == (3, 2)
    assert back["scalar"].shape == () and back["scalar"] == 7 and back["empty"].shape == (0, 2)


def test_owned_marks_all_but_the_borrowed_vocabulary(borrower, tiny_primary, tiny_config):
    def not_owned(model):
        return [name for name, mark in named_arrays(trainable(model)).items() if not mark]

    assert not_owned(tiny_primary) == []
    assert not_owned(borrower) == ["vocabulary.embedding"]
    tandem = Tandem(borrower, tiny_config, own_history=True, key=jax.random.key(0))
    assert not_owned(tandem) == ["secondary.vocabulary.embedding"]


# What can be wrong with a file


def test_no_such_file(path, tmp_path):
    with pytest.raises(BadInput, match="No such file"):
        load_model(path)
    with pytest.raises(BadInput, match="a file of weights"):
        load_model(tmp_path)


def test_a_file_cut_short_anywhere(tiny_secondary, path):
    save_model(tiny_secondary, path)
    whole = path.read_bytes()
    for size in (0, 1, 7, 8, 9, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(BadInput, match="cut short"):
            load_model(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(BadInput, match="cut short"):
        load_model(path)


@pytest.mark.parametrize(
    "content",
    [
        b"Not weights at all, but a text.",
        b"\x80\x04\x95 pickled",
        safetensors.numpy.save({"w": np.zeros(2)}),
        safetensors.numpy.save({"w": np.zeros(2)}, {"format": "pt"}),
        safetensors.numpy.save({"w": np.zeros(2)}, {"tandem_edu": "{"}),
        safetensors.numpy.save({"w": np.zeros(2)}, {"tandem_edu": "[1]"}),
        safetensors.numpy.save({"w": np.zeros(2)}, {"tandem_edu": '{"model": {"kind": "cnn"}}'}),
        safetensors.numpy.save({"w": np.zeros(2)}, {"tandem_edu": '{"model": {"kind": "tandem"}}'}),
        safetensors.numpy.save({"w": np.zeros(2)}, {"tandem_edu": '{"model": 3}'}),
        safetensors.numpy.save(
            {"w": np.zeros(2)}, {"tandem_edu": '{"model": {"kind": "transformer", "config": {"d": 1}}}'}
        ),
    ],
)
def test_a_foreign_file(path, content):
    path.write_bytes(content)
    with pytest.raises(BadInput):
        load_model(path)


def test_a_file_of_save_weights_is_no_model(tiny_secondary, path):
    save_weights(tiny_secondary, path)
    with pytest.raises(BadInput, match="load_weights reads"):
        load_model(path)


def test_missing_extra_and_misshapen_weights(tiny_secondary, tiny_tandem, path):
    save_weights(tiny_secondary, path)
    arrays, metadata = read_arrays(path)
    without = {name: array for name, array in arrays.items() if name != "blocks.1.wq"}
    cases = [
        (without, r"lacks blocks\.1\.wq \(1 in all"),
        (arrays | {"router.w": np.zeros(2)}, r"also has router\.w"),
        (arrays | {"blocks.1.wq": np.zeros((12, 13), np.float32)}, r"float32\[12, 12\].*float32\[12, 13\]"),
        (arrays | {"blocks.1.wq": np.zeros((12, 12), np.int32)}, "int32"),
    ]
    for changed, message in cases:
        write_arrays(changed, metadata, path)
        with pytest.raises(BadInput, match=message):
            load_weights(tiny_secondary, path)
    with pytest.raises(BadInput, match="lacks"):
        load_weights(tiny_tandem, path)


def test_the_vocabulary_to_borrow_is_missing_or_of_another_size(borrower, path):
    save_model(borrower, path)
    with pytest.raises(BadInput, match=r"pass vocabulary=primary\.vocabulary"):
        load_model(path)
    other = Embedding(TransformerConfig(14, 16, 1, 2, 1, 20, 64), key=jax.random.key(0))
    with pytest.raises(BadInput, match="a vocabulary of 13 tokens"):
        load_model(path, other)


# Disks that fail


def test_a_full_disk_leaves_the_old_file(tiny_secondary, path, monkeypatch):
    save_model(tiny_secondary, path)
    before = path.read_bytes()
    moved = jax.tree.map(lambda leaf: leaf + 1.0, tiny_secondary)

    def half_a_write(part: Path, data: bytes):
        with open(part, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half_a_write)
        with pytest.raises(BadInput, match="No space left"):
            save_model(moved, path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_really_full_disk(tiny_secondary, path, monkeypatch):
    save_model(tiny_secondary, path)
    before = path.read_bytes()
    real = Path.write_bytes

    def onto_the_full_disk(part: Path, data: bytes):
        part.symlink_to("/dev/full")
        return real(part, data)

    monkeypatch.setattr(Path, "write_bytes", onto_the_full_disk)
    with pytest.raises(BadInput, match="No space left"):
        save_model(tiny_secondary, path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_a_folder_that_may_not_be_written(tiny_secondary, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(BadInput, match="choose another place"):
        save_model(tiny_secondary, tmp_path / "file" / "model.safetensors")


def test_the_loaded_model_predicts_the_same(tiny_tandem, tiny_primary, path):
    tokens = jnp.array([1, 5, 2, 7, 0])
    _, hidden = tiny_primary(tokens, return_hidden=True)
    save_model(tiny_tandem, path)
    assert jnp.array_equal(load_model(path)(tokens, hidden, 2), tiny_tandem(tokens, hidden, 2))


def test_what_could_not_be_loaded_is_not_saved(tiny_secondary, path):
    narrow = jax.tree.map(lambda weight: weight.astype(jnp.bfloat16), tiny_secondary)
    with pytest.raises(
        BadInput, match=r"a model in float32, got bfloat16: cast it: .*astype\(jnp\.float32\)"
    ):
        save_model(narrow, path)
    assert not path.exists()


def test_half_precision_is_half_the_size_and_nearly_the_same(tiny_primary, tmp_path):
    save_model(tiny_primary, tmp_path / "whole")
    save_model(tiny_primary, tmp_path / "half", half=True)
    assert (tmp_path / "half").stat().st_size < 0.8 * (tmp_path / "whole").stat().st_size
    loaded = load_model(tmp_path / "half")
    for mine, theirs in zip(jax.tree.leaves(tiny_primary), jax.tree.leaves(loaded), strict=True):
        assert theirs.dtype == np.float32
        np.testing.assert_array_equal(np.float32(np.float16(mine)), theirs)
