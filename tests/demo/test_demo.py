"""The demo's trainings; the whole of it is run by tests/test_cli.py."""

import dataclasses

import numpy as np

from tandem_edu.demo.plan import DISTILLED, QUICK, TANDEM
from tandem_edu.demo.run import train_all

TEXT = np.random.default_rng(0).integers(0, 13, 400).astype(np.uint16)


def test_from_scratch_a_primary_is_trained_before_the_two_that_learn_from_it(tiny_primary, tmp_path):
    sizes = {"primary": tiny_primary.config, "primary_steps": 2, "drafter_steps": 3}
    plan = dataclasses.replace(QUICK, seq_len=16, batch_size=2, **sizes)
    primary, results = train_all(plan, tiny_primary, TEXT, TEXT, tmp_path)
    assert list(results) == ["primary", DISTILLED, TANDEM]
    assert primary is results["primary"].model
    assert [result.history[-1]["step"] for result in results.values()] == [2, 3, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drafters", "primary"]
    for name in (DISTILLED, TANDEM):  # they borrow the primary's vocabulary as it is after its training
        model = results[name].model
        lent = model.vocabulary if name == DISTILLED else model.secondary.vocabulary
        np.testing.assert_array_equal(lent.embedding, primary.vocabulary.embedding)


def test_the_shipped_primary_is_left_as_it_is(tiny_primary, tmp_path):
    plan = dataclasses.replace(QUICK, seq_len=16, batch_size=2, drafter_steps=2)
    primary, results = train_all(plan, tiny_primary, TEXT, TEXT, tmp_path)
    assert primary is tiny_primary and list(results) == [DISTILLED, TANDEM]
