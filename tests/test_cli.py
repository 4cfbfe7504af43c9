"""The command line as a person meets it: the whole way on a small text, and one line for every mistake."""

import argparse
import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from tandem_edu import data
from tandem_edu.cli import _parser, main
from tandem_edu.errors import BadInput
from tandem_edu.model import Transformer, TransformerConfig
from tandem_edu.model.weights import describe
from tandem_edu.reproduce.run import STAGES
from tandem_edu.zoo import load_folder, save_folder

SIZES = ["--layers", "2", "--width", "16", "--heads", "2", "--context", "64"]
RUN = ["--steps", "6", "--seq-len", "16", "--batch-size", "2"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "story.txt"
    rng = np.random.default_rng(0)
    words = np.array(["the cat", "the dog", "sat on", "ran from", "a mat", "a hat", "and"])
    path.write_text("\n\n".join(" ".join(rng.choice(words, 60)) + "." for _ in range(40)))
    return str(path)


@pytest.fixture(scope="module")
def runs(text, tmp_path_factory):
    """A trained primary, distilled secondary and tandem, made by the command itself."""
    folder = tmp_path_factory.mktemp("runs")
    primary = str(folder / "primary")
    common = ["--text", text, *RUN]
    assert main(["train", "primary", "--out", primary, *SIZES, "--vocab-size", "270", *common]) == 0
    small = ["--layers", "1", "--width", "8", "--heads", "2", "--context", "64", "--primary", primary]
    assert main(["train", "distilled", "--out", str(folder / "distilled"), *small, *common]) == 0
    assert main(["train", "tandem-distil", "--out", str(folder / "tandem"), *small, *common]) == 0
    return folder


def test_a_card_tells_where_a_model_comes_from(runs, text):
    card = json.loads((runs / "tandem" / "card.json").read_text())
    assert card["recipe"]["name"] == "tandem-distil"
    assert card["data"]["name"] == "story.txt"
    assert card["primary"] == "../primary"
    assert card["held_out"]["step"] == 6


def test_a_loss_of_ones_own(runs, text, tmp_path):
    command = ["train", "tandem-distil", "--out", str(tmp_path), "--text", text, *RUN]
    command += ["--layers", "1", "--width", "8", "--heads", "2", "--context", "64"]
    assert main([*command, "--primary", str(runs / "primary"), "--loss", "tv=0.5", "nla=2"]) == 0
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["recipe"]["objectives"] == [[1.0, {"ce": 0.0, "kl": 0.0, "tv": 0.5, "nla": 2.0}]]


def test_all_write_the_same_greedy_text(runs, capsys):
    decoding = ["--prompt", "the cat sat", "--tokens", "30"]
    assert main(["generate", str(runs / "primary"), *decoding]) == 0
    alone = capsys.readouterr().out
    assert alone.startswith("the cat sat")
    for drafter in ("distilled", "tandem"):
        assert main(["speculate", str(runs / drafter), *decoding, "--block-len", "3"]) == 0
        said = capsys.readouterr()
        assert said.out == alone
        assert "block_efficiency" in said.err


def test_a_secondary_alone_generates_with_its_primarys_vocabulary(runs, capsys):
    assert main(["generate", str(runs / "distilled"), "--prompt", "the", "--temperature", "1"]) == 0
    assert capsys.readouterr().out.startswith("the")


@pytest.fixture(scope="module")
def router(runs, text):
    """A router for the tandem, made by the command itself."""
    command = ["train", "router", "--drafter", str(runs / "tandem"), "--out", str(runs / "router")]
    assert main([*command, "--text", text, "--block-lens", "3", "--prompts", "3", "--steps", "20"]) == 0
    return str(runs / "router" / "router.safetensors")


def test_a_router_ends_blocks_early_and_changes_no_text(runs, router, capsys):
    decoding = ["--prompt", "the cat sat", "--tokens", "12"]
    assert main(["generate", str(runs / "primary"), *decoding]) == 0
    alone = capsys.readouterr().out
    for more in ([], ["--threshold", "1"], ["--verification", "block"]):
        command = ["speculate", str(runs / "tandem"), *decoding, "--block-len", "3", "--router", router]
        assert main([*command, *more]) == 0
        assert capsys.readouterr().out == alone
    assert main(["speculate", str(runs / "distilled"), *decoding, "--router", router]) == 2
    assert "a router trained for this drafter" in capsys.readouterr().err
    assert main(["speculate", str(runs / "tandem"), *decoding, "--router", router]) == 2
    assert "a router trained with block_len=4, got one trained with 3" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["eagle", "eagle-fused", "glide", "early-exit"])
def test_other_drafters_are_trained_the_same_way(kind, runs, text, tmp_path):
    # Two heads of 8, as the primary's: a cross-attending needs that.
    sizes = ["--layers", "1", "--width", "16", "--heads", "2", "--context", "64"]
    sizes = [] if kind == "early-exit" else sizes
    primary = ["--primary", str(runs / "primary")]
    command = ["train", "tandem-distil", "--kind", kind, "--out", str(tmp_path), "--text", text]
    assert main([*command, *primary, *sizes, *RUN]) == 0
    said = describe(load_folder(tmp_path).model)
    assert said["kind"] == kind.removesuffix("-fused")
    maps = {"eagle": [2], "eagle-fused": [1, 2], "glide": [2], "early-exit": None}
    assert said.get("layer_map") == maps[kind]


def test_a_folder_survives_a_move_together_with_its_primary(runs, tmp_path):
    moved = runs.rename(tmp_path / "elsewhere")
    try:
        assert load_folder(moved / "tandem").primary.config.n_layers == 2
    finally:
        moved.rename(runs)


def test_the_same_command_again_goes_on(runs, text, capsys):
    command = ["train", "primary", "--out", str(runs / "primary"), *SIZES, "--text", text]
    command += ["--vocab-size", "270"]
    before = (runs / "primary" / "model.safetensors").read_bytes()
    assert main([*command, *RUN]) == 0
    assert (runs / "primary" / "model.safetensors").read_bytes() == before
    assert main([*command, *RUN, "--learning-rate", "0.5"]) == 2
    assert "learning_rate" in capsys.readouterr().err


MISTAKES = [
    ("train primary --out {new} --text nowhere.txt", "nothing at"),
    (
        "train primary --out {new} --text {text} --width 30 --heads 4 --vocab-size 270",
        "d_model divisible by n_heads",
    ),
    ("train primary --out {new} --text {text} --steps 0 --vocab-size 270", "steps"),
    ("train distilled --out {new} --text {text} --width 8 --heads 2 --vocab-size 270", "a primary"),
    ("train tandem-ce --out {new} --text {text} --width 8 --heads 2 --vocab-size 270", "a primary"),
    ("train tandem-ce --out {new} --text {text} --primary nowhere", "no such folder"),
    (
        "train distilled --out {new} --text {text} --block-lens 2",
        "has a use for, got --block-lens: use tandem-ce",
    ),
    (
        "train tandem-ce --out {runs}/primary --text {text} --primary {runs}/primary",
        "another folder for --out than --primary",
    ),
    (
        "train distilled --out {new} --text {text} --primary {runs}/primary --start {stranger}",
        "a primary with the tokenizer of",
    ),
    ("train distilled --out {new} --text {text} --loss ce=1 jsd=1", "among ce, kl, reverse_kl, tv, nla, got"),
    ("train distilled --out {new} --text {text} --loss kl", "a number as weight of kl"),
    ("train distilled --out {new} --text {text} --loss kl=much", "a number as weight of kl"),
    ("train distilled --out {new} --text {text} --loss kl=-1", "weights of at least 0"),
    ("train distilled --out {new} --text {text} --loss tv=0", "not all 0"),
    (
        "train primary --out {new} --text {text} --loss nla=1 --width 8 --heads 2 --vocab-size 270",
        "a primary",
    ),
    ("train router --out {new} --text {text}", "a drafter whose drafts to learn from"),
    ("train router --out {new} --text {text} --drafter {runs}/tandem --block-lens 2 4", "one γ_max"),
    ("train router --out {new} --text {text} --drafter {runs}/primary", "a drafter with its primary"),
    ("speculate {runs}/tandem --prompt the --threshold 0.5", "--threshold with a router"),
    ("speculate {runs}/tandem --prompt the --router {runs}/tandem/model.safetensors", "a router at"),
    ("train primary --out {text}/in/a/file --text {text} --vocab-size 270", "expected"),
    ("speculate {runs}/tandem --primary {foreign} --prompt once", "with another"),
    (
        "train tandem-ce --out {new} --text {text} --primary {runs}/primary --width 12 --layer-map x",
        '"last"',
    ),
    ("train distilled --kind eagle --out {new} --text {text} --primary {runs}/primary", "got --kind"),
    ("train primary --out {new} --text {text} --own-history --layer-map last", "--layer-map, --own-history"),
    (
        "train primary --out {new} --text {text} --kv-heads 0 --vocab-size 270",
        "n_kv_heads of at least 1, got 0",
    ),
    ("train primary --out {new} --text {text} --ff 0 --vocab-size 270", "d_ff of at least 1, got 0"),
    (
        "train primary --out {new} --text {text} --temperature 0",
        "train primary has a use for, got --temperature",
    ),
    (
        "train distilled --out {new} --text {text} --start {runs}/distilled --layers 1",
        "--start has a use for",
    ),
    ("train distilled --out {new} --text {text} --primary {runs}/primary --vocab-size 9", "got --vocab-size"),
    (
        "train tandem-ce --out {new} --text {text} --start {runs}/tandem --kind eagle",
        "a Tandem has a use for",
    ),
    (
        "train tandem-ce --out {new} --text {text} --kind early-exit --width 9",
        "--kind early-exit has a use for",
    ),
    (
        "train tandem-ce --out {new} --text {text} --exit-layer 1",
        "--kind tandem has a use for, got --exit-layer",
    ),
    ("train router --out {new} --text {text} --learning-rate 1 --loss kl=1", "got --loss, --learning-rate"),
    (
        "train router --out {new} --text {text} --drafter {runs}/tandem --steps 0",
        "steps of at least 1, got 0",
    ),
    (
        "train router --out {new} --text {text} --drafter {runs}/tandem --seed {long}",
        "seed and step below 2**64",
    ),
    (
        "train tandem-ce --kind early-exit --out {new} --text {text} --primary {runs}/primary --exit-layer 2",
        "exit_layer in 1..1",
    ),
    (
        "train tandem-ce --kind cross-attending --out {new} --text {text} --primary {runs}/primary "
        "--width 12",
        "the primary's head_dim = 8",
    ),
    ("generate nowhere --prompt a", "no such folder"),
    ("generate {empty} --prompt a", "no card.json"),
    ("generate {runs}/tandem --prompt a", "a Transformer"),
    ("generate {runs}/primary --prompt=", "a prompt"),
    ("generate {runs}/primary --prompt a\udcff", "a prompt in UTF-8, got 'a\\udcff'"),
    ("generate {runs}/primary --prompt a --seed {long}", "--seed of at least 0, below 2**31"),
    ("generate {runs}/primary --prompt a --tokens 0", "max_new_tokens of at least 1"),
    ("generate {runs}/primary --prompt a --tokens 64", "the context of 64"),
    ("generate {runs}/primary --prompt a --temperature -1", "temperature of at least 0"),
    ("generate {runs}/primary --prompt a --temperature 1 --top-k 0", "top_k of at least 1"),
    ("generate {runs}/primary --prompt a --temperature 1 --top-p 2", "top_p in (0, 1]"),
    ("speculate {runs}/tandem --prompt a --block-len 0", "block_len"),
    ("speculate {runs}/primary --prompt a", "a drafter with its primary"),
    ("generate {damaged} --prompt a", "JSON in"),
    ("bench --repetitions 0", "repetitions of at least 1"),
]


@pytest.mark.parametrize(("command", "said"), MISTAKES, ids=[ascii(command) for command, _ in MISTAKES])
def test_a_mistake_gets_one_line(command, said, runs, text, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "card.json").write_text("{")
    places = {"runs": runs, "text": text, "new": tmp_path / "new", "long": 10**30}
    stranger = data.train_tokenizer("another text altogether " * 9, vocab_size=262)
    small = TransformerConfig(
        vocab_size=262, d_model=8, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=8, max_len=64
    )
    save_folder(tmp_path / "stranger", Transformer(small, key=jax.random.key(0)), stranger, {})
    # As many tokens, of which each means something else.
    same_size = data.train_tokenizer("another text altogether " * 9, vocab_size=270)
    like = dataclasses.replace(small, vocab_size=270)
    save_folder(tmp_path / "foreign", Transformer(like, key=jax.random.key(0)), same_size, {})
    places |= {name: tmp_path / name for name in ("empty", "damaged", "stranger", "foreign")}
    arguments = [part.format(**places) for part in command.split()]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("tandem-edu: expected ")
    assert said in error
    assert error.count("\n") == 1


def test_what_is_continued_keeps_its_primary(runs, text, tmp_path):
    command = f"train distilled --out {tmp_path}/on --text {text} --start {runs}/distilled"
    assert main([*command.split(), *RUN]) == 0
    assert load_folder(tmp_path / "on").primary.config.n_layers == 2


def test_a_borrowed_vocabulary_is_not_saved_without_its_owner(runs, tmp_path):
    saved = load_folder(runs / "distilled")
    with pytest.raises(BadInput, match="the primary whose vocabulary the model borrows, got None"):
        save_folder(tmp_path / "alone", saved.model, saved.tokenizer, {})
    assert not (tmp_path / "alone").exists()


def test_what_is_continued_keeps_its_tokenizer(runs, text, tmp_path):
    command = f"train primary --out {tmp_path}/on --text {text} --start {runs}/primary"
    assert main([*command.split(), *RUN]) == 0
    tokenizers = [(folder / "tokenizer.json").read_text() for folder in (runs / "primary", tmp_path / "on")]
    assert tokenizers[0] == tokenizers[1]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("demo", True),
        ("reproduce", True),
        ("bench", False),
        ("train primary --out x --text y", True),
        ("train router --out x --text y", False),
    ],
)
def test_who_stops_a_training_is_told_how_to_go_on(command, told, monkeypatch, capsys):
    def stopped(_):
        raise KeyboardInterrupt

    options = _parser().parse_args(command.split())
    options.run = stopped
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda *_: options)
    assert main([]) == 130
    assert ("last checkpoint" in capsys.readouterr().err) == told


def test_the_help_names_every_stage(capsys):
    with pytest.raises(SystemExit):
        main(["reproduce", "--help"])
    told = "".join(capsys.readouterr().out.split())
    assert not [stage for stage in STAGES if stage not in told]


@pytest.mark.parametrize("arguments", [[], ["dance"], ["train"], ["generate", "x", "--tokens", "many"]])
def test_a_command_that_is_none(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--help" in error


def test_the_command_is_installed_and_helps():
    run = subprocess.run([sys.executable, "-m", "tandem_edu.cli", "--help"], capture_output=True, text=True)
    assert run.returncode == 0
    for command in ("demo", "train", "generate", "speculate", "bench", "reproduce"):
        assert command in run.stdout


@pytest.mark.slow
def test_the_quick_demo(tmp_path):
    """The whole of it, as CI runs it, in a process of its own."""
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "tandem_edu.cli",
        "demo",
        "--quick",
        "--out",
        str(tmp_path),
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "tokens per primary call" in run.stdout
    report = (tmp_path / "report.html").read_text()
    assert report.count("<img alt=") == 5
    assert "is the same, token for token, in every run" in report
    assert "<script" not in report
