"""A drafter of one's own is one short file: it trains, is saved, and decodes, in Python and from a shell.

`tandem_edu.train` is imported in the tests that train, because the layers below do not need it.
"""

import importlib.util
import subprocess
import sys

import equinox as eqx
import jax
import numpy as np
import oracle
import pytest
from pairs import Pair, config, decode, forced, read_hidden, some_tokens

import tandem_edu as te
from tandem_edu.drafters import build_reader, load_model, save_model

SOURCE = '''\
"""A drafter that sees its own block only. A projection of the primary's last state before is added to it."""
import sys
import equinox as eqx
import jax.numpy as jnp
import tandem_edu as te
import tandem_edu.cli
from tandem_edu.model import Cache
from tandem_edu.model.masks import block_starts, positions, tandem_masks

class Additive(te.PrimaryReader):
    kind = "additive"
    secondary: te.Transformer
    weight: jnp.ndarray
    primary_config: te.TransformerConfig = eqx.field(static=True)
    scale: float = eqx.field(static=True)
    def __init__(self, secondary, primary_config, scale=1.0, *, key):
        self.secondary, self.primary_config, self.scale = secondary, primary_config, scale
        self.weight = jnp.zeros((primary_config.d_model, secondary.config.d_model), jnp.float32)
    def settings(self):
        return {"scale": self.scale}
    def before(self, hidden, starts):  # row t of `last` is the state of token t - 1
        last = jnp.insert(hidden[..., -1, :, :], 0, 0.0, axis=-2)[..., starts, :]
        return self.scale * last @ self.weight
    def teacher_forced(self, primary, tokens, hidden, block_len, offset=0):
        starts = block_starts(tokens.shape[-1], block_len, offset)
        own, rope = tandem_masks(starts)[0], self.secondary.rope(positions(len(starts)))
        x = self.secondary.embed(tokens) + self.before(hidden, starts)
        states, _ = self.secondary.run_layers(x, rope, [own], lambda layer, kv, carry: ([kv], carry))
        return self.secondary.logits(states[-1])
    def start(self, output, max_draft_len, block_len):
        return self.commit((Cache.empty(self.config, max_draft_len + 1),), output)
    def step(self, token, state, primary, cache):
        states, own = self.secondary.extend_states(self.secondary.embed(token[None]) + state[1], state[0])
        return te.Draft(self.secondary.logits(states[-1])[0], (own, state[1]), states[-1][0])
    def commit(self, state, output):
        return state[0].with_length(0), self.before(output.hidden, (output.length - output.start)[None])

if __name__ == "__main__":
    sys.exit(tandem_edu.cli.main())
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "my_drafter.py"
    path.write_text(SOURCE)
    assert len(SOURCE.splitlines()) <= 40
    return path


@pytest.fixture(scope="module")
def own(file) -> Pair:
    """The drafter of that file, and a primary; every weight matters."""
    spec = importlib.util.spec_from_file_location("my_drafter", file)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    primary = oracle.lively(te.Transformer(config(16, 3, 4), key=jax.random.key(1)), 20)
    secondary = te.Transformer(config(12, 2, 2, 1), key=jax.random.key(2))
    model = build_reader("additive", secondary, primary.config, {"scale": 0.5}, jax.random.key(3))
    return Pair(primary, oracle.lively(model, 22))


def test_its_cached_pass_equals_its_teacher_forced_pass(own):
    tokens = some_tokens(30, 17)
    hidden = read_hidden(own.primary, tokens)
    for block_len, prompt_len in ((1, 0), (2, 10), (3, 7), (5, 1)):
        logits, _ = decode(own, tokens, prompt_len, block_len, unread=block_len == 5)
        expected = forced(own, tokens, hidden, block_len, prompt_len)[prompt_len:]
        for cached, parallel in zip(logits, expected, strict=True):
            if cached is not None:
                np.testing.assert_allclose(cached, parallel, rtol=1e-5, atol=1e-5)


def test_it_trains_is_saved_and_decodes(own, tmp_path):
    from tandem_edu.train import Recipe, train

    primary, model = own
    text = np.tile(np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 12, 0], np.uint16), 60)
    lengths = {"steps": 30, "warmup_steps": 5, "batch_size": 2, "seq_len": 12, "eval_every": 15}
    recipe = Recipe("own", learning_rate=1e-2, block_lens=(2,), eval_windows=4, **lengths)
    result = train(model, recipe, text, text, primary=primary, progress=False)
    assert result.history[-1]["valid_loss"] < result.history[0]["valid_loss"]
    save_model(result.model, tmp_path / "own.safetensors")
    loaded = load_model(tmp_path / "own.safetensors")
    assert eqx.tree_equal(loaded, result.model) and loaded.settings() == {"scale": 0.5}
    out = te.speculate(primary, loaded, [3, 1, 4], 20, block_len=3)
    np.testing.assert_array_equal(out.tokens, te.generate(primary, [3, 1, 4], 20).tokens)


def test_it_works_on_the_command_line(file, tmp_path):
    story = "the cat sat on a mat and the dog ran from a hat. " * 8
    (tmp_path / "story.txt").write_text("\n\n".join([story] * 20))
    text = ["--text", "story.txt", "--steps", "4", "--seq-len", "16", "--batch-size", "2"]
    sizes = ["--layers", "1", "--width", "16", "--heads", "2", "--context", "64"]

    def run(*arguments: str) -> str:
        command = [sys.executable, str(file), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("train", "primary", "--out", "primary", "--vocab-size", "270", *sizes, *text)
    own = ["--primary", "primary", "--kind", "additive", "--set", "scale=0.5", "--block-lens", "2"]
    run("train", "tandem-distil", "--out", "own", *own, *sizes, *text)
    prompt = ["--prompt", "the cat", "--tokens", "20"]
    assert run("speculate", "own", *prompt, "--block-len", "3") == run("generate", "primary", *prompt)
