"""Models in files: what comes back, what the file says, and everything that can be wrong with one."""

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
from pairs import KINDS, config, pair
from refusal import refuses

from tandem_edu.drafters import Tandem, describe, load_model, save_model
from tandem_edu.model import Embedding, Transformer
from tandem_edu.model.weights import named_arrays, read_arrays, trainable, write_arrays


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def shared_secondary(embedding: Embedding) -> Transformer:
    """A secondary with its primary's embedding, at a width of its own."""
    sizes = config(12, 2, 2, 1, shared_vocab=True, d_embed=16)
    return Transformer(sizes, key=jax.random.key(5), embedding=embedding)


@pytest.mark.parametrize("kind", ["untied", *KINDS])
def test_a_model_comes_back_bit_for_bit(kind, path, monkeypatch):
    untied = Transformer(config(12, 1, 2, 1, rope_theta=500.0, tie_embeddings=False), key=jax.random.key(6))
    primary, model = pair(kind) if kind in KINDS else (untied, untied)
    save_model(model, path)
    drawn, normal = [], jax.random.normal
    monkeypatch.setattr(jax.random, "normal", lambda *args: drawn.append(normal(*args)) or drawn[-1])
    loaded = load_model(path, primary.embedding)
    assert drawn or kind.startswith("exit")
    assert all(isinstance(array, jax.core.Tracer) for array in drawn)  # no weights are drawn to be replaced
    assert all(named_arrays(trainable(model)).values()) != kind.endswith("shared")
    assert eqx.tree_equal(model, loaded, typematch=True) and describe(loaded) == describe(model)
    save_model(loaded, path.with_name("again"))
    assert path.with_name("again").read_bytes() == path.read_bytes()
    if kind.startswith("exit"):
        assert read_arrays(path)[0].keys() == {"exit_map", "norm.scale"}


@pytest.mark.parametrize("tied", [True, False])
def test_a_shared_embedding_is_neither_trained_nor_stored(tiny_primary, tiny_config, path, tied):
    untied = Embedding(config(16, 1, 2, tie_embeddings=False), key=jax.random.key(8))
    embedding = tiny_primary.embedding if tied else untied
    secondary = shared_secondary(embedding)
    tandem = Tandem(secondary, tiny_config, own_history=True, key=jax.random.key(9))
    for model, part in ((secondary, "embedding"), (tandem, "secondary.embedding")):
        own = named_arrays(trainable(model))
        names = {f"{part}.table"} if tied else {f"{part}.table", f"{part}.head"}
        assert {name for name, mark in own.items() if not mark} == names
        save_model(model, path)
        assert read_arrays(path)[0].keys() == own.keys() - names
        loaded = load_model(path, embedding)
        assert getattr(loaded, "secondary", loaded).embedding.table is embedding.table


def test_names_are_paths_and_the_metadata_is_json(tiny_tandem, path):
    save_model(tiny_tandem, path)
    with safetensors.safe_open(path, "numpy") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert {"secondary.blocks.0.mlp.w_gate", "projections.1.weight"} <= names
    description = json.loads(metadata["tandem_edu"])["model"]
    assert description == describe(tiny_tandem) and description["kind"] == "tandem"
    assert description["settings"] == {"layer_map": [[1], [2]], "own_history": False}


def test_any_number_survives_and_so_does_any_memory_layout(path):
    odd = np.array([[np.nan, -0.0, np.inf], [1e-45, 3e38, -1.0]], np.float32)
    arrays = {"t": odd.T, "scalar": np.int32(7), "empty": np.zeros((0, 2), np.float32)}
    write_arrays(arrays, {"threshold": 0.8, "features": ["entropy"]}, path)
    back, metadata = read_arrays(path)
    assert metadata == {"threshold": 0.8, "features": ["entropy"]}
    assert back["t"].tobytes() == odd.T.tobytes() and back["t"].shape == (3, 2)
    assert back["scalar"].shape == () and back["scalar"] == 7 and back["empty"].shape == (0, 2)


def test_no_such_file(path, tmp_path):
    for missing, message in ((path, "No such file"), (tmp_path, "a file of weights")):
        refuses(message, load_model, missing)


def test_a_file_cut_short_anywhere(tiny_secondary, path):
    save_model(tiny_secondary, path)
    whole = path.read_bytes()
    cuts = [whole[:n] for n in (0, 1, 7, 8, 9, 200, len(whole) // 2, len(whole) - 1)]
    for content in (*cuts, whole + b"x"):
        path.write_bytes(content)
        refuses("cut short", load_model, path)


foreign = lambda metadata: safetensors.numpy.save({"w": np.zeros(2)}, metadata)
described = lambda model: foreign({"tandem_edu": f'{{"model": {model}}}'})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Not weights at all, but a text.", "not a safetensors file"),
        (b"\x80\x04\x95 pickled", "not a safetensors file"),
        (foreign(None), "safetensors of another program"),
        (foreign({"format": "pt"}), "safetensors of another program"),
        (foreign({"tandem_edu": "[1]"}), "safetensors of another program"),
        (foreign({"tandem_edu": "{"}), "not a safetensors file"),
        (foreign({"tandem_edu": '{"threshold": 0.5}'}), "a model at .*, got another kind of file"),
        (described("3"), "a model at .*, got another kind of file"),
        (described('{"kind": "cnn"}'), "a description of the model at .*, got one without 'primary_config'"),
        (described('{"kind": "tandem"}'), "a description of the model at .*, got one without"),
        (described('{"kind": "transformer"}'), "a description of the model at .*, got one without 'config'"),
        (described('{"kind": "transformer", "config": {"d": 1}}'), "the fields of a"),
    ],
)
def test_a_foreign_file(path, content, message):
    path.write_bytes(content)
    refuses(message, load_model, path)


def test_missing_extra_and_misshapen_weights(tiny_secondary, tiny_tandem, path):
    save_model(tiny_secondary, path)
    arrays, metadata = read_arrays(path)
    without = {name: array for name, array in arrays.items() if name != "blocks.1.wq"}
    for changed, message in [
        (without, r"lacks blocks\.1\.wq \(1 in all"),
        (arrays | {"router.w": np.zeros(2)}, r"also has router\.w"),
        (arrays | {"blocks.1.wq": np.zeros((12, 13), np.float32)}, r"float32\[12, 12\].*float32\[12, 13\]"),
        (arrays | {"blocks.1.wq": np.zeros((12, 12), np.int32)}, "int32"),
    ]:
        write_arrays(changed, metadata, path)
        refuses(message, load_model, path)
    for kind, message in (("tandem", "lacks"), ("cnn", "a kind among .*tandem.*, got cnn: import the file")):
        write_arrays(arrays, {"model": describe(tiny_tandem) | {"kind": kind}}, path)
        refuses(message, load_model, path)


def test_the_shared_embedding_is_missing_or_of_another_size(tiny_primary, path):
    save_model(shared_secondary(tiny_primary.embedding), path)
    refuses(r"an embedding to share, got None: pass embedding=primary\.embedding", load_model, path)
    other = Embedding(config(18, 1, 1, 1), key=jax.random.key(0))
    refuses("an embedding of 13 tokens x 16, got shared_vocab=True and 13 x 18", load_model, path, other)


def test_what_could_not_be_loaded_is_not_saved(tiny_secondary, path):
    cast = jax.tree.map(lambda weight: weight.astype(jnp.bfloat16), tiny_secondary)
    refuses(r"in float32, got bfloat16: cast them: .*astype\(jnp\.float32\)", save_model, cast, path)
    assert not path.exists()


def half_a_write(part: Path, data: bytes):
    with open(part, "wb") as file:
        file.write(data[: len(data) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_to_full_disk(part: Path, data: bytes):
    part.symlink_to("/dev/full")
    with open(part, "wb") as file:
        file.write(data)


needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")


@pytest.mark.parametrize("write", [half_a_write, pytest.param(write_to_full_disk, marks=needs_full)])
def test_a_full_disk_leaves_the_old_file(write, tiny_secondary, path, monkeypatch):
    save_model(tiny_secondary, path)
    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", write)
    refuses("No space left", save_model, jax.tree.map(lambda leaf: leaf + 1.0, tiny_secondary), path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_a_folder_that_cannot_be_written(tiny_secondary, tmp_path):
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / "model.safetensors"
    refuses(r"to write .*model\.safetensors, got .*: ", save_model, tiny_secondary, path)
