"""A pair that is written and read again, and the pair in the package."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from refusal import refuses

from tandem_edu.data import train_tokenizer
from tandem_edu.decode import LearnedRouter, block_generate, generate, speculate
from tandem_edu.decode.routers import fingerprint
from tandem_edu.drafters import Tandem
from tandem_edu.model import Transformer, TransformerConfig
from tandem_edu.model.weights import read_arrays
from tandem_edu.zoo.shipped import FOLDER, MODELS, Pair, load_pair, save_pair

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text("utf-8"))
"""What the shipped pair wrote, greedily, after four prompts, recorded once."""
CONFIG = TransformerConfig(265, d_model=8, n_layers=3, n_heads=2, n_kv_heads=1, d_ff=16, max_len=64)


@pytest.fixture(scope="module")
def small_pair() -> Pair:
    key = jax.random.key(0)
    primary = Transformer(CONFIG, key=key)
    small = dataclasses.replace(CONFIG, n_layers=1, shared_vocab=True)
    secondary = Transformer(small, key=jax.random.key(1), embedding=primary.embedding)
    tandem = Tandem(secondary, CONFIG, "fused", own_history=True, key=key)
    return Pair(
        tokenizer=train_tokenizer(["a cat on a mat, a hat on a bat"] * 2, vocab_size=265),
        primary=primary,
        secondary=secondary,
        distilled=secondary,
        tandem_ce=tandem,
        tandem=tandem,
        mid_size=secondary,
        router=LearnedRouter(8, ("any", 4), top_k=2, key=key),
        card={name: {"name": name} for name in (*MODELS, "router")},
    )


def test_a_pair_is_read_as_it_was_written(small_pair, tmp_path):
    save_pair(small_pair, tmp_path)
    pair = load_pair(tmp_path)
    assert pair.card == small_pair.card
    assert pair.tokenizer.encode("a cat").ids == small_pair.tokenizer.encode("a cat").ids
    for name in MODELS:
        written, read = (jax.tree.leaves(getattr(each, name)) for each in (small_pair, pair))
        for before, after in zip(written, read, strict=True):
            np.testing.assert_array_equal(np.float32(np.float16(before)), after)
    assert read_arrays(tmp_path / "primary.safetensors")[0]["blocks.0.wq"].dtype == np.float16
    # One embedding, shared by all.
    assert pair.tandem.secondary.embedding.table is pair.primary.embedding.table
    out = speculate(pair.primary, pair.tandem, [1, 2, 3], 20)
    np.testing.assert_array_equal(out.tokens, generate(pair.primary, [1, 2, 3], 20).tokens)


@pytest.mark.parametrize(
    "part", ["tokenizer.json", "tandem.json", "tandem.safetensors", "router.safetensors"]
)
def test_a_missing_part_is_named(small_pair, tmp_path, part):
    save_pair(small_pair, tmp_path)
    (tmp_path / part).unlink()
    refuses("expected", load_pair, tmp_path)


def test_a_pair_that_is_half_written_over_another_is_refused(small_pair, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    save_pair(small_pair, tmp_path)
    monkeypatch.setattr("tandem_edu.zoo.shipped.save_router", killed)
    with pytest.raises(KeyboardInterrupt):
        save_pair(small_pair, tmp_path)
    refuses(r"a pair in .*, got none, or an incomplete one", load_pair, tmp_path)


def test_the_shipped_pair_is_complete_and_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 17_000_000
    pair = load_pair()
    for name in MODELS:
        assert {"recipe", "data", "development split", "date", "jax"} <= pair.card[name].keys()
    assert pair.router.made_for == (fingerprint(pair.tandem), 8)


@pytest.mark.parametrize(
    "row", [RECORDED[0], *(pytest.param(row, marks=pytest.mark.slow) for row in RECORDED[1:])]
)
def test_the_shipped_pair_writes_what_it_wrote_before(row):
    pair = load_pair()
    prompt = pair.tokenizer.encode(row["prompt"], add_special_tokens=False).ids
    assert np.asarray(generate(pair.primary, prompt, 64).tokens).tolist() == row["primary"]
    for name in ("secondary", "distilled", "tandem_ce", "tandem"):
        out = speculate(pair.primary, getattr(pair, name), prompt, 64, block_len=4)
        assert np.asarray(out.tokens).tolist() == row["primary"]
        assert out.trace.summary()["cycles"] == row[name]
    alone = block_generate(pair.primary, pair.tandem, prompt, 64, block_len=3)
    assert np.asarray(alone.tokens).tolist() == row["tandem alone"]
    routed = speculate(pair.primary, pair.tandem, prompt, 64, block_len=8, router=pair.router)
    assert [routed.trace.summary()[name] for name in ("cycles", "drafted")] == row["router"]
