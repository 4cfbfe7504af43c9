"""Runs: they learn, they say what they did, and they refuse what cannot work."""

import dataclasses
import errno
import json
import os
import warnings
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tandem_edu.errors import BadInput
from tandem_edu.model import Joint, Tandem, Transformer, TransformerConfig
from tandem_edu.model.weights import named_arrays, read_arrays
from tandem_edu.train import Diverged, Objective, Recipe, evaluate, run, train
from tandem_edu.train.checkpoint import NAME

DISTIL = ((0.5, Objective()), (1.0, Objective(kl=0.5)))
TEXT = np.tile(np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 12, 0], np.uint16), 60)
NOISE = np.random.default_rng(0).integers(0, 13, 400).astype(np.uint16)


def some(**changes):
    usual = {"steps": 8, "learning_rate": 1e-2, "warmup_steps": 2, "batch_size": 2, "seq_len": 12}
    return Recipe(**{"name": "some", "eval_every": 3, "eval_windows": 5, **usual, **changes})


def quiet(model, recipe, tokens=TEXT, valid_tokens=TEXT, **options):
    return train(model, recipe, tokens, valid_tokens, **{"progress": False, **options})


def bits(tree):
    return {name: np.asarray(leaf).tobytes() for name, leaf in named_arrays(tree).items()}


def without_seconds(history):
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in history]


@pytest.fixture(scope="module")
def recipe():
    return some(block_lens=(2, 3), objectives=DISTIL)


@pytest.fixture(scope="module")
def reference(tiny_tandem, tiny_primary, recipe):
    """A run never interrupted."""
    return quiet(tiny_tandem, recipe, primary=tiny_primary)


# Learning and telling


def test_a_tiny_model_learns_a_text_by_heart(tiny_secondary):
    result = quiet(tiny_secondary, some(steps=200, learning_rate=2e-2, eval_every=100))
    first, last = result.history
    # The first token of a window may be one of two 1s or 5s; all else follows from what is before.
    assert last["valid_loss"] < 0.1 < first["train_loss"] and last["valid_accuracy"] > 0.95


def test_the_history_is_json_and_complete(reference, recipe, tiny_tandem, tiny_primary):
    history = reference.history
    assert json.loads(json.dumps(history, allow_nan=False)) == history
    assert [entry["step"] for entry in history] == [3, 6, 8]
    assert [entry["tokens"] for entry in history] == [3 * 24, 6 * 24, 8 * 24]
    assert list(history[0]) == [
        "step",
        "tokens",
        "seconds",
        "train_loss",
        "valid_loss",
        "valid_accuracy",
        "valid_agreement",
    ]
    seconds = [entry["seconds"] for entry in history]
    assert 0 < seconds[0] < seconds[1] < seconds[2]


def test_the_figures_are_the_slow_ones(tiny_tandem, tiny_primary):
    windows = np.stack([NOISE[n * 12 : n * 12 + 13] for n in range(5)]).astype(np.int32)
    scores = evaluate(tiny_tandem, windows, tiny_primary, block_len=3, batch_size=2)
    losses, right, agree = [], [], []
    for window in windows:
        teacher, hidden = tiny_primary(jnp.asarray(window[:-1]), return_hidden=True)
        logits = np.asarray(tiny_tandem(jnp.asarray(window[:-1]), hidden, 3), np.float64)
        losses += list(np.log(np.exp(logits).sum(-1)) - logits[np.arange(12), window[1:]])
        right += list(logits.argmax(-1) == window[1:])
        agree += list(logits.argmax(-1) == np.asarray(teacher).argmax(-1))
    assert scores["valid_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert scores["valid_accuracy"] == pytest.approx(np.mean(right))
    assert scores["valid_agreement"] == pytest.approx(np.mean(agree))


def test_without_a_primary_there_is_no_agreement(tiny_secondary):
    (entry,) = quiet(tiny_secondary, some(steps=2, warmup_steps=0)).history
    assert "valid_agreement" not in entry


def test_the_train_loss_is_the_mean_since_the_entry_before(tiny_secondary, monkeypatch):
    seen, real = [], run.train_step

    def watched(*args):
        states, losses = real(*args)
        seen.append(float(losses[0]))
        return states, losses

    monkeypatch.setattr(run, "train_step", watched)
    history = quiet(tiny_secondary, some()).history
    means = [np.mean(seen[:3]), np.mean(seen[3:6]), np.mean(seen[6:])]
    assert [entry["train_loss"] for entry in history] == pytest.approx(means)


def test_two_runs_are_the_same_and_leave_their_models_alone(reference, recipe, tiny_tandem, tiny_primary):
    before = bits(tiny_tandem), bits(tiny_primary)
    again = quiet(tiny_tandem, recipe, primary=tiny_primary)
    assert bits(again.model) == bits(reference.model) != before[0]
    assert without_seconds(again.history) == without_seconds(reference.history)
    assert (bits(tiny_tandem), bits(tiny_primary)) == before


def test_on_eval_hears_every_entry(reference, recipe, tiny_tandem, tiny_primary):
    heard = []
    result = quiet(tiny_tandem, recipe, primary=tiny_primary, on_eval=heard.append)
    assert heard == result.history
    heard[0]["step"] = -1
    assert result.history[0]["step"] == 3


def test_a_bar_with_loss_and_speed_or_silence(tiny_secondary, capsys):
    quiet(tiny_secondary, some())
    assert capsys.readouterr() == ("", "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(tiny_secondary, some(), TEXT, TEXT)
    out, err = capsys.readouterr()
    assert out == "" and "some" in err and "loss=" in err and "tokens/s" in err and "100%" in err


def test_a_memory_mapped_text_will_do(tiny_secondary, tmp_path):
    np.save(tmp_path / "text.npy", TEXT)
    mapped = np.load(tmp_path / "text.npy", mmap_mode="r")
    one, other = (quiet(tiny_secondary, some(), text, folder=tmp_path / "run") for text in (TEXT, mapped))
    assert bits(one.model) == bits(other.model)


# Checkpoints (killed runs are in test_resume.py)


def stopped_at(step, model, recipe, folder, **options):
    """Run until the checkpoint of a step, then break off."""

    def stop(entry):
        if entry["step"] == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quiet(model, recipe, folder=folder, on_eval=stop, **options)


def test_a_broken_off_run_ends_as_the_uninterrupted_one(
    reference, recipe, tiny_tandem, tiny_primary, tmp_path
):
    stopped_at(3, tiny_tandem, recipe, tmp_path, primary=tiny_primary)
    (tmp_path / f".{NAME}.0123.part").write_bytes(b"half")
    stopped_at(6, tiny_tandem, recipe, tmp_path, primary=tiny_primary)
    heard = []
    result = quiet(tiny_tandem, recipe, primary=tiny_primary, folder=tmp_path, on_eval=heard.append)
    assert bits(result.model) == bits(reference.model)
    assert without_seconds(result.history) == without_seconds(reference.history)
    assert [entry["step"] for entry in heard] == [8] and os.listdir(tmp_path) == [NAME]
    seconds = [entry["seconds"] for entry in result.history]
    assert seconds == sorted(seconds)


def test_a_finished_run_is_not_run_again(reference, recipe, tiny_tandem, tiny_primary, tmp_path):
    quiet(tiny_tandem, recipe, primary=tiny_primary, folder=tmp_path)
    before = (tmp_path / NAME).read_bytes()
    heard = []
    result = quiet(tiny_tandem, recipe, primary=tiny_primary, folder=tmp_path, on_eval=heard.append)
    assert bits(result.model) == bits(reference.model) and heard == []
    assert (tmp_path / NAME).read_bytes() == before
    assert without_seconds(result.history) == without_seconds(reference.history)


def test_a_checkpoint_of_another_run_is_refused_and_kept(
    recipe, tiny_tandem, tiny_secondary, tiny_primary, tiny_config, tmp_path
):
    stopped_at(3, tiny_tandem, recipe, tmp_path, primary=tiny_primary)
    before = (tmp_path / NAME).read_bytes()
    other_start = Tandem(tiny_secondary, tiny_config, key=jax.random.key(99))
    other_map = Tandem(tiny_secondary, tiny_config, "uniform", key=jax.random.key(12))
    other_primary = jax.tree.map(lambda leaf: leaf * 2, tiny_primary)
    changes = [
        ({"recipe": dataclasses.replace(recipe, seed=1)}, r"some\.recipe\.seed \(0 there, 1 here\)"),
        ({"recipe": dataclasses.replace(recipe, learning_rate=1.0)}, r"learning_rate \(0.01 there"),
        ({"tokens": TEXT[:-1]}, "the training text"),
        ({"valid_tokens": NOISE}, "the held-out text"),
        ({"model": other_start}, "the model's starting weights"),
        ({"model": other_map}, r"model\.layer_map"),
        ({"primary": other_primary}, "the primary"),
    ]
    usual = {"model": tiny_tandem, "recipe": recipe, "primary": tiny_primary}
    for change, message in changes:
        with pytest.raises(BadInput, match=message) as caught:
            quiet(**{**usual, **change}, folder=tmp_path)
        assert "choose another folder" in str(caught.value) and "\n" not in str(caught.value)
        assert (tmp_path / NAME).read_bytes() == before


def test_a_damaged_checkpoint_is_refused_and_kept(recipe, tiny_tandem, tiny_primary, tmp_path):
    stopped_at(3, tiny_tandem, recipe, tmp_path, primary=tiny_primary)
    whole = (tmp_path / NAME).read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], whole[:-1], b"something else"):
        (tmp_path / NAME).write_bytes(damaged)
        with pytest.raises(BadInput, match="damaged"):
            quiet(tiny_tandem, recipe, primary=tiny_primary, folder=tmp_path)
        assert (tmp_path / NAME).read_bytes() == damaged


def test_a_folder_that_cannot_be(tiny_secondary, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="choose another place"):
        quiet(tiny_secondary, some(), folder=tmp_path / "file")


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(tiny_secondary, tmp_path, monkeypatch):
    stopped_at(3, tiny_secondary, some(), tmp_path)
    before = (tmp_path / NAME).read_bytes()

    def full(part: Path, data: bytes):
        part.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(BadInput, match="No space left"):
            quiet(tiny_secondary, some(), folder=tmp_path)
    assert (tmp_path / NAME).read_bytes() == before and os.listdir(tmp_path) == [NAME]


# Divergence


def poisoned(monkeypatch, step, value=float("nan"), loss=True):
    """From `step` (counted from 1) on, the weights are `value`; with `loss` the loss is, too."""
    real = run.train_step

    def bad(given, states, *rest):
        (state,), (fine,) = real(given, states, *rest)
        if int(state.step) < step:
            return (state,), (fine,)
        spoilt = jax.tree.map(lambda leaf: leaf * value, state.trained)
        state = eqx.tree_at(lambda s: s.trained, state, spoilt)
        return (state,), (fine * value if loss else fine,)

    monkeypatch.setattr(run, "train_step", bad)


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(
    tiny_secondary, tmp_path, monkeypatch, value, word
):
    with monkeypatch.context() as patch:
        poisoned(patch, 5, value)
        with pytest.raises(Diverged) as caught:
            quiet(tiny_secondary, some(), folder=tmp_path)
    message = str(caught.value)
    assert f"{word} at step 5" in message and f"{tmp_path / NAME} (step 3)" in message
    assert "smaller learning_rate" in message and "warmup_steps" in message and "clip_norm" in message
    assert "\n" not in message and isinstance(caught.value, BadInput)
    arrays, metadata = read_arrays(tmp_path / NAME)
    assert metadata["history"]["some"][-1]["step"] == 3
    assert all(np.isfinite(array).all() for array in arrays.values())
    resumed = quiet(tiny_secondary, some(), folder=tmp_path)
    assert bits(resumed.model) == bits(quiet(tiny_secondary, some()).model)


def test_weights_that_overflow_behind_a_fine_loss_are_never_kept(tiny_secondary, tmp_path, monkeypatch):
    """The step before a checkpoint has a finite loss and a gradient that is not."""
    poisoned(monkeypatch, 6, loss=False)
    with pytest.raises(
        Diverged, match=r"weights of some, got a weight that is not finite at step 6.*\(step 3\)"
    ):
        quiet(tiny_secondary, some(), folder=tmp_path)
    assert read_arrays(tmp_path / NAME)[1]["history"]["some"][-1]["step"] == 3


def test_divergence_with_nothing_kept(tiny_secondary, monkeypatch):
    poisoned(monkeypatch, 2)
    with pytest.raises(Diverged, match=r"nan at step 2.*no checkpoint was kept"):
        quiet(tiny_secondary, some())


def test_weights_that_are_finite_and_too_large_are_never_kept(tiny_secondary, tmp_path):
    wild = some(steps=1, learning_rate=1e13, warmup_steps=0, clip_norm=1e30)
    with pytest.raises(Diverged, match=r"a held-out loss of nan at step 1.*no checkpoint was kept"):
        quiet(tiny_secondary, wild, folder=tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_real_divergence(tiny_secondary):
    wild = some(steps=60, learning_rate=1e30, warmup_steps=0, clip_norm=1e30, eval_every=60)
    with pytest.raises(Diverged, match="at step"):
        quiet(tiny_secondary, wild)


# What does not fit together


def test_bad_combinations(tiny_primary, tiny_secondary, tiny_tandem, tiny_config, monkeypatch):
    monkeypatch.setattr(run, "train_step", lambda *args: pytest.fail("a step was taken"))
    wide = Transformer(dataclasses.replace(tiny_config, vocab_size=14), key=jax.random.key(0))
    deep = Transformer(dataclasses.replace(tiny_config, n_layers=4), key=jax.random.key(0))
    short = TransformerConfig(13, 12, 2, 2, 1, 20, max_len=10)
    short_model = Transformer(short, key=jax.random.key(0))
    short_primary = Transformer(dataclasses.replace(tiny_config, max_len=10), key=jax.random.key(0))
    blocks = some(block_lens=(2,))
    cases = [
        (tiny_secondary, blocks, {}, "without block_lens for a Transformer"),
        (tiny_tandem, some(), {"primary": tiny_primary}, "with block_lens for the Tandem"),
        (tiny_tandem, blocks, {}, "a primary for the Tandem"),
        (tiny_secondary, some(objectives=DISTIL), {}, "a primary for a recipe that distils"),
        (tiny_secondary, some(), {"primary": wide}, "same vocabulary"),
        (tiny_tandem, blocks, {"primary": deep}, "the Tandem's own primary"),
        (short_model, some(), {}, "at most max_len = 10.*got 12"),
        (tiny_secondary, some(objectives=DISTIL), {"primary": short_primary}, "max_len = 10"),
        (tiny_secondary, some(seq_len=65), {"tokens": NOISE}, "max_len = 64"),
        (Joint(short_primary, tiny_tandem), blocks, {}, "max_len = 10"),
        (tiny_secondary, some(), {"tokens": TEXT[:12]}, "at least seq_len"),
        (tiny_secondary, some(), {"valid_tokens": TEXT[:12]}, "valid_tokens.*hold out more"),
        (tiny_secondary, some(), {"tokens": TEXT.astype(float)}, "integer array"),
        (tiny_secondary, some(), {"tokens": TEXT + 1}, r"vocabulary of 13, got 0\.\.13"),
        (tiny_secondary, some(), {"valid_tokens": TEXT.astype(np.int32) - 1}, r"got -1\.\.12"),
    ]
    for model, recipe, options, message in cases:
        with pytest.raises(BadInput, match=message) as caught:
            quiet(model, recipe, **options)
        assert "\n" not in str(caught.value)
