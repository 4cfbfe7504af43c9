"""The studies: the figures are those the package measures, and a written table can be read again."""

import dataclasses
import itertools
import json

import equinox as eqx
import jax
import numpy as np
import pytest

from studies import (
    __main__,
    ablations,
    adaptive,
    decoding,
    deep_tandem,
    page,
    paper_training,
    plan,
    quality,
    routers,
    standalone,
    steps,
    weights,
    where_time_goes,
    zoo,
)
from studies.__main__ import NAMES, PAPER, TABLES, main, run
from studies.ablations import ABLATIONS
from studies.decoding import repetition_rate
from studies.prompts import prompts_of_kinds
from studies.table import WORDS, Lab, Table, load_table, save_table, timing_rows
from tandem_edu import measure
from tandem_edu.data import Corpus, train_tokenizer
from tandem_edu.decode import LearnedRouter
from tandem_edu.decode.routers import fingerprint
from tandem_edu.decode.speculative import as_drafter
from tandem_edu.drafters import Tandem
from tandem_edu.errors import BadInput
from tandem_edu.measure import Interval
from tandem_edu.model import Transformer, TransformerConfig
from tandem_edu.train import recipe
from tandem_edu.zoo.shipped import MODELS, Pair, Texts

DOCSTRING = (
    '"""A module that counts its words and its lines, again and again, until it is tired of them."""\n'
)


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    words = ["def", "return", "count", "of", "the", "number", "line", "if", "else", "x", "y"]
    write = lambda: " ".join(rng.choice(words, size=400))

    def corpus(name, count):
        documents = [DOCSTRING * 4 + write() if i % 2 else write() for i in range(count)]
        return Corpus(documents, name, [f"{name}{i}.py" if i % 2 else f"{name}{i}" for i in range(count)])

    return Texts(corpus("train", 6), corpus("dev", 4), corpus("test", 6))


@pytest.fixture(scope="module")
def pair(parts):
    tokenizer = train_tokenizer(parts.train, vocab_size=280)
    sizes = {"vocab_size": 280, "d_model": 16, "n_heads": 2, "n_kv_heads": 1, "d_ff": 16, "max_len": 512}
    config = TransformerConfig(n_layers=3, **sizes)
    small = TransformerConfig(n_layers=1, shared_vocab=True, **sizes)
    keys = jax.random.split(jax.random.key(0), 7)
    primary = Transformer(config, key=keys[0])
    plain = lambda key: Transformer(small, key=key, embedding=primary.embedding)
    tandem = lambda key: Tandem(plain(key), config, "fused", own_history=True, key=key)
    models = {"primary": primary, "mid_size": plain(keys[1])}
    models |= {"secondary": plain(keys[2]), "distilled": plain(keys[3])}
    models |= {"tandem": tandem(keys[4]), "tandem_ce": tandem(keys[5])}
    made_for = (fingerprint(as_drafter(models["tandem"], primary)), plan.ROUTER_LEN)
    router = LearnedRouter(1 + 8 + 8 * 16, made_for, key=keys[6])
    card = {name: {"name": name} for name in (*MODELS, "router")}
    return Pair(tokenizer=tokenizer, router=router, card=card, **models)


@pytest.fixture
def lab(pair, parts, tmp_path, monkeypatch):
    """All at reduced size; rivals are small and trained for two steps."""
    little = {"NEW_TOKENS": 12, "TIMED_TOKENS": 8, "REPETITIONS": 1, "CHOOSING": 1, "PROMPTS": 2}
    little |= {"TIMED_PROMPTS": 2, "BLOCK_LENS": (2, 5), "SWEPT": {1: (2, 5), 4: (2,)}}
    little |= {"THRESHOLDS": (0.5,), "CONSTANT": (2, 5), "LONGEST": (4, 8), "LEARN_FROM": 2}
    changed = decoding, adaptive, routers, weights, standalone
    for module, (name, value) in itertools.product(changed, little.items()):
        if hasattr(module, name) and (module, name) != (standalone, "BLOCK_LENS"):
            monkeypatch.setattr(module, name, value)
    small = pair.secondary.config
    monkeypatch.setattr(plan, "WIDER", dataclasses.replace(small, d_ff=24))
    monkeypatch.setattr(plan, "DEEPER", dataclasses.replace(small, n_layers=4))
    short = lambda name: dataclasses.replace(plan.settings(name), steps=2, warmup_steps=1)
    monkeypatch.setattr(zoo, "settings", short)
    return Lab(pair, parts, tmp_path, repetitions=1, say=lambda _: None)


def test_every_table_has_words_and_every_name_a_study():
    assert {"positions", "blocks", "speed", *PAPER, *ABLATIONS} - {"decoding"} <= set(TABLES) <= set(WORDS)
    assert set(__main__.ABLATIONS) == set(ABLATIONS)
    assert all(set(words) == {"title", "note"} for words in WORDS.values())
    for name, variants in ABLATIONS.items():  # trained equally long
        assert len(variants) >= 2, name
        settings = [ablations.settings(variant, 500) for variant in variants.values()]
        assert len({(one.steps, one.batch_size, one.seq_len) for one in settings}) == 1, name


def test_a_table_comes_back_as_it_was(tmp_path):
    rows = [{"model": "tandem", "TV": Interval(0.2, 0.1, 0.3), "n": 3, "paper": None, "large": 2345.6}]
    table = Table("quality", rows, {"a.png": "code, greedy. Line chart."}, {"a.png": b"png"})
    save_table(table, tmp_path)
    assert load_table(tmp_path, "quality") == table
    assert (tmp_path / "a.png").read_bytes() == b"png"
    assert json.loads((tmp_path / "quality.json").read_text())["machine"]["cores"] >= 1
    text = table.markdown()
    assert text.startswith(f"## {WORDS['quality']['title']}\n")
    assert "| model | TV | n | paper | large |\n|---|---|---|---|---|\n" in text
    assert "| tandem | 0.200 [0.100, 0.300] | 3 |  | 2346 |" in text
    assert "**code, greedy**\n\n![code, greedy. Line chart.](a.png)" in text
    with pytest.raises(BadInput, match="python -m studies decoding"):
        load_table(tmp_path, "speed")


def test_times_are_compared_within_a_round():
    seconds = {"one": np.array([1.0, 2.0]), "two": np.array([2.0, 4.0])}
    one, two = timing_rows(seconds, {"one": 5.0, "two": 6.0}, {"two": "one"})
    assert two["times as long"] == Interval(2, 2, 2) and two["as"] == "one"
    assert one["milliseconds"].value == 1500 and one["times as long"] is None


def test_the_quality_table_is_what_quality_measures(lab, pair, parts):
    table, positions = quality.study(lab)
    rows = {row["model"]: row for row in table.rows}
    units = quality.document_windows(pair.tokenizer, parts.test)
    expected = measure.quality(pair.tandem, np.concatenate(units), pair.primary, block_len=8)
    measured = rows["tandem (γ = 8)"]
    assert measured["agreement"].value == pytest.approx(expected.agreement, rel=1e-5)
    assert measured["TV"].value == pytest.approx(expected.total_variation, rel=1e-5)
    assert measured["cross-entropy"].value == pytest.approx(expected.cross_entropy, rel=1e-5)
    assert rows["primary"]["agreement"].value == 1
    assert rows["primary"]["TV"].value == pytest.approx(0, abs=1e-6)
    assert rows["distilled"]["TV / distilled's"] == Interval(1, 1, 1)
    mean = np.mean([row["tandem"] for row in positions.rows])
    assert mean == pytest.approx(expected.agreement, rel=1e-5)


def test_prompts_are_of_three_kinds(pair, parts):
    kinds = prompts_of_kinds(pair.tokenizer, parts, "test", 3)
    assert list(kinds) == ["documentation", "code", "outside"]
    assert all(len(prompt) == 48 for prompts in kinds.values() for prompt in prompts)
    text = pair.tokenizer.decode(kinds["outside"][0].tolist())
    assert "The lighthouse keeper had not spoken".startswith(text[:20])


def test_repetition_is_the_share_of_what_occurred_before():
    assert repetition_rate([np.arange(30)]) == 0
    assert repetition_rate([np.zeros(30, int)]) == 22 / 23  # all windows of 8 but the first
    assert repetition_rate([]) == 0


def test_a_wider_control_has_as_many_weights_as_the_tandem():
    count = lambda model: sum(leaf.size for leaf in jax.tree.leaves(model) if eqx.is_array(leaf))
    primary = plan.untrained("primary", None)
    tandem, wider = (count(plan.untrained(name, primary)) for name in ("tandem", "wider"))
    assert tandem <= wider < 1.001 * tandem


@pytest.mark.slow
def test_the_decoding_tables_count_the_drafts_of_the_traces(lab, pair, parts):
    blocks, speed = decoding.study(lab)
    assert len(blocks.rows) == 6 and len(speed.rows) == 12
    assert set(blocks.images) == set(blocks.pictures) and len(blocks.images) == 6
    prompts = prompts_of_kinds(pair.tokenizer, parts, "test", 2)["documentation"]
    drafters = {name: getattr(pair, name) for name in decoding.DRAFTERS}
    counted = decoding.counted_drafts(pair.primary, drafters, prompts, None)
    assert blocks.rows[0]["tandem"].value == counted.run("tandem", 5).summary["mean_accepted"]
    for each in counted.runs:
        for out, alone in zip(each.outputs, counted.primary_outputs, strict=True):
            np.testing.assert_array_equal(out.tokens, alone.tokens)


@pytest.mark.slow
def test_the_table_of_weights_has_agreement_drafts_and_times(lab):
    (table,) = weights.study(lab)
    wider, ratio = "distilled, d_ff 683", "tandem / distilled, d_ff 683"
    assert len(table.rows) == 2 + 6 + 6
    agreement = table.rows[0]
    assert agreement[ratio].value == pytest.approx(agreement["tandem"].value / agreement[wider].value)
    once, again = (zoo.rival("wider", lab) for _ in range(2))  # from its checkpoint
    assert eqx.tree_equal(once, again) and agreement[wider].value > 0


@pytest.mark.slow
def test_the_adaptive_and_the_standalone_table_can_be_made(lab):
    (table,) = adaptive.study(lab)
    families = [row["block length"].split(" (")[0] for row in table.rows]
    assert families == 6 * ["constant", "own probability", "router"]
    assert all(row["against constant"].value == 1 for row in table.rows[::3])
    (table,) = routers.study(lab)
    assert [row["γ ≤"] for row in table.rows] == [None, *5 * [4], *5 * [8]]
    assert [row["ECE"] is None for row in table.rows] == [True, *2 * [True, False, False, False, False]]
    assert table.rows[0]["against constant"].value == 1
    (table,) = standalone.study(lab)
    models = ["secondary", "mid-size", "mid-size, 4 layers", "primary"]
    tandems = ["γ = 2", "γ = 4", "γ = 8", "γ = 3 and the free token"]
    assert [row["model"] for row in table.rows] == models + [f"tandem, {way}" for way in tandems]
    assert table.rows[2]["speed / 4 layers'"].value == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["readers", "own-text"])
def test_an_ablation_trains_its_variants_side_by_side(name, lab, pair, monkeypatch):
    config = dataclasses.replace(pair.primary.config, n_layers=8)
    sizes = {"PRIMARY": config, "SECONDARY": pair.secondary.config}
    for constant, value in (sizes | {"OWN_TEXTS": 20, "STEPS": 2}).items():
        monkeypatch.setattr(ablations, constant, value)
    deep = Pair(**{**vars(pair), "primary": Transformer(config, key=jax.random.key(8))})
    (table,) = ablations.study(name, lab._replace(pair=deep))
    assert [row["variant"] for row in table.rows] == list(ABLATIONS[name])
    assert all(0 <= row["TV at γ = 2"].value <= 1 for row in table.rows)


@pytest.mark.slow
def test_training_as_in_the_paper_is_kept_and_measured(lab, monkeypatch):
    monkeypatch.setattr(paper_training, "STEPS", 2)
    monkeypatch.setattr(paper_training, "SECONDARY", lab.pair.secondary.config)
    monkeypatch.setattr(paper_training, "STATES", (1, 3))
    (table,) = paper_training.study(lab)
    assert [row["variant"] for row in table.rows] == [*paper_training.FROZEN, *paper_training.LEARNING]
    assert paper_training.study(lab) == [table]  # nothing is trained again
    frozen, learned = table.rows[0]["primary's accuracy"], table.rows[-1]["primary's accuracy"]
    assert frozen != learned


def test_with_both_losses_the_primarys_own_head_learns_too(pair):
    settings = recipe("tandem-ce", steps=3, batch_size=2, seq_len=16, warmup_steps=1)
    tokens = np.random.default_rng(0).integers(0, 280, 400)
    tandem = Tandem(pair.secondary, pair.primary.config, "last", key=jax.random.key(0))
    trained = {
        both: paper_training.train_jointly(pair.primary, tandem, settings, tokens, both) for both in (0, 1)
    }
    for primary, model in trained.values():
        assert not eqx.tree_equal(primary.blocks, pair.primary.blocks)
        assert eqx.tree_equal(model.secondary.embedding, primary.embedding)
    # The last layer is read by the primary's own loss alone: "last" reads the state below it.
    last = [primary.blocks[-1].wo for primary, _ in trained.values()]
    np.testing.assert_allclose(last[0], pair.primary.blocks[-1].wo, atol=1e-3)  # weight decay alone
    assert np.abs(last[1] - last[0]).max() > 1e-3


@pytest.mark.slow
def test_the_deep_tandem_stands_beside_a_whole_model(lab, pair, monkeypatch):
    monkeypatch.setattr(deep_tandem, "PRIMARY", dataclasses.replace(pair.primary.config, n_layers=4))
    monkeypatch.setattr(deep_tandem, "STEPS", 2)
    (table,) = deep_tandem.study(lab)
    whole, deep, blocks = table.rows
    assert whole["accuracy / whole"].value == whole["speed / whole"].value == 1
    assert deep["speed / whole"].value > 0 and blocks["speed / whole"] is None


def test_a_sum_reads_every_byte_as_often_as_it_says():
    work = steps.summing(2048 * 3, times=4)
    assert work.run() == 4 * 512 * 3 and work.units == 4


def test_a_profile_has_the_products_of_a_step(tiny_primary):
    assert where_time_goes.kind_of("dot.3") == "products, by XLA"
    assert where_time_goes.kind_of("copy.1") == "copies"
    assert where_time_goes.kind_of("while.2") is None and where_time_goes.kind_of("Some::Event") is None


def test_an_unknown_name_is_refused_and_help_lists_all(capsys, tmp_path):
    assert main(["nothing", "--out", str(tmp_path)]) == 2
    assert "studies among zoo, quality" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    help_text = "".join(capsys.readouterr().out.split())
    assert not [name for name in NAMES if name not in help_text]


@pytest.fixture
def headline_tables(monkeypatch):
    """The tables that the README's lines come from, as if measured; every figure is the same."""
    one = Interval(1.25, 1.0, 1.5)
    models = [{"model": name, "agreement": one} for name in ("distilled", "tandem (γ = 2)")]
    drafters = dict.fromkeys(("distilled", "tandem", "tandem / distilled"), one)
    kinds = [{"prompts": page.KIND, "mode": mode, **drafters} for mode in ("greedy", "temperature 1")]
    made = [
        Table("quality", models),
        Table("blocks", kinds),
        Table("speed", [{**row, "samples": 1} for row in kinds]),
    ]
    monkeypatch.setattr(__main__, "tables", lambda name, *_: made if name == "quality" else made[:1])
    return made


@pytest.mark.parametrize(
    ("name", "folder", "line"),
    [("quality", "results", "1.25"), ("quality", "mine", "old"), ("states", "results", "old")],
)
@pytest.mark.usefixtures("headline_tables")
def test_the_readme_gets_its_lines_from_whole_results_only(name, folder, line, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"{page.BEGIN}\nold\n{page.END}\n")
    run([name], tmp_path / folder, tmp_path)
    assert line in readme.read_text()
    written = (tmp_path / folder / "README.md").read_text()
    assert written.startswith("# Results") and f"## {WORDS['quality']['title']}" in written


def test_another_readme_is_never_written_over(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("# Mine\n")
    monkeypatch.setattr(__main__, "tables", lambda *_: pytest.fail("something was measured"))
    with pytest.raises(BadInput, match="a README of its own: choose another --out"):
        run(["quality"], tmp_path, tmp_path)
    assert (tmp_path / "README.md").read_text() == "# Mine\n"


def test_the_lines_are_put_between_the_marks(headline_tables, tmp_path):
    for table in headline_tables:
        save_table(table, tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{page.BEGIN}\nold\n{page.END}\nbelow\n")
    page.refresh(readme, tmp_path)
    lines = page.headline(tmp_path)
    assert readme.read_text() == f"above\n{page.BEGIN}\n{lines}{page.END}\nbelow\n"
    assert lines.count("| 1.25 | 1.25 |") == 2 and lines.count("| 125% | 125% |") == 1
    readme.write_text("nothing")
    with pytest.raises(BadInput, match="once in"):
        page.refresh(readme, tmp_path)
