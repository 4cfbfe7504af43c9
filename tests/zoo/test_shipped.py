"""A pair written and read again; and, once it is there, the one in the package."""

import dataclasses
import time

import jax
import numpy as np
import pytest

from tandem_edu.data import train_tokenizer
from tandem_edu.decode import LearnedRouter, generate, speculate
from tandem_edu.decode.drafters import as_drafter
from tandem_edu.decode.routers import fingerprint
from tandem_edu.errors import BadInput
from tandem_edu.model import Tandem, Transformer, TransformerConfig
from tandem_edu.zoo.shipped import FOLDER, MODELS, Pair, load_pair, save_pair

CONFIG = TransformerConfig(
    vocab_size=265, d_model=8, n_layers=3, n_heads=2, n_kv_heads=1, d_ff=16, max_len=64
)


@pytest.fixture(scope="module")
def made() -> Pair:
    key = jax.random.key(0)
    primary = Transformer(CONFIG, key=key)
    small = dataclasses.replace(CONFIG, n_layers=1, shared_vocab=True)
    secondary = Transformer(small, key=jax.random.key(1), vocabulary=primary.vocabulary)
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


def test_a_pair_is_read_as_it_was_written(made, tmp_path):
    save_pair(made, tmp_path)
    pair = load_pair(tmp_path)
    assert pair.card == made.card
    assert pair.tokenizer.encode("a cat").ids == made.tokenizer.encode("a cat").ids
    for name in MODELS:
        for mine, theirs in zip(
            jax.tree.leaves(getattr(made, name)), jax.tree.leaves(getattr(pair, name)), strict=True
        ):
            np.testing.assert_array_equal(np.float32(np.float16(mine)), theirs)
    # One vocabulary, lent to all.
    assert pair.tandem.secondary.vocabulary.embedding is pair.primary.vocabulary.embedding
    out = speculate(pair.primary, pair.tandem, [1, 2, 3], 20)
    np.testing.assert_array_equal(out.tokens, generate(pair.primary, [1, 2, 3], 20).tokens)


@pytest.mark.parametrize(
    "missing", ["tokenizer.json", "tandem.json", "distilled.safetensors", "router.safetensors"]
)
def test_a_pair_with_a_part_missing(made, tmp_path, missing):
    save_pair(made, tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(BadInput, match=r"expected"):
        load_pair(tmp_path)


def test_a_pair_half_written_over_another_is_none(made, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    save_pair(made, tmp_path)
    monkeypatch.setattr("tandem_edu.zoo.shipped.save_router", killed)
    with pytest.raises(KeyboardInterrupt):
        save_pair(made, tmp_path)
    with pytest.raises(BadInput, match=r"a pair in .*, got none, or an unfinished one"):
        load_pair(tmp_path)


shipped = pytest.mark.skipif(not FOLDER.exists(), reason="the pair has not been made yet")


@shipped
def test_the_shipped_pair_is_light_and_whole():
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    assert size <= 16_000_000
    pair = load_pair()
    began = time.perf_counter()
    load_pair()
    print(f"loaded in {time.perf_counter() - began:.2f} s")
    for name in MODELS:
        card = pair.card[name]
        assert {"recipe", "data", "development split", "date", "jax"} <= card.keys()
    assert pair.router.made_for[0] == fingerprint(as_drafter(pair.tandem, pair.primary))
