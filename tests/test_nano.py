"""`tandem_edu/nano.py`, the whole idea in one file, is the oracle of the package.

The same weights, in both, give the same logits, states, losses and greedy texts. What nano samples is held
to the primary's joint distribution, which full enumeration gives.
"""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import lively

sys.path.insert(0, str(Path(__file__).parent / "decode"))
from slow_decoder import joint
from test_distribution import p_value

import tandem_edu as te
from tandem_edu import nano
from tandem_edu.train.losses import Objective

PACKAGE = Path(nano.__file__).parent
VOCAB, SEQ = 11, 24
PRIMARY = {"d": 16, "n_layers": 3, "n_heads": 4, "d_ff": 24}
SECONDARY = {"d": 12, "n_layers": 2, "n_heads": 2, "d_ff": 20}


def nano_weights(model) -> list:
    """The weights of a nano model, in the order of `package_weights`."""
    if isinstance(model, nano.Tandem):
        return [*nano_weights(model.secondary), *model.projections]
    layers = [weight for layer in model.layers for weight in (*layer.matrices, *layer.norms)]
    return [model.embedding, model.norm, *layers]


def package_weights(model) -> list:
    """The same weights of a package's model."""
    if isinstance(model, te.Tandem):
        return [*package_weights(model.secondary), *(p.weight for p in model.projections)]
    weights = [model.embedding.table, model.final_norm.scale]
    for block in model.blocks:
        weights += [block.wq, block.kv.wk, block.kv.wv, block.wo]
        weights += [block.mlp.w_gate, block.mlp.w_up, block.mlp.w_down]
        weights += [block.attention_norm.scale, block.mlp_norm.scale]
    return weights


def into_package(model, sizes: dict, primary: te.Transformer | None = None):
    """The package's model with the weights of a nano model."""
    vocab, heads = len(getattr(model, "secondary", model).embedding), sizes["n_heads"]
    config = te.TransformerConfig(vocab, sizes["d"], sizes["n_layers"], heads, heads, sizes["d_ff"], 128)
    blank = te.Transformer(config, key=jax.random.key(99))
    if isinstance(model, nano.Tandem):
        blank = te.Tandem(blank, primary.config, layer_map="last", key=jax.random.key(99))
    return eqx.tree_at(package_weights, blank, nano_weights(model))


@cache
def models(vocab: int = VOCAB):
    """A primary, a plain secondary and a tandem, in nano.

    The projections are large: the package brings a state to unit RMS before its projection, and the norm
    that follows undoes that, but for ε, which large projections make too small to see.
    """
    keys = jax.random.split(jax.random.key(0), 3)
    primary = lively(nano.Transformer(vocab, **PRIMARY, key=keys[0]), 0, 0.4)
    plain = lively(nano.Transformer(vocab, **SECONDARY, key=keys[1]), 1, 0.4)
    shape = PRIMARY["d"], SECONDARY["d"]
    large = [10 * nano.random_matrix(key, shape) for key in jax.random.split(keys[2], SECONDARY["n_layers"])]
    return primary, plain, eqx.tree_at(lambda t: t.projections, nano.Tandem(plain, primary), large)


@cache
def pairs():
    """The same models, each in nano and in the package."""
    primary, plain, tandem = models()
    packaged = into_package(primary, PRIMARY)
    drafters = into_package(plain, SECONDARY), into_package(tandem, SECONDARY, packaged)
    return list(zip(models(), (packaged, *drafters), strict=True))


@pytest.fixture(autouse=True)
def written_for_people():
    """nano is written as NumPy is: shapes and types are promoted."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def imports(path: Path) -> list[str]:
    """The import statements of a file."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def test_nano_is_one_page_and_stands_alone():
    path = PACKAGE / "nano.py"
    assert len(path.read_text("utf-8").splitlines()) <= 250
    modules = {re.match(r"(?:from|import) (\w*)", line)[1] for line in imports(path)}
    assert modules == {"equinox", "jax", "numpy", "optax", "pydoc_data"}
    for other in set(PACKAGE.rglob("*.py")) - {path}:
        assert not [line for line in imports(other) if re.search(r"\bnano\b", line)], other


TEXT = jnp.asarray(np.random.default_rng(3).integers(VOCAB, size=SEQ + 1), jnp.int32)


def close(a, b):
    """Equal to 1e-5 of the largest."""
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.max(np.abs(b)))


@pytest.mark.parametrize("which", [0, 1])
def test_the_transformer_and_its_states(which):
    ours, packaged = pairs()[which]
    for a, b in zip(ours(TEXT, return_hidden=True), packaged(TEXT, return_hidden=True), strict=True):
        close(a, b)


@pytest.mark.parametrize("block_len, offset", [(1, 0), (2, 0), (2, 1), (3, 2), (4, 9), (5, -2), (99, 7)])
def test_the_tandem_and_the_losses(block_len, offset):
    (primary, packaged_primary), (plain, packaged_plain), (tandem, packaged_tandem) = pairs()
    tokens, targets = TEXT[:-1], TEXT[1:]
    p, hidden = packaged_primary(tokens, return_hidden=True)
    q = packaged_tandem(tokens, hidden, block_len, offset)
    close(tandem(tokens, primary(tokens, return_hidden=True)[1], block_len, offset), q)
    for model, logits in ((tandem, q), (plain, packaged_plain(tokens))):
        for lam, weights in ((0.0, {"ce": 1.0}), (0.5, {"ce": 1.0, "kl": 0.5})):
            loss = nano.loss(model, primary, TEXT, block_len, offset, lam)
            close(loss, Objective(**weights)(logits, targets, p))
    close(nano.loss(primary, None, TEXT, block_len, offset, 1.0), Objective()(p, targets))


@pytest.mark.parametrize("block_len", [1, 2, 3, 4])
def test_greedy_texts(block_len):
    (primary, packaged_primary), *drafters = pairs()
    prompt, new, key = TEXT[:3], 30, jax.random.key(0)
    text = nano.generate(primary, prompt, new, 0, key)
    assert len(set(text.tolist())) > 4, "a text that varies"
    np.testing.assert_array_equal(text, te.generate(packaged_primary, prompt, new).tokens)
    close_drafter = lively(primary, 5, 0.05)
    drafters = [*drafters, (close_drafter, into_package(close_drafter, PRIMARY))]
    for drafter, packaged in drafters:
        ours, passes, drafted, accepted = nano.speculate(primary, drafter, prompt, new, block_len, 0, key)
        theirs = te.speculate(packaged_primary, packaged, prompt, new, block_len)
        np.testing.assert_array_equal(ours, text)
        np.testing.assert_array_equal(theirs.tokens, text)
        assert passes == int(theirs.trace.cycles)
        assert (drafted, passes + accepted >= new) == (passes * block_len, True)
    assert accepted > 0.2 * drafted


SPEAKER, NEW, PROMPT, DRAWS = 4, 3, [1, 2], 20_000


def sampled(drafter, block_len: int, key):
    """One text of `nano.speculate`, as cycles of a fixed number that can be vmapped over keys."""
    primary, cycle = models(SPEAKER)[0], nano.cycle.__wrapped__
    text = jnp.pad(jnp.asarray(PROMPT), (0, NEW + block_len))
    _, hidden = primary(text, return_hidden=True)
    n = jnp.asarray(len(PROMPT))
    for _ in range(NEW):  # each writes one token at least
        new_text, new_n, hidden = cycle(primary, drafter, text, n, hidden, block_len, 1.0, key)
        more = n < len(PROMPT) + NEW
        text, n = jnp.where(more, new_text, text), jnp.where(more, new_n, n)
    return text[len(PROMPT) :][:NEW]


def p_value_of(drafter) -> float:
    """Many sampled texts against the joint distribution of the primary."""
    draw = jax.jit(jax.vmap(lambda key: sampled(drafter, 2, key)))
    chunks = [draw(keys) for keys in jax.random.split(jax.random.key(7), (DRAWS // 1000, 1000))]
    table = joint(into_package(models(SPEAKER)[0], PRIMARY), PROMPT, NEW, temperature=1.0)
    return p_value(np.concatenate(chunks), table)


@pytest.mark.parametrize("which", [1, 2], ids=["plain", "tandem"])
def test_sampled_texts_have_the_primarys_distribution(which):
    primary, drafter = models(SPEAKER)[0], models(SPEAKER)[which]
    for key in jax.random.split(jax.random.key(1), 3):  # the loop below is that of `speculate`
        text, *_ = nano.speculate(primary, drafter, PROMPT, NEW, 2, 1.0, key)
        assert text.tolist() == sampled(drafter, 2, key).tolist()
    assert p_value_of(drafter) > 1e-3


def test_the_comparison_rejects_a_redraw_from_p(monkeypatch):
    def broken(p, q, drafts, key):
        kept, _ = verify(p, q, drafts, key)
        return kept, jax.random.categorical(jax.random.fold_in(key, 1), jnp.log(p[kept]))

    verify = nano.verify
    monkeypatch.setattr(nano, "verify", broken)
    assert p_value_of(models(SPEAKER)[1]) < 1e-6


def test_training_a_tandem_lowers_its_loss_and_leaves_the_primary(capsys):
    data = np.frombuffer(Path(__file__).read_bytes(), np.uint8).astype(np.int32)
    primary, plain = (nano.Transformer(256, **sizes, key=jax.random.key(0)) for sizes in (PRIMARY, SECONDARY))
    before = jax.tree.map(np.array, primary)
    _, losses = nano.train("tandem", nano.Tandem(plain, primary), data, 20, primary, 2, batch=2)
    assert np.mean(losses[-3:]) < losses[0] - 0.3
    assert eqx.tree_equal(before, jax.tree.map(np.array, primary))


def test_main_prints_what_it_promises(capsys):
    nano.main(steps=12, n=6, block_len=2)
    lines = capsys.readouterr().out.replace("\r", "\n").split("\n")
    progress = [line for line in lines if "loss" in line]
    *_, final = (line for line in progress if line.startswith("primary"))
    first, last = final.split("loss ")[1].split(" -> ")
    assert float(last) < float(first) - 0.3
    assert {line.split(":")[0] for line in progress} == {"primary", "plain secondary", "tandem"}
    assert sum(line == "  greedy: the primary's own text: yes" for line in lines) == 2
    assert sum("tokens a pass, drafts kept:" in line for line in lines) == 2
