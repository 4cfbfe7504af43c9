"""The command line as a person meets it: the whole way on a small text, and one line for every mistake."""

import argparse
import ast
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest

import tandem_edu
from tandem_edu import data, show
from tandem_edu.cli import main
from tandem_edu.cli.parser import parser
from tandem_edu.decode import Sampling, speculate
from tandem_edu.decode.trace import records_of_one_text
from tandem_edu.drafters import describe
from tandem_edu.errors import BadInput
from tandem_edu.model import Transformer, TransformerConfig
from tandem_edu.show.panels.cycle import cycle_view
from tandem_edu.zoo import load_folder, load_router, save_folder

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
    small += ["--loss", "tv=0.5", "nla=2"]
    assert main(["train", "tandem-distil", "--out", str(folder / "tandem"), *small, *common]) == 0
    return folder


@pytest.fixture(scope="module")
def router(runs, text):
    """A router for the tandem, made by the command itself."""
    command = ["train", "router", "--drafter", str(runs / "tandem"), "--out", str(runs / "router")]
    command += ["--text", text, "--block-len", "3", "--prompts", "3", "--steps", "20"]
    assert main([*command, "--target", "accepted", "--features", "hidden"]) == 0
    path = runs / "router" / "router.safetensors"
    made = load_router(path)
    assert (made.target, made.inputs) == ("accepted", "hidden")
    return str(path)


def test_a_card_says_where_a_model_comes_from(runs):
    card = json.loads((runs / "tandem" / "card.json").read_text())
    recipe = card["recipe"]
    losses = {"ce": 0.0, "kl": 0.0, "reverse_kl": 0.0, "tv": 0.5, "nla": 2}
    assert (recipe["name"], recipe["objectives"]) == ("tandem-distil", [[1.0, losses]])
    assert card["data"]["name"] == "story.txt"
    assert card["primary"] == "../primary"
    assert card["held_out"]["step"] == 6


def test_all_write_the_same_greedy_text_and_blocks_that_a_router_ends_early_too(runs, router, capsys):
    decoding = ["--prompt", "the cat sat", "--tokens", "30"]
    assert main(["generate", str(runs / "primary"), *decoding]) == 0
    alone = capsys.readouterr().out
    assert alone.startswith("the cat sat")
    routed = ["tandem", "--router", router]
    others = ["distilled"], [*routed, "--threshold", "1"], [*routed, "--verification", "block"]
    for drafter, *flags in (["tandem"], routed, *others):
        assert main(["speculate", str(runs / drafter), *decoding, "--block-len", "3", *flags]) == 0
        shown = capsys.readouterr()
        assert shown.out == alone
        assert "block_efficiency" in shown.err
    assert main(["speculate", str(runs / "distilled"), *decoding, "--router", router]) == 2
    assert "a router trained for this drafter" in capsys.readouterr().err
    assert main(["speculate", str(runs / "tandem"), *decoding, "--router", router]) == 2
    assert "a router trained with block_len=4, got one trained with 3" in capsys.readouterr().err
    # A secondary alone, with its primary's vocabulary.
    assert main(["generate", str(runs / "distilled"), *decoding, "--temperature", "1"]) == 0
    assert capsys.readouterr().out.startswith("the cat sat")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "given", "settings"),
    [
        ("eagle", ["layer_map=fused", "unroll=2"], {"layer_map": [1, 2], "unroll": 2}),
        ("glide", [], {"layer_map": [2]}),
        ("early-exit", [], {"exit_layer": 1}),
        ("tandem", ["own_history=true", "layer_map=[[0,2]]"], {"layer_map": [[0, 2]], "own_history": True}),
    ],
)
def test_other_drafters_are_trained_the_same_way(kind, given, settings, runs, text, tmp_path):
    # Two heads of 8, as the primary's, because Glide needs that.
    sizes = ["--layers", "1", "--width", "16", "--heads", "2", "--context", "64"]
    command = ["train", "tandem-distil", "--kind", kind, "--out", str(tmp_path), "--text", text]
    command += ["--primary", str(runs / "primary"), *RUN, *([] if kind == "early-exit" else sizes)]
    assert main([*command, *(["--set", *given] if given else [])]) == 0
    description = describe(load_folder(tmp_path).model)
    assert (description["kind"], description["settings"]) == (kind, settings)


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


TRAIN = "--out {new} --text {text} "
PRIMARY = f"train primary {TRAIN} --vocab-size 270 "
DISTILLED = f"train distilled {TRAIN}"
TANDEM = f"train tandem-ce {TRAIN}"
READER = f"{TANDEM} --primary {{runs}}/primary --width 12 "
ROUTER = f"train router {TRAIN} --drafter {{runs}}/tandem "
GENERATE = "generate {runs}/primary --prompt a "
MISTAKES = [
    ("train primary --out {new} --text nowhere.txt", "nothing at"),
    ("train primary --out {text}/in/a/file --text {text} --vocab-size 270", "expected"),
    (f"{PRIMARY} --width 30 --heads 4", "d_model divisible by"),
    (f"{PRIMARY} --loss nla=1 --width 8 --heads 2", "a primary"),
    (f"{DISTILLED} --width 8 --heads 2 --vocab-size 270", "a primary"),
    (f"{DISTILLED} --primary {{runs}}/primary --start {{stranger}}", "a primary with the tokenizer of"),
    (f"{DISTILLED} --loss ce=1 jsd=1", "among ce, kl, reverse_kl, tv, nla, got ce, jsd"),
    (f"{DISTILLED} --start {{runs}}/distilled --layers 1", "--start uses, got --layers"),
    (f"{DISTILLED} --primary {{runs}}/primary --vocab-size 9", "got --vocab-size"),
    (f"{TANDEM} --width 8 --heads 2 --vocab-size 270", "a primary"),
    (f"{TANDEM} --primary nowhere", "no such folder"),
    (f"{TANDEM} --start {{runs}}/tandem --kind eagle", "a tandem uses, got --kind"),
    (f"{TANDEM} --kind early-exit --width 9 --heads 1", "uses, got --width, --heads"),
    ("train tandem-ce --out {runs}/primary --primary {runs}/primary", "another folder for --out"),
    (f"{READER} --set layer_map=x", '"last"'),
    (f"train router {TRAIN} --drafter {{runs}}/primary", "a drafter with its primary"),
    (f"{ROUTER} --seed {{long}}", "--seed of at least 0, below 2**31"),
    ("speculate {runs}/tandem --prompt a --threshold 0.5", "--threshold with a router"),
    ("speculate {runs}/tandem --prompt a --router {runs}/tandem/model.safetensors", "a router at"),
    ("speculate {runs}/tandem --prompt a --primary {stranger}", "with another"),
    ("speculate {runs}/primary --prompt a", "a drafter with its primary"),
    ("generate nowhere --prompt a", "no such folder"),
    ("generate {empty} --prompt a", "no card.json"),
    ("generate {damaged} --prompt a", "a JSON object in"),
    ("generate {runs}/tandem --prompt a", "a Transformer"),
    ("generate {runs}/primary --prompt=", "a prompt"),
    ("generate {runs}/primary --prompt a\udcff", "a prompt in UTF-8, got 'a\\udcff'"),
    (f"{GENERATE} --seed {{long}}", "--seed of at least 0, below 2**31"),
    (f"{GENERATE} --tokens 64", "the context of 64"),
]


@pytest.fixture(scope="module")
def folders(runs, text, tmp_path_factory):
    """What the mistakes name: good folders, empty and damaged ones, and a model with another tokenizer."""
    folder = tmp_path_factory.mktemp("folders")
    (folder / "empty").mkdir()
    (folder / "damaged").mkdir()
    (folder / "damaged" / "card.json").write_text("{")
    # It has as many tokens as the primary's tokenizer, but other ones.
    tokenizer = data.train_tokenizer("another text altogether " * 9, 270)
    config = TransformerConfig(270, 8, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=8, max_len=64)
    save_folder(folder / "stranger", Transformer(config, key=jax.random.key(0)), tokenizer, {})
    names = ("new", "empty", "damaged", "stranger")
    return {"runs": runs, "text": text, "long": 10**30, **{name: folder / name for name in names}}


@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=[ascii(command) for command, _ in MISTAKES])
def test_a_mistake_gets_one_line(command, message, folders, capsys):
    assert main([part.format(**folders) for part in command.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tandem-edu: expected ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "--help"),
        ("train", "--help"),
        ("generate x --tokens many", "invalid int value: 'many'"),
        ("train distilled --out x --block-lens 2", "unrecognized arguments: --block-lens"),
        ("train primary --out x --kind tandem", "unrecognized arguments: --kind"),
        ("train tandem-ce --out x --set layer_map", "expected NAME=VALUE, got 'layer_map'"),
        ("train distilled --out x --loss kl=much", "invalid weight value: 'kl=much'"),
        ("train router --out x", "required: --drafter"),
    ],
)
def test_a_flag_that_the_command_lacks_gets_one_line(command, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error and "--help" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["primary", "distilled"])
def test_a_continued_model_keeps_its_tokenizer_and_its_primary(name, runs, text, tmp_path):
    command = f"train {name} --out {tmp_path}/on --text {text} --start {runs}/{name}"
    assert main([*command.split(), *RUN]) == 0
    before, after = (load_folder(folder) for folder in (runs / name, tmp_path / "on"))
    assert before.tokenizer.to_str() == after.tokenizer.to_str()
    assert eqx.tree_equal(before.primary, after.primary)


def test_a_shared_embedding_is_not_saved_without_its_primary(runs, tmp_path):
    saved = load_folder(runs / "distilled")
    with pytest.raises(BadInput, match="the primary whose embedding the model shares, got None"):
        save_folder(tmp_path / "alone", saved.model, saved.tokenizer, {})
    assert not (tmp_path / "alone").exists()


@pytest.mark.parametrize(
    ("command", "resumes"),
    [
        ("generate x --prompt y", False),
        ("train primary --out x --text y", True),
        ("train router --out x --drafter y", False),
    ],
)
def test_who_stops_a_training_is_shown_how_to_resume(command, resumes, monkeypatch, capsys):
    def stopped(_, __, options):
        vars(options).update(vars(parsed) | {"run": lambda _: signal.raise_signal(signal.SIGINT)})

    parsed = parser().parse_args(command.split())
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stopped)
    assert main([]) == 130
    assert ("last checkpoint" in capsys.readouterr().err) == resumes


PROCESS = """
import atexit, os, signal, sys
atexit.register(os.abort)  # as jaxlib's exit handlers when it was compiling
class Interrupted:
    def find_spec(self, name, *_):
        if name == "{module}":
            signal.raise_signal(signal.SIGINT)
            raise ImportError("as an extension says that was interrupted")
sys.meta_path.insert(0, Interrupted())
from tandem_edu.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["argparse", "jax", "tandem_edu.zoo"])
def test_ctrl_c_is_answered_whatever_is_imported_or_compiled(module, runs):
    command = ["generate", str(runs / "primary"), "--prompt", "the"]
    code = PROCESS.format(module=module)
    run = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "tandem-edu: stopped\n")


def test_the_package_imports_its_names_when_they_are_used():
    static = ast.parse(Path(tandem_edu.__file__).read_text("utf-8"))
    imports = [node for node in ast.walk(static) if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    lazy = {f"tandem_edu.{module}.{name}" for name, module in tandem_edu._MODULE_OF.items()}
    assert names == lazy | {"importlib.import_module"}
    assert all(hasattr(tandem_edu, name) for name in dir(tandem_edu))
    code = "import sys, tandem_edu.cli; print('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout.strip() == b"False"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_that_lacks_characters_shows_a_replacement(encoding, runs):
    environment = os.environ | {"PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}
    text = ["generate", str(runs / "primary"), "--tokens", "1", "--prompt", "γ 日 🙂"]
    for arguments in (["speculate", "--help"], ["train", "router", "--help"], text):
        command = [sys.executable, "-m", "tandem_edu.cli", *arguments]
        run = subprocess.run(command, capture_output=True, env=environment)
        assert (run.returncode, run.stderr) == (0, b"")
        assert b"?" in run.stdout


def test_an_id_without_a_token_is_shown_as_its_number_by_whatever_shows_text():
    """As a model writes whose vocabulary is padded to a round number."""
    config = TransformerConfig(400, d_model=8, n_layers=1, n_heads=2, n_kv_heads=1, d_ff=8, max_len=64)
    model, key = Transformer(config, key=jax.random.key(0)), jax.random.key(0)
    out = speculate(model, model, [300, 66], 24, sampling=Sampling(1.0), key=key)
    padded = [token for token in out.tokens.tolist() if token >= 257]
    assert padded
    text = (data.train_tokenizer("", vocab_size=257), [300, 66], out)
    cycles = range(len(records_of_one_text(out.trace)))
    views = [show.terminal_view(*text, colour=False), show.terminal_view(*text), show.token_view(*text)]
    for shown in (*views, "".join(cycle_view(*text, cycle) for cycle in cycles)):
        assert all(f"[{token}]" in shown for token in [300, *padded])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["generate", "{runs}/primary", "--prompt", "the"]])
def test_an_output_that_cannot_be_written_gets_one_line(arguments, runs):
    command = [sys.executable, "-m", "tandem_edu.cli", *(part.format(runs=runs) for part in arguments)]
    reader, closed_pipe = os.pipe()
    os.close(reader)
    for output, reason in ((closed_pipe, "Broken pipe"), (os.open("/dev/full", os.O_WRONLY), "No space")):
        # Unbuffered, argparse itself ignores an output that is closed.
        environment = os.environ | {"PYTHONUNBUFFERED": ""}
        run = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, env=environment)
        os.close(output)
        assert run.returncode == 2
        assert f"expected to write to standard output, got {reason}" in run.stderr
        assert run.stderr.count("\n") == 1
