# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 08 Beyond the paper: other ways to look at the primary
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tandem-edu/tandem-edu/blob/main/notebooks/08_beyond_the_paper.ipynb)
#
# **Time:** about two and a half minutes of computing on a laptop's CPU, about one (an estimate) on a Colab
# GPU.
#
# **At the end you can**
# * name six kinds of drafters, and say what each of them reads of the primary;
# * swap one for another by changing one argument, and compare them in one table, and say what it does not
#   show;
# * verify a block as a whole instead of token by token;
# * bring a model from Hugging Face, and say what a GPU, a TPU or several devices change.
#
# You need: *primary*, *drafter*, γ and *tandem* (notebook 00); the roofline (01); which states a tandem
# reads, and the two losses (03); *p*, *q* and the acceptance rule (04); for the last question, what a router
# is (06).

# %% [markdown]
# ## Set-up
# On Colab this installs the toolkit; elsewhere it does nothing. It may be run twice.

# %%
import importlib.util
import sys

if "google.colab" in sys.modules and importlib.util.find_spec("tandem_edu") is None:
    # %pip install --quiet git+https://github.com/tandem-edu/tandem-edu
    pass

# %%
import dataclasses
import os
import tempfile

import jax
import jax.numpy as jnp
from IPython.display import HTML, display
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tokenizers import Tokenizer

import tandem_edu as te
from tandem_edu import data, show
from tandem_edu.measure.roofline import PRESETS, ridge
from tandem_edu.show.panels import gamma_panel, gamma_view
from tandem_edu.train import Objective, recipe, train_together
from tandem_edu.zoo import texts

FAST = bool(os.environ.get("TANDEM_EDU_FAST"))  # the tests' short cut: smaller numbers, worse models

# %% [markdown]
# ## A text and a primary
# The primary that comes with the toolkit, and the text it knows: help topics and source files that come
# with Python. Some files are held out, and everything below is measured on those.

# %%
pair, parts = te.load_pair(), texts()
primary, config, tokenizer = pair.primary, pair.primary.config, pair.tokenizer
tokens, valid = data.encode(tokenizer, parts.train), data.encode(tokenizer, parts.dev)
short = {"batch_size": 8, "seq_len": 128, "eval_windows": 32, "learning_rate": 4e-3}

# %% [markdown]
# ## Six ideas
# The primary has read everything before the block, and what it made of it lies in its *residual states*
# (one per layer and token) and in its *cache* (each layer's keys and values of past tokens, which the same
# layer reads again; what looks into it is a token's *query*). Drafters differ in which of that they take. Two
# are named after their papers: EAGLE (Li et al., [arXiv:2401.15077](https://arxiv.org/abs/2401.15077)) and
# GLIDE (Du et al., [arXiv:2402.02082](https://arxiv.org/abs/2402.02082)).
#
# | drafter | of the past it sees | trained |
# |---|---|---|
# | plain secondary | its own keys and values: it reads the text for itself | yes |
# | **tandem** | the primary's states, projected into keys and values, beside its own | yes |
# | EAGLE | the primary's states at its input, beside the token; keys and values of its own | yes |
# | cross-attending (GLIDE) | the primary's own cache, by queries only | yes |
# | early exit | the primary's own first layers and their cache | a small exit |
# | prompt lookup | the text: what followed these words last time? | no |
#
# Each learns with the same data, steps and losses: side by side, so that the primary reads each batch once
# for all. All but the last two have one layer of the same width; the cross-attending one has only as many
# heads of keys and values as the primary, whose own it borrows.

# %%
small = pair.secondary.config
secondary = te.Transformer(small, key=jax.random.key(1), embedding=primary.embedding)
few_heads = dataclasses.replace(small, n_kv_heads=config.n_kv_heads)
borrowing = te.Transformer(few_heads, key=jax.random.key(1), embedding=primary.embedding)
key = jax.random.key(2)
# "middle" is the state half-way up, "fused" a low, a middle and the top one, "last" the last but one.
untrained = {
    "plain secondary": secondary,
    "tandem": te.Tandem(secondary, config, "middle", own_history=True, key=key),
    "EAGLE": te.Eagle(secondary, config, "fused", key=key),
    "glide": te.Glide(borrowing, config, "last", key=key),
    "early exit": te.EarlyExit(config, exit_layer=2, key=key),
}
if FAST:
    untrained = {"tandem": untrained["tandem"]}

copying = {"steps": 6 if FAST else 85, "objectives": ((1.0, Objective(ce=0.1, kl=0.9)),), **short}
alone, looking = recipe("distilled", **copying), recipe("tandem-distil", block_lens=(2, 4), **copying)
results = train_together(
    {
        name: (model, alone if isinstance(model, te.Transformer) else looking)
        for name, model in untrained.items()
    },
    tokens,
    primary=primary,
)
trained = {name: result.model for name, result in results.items()}
drafters = {**trained, "prompt lookup": te.PromptLookup(1024, ngram=3)}

# %% [markdown]
# ## One table
# The same held-out beginnings, the same keys, sampled at temperature 1. Every one of these texts has
# exactly the primary's distribution; a drafter only changes how many calls it takes. *Agreement* is the
# share of held-out tokens where drafter and primary have the same first choice (the text itself is given);
# prompt lookup makes no predictions there.

# %%
prompts = data.prompts(parts.dev, tokenizer, length=40, count=2 if FAST else 4)
comparison = te.measure.compare(
    primary,
    drafters,
    prompts,
    max_new_tokens=32 if FAST else 48,
    block_lens=(4,) if FAST else (2, 4),
    sampling=te.Sampling(temperature=1.0),
    key=jax.random.key(3),
    repetitions=2,
    progress=True,
)

# %%
windows = data.windows(valid, seq_len=128, limit=8 if FAST else 64)
agreement = {
    name: f"{found.agreement:.1%}"
    for name, found in te.measure.qualities(trained, windows, primary, block_len=4).items()
}
rows = [
    {"drafter": name, "agreement": agreement.get(name, "–")} | decoded
    for name, decoded in zip(drafters, show.decoding_rows(comparison, 4), strict=True)
]
display(HTML(show.html_table(rows, "Drafters at γ = 4, sampled")))

# %%
show.speedups(comparison)

# %% [markdown]
# All have learned for seconds only, and a few texts of 48 tokens tell hundredths apart by chance: the order
# says at most who learns fast, not who ends best. All pay for the primary's reading γ + 1 tokens; besides
# what is accepted, the cost *c* of a draft sets them apart. Early exit runs two of the primary's layers for
# each, prompt lookup nothing. (Where the last words have not occurred before, prompt lookup drafts nothing:
# its share of first drafts accepted is of the calls that had one.)
#
# Nor is it quite even: those that look read different states of the primary, and which serve best changes
# with the length of training (compare notebook 03's short trainings with the longer ones in the repository's
# `results/`). The study `readers` trains longer. What the table cannot show either is what
# they cost to build: most need a training each time the primary changes, prompt lookup needs nothing at all.
#
# **Your turn.** Give EAGLE `[4]` (after layer 4) instead of `"fused"`, or all of them 400 steps: does the
# order stay?
#
# Move the slider, and look at *where* each drafter is right. (Without a kernel you see γ = 4.)

# %%
display(HTML(gamma_view(comparison, tokenizer, 4)))

# %%
gamma_panel(comparison, tokenizer)

# %% [markdown]
# ## Judging a block as a whole
# Token-by-token verification gives up at the first draft that the primary rejects. *Block verification* asks
# whether the drafts **together** are a text that the primary writes often enough, and so keeps, on average,
# at least as many of them (Sun et al., arXiv:2403.10444). It is one argument; both are exact. In a run as
# short as this, chance can hide the gain or make it look several times as large, so here are several, each
# with a key of its own:

# %%
settings = {"max_new_tokens": 64, "block_len": 8, "sampling": te.Sampling(temperature=1.0), "num_samples": 2}
rows, gains = [], []
for seed in range(1 if FAST else 5):
    found = {}
    for verification in ("token", "block"):
        key = jax.random.key(seed)
        out = te.speculate(primary, pair.tandem, prompts, key=key, verification=verification, **settings)
        found[verification] = out.trace.summary()["block_efficiency"]
    gains.append(found["block"] / found["token"] - 1)
    told = {name: f"{calls:.2f}" for name, calls in found.items()}
    rows.append({"key": seed, **told, "gain": f"{gains[-1]:+.0%}"})
display(HTML(show.html_table(rows, "Tokens per call of the primary: the shipped tandem, γ = 8, sampled")))
middle = sorted(gains)[len(gains) // 2]
print(f"gain: {middle:+.0%} in the middle, from {min(gains):+.0%} to {max(gains):+.0%}")

# %% [markdown]
# ## A pair from Hugging Face
# `te.from_hf(folder)` reads a model of the Llama family: its `config.json`, and its weights in *safetensors*,
# a file format that holds arrays and no code. `te.to_hf` writes such a folder, which `transformers` can read.
# Here a pair goes out and comes in again, with its tokenizer:

# %%
with tempfile.TemporaryDirectory() as folder:
    te.to_hf(primary, f"{folder}/large", tokenizer)
    te.to_hf(pair.distilled, f"{folder}/small")
    large, little = te.from_hf(f"{folder}/large"), te.from_hf(f"{folder}/small")
    words = Tokenizer.from_file(f"{folder}/large/tokenizer.json")
text, read = jnp.asarray(prompts[0]), jax.jit(lambda model, ids: model(ids))
print(f"largest difference of logits: {float(jnp.abs(read(large, text) - read(primary, text)).max()):.1e}")
out = te.speculate(large, little, words.encode("Return the number of").ids, 24, block_len=2)
print(repr(words.decode(out.tokens.tolist())))
print(f"in {int(out.trace.cycles)} calls of the primary")

# %% [markdown]
# For a larger pair download, say, `HuggingFaceTB/SmolLM2-135M` and `HuggingFaceTB/SmolLM2-1.7B` (they share a
# tokenizer) with `huggingface_hub.snapshot_download`, load them in the same way, and speculate with the small
# one as it is; measure its *c* first (notebook 05). Then put a `te.Tandem` around it and train that with
# `recipe("tandem-distil")` on a GPU.
#
# ## A GPU, a TPU, several devices
# Nothing in this course names a device: JAX runs it on what there is.

# %%
print(jax.devices())
for chip in PRESETS:
    print(f"{chip.name}: by the roofline, {ridge(chip):.0f} tokens in the time of one")

# %% [markdown]
# What changes is the balance. The roofline promises even a laptop several tokens in the time of one, and
# notebooks 01 and 05 measured that it does not keep that quite. On a GPU or TPU the ridge is many times as
# far off, so that a small part of the promise is enough for γ + 1 tokens: a verification costs about one
# step, and longer blocks pay. A model as small as ours is then limited by the time it takes to start each
# operation. The paper measured its gains on models far larger than ours.
#
# One thing to set there: by default JAX multiplies float32 numbers more coarsely on a TPU or a recent GPU.
# Where greedy text has to be the primary's to the last token, say
# `jax.config.update("jax_default_matmul_precision", "highest")` first.
#
# Rows of a batch do not look at one another, so they can be spread over as many devices as there are. The
# same lines do it for one device and for eight: put the rows on the devices, and compile.

# %%
mesh = Mesh(jax.devices(), ("rows",))
count = 4 * len(jax.devices())
rows_of_text = jnp.asarray(data.windows(valid, seq_len=128, limit=count)[:, :-1])
spread_out = jax.device_put(rows_of_text, NamedSharding(mesh, PartitionSpec("rows")))
logits = jax.jit(lambda model, rows: model(rows))(primary, spread_out)
print(f"{logits.shape[0]} rows, {logits.sharding.num_devices} device(s)")

# %% [markdown]
# **Your turn.** A laptop has one device, but JAX can take its processor for eight. Restart the kernel and
# run, before all else,
# ```python
# import os
# os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
# ```
# then the set-up cells, "A text and a primary" and the cell above. Which rows does each device hold? Look at
# `[shard.index for shard in logits.addressable_shards]`.
#
# ## What you have seen
# * Drafters differ in **what of the primary they read**; `te.speculate` takes any of them.
# * **Block verification** keeps, on average, at least as many drafts as token-by-token verification.
# * Models come from and go to Hugging Face's format; the same code runs on other hardware, with another
#   balance.
#
# ## Questions
# <details><summary>Why can early exit share the primary's cache, but a plain secondary cannot?</summary>
#
# The cache holds the keys and values that the primary's own layers have written. Early exit *is* those
# layers. A secondary has layers of its own, whose queries were never trained to read the primary's keys;
# cross-attending drafters are trained for exactly that.
# </details>
#
# <details><summary>Prompt lookup is certain of its draft. With what probability is it accepted?</summary>
#
# Its distribution q puts everything on one token x, so Σ min(p, q) = p(x): as often as the primary itself
# would have written x there.
# </details>
#
# <details><summary>A router may end a block, but may not throw away the draft it just judged. Why?</summary>
#
# Then the drafts that do stand in that place are a biased sample of q, and the acceptance rule is right
# only for honest ones. Whether to *go on* may depend on all that is known before the verdict, the draft
# itself included.
# </details>
#
# ## The way on
# `tandem_edu/drafters/` has each of these in a file of its own. Write a seventh: a `te.Drafter` needs three
# methods.
