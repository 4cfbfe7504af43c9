"""Runs: they learn, they report, they survive interruption, and they refuse what cannot work."""

import dataclasses
import json
import os
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusal import refuses
from small_runs import DISTIL, NOISE, PLAIN, READER, TEXT, bits, some, summary, without_seconds

from tandem_edu.drafters import Tandem
from tandem_edu.errors import BadInput
from tandem_edu.model import Transformer
from tandem_edu.model.weights import read_arrays, write_arrays
from tandem_edu.train import Diverged, run, step, train, train_together
from tandem_edu.train.checkpoint import NAME
from tandem_edu.train.step import draw_block


def quiet(model, recipe=PLAIN, tokens=TEXT, valid_tokens=TEXT, **options):
    return train(model, recipe, tokens, valid_tokens, **{"progress": False, **options})


@pytest.fixture(scope="module")
def plain(tiny_secondary):
    """A run without a primary, never interrupted."""
    return quiet(tiny_secondary)


@pytest.fixture(scope="module")
def pair(tiny_secondary, tiny_tandem):
    return {"plain": (tiny_secondary, PLAIN), "tandem": (tiny_tandem, READER)}


@pytest.fixture(scope="module")
def together(pair, tiny_primary):
    """Both at once, never interrupted, and the evaluations that it was heard to report."""
    heard = []
    listen = lambda name, entry: heard.append((name, entry))
    options = {"primary": tiny_primary, "progress": False, "on_eval": listen}
    return train_together(pair, TEXT, TEXT, **options), heard


@pytest.fixture(scope="module")
def reference(tiny_tandem, tiny_primary):
    """A tandem's run, never interrupted, and how often its step was traced, here for the first time."""
    traced, predict = [], step.predict
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "predict", lambda *inputs: traced.append(1) or predict(*inputs))
        result = quiet(tiny_tandem, READER, primary=tiny_primary)
        return result, len(traced)


def test_a_tiny_model_learns_a_text_by_heart(tiny_secondary):
    result = quiet(tiny_secondary, some(steps=200, learning_rate=2e-2, eval_every=100))
    first, last = result.history
    # The first token of a window may be one of two 1s or 5s; all else follows from what is before.
    assert last["valid_loss"] < 0.1 < first["train_loss"] and last["valid_accuracy"] > 0.95


def test_the_history_is_json_and_complete(reference, plain):
    history = reference[0].history
    assert json.loads(json.dumps(history, allow_nan=False)) == history
    assert [entry["step"] for entry in history] == [3, 6, 8]
    assert [entry["tokens"] for entry in history] == [3 * 24, 6 * 24, 8 * 24]
    fields = ["step", "tokens", "seconds", "train_loss", "valid_loss", "valid_accuracy"]
    assert list(history[0]) == [*fields, "valid_agreement"]
    seconds = [entry["seconds"] for entry in history]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert list(plain.history[0]) == fields  # without a primary


def test_one_compilation_serves_all_block_lengths_and_one_more_each_phase(reference):
    assert {int(draw_block(READER, jnp.int32(n))[0]) for n in range(8)} == {2, 3}
    assert reference[1] == 2


def test_two_runs_are_the_same_and_leave_their_models_alone(
    reference, tiny_tandem, tiny_primary, monkeypatch
):
    monkeypatch.setattr(step, "predict", lambda *inputs: pytest.fail("a step was compiled again"))
    before, heard = (bits(tiny_tandem), bits(tiny_primary)), []
    again = quiet(tiny_tandem, READER, primary=tiny_primary, on_eval=heard.append)
    assert summary(again) == summary(reference[0]) and bits(again.model) != before[0]
    assert (bits(tiny_tandem), bits(tiny_primary)) == before
    assert heard == again.history
    heard[0]["step"] = -1
    assert again.history[0]["step"] == 3


def test_the_train_loss_is_the_mean_since_the_entry_before(tiny_secondary, monkeypatch):
    seen, real = [], run.train_step

    def watched(*args):
        states, losses = real(*args)
        seen.append(float(losses["some"]))
        return states, losses

    monkeypatch.setattr(run, "train_step", watched)
    history = quiet(tiny_secondary).history
    means = [np.mean(seen[:3]), np.mean(seen[3:6]), np.mean(seen[6:])]
    assert [entry["train_loss"] for entry in history] == pytest.approx(means)


def test_a_bar_with_loss_and_speed_or_silence(tiny_secondary, capsys):
    quiet(tiny_secondary)
    assert capsys.readouterr() == ("", "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(tiny_secondary, PLAIN, TEXT, TEXT)
    out, err = capsys.readouterr()
    assert out == "" and "some" in err and "loss=" in err and "tokens/s" in err and "100%" in err


def test_a_memory_mapped_text_is_the_same_run(plain, tiny_secondary, tmp_path):
    np.save(tmp_path / "text.npy", TEXT)
    mapped = np.load(tmp_path / "text.npy", mmap_mode="r")
    results = [quiet(tiny_secondary, PLAIN, text, text, folder=tmp_path / "run") for text in (mapped, TEXT)]
    assert bits(results[0].model) == bits(results[1].model) == bits(plain.model)


def test_each_is_trained_and_evaluated_as_if_alone(together, pair, plain, reference):
    results, heard = together
    for name, alone in {"plain": plain, "tandem": reference[0]}.items():
        beside = results[name]
        for one, other in zip(*map(jax.tree.leaves, (alone.model, beside.model)), strict=True):
            np.testing.assert_allclose(other, one, rtol=2e-3, atol=2e-4, err_msg=name)
        assert [entry["step"] for entry in beside.history] == [3, 6, 8]
        for one, other in zip(alone.history, beside.history, strict=True):
            # Beside a primary, the plain model's agreement with it is measured too.
            assert other.keys() == one.keys() | {"valid_agreement"}
            for figure in one.keys() - {"seconds"}:
                assert other[figure] == pytest.approx(one[figure], rel=1e-3), (name, figure)
    assert [name for name, _ in heard] == 3 * list(pair)
    assert [entry for _, entry in heard[:2]] == [results[name].history[0] for name in pair]


@pytest.mark.parametrize("evaluated", [False, True])
def test_models_broken_off_together_end_with_the_same_bits(
    evaluated, together, pair, tiny_primary, tmp_path, monkeypatch
):
    heard, steps, real = [], [], run.train_step
    options = {"valid_tokens": TEXT if evaluated else None, "primary": tiny_primary, "progress": False}
    options |= {"folder": tmp_path, "on_eval": lambda name, entry: heard.append((entry["step"], name))}

    def dying(*arguments):
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(run, "train_step", dying)
        with pytest.raises(KeyboardInterrupt):
            train_together(pair, TEXT, **options)
    (tmp_path / f".{NAME}.0123.part").write_bytes(b"half")
    for steps in ((6, 8), ()):  # the second time the run is finished
        heard.clear()
        resumed = train_together(pair, TEXT, **options)
        assert heard == ([(step, name) for step in steps for name in pair] if evaluated else [])
        assert os.listdir(tmp_path) == [NAME]
        for name, result in resumed.items():
            assert bits(result.model) == bits(together[0][name].model)
            history = together[0][name].history if evaluated else []
            assert without_seconds(result.history) == without_seconds(history)
            seconds = [entry["seconds"] for entry in result.history]
            assert seconds == sorted(set(seconds))


def test_what_cannot_train_together_is_refused(pair, tiny_secondary, tiny_primary):
    values = {"seed": 1, "batch_size": 4, "steps": 7, "eval_every": 2, "eval_windows": 2}
    for field, value in values.items():
        others = pair | {"plain": (tiny_secondary, some(**{field: value}))}
        refuses(f"one {field} for all", train_together, others, TEXT, primary=tiny_primary)
    refuses("at least one model", train_together, {}, TEXT)


def stopped_at(step, model, recipe, folder, **options):
    """Run until the checkpoint of a step, then break off."""

    def stop(entry):
        if entry["step"] == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quiet(model, recipe, folder=folder, on_eval=stop, **options)


@pytest.mark.usefixtures("reference")
def test_a_checkpoint_of_another_run_is_refused_and_kept(
    tiny_tandem, tiny_secondary, tiny_primary, tiny_config, tmp_path
):
    stopped_at(3, tiny_tandem, READER, tmp_path, primary=tiny_primary)
    before = (tmp_path / NAME).read_bytes()
    other_start = Tandem(tiny_secondary, tiny_config, key=jax.random.key(99))
    other_map = Tandem(tiny_secondary, tiny_config, "uniform", key=jax.random.key(12))
    other_primary = jax.tree.map(lambda leaf: leaf * 2, tiny_primary)
    changes = [
        ({"recipe": dataclasses.replace(READER, seed=2)}, r"some\.recipe\.seed \(0 there, 2 here\): use"),
        ({"recipe": dataclasses.replace(READER, learning_rate=1.0)}, r"learning_rate \(0.01 there"),
        ({"recipe": dataclasses.replace(READER, name="other")}, r"some \(.*, None here\); run\.other \(None"),
        ({"tokens": TEXT[:-1]}, "the training text"),
        ({"valid_tokens": NOISE}, "the held-out text"),
        ({"model": other_start}, "the model's starting weights"),
        ({"model": other_map}, r"model\.settings\.layer_map"),
        ({"primary": other_primary}, "the primary"),
    ]
    usual = {"model": tiny_tandem, "recipe": READER, "primary": tiny_primary}
    for change, message in changes:
        says = refuses(message, quiet, **{**usual, **change}, folder=tmp_path)
        assert "choose another folder" in says
        assert (tmp_path / NAME).read_bytes() == before


def test_a_damaged_checkpoint_is_refused_and_kept(tiny_secondary, tmp_path):
    stopped_at(3, tiny_secondary, PLAIN, tmp_path)
    whole = (tmp_path / NAME).read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], whole[:-1], b"something else"):
        (tmp_path / NAME).write_bytes(damaged)
        refuses("damaged", quiet, tiny_secondary, folder=tmp_path)
        assert (tmp_path / NAME).read_bytes() == damaged
    write_arrays({}, {"model": {}}, tmp_path / NAME)
    says = r"run \(None there, .* here\): use its values, choose another folder"
    refuses(says, quiet, tiny_secondary, folder=tmp_path)
    refuses("choose another folder", quiet, tiny_secondary, folder=tmp_path / NAME)


def poisoned(monkeypatch, name, at, value, loss=True):
    """From step `at` (from 1) on, the weights of a model are `value`; with `loss` its loss is, too."""
    real = run.train_step

    def bad(inputs, states, *rest):
        states, losses = real(inputs, states, *rest)
        if int(states[name].step) >= at:
            faulty = jax.tree.map(lambda leaf: leaf * np.float32(value), states[name].trained)
            states |= {name: eqx.tree_at(lambda s: s.trained, states[name], faulty)}
            losses |= {name: losses[name] * value} if loss else {}
        return states, losses

    monkeypatch.setattr(run, "train_step", bad)


def last_step(folder, name="some"):
    return read_arrays(folder / NAME)[1]["history"][name][-1]["step"]


@pytest.mark.parametrize("word", ["nan", "inf"])
def test_divergence_stops_the_run_and_names_the_last_checkpoint(
    plain, tiny_secondary, tmp_path, monkeypatch, word
):
    with monkeypatch.context() as patch:
        poisoned(patch, "some", 5, float(word))
        with pytest.raises(Diverged) as caught:
            quiet(tiny_secondary, folder=tmp_path)
    message = str(caught.value)
    assert f"a loss of {word} at step 5" in message and f"{tmp_path / NAME} (step 3)" in message
    assert "smaller learning_rate" in message and "warmup_steps" in message and "clip_norm" in message
    assert "\n" not in message and isinstance(caught.value, BadInput) and last_step(tmp_path) == 3
    assert bits(quiet(tiny_secondary, folder=tmp_path).model) == bits(plain.model)


@pytest.mark.parametrize("loss", [True, False])
def test_of_several_models_the_one_that_diverged_is_named(loss, pair, tiny_primary, tmp_path, monkeypatch):
    """Without `loss`: the last step before a checkpoint has a finite loss and a gradient that is not."""
    poisoned(monkeypatch, "tandem", 6, float("inf"), loss)
    got = f"a {'loss' if loss else 'largest weight'} of inf"
    with pytest.raises(Diverged, match=rf"weights of tandem, got {got} at step 6: .*\(step 3\)"):
        train_together(pair, TEXT, TEXT, primary=tiny_primary, folder=tmp_path, progress=False)
    assert last_step(tmp_path, "tandem") == 3


def test_a_real_divergence(tiny_secondary, tmp_path):
    wild = some(steps=60, learning_rate=1e13, warmup_steps=0, clip_norm=1e30, eval_every=1)
    # The weights are finite, and so large that the logits overflow.
    with pytest.raises(Diverged, match=r"a held-out loss of nan at step 1.*no checkpoint was kept"):
        quiet(tiny_secondary, wild, folder=tmp_path)
    assert os.listdir(tmp_path) == []
    with pytest.raises(Diverged, match=r"a loss of nan at step 2.*\(step 1\)"):
        train_together({"some": (tiny_secondary, wild)}, TEXT, folder=tmp_path, progress=False)


def test_bad_combinations(tiny_primary, tiny_secondary, tiny_tandem, tiny_config, monkeypatch):
    monkeypatch.setattr(run, "train_step", lambda *args: pytest.fail("a step was taken"))
    like = lambda model, **changes: Transformer(
        dataclasses.replace(model.config, **changes), key=jax.random.key(0)
    )
    wide, deep = like(tiny_primary, vocab_size=14), like(tiny_primary, n_layers=4)
    short, short_primary = like(tiny_secondary, max_len=10), like(tiny_primary, max_len=10)
    cases = [
        (tiny_secondary, READER, {}, "without block_lens for the Transformer"),
        (tiny_tandem, PLAIN, {"primary": tiny_primary}, "with block_lens for the Tandem"),
        (tiny_tandem, READER, {}, "a primary for the Tandem"),
        (tiny_secondary, some(objectives=DISTIL), {}, "a primary for a recipe that distils"),
        (tiny_secondary, PLAIN, {"primary": wide}, "same vocabulary"),
        (tiny_tandem, READER, {"primary": deep}, "a primary with n_layers=3 for this tandem, got n_layers=4"),
        (short, PLAIN, {}, "at most max_len = 10.*got 12"),
        (tiny_secondary, some(objectives=DISTIL), {"primary": short_primary}, "max_len = 10"),
        (tiny_secondary, some(seq_len=65), {"tokens": NOISE}, "max_len = 64"),
        (tiny_secondary, PLAIN, {"tokens": TEXT[:12]}, "at least seq_len"),
        (tiny_secondary, PLAIN, {"valid_tokens": TEXT[:12]}, "at least seq_len"),
        (tiny_secondary, PLAIN, {"tokens": TEXT.astype(float)}, "integer array"),
        (tiny_secondary, PLAIN, {"tokens": TEXT + 1}, r"vocabulary of 13, got 1\.\.13"),
        (tiny_secondary, PLAIN, {"valid_tokens": TEXT.astype(np.int32) - 1}, r"got -1\.\.11"),
    ]
    for model, recipe, options, message in cases:
        refuses(message, quiet, model, recipe, **options)
