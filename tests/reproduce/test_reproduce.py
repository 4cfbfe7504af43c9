"""The results: what is measured is what the lower rooms measure, and what is written can be read again."""

import dataclasses
import json

import equinox as eqx
import jax
import numpy as np
import pytest

from tandem_edu.data import Corpus, train_tokenizer
from tandem_edu.decode import LearnedRouter
from tandem_edu.decode.drafters import as_drafter
from tandem_edu.decode.routers import fingerprint
from tandem_edu.errors import BadInput
from tandem_edu.measure import Interval, quality, repetition_rate
from tandem_edu.model import Tandem, Transformer, TransformerConfig
from tandem_edu.reproduce import ablations, decoding, plan, readme, reproduce, rivals, run
from tandem_edu.reproduce import quality as quality_stage
from tandem_edu.reproduce.ablations import ABLATIONS, settings
from tandem_edu.reproduce.adaptive import adaptive_table
from tandem_edu.reproduce.prompts import prompts_of_kinds
from tandem_edu.reproduce.standalone import standalone_table
from tandem_edu.reproduce.table import Table, load_table, save_table
from tandem_edu.reproduce.weights import weights_table
from tandem_edu.zoo.shipped import MODELS, Pair
from tandem_edu.zoo.split import Texts

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
    plain = lambda key: Transformer(small, key=key, vocabulary=primary.vocabulary)
    tandem = lambda key: Tandem(plain(key), config, "fused", own_history=True, key=key)
    models = {"primary": primary, "mid_size": plain(keys[1])}
    models |= {"secondary": plain(keys[2]), "distilled": plain(keys[3])}
    models |= {"tandem": tandem(keys[4]), "tandem_ce": tandem(keys[5])}
    made_for = (fingerprint(as_drafter(models["tandem"], primary)), plan.ROUTER_LEN)
    router = LearnedRouter(16, made_for, key=keys[6])
    card = {name: {"name": name} for name in (*MODELS, "router")}
    return Pair(tokenizer=tokenizer, router=router, card=card, **models)


def test_a_table_comes_back_as_it_was(tmp_path):
    rows = [{"model": "tandem", "TV": Interval(0.2, 0.1, 0.3), "n": 3, "paper": None}]
    table = Table("t", "Title", "Note.", rows, {"a.png": "alt"})
    save_table(table, tmp_path)
    assert load_table(tmp_path, "t") == table
    assert json.loads((tmp_path / "t.json").read_text())["machine"]["cores"] >= 1
    assert "| tandem | 0.200 [0.100, 0.300] | 3 |  |" in table.markdown()
    assert "![alt](a.png)" in table.markdown()
    with pytest.raises(BadInput, match="--stage other"):
        load_table(tmp_path, "other")


def test_the_quality_table_is_what_quality_measures(pair, parts):
    rows = {row["model"]: row for row in quality_stage.quality_table(pair, parts.test).rows}
    units = quality_stage.document_windows(pair.tokenizer, parts.test)
    expected = quality(pair.tandem, np.concatenate(units), pair.primary, block_len=8)
    found = rows["tandem (γ = 8)"]
    assert found["agreement"].value == pytest.approx(expected.agreement, rel=1e-5)
    assert found["TV"].value == pytest.approx(expected.total_variation, rel=1e-5)
    assert found["cross-entropy"].value == pytest.approx(expected.cross_entropy, rel=1e-5)
    assert rows["primary"]["agreement"].value == 1 and rows["primary"]["TV"].value == pytest.approx(
        0, abs=1e-6
    )
    assert rows["distilled"]["TV / distilled's"] == Interval(1, 1, 1)


def test_positions_weigh_up_to_the_whole(pair, parts):
    rows = quality_stage.position_table(pair, parts.test, block_len=4).rows
    units = quality_stage.document_windows(pair.tokenizer, parts.test)
    expected = quality(pair.tandem, np.concatenate(units), pair.primary, block_len=4)
    assert np.mean([row["tandem"] for row in rows]) == pytest.approx(expected.agreement, rel=1e-5)


def test_prompts_are_of_three_kinds(pair, parts):
    kinds = prompts_of_kinds(pair.tokenizer, parts, "test", 3)
    assert list(kinds) == ["documentation", "code", "outside"]
    assert all(len(prompt) == 48 for prompts in kinds.values() for prompt in prompts)
    told = pair.tokenizer.decode(kinds["outside"][0].tolist())
    assert "The lighthouse keeper had not spoken".startswith(told[:20])


def test_looping_counts_what_stood_before():
    assert repetition_rate([np.arange(30)]) == 0
    assert repetition_rate([np.zeros(30, int)]) == 22 / 23  # all windows of 8 but the first
    assert repetition_rate([]) == 0


@pytest.fixture
def little_decoding(monkeypatch):
    for name, value in {"NEW_TOKENS": 12, "TIMED_TOKENS": 12, "REPETITIONS": 1, "CHOOSING": 1}.items():
        monkeypatch.setattr(decoding, name, value)
    monkeypatch.setattr(decoding, "BLOCK_LENS", (2, 5))
    monkeypatch.setattr(decoding, "SWEPT", {1: (2, 5), 4: (2,)})


@pytest.mark.slow
@pytest.mark.usefixtures("little_decoding")
def test_the_decoding_tables_count_what_the_traces_say(pair, parts):
    (blocks, speed), found = decoding.decoding_tables(pair, parts, count=2, say=lambda _: None)
    assert len(blocks.rows) == 6 and len(speed.rows) == 12
    row = blocks.rows[0]
    comparison = found[f"{row['prompts']}, {row['mode']}"]
    summary = comparison.run("tandem", 5).summary
    assert row["tandem"].value == pytest.approx(summary["mean_accepted"])
    assert comparison.identical == (row["mode"] == "greedy")


@pytest.fixture
def small_rivals(pair, monkeypatch, tmp_path):
    """A folder for rivals, which are small and trained for two steps."""
    small = pair.secondary.config
    monkeypatch.setattr(plan, "WIDER", dataclasses.replace(small, d_ff=24))
    monkeypatch.setattr(plan, "DEEPER", dataclasses.replace(small, n_layers=4))
    short = lambda name: dataclasses.replace(plan.settings(name), steps=2, warmup_steps=1)
    monkeypatch.setattr(rivals, "settings", short)
    return tmp_path


def test_a_wider_control_has_as_many_weights_as_the_tandem():
    count = lambda model: sum(leaf.size for leaf in jax.tree.leaves(model) if eqx.is_array(leaf))
    primary = plan.untrained("primary", None)
    tandem, wider = (count(plan.untrained(name, primary)) for name in ("tandem", "wider"))
    assert tandem <= wider < 1.001 * tandem


@pytest.mark.slow
@pytest.mark.usefixtures("little_decoding")
def test_the_table_of_weights_has_likeness_drafts_and_times(pair, parts, small_rivals):
    table = weights_table(pair, parts, small_rivals, count=2, say=lambda _: None)
    wider, ratio = "distilled, d_ff 683", "tandem / distilled, d_ff 683"
    assert len(table.rows) == 2 + 6 + 6
    agreement = table.rows[0]
    assert agreement[ratio].value == pytest.approx(agreement["tandem"].value / agreement[wider].value)
    once, again = (rivals.rival("wider", pair, parts, small_rivals) for _ in range(2))  # from its checkpoint
    assert eqx.tree_equal(once, again) and agreement[wider].value > 0


@pytest.mark.slow
def test_the_other_tables_can_be_made(pair, parts, monkeypatch, small_rivals):
    from tandem_edu.reproduce import adaptive, standalone

    monkeypatch.setattr(adaptive, "TIMED_TOKENS", 8)
    monkeypatch.setattr(adaptive, "CHOOSING", 1)
    monkeypatch.setattr(standalone, "NEW_TOKENS", 8)
    for module in (adaptive, standalone):
        monkeypatch.setattr(module, "REPETITIONS", 1)
    monkeypatch.setattr(adaptive, "THRESHOLDS", (0.5,))
    monkeypatch.setattr(adaptive, "CONSTANT", (2, 5))
    rows = adaptive_table(pair, parts, count=2, say=lambda _: None).rows
    assert [row["block length"].split(" (")[0] for row in rows[:3]] == [
        "constant",
        "own probability",
        "router",
    ]
    assert all(
        row["against constant"].value == 1 for row in rows if row["block length"].startswith("constant")
    )
    rows = standalone_table(pair, parts, small_rivals).rows
    tandems = [f"tandem, γ = {gamma}" for gamma in (2, 4, 8)]
    assert [row["model"] for row in rows] == [
        "secondary",
        "mid-size",
        "mid-size, 4 layers",
        "primary",
        *tandems,
    ]
    assert rows[2]["speed / 4 layers'"].value == 1


def test_stages_and_page(tmp_path):
    with pytest.raises(BadInput, match="stages among zoo, quality"):
        reproduce(["nothing"], tmp_path, tmp_path)
    save_table(Table("quality", "Quality", "Note.", [{"a": 1}]), tmp_path)
    page = run.write_page(tmp_path).read_text()
    assert page.startswith("# Results") and "## Quality" in page


def test_a_stage_alone_leaves_the_readme_as_it_is(tmp_path, monkeypatch):
    """Its lines need three tables; whoever makes another one first loses nothing."""
    page = tmp_path / "README.md"
    page.write_text(f"{readme.BEGIN}\nold\n{readme.END}\n")
    monkeypatch.setattr(run, "_tables", lambda *_: [Table("states", "States", "Note.", [{"a": 1}])])
    assert reproduce(["states"], tmp_path / "results", tmp_path, say=lambda _: None).exists()
    assert "old" in page.read_text()
    with pytest.raises(BadInput, match="reproduce --stage decoding"):
        readme.load_table(tmp_path, "blocks")


@pytest.mark.parametrize(("folder", "said"), [("results", "1.25"), ("mine", "old")])
def test_only_the_results_are_told_in_the_readme(folder, said, headline_tables, tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    page.write_text(f"{readme.BEGIN}\nold\n{readme.END}\n")
    monkeypatch.setattr(run, "_tables", lambda *_: headline_tables)
    reproduce(["quality"], tmp_path / folder, tmp_path, say=lambda _: None)
    assert said in page.read_text()


def test_another_readme_is_never_written_over(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("# Mine\n")
    monkeypatch.setattr(run, "_tables", lambda *_: pytest.fail("something was measured"))
    with pytest.raises(BadInput, match="a README of its own: choose another --out"):
        reproduce(["quality"], tmp_path, tmp_path)
    assert (tmp_path / "README.md").read_text() == "# Mine\n"


def test_every_ablation_has_a_control_that_differs_in_one_thing():
    for name, study in ABLATIONS.items():
        assert len(study.variants) >= 2, name
        tokens = {settings(variant, study.steps).tokens for variant in study.variants.values()}
        assert len(tokens) == 1, name


@pytest.mark.slow
@pytest.mark.parametrize("study", ["readers", "own-text", "frozen", "deep-tandem", "block-prediction"])
def test_a_study_trains_its_variants_side_by_side(study, pair, parts, monkeypatch, tmp_path):
    small = pair.secondary.config
    config = dataclasses.replace(pair.primary.config, n_layers=8)
    primary = Transformer(config, key=jax.random.key(8))
    sizes = {"PRIMARY": config, "SECONDARY": small, "HALF": dataclasses.replace(config, n_layers=4)}
    for name, value in sizes.items():
        monkeypatch.setattr(ablations, name, value)
    monkeypatch.setattr(ablations, "OWN_TEXTS", 20)
    monkeypatch.setitem(ABLATIONS, study, ABLATIONS[study]._replace(steps=2))
    deep = Pair(**{**vars(pair), "primary": primary})
    table = ablations.ablation_table(study, deep, parts, tmp_path, say=lambda _: None)
    assert [row["variant"] for row in table.rows] == list(ABLATIONS[study].variants)
    assert all(0 <= row["TV at γ = 2"].value <= 1 for row in table.rows)
    timed = [row for row in table.rows if row.get("times as fast as the whole model")]
    assert len(timed) == (3 if study == "deep-tandem" else 0)


@pytest.fixture
def headline_tables():
    """Those that the README's lines come from; every figure is the same."""
    one = Interval(1.25, 1.0, 1.5)
    names = ("agreement", "TV", "agreement / distilled's", "TV / distilled's")
    models = [{"model": name, **dict.fromkeys(names, one)} for name in ("distilled", "tandem (γ = 2)")]
    drafters = dict.fromkeys(("distilled", "tandem", "tandem / distilled"), one)
    kinds = [{"prompts": "code", "mode": mode, **drafters} for mode in ("greedy", "temperature 1")]
    blocks = Table("blocks", "", "", kinds, {readme.PICTURE: "Lines."})
    speed = Table("speed", "", "", [{**row, "samples": 1} for row in kinds])
    return [Table("quality", "", "", models), blocks, speed]


def test_the_readme_gets_its_lines_from_the_tables(headline_tables, tmp_path):
    for table in headline_tables:
        save_table(table, tmp_path)
    page = tmp_path / "README.md"
    page.write_text(f"above\n{readme.BEGIN}\nold\n{readme.END}\nbelow\n")
    readme.refresh(page, tmp_path)
    assert page.read_text() == f"above\n{readme.BEGIN}\n{readme.headline(tmp_path)}{readme.END}\nbelow\n"
    assert page.read_text().count("1.25 [1.00, 1.50]") == 18
    assert f"![Lines.](results/{readme.PICTURE})" in page.read_text()
    page.write_text("nothing")
    with pytest.raises(BadInput, match="once in"):
        readme.refresh(page, tmp_path)
