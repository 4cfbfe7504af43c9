"""Training side by side: the same as one by one, resumable, and only where the batches are the same."""

import equinox as eqx
import jax
import jaxtyping
import numpy as np
import pytest

from tandem_edu.errors import BadInput
from tandem_edu.model import BlockPrediction, Joint, Tandem
from tandem_edu.model.weights import named_arrays
from tandem_edu.train import Diverged, Objective, Recipe, run, train, train_together

TEXT = np.tile(np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 12, 0], np.uint16), 60)
DISTIL = ((1.0, Objective(ce=0.1, kl=0.9)),)


def some(**changes):
    usual = {"steps": 6, "learning_rate": 1e-2, "warmup_steps": 2, "batch_size": 2, "seq_len": 12}
    return Recipe(**{"name": "some", "eval_every": 3, "eval_windows": 5, **usual, **changes})


@pytest.fixture
def models(tiny_secondary, tiny_config):
    tandem = Tandem(tiny_secondary, tiny_config, key=jax.random.key(3))
    return {
        "plain": (tiny_secondary, some()),
        "distilled": (tiny_secondary, some(objectives=DISTIL)),
        "tandem": (tandem, some(objectives=DISTIL, block_lens=(2, 3))),
    }


def test_each_is_trained_as_if_alone(models, tiny_primary):
    side_by_side = train_together(models, TEXT, primary=tiny_primary, progress=False)
    for name, (model, recipe) in models.items():
        alone = train(model, recipe, TEXT, TEXT, primary=tiny_primary, progress=False).model
        assert side_by_side[name].history == []
        mine_and_theirs = map(jax.tree.leaves, (side_by_side[name].model, alone))
        for mine, theirs in zip(*mine_and_theirs, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=2e-4, err_msg=name)


def test_each_is_evaluated_as_if_alone(models, tiny_primary):
    models["long blocks"] = (models["tandem"][0], some(objectives=DISTIL, block_lens=(4,)))
    heard = []
    how = {"primary": tiny_primary, "progress": False}
    together = train_together(models, TEXT, TEXT, on_eval=lambda *said: heard.append(said), **how)
    for name, (model, recipe) in models.items():
        alone = train(model, recipe, TEXT, TEXT, **how).history
        assert [entry["step"] for entry in together[name].history] == [3, 6]
        for mine, theirs in zip(together[name].history, alone, strict=True):
            assert mine.keys() == theirs.keys()
            for figure in mine.keys() - {"seconds"}:
                assert mine[figure] == pytest.approx(theirs[figure], rel=1e-3), (name, figure)
    assert [name for name, _ in heard] == 2 * list(models)
    assert [entry for _, entry in heard[:4]] == [together[name].history[0] for name in models]


def test_a_joint_model_beside_a_whole_one_needs_no_primary(tiny_primary, tiny_secondary, tiny_tandem):
    models = {
        "whole": (tiny_secondary, some()),
        "joint": (Joint(tiny_primary, tiny_tandem), some(block_lens=(2,))),
    }
    together = train_together(models, TEXT, TEXT, progress=False)
    for name, (model, recipe) in models.items():
        alone = train(model, recipe, TEXT, TEXT, progress=False).history[-1]
        mine = together[name].history[-1]
        assert "valid_agreement" not in mine
        assert mine["valid_loss"] == pytest.approx(alone["valid_loss"], rel=1e-3)


class Killed(Exception):
    pass


def without_seconds(results):
    return {name: [entry | {"seconds": 0} for entry in result.history] for name, result in results.items()}


@pytest.mark.parametrize("valid_tokens", [None, TEXT], ids=["unevaluated", "evaluated"])
def test_a_run_that_was_broken_off_ends_with_the_same_bits(
    valid_tokens, models, tiny_primary, tmp_path, monkeypatch
):
    how = {
        "valid_tokens": valid_tokens,
        "primary": tiny_primary,
        "progress": False,
        "checkpoint_every": 2,
    }
    whole = train_together(models, TEXT, **how)
    steps, step = 0, run.train_step

    def dying(*arguments):
        nonlocal steps
        steps += 1
        if steps == 4:
            raise Killed
        return step(*arguments)

    monkeypatch.setattr(run, "train_step", dying)
    with pytest.raises(Killed):
        train_together(models, TEXT, folder=tmp_path, **how)
    monkeypatch.undo()
    heard = []
    how["on_eval"] = lambda name, entry: heard.append((entry["step"], name))
    resumed = train_together(models, TEXT, folder=tmp_path, **how)
    assert heard == ([] if valid_tokens is None else [(6, name) for name in models])
    for result in resumed.values():
        seconds = [entry["seconds"] for entry in result.history]
        assert seconds == sorted(set(seconds))
    assert without_seconds(resumed) == without_seconds(whole)
    for name in models:
        mine, theirs = (named_arrays(results[name].model) for results in (resumed, whole))
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[leaf], theirs[leaf]) for leaf in mine), name


def test_models_that_are_never_stored_are_kept_too(tiny_primary, tiny_tandem, tmp_path):
    models = {
        "joint": (Joint(tiny_primary, tiny_tandem), some(block_lens=(2,))),
        "at once": (BlockPrediction(tiny_tandem), some(block_lens=(4,))),
    }
    first, again = (
        train_together(models, TEXT, primary=tiny_primary, folder=tmp_path, progress=False) for _ in range(2)
    )
    models_of = lambda results: jax.tree.leaves([result.model for result in results.values()])
    for mine, theirs in zip(models_of(first), models_of(again), strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"seed": 1}, "one seed for all"), ({"batch_size": 4}, "one batch_size"), ({"steps": 7}, "one steps")],
)
def test_recipes_with_other_batches_are_refused(changes, message, models, tiny_primary):
    models["plain"] = (models["plain"][0], some(**changes))
    with pytest.raises(BadInput, match=message):
        train_together(models, TEXT, primary=tiny_primary, progress=False)


def test_a_checkpoint_of_other_models_is_refused_in_a_few_words(models, tiny_primary, tmp_path):
    how = {"primary": tiny_primary, "folder": tmp_path, "progress": False}
    train_together(models, TEXT, **how)
    changed = {**models, "plain": (models["plain"][0], some(learning_rate=0.5))}
    differs = r"in plain\.recipe\.learning_rate \(0\.01 there, 0\.5 here\): "
    with pytest.raises(BadInput, match=differs):
        train_together(changed, TEXT, **how)
    del models["distilled"]
    with pytest.raises(BadInput, match=r"in distilled \(there only\): "):
        train_together(models, TEXT, **how)


def test_recipes_with_other_evaluations_are_refused_only_if_there_are_any(models, tiny_primary):
    models["plain"] = (models["plain"][0], some(eval_every=2))
    how = {"primary": tiny_primary, "progress": False}
    with pytest.raises(BadInput, match="one eval_every"):
        train_together(models, TEXT, TEXT, **how)
    models["plain"] = (models["plain"][0], some(eval_windows=2))
    with pytest.raises(BadInput, match="one eval_windows"):
        train_together(models, TEXT, TEXT, **how)
    train_together(models, TEXT, **how)


def test_names_are_strings(models, monkeypatch):
    """A checkpoint would give them back as strings, whatever they were."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which would see it before
    with pytest.raises(BadInput, match=r"names that are strings, got \[2\]"):
        train_together({2: models["plain"]}, TEXT)


def test_a_bar_for_all(models, tiny_primary, capsys):
    train_together(models, TEXT, primary=tiny_primary)
    out, err = capsys.readouterr()
    assert out == "" and "3 models: 100%" in err and err.rsplit("loss=", 1)[1].count(", ") >= 2


def test_no_model_is_refused():
    with pytest.raises(BadInput, match="at least one model"):
        train_together({}, TEXT)


def test_checkpoints_come_every_so_many_steps_or_not_at_all(models, tiny_primary):
    with pytest.raises(BadInput, match="checkpoint_every of at least 1, got 0: leave it out"):
        train_together(models, TEXT, primary=tiny_primary, checkpoint_every=0)


@pytest.mark.parametrize(
    ("spoils", "found"), [("loss", "a loss of inf"), ("weights", "a weight that is not finite")]
)
def test_what_has_diverged_is_named_and_never_kept(
    spoils, found, models, tiny_primary, tmp_path, monkeypatch
):
    step = run.train_step

    def overflowing(given, states, recipes, objectives):
        states, losses = step(given, states, recipes, objectives)
        if int(states[1].step) == 4 and spoils == "loss":
            losses = (losses[0], losses[1] * np.inf, losses[2])
        elif int(states[1].step) == 4:
            worse = jax.tree.map(lambda leaf: leaf * np.float32(np.inf), states[1].trained)
            states = (states[0], eqx.tree_at(lambda s: s.trained, states[1], worse), states[2])
        return states, losses

    how = {"primary": tiny_primary, "folder": tmp_path, "checkpoint_every": 2, "progress": False}
    with monkeypatch.context() as patch:
        patch.setattr(run, "train_step", overflowing)
        with pytest.raises(Diverged, match=rf"of distilled, got {found} at step 4: .*\(step 2\)"):
            train_together(models, TEXT, **how)
        with pytest.raises(Diverged, match=r"at step 4: .*\(step 2\)"):  # though it is not a multiple of 4
            train_together(models, TEXT, **how | {"checkpoint_every": 4})
    resumed = train_together(models, TEXT, **how)  # from step 2
    for result in resumed.values():
        assert all(np.isfinite(leaf).all() for leaf in named_arrays(result.model).values())
