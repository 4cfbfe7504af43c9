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
# **Time:** three minutes of computing on a laptop's CPU.
#
# **At the end you can**
# * name six kinds of drafters, and say what each of them reads of the primary;
# * swap one for another by changing one argument, and compare them fairly in one table;
# * verify a block as a whole instead of token by token, and let a rule end blocks early.
#
# You need: what *primary*, *drafter*, *block length* γ and *tandem* mean (notebook 00).

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
import os

import jax
from IPython.display import HTML, display

import tandem_edu as te
from tandem_edu import data, show
from tandem_edu.show.panels import gamma_panel, gamma_view
from tandem_edu.train import Objective, recipe, train

FAST = bool(os.environ.get("TANDEM_EDU_FAST"))  # the tests' short cut: smaller numbers, worse models

# %% [markdown]
# ## A text and a primary
# The source code of Python's standard library, and a primary of six layers that learns from it for less
# than a minute. Files are held out, and everything below is measured on those.

# %%
train_text, valid_text = te.load_text("pysource").train_valid()
if FAST:
    train_text, valid_text = (data.Corpus(text.documents[:20]) for text in (train_text, valid_text))
tokenizer = data.train_tokenizer(train_text, vocab_size=1024)
tokens, valid = data.encode(tokenizer, train_text), data.encode(tokenizer, valid_text)

sizes = {"vocab_size": 1024, "d_model": 128, "n_heads": 4, "n_kv_heads": 4, "d_ff": 352, "max_len": 256}
config = te.TransformerConfig(n_layers=6, **sizes)
short = {"batch_size": 8, "seq_len": 128, "eval_windows": 32, "learning_rate": 4e-3}
steps = 20 if FAST else 500
primary_recipe = recipe("primary", steps=steps, **short)
primary, _ = train(te.Transformer(config, key=jax.random.key(0)), primary_recipe, tokens, valid)

# %% [markdown]
# ## Six ideas
# The primary has read everything before the block, and what it made of it lies in its *residual states*
# (one per layer and token) and in its *cache* (keys and values, from which its own later layers read).
# Drafters differ in which of that they take:
#
# | drafter | of the past it sees | trained |
# |---|---|---|
# | plain secondary | its own keys and values: it reads the text for itself | yes |
# | **tandem** | the primary's states, projected into its own keys and values | yes |
# | EAGLE | the primary's states at its input, beside the token; keys and values of its own | yes |
# | cross-attending (GLIDE) | the primary's own cache, by queries only | yes |
# | early exit | the primary's own first layers and their cache | a small exit |
# | prompt lookup | the text: what followed these words last time? | no |
#
# Each learns with the same data, steps and losses. All but the last two have one layer of the same size.

# %%
small = te.TransformerConfig(n_layers=1, shared_vocab=True, **sizes)
secondary = te.Transformer(small, key=jax.random.key(1), vocabulary=primary.vocabulary)
key = jax.random.key(2)
untrained = {
    "plain secondary": secondary,
    "tandem": te.Tandem(secondary, config, "fused", key=key),
    "EAGLE": te.Eagle(secondary, config, "fused", key=key),
    "cross-attending": te.CrossAttending(secondary, config, "last", key=key),
    "early exit": te.EarlyExit(config, exit_layer=2, key=key),
}
if FAST:
    untrained = {name: untrained[name] for name in ("plain secondary", "tandem")}

copying = {"steps": 20 if FAST else 200, "objectives": ((1.0, Objective(ce=0.1, kl=0.9)),), **short}
drafters = {}
for name, model in untrained.items():
    plain = isinstance(model, te.Transformer)
    settings = (
        recipe("distilled", **copying) if plain else recipe("tandem-distil", block_lens=(2, 4), **copying)
    )
    drafters[name], _ = train(model, settings, tokens, valid, primary=primary)
drafters["prompt lookup"] = te.PromptLookup(1024, ngram=3)

# %% [markdown]
# ## One table
# The same held-out beginnings, the same keys, sampled at temperature 1. Every one of these texts has
# exactly the primary's distribution; a drafter only changes how many calls it takes. *Agreement* is the
# share of held-out tokens where drafter and primary have the same first choice (the text itself is
# given); prompt lookup makes no predictions there.

# %%
prompts = data.prompts(valid_text, tokenizer, length=40, count=2 if FAST else 8)
comparison = te.measure.compare(
    primary,
    drafters,
    prompts,
    max_new_tokens=32 if FAST else 64,
    block_lens=(4,) if FAST else (2, 4, 8),
    sampling=te.Sampling(temperature=1.0),
    key=jax.random.key(3),
    repetitions=2,
    progress=True,
)

# %%
windows = data.windows(valid, seq_len=128, limit=16 if FAST else 64)
rows = []
for name, drafter in drafters.items():
    run = comparison.run(name, 4)
    agreement = "–"
    if not isinstance(drafter, te.PromptLookup):
        agreement = f"{te.measure.quality(drafter, windows, primary, block_len=4).agreement:.1%}"
    row = {"drafter": name, "agreement": agreement}
    rows.append(
        row | {k: v for k, v in show.decoding_rows(comparison, [4])[len(rows)].items() if k not in row}
    )
display(HTML(show.html_table(rows, "Drafters at γ = 4, sampled")))

# %%
show.tokens_per_call(comparison)

# %% [markdown]
# Some of these are better on one page than on another, and all suffer from a primary that has learned for
# less than a minute. What the table cannot show is what they cost to build: the tandem and EAGLE need a
# training each time the primary changes, prompt lookup needs nothing at all.
#
# Move the slider, and look at *where* each drafter is right. (Without a kernel you see γ = 4.)

# %%
display(HTML(gamma_view(comparison, tokenizer, 4)))

# %%
gamma_panel(comparison, tokenizer)

# %% [markdown]
# ## Judging a block as a whole
# Token-by-token verification gives up at the first draft that the primary rejects. *Block verification*
# asks whether the drafts **together** are a text that the primary writes often enough, and so keeps at
# least as many of them. It is one argument; both are exact.

# %%
settings = {"block_len": 8, "sampling": te.Sampling(temperature=1.0), "key": jax.random.key(4)}
rows = []
for verification in ("token", "block"):
    out = te.speculate(
        primary, drafters["tandem"], prompts, 64, num_samples=2, verification=verification, **settings
    )
    found = out.trace.summary()
    rows.append({
        "verification": verification,
        "tokens per primary call": f"{found['block_efficiency']:.2f}",
        "drafts kept": f"{found['accepted']} of {found['drafted']}",
    })  # fmt: skip
display(HTML(show.html_table(rows, "The tandem, γ = 8, sampled")))

# %% [markdown]
# ## Ending a block early
# A draft that will be rejected is a wasted step. A *router* estimates, after each draft, the probability
# that the primary accepts it, and ends the block where that falls below a threshold τ. The simplest needs
# no training: the drafter's own probability of what it drafted. Is that estimate right? In a *reliability
# diagram* the drafts are sorted by confidence; on the diagonal, of those with 70 %, 70 % are accepted.

# %%
rules = {"confidence": te.ConfidenceRule(0.0), "entropy": te.EntropyRule(100.0)}  # these stop nothing yet
found = {}
for name, rule in rules.items():
    out = te.speculate(primary, drafters["tandem"], prompts, 64, router=rule, num_samples=4, **settings)
    found[name] = te.measure.calibration(*te.measure.judged_drafts([out.trace]))
show.reliability(found)

# %%
rows = []
for threshold in (0.0, 0.2, 0.4, 0.6):
    rule = te.ConfidenceRule(threshold)
    summary = te.speculate(primary, drafters["tandem"], prompts, 64, router=rule, **settings).trace.summary()
    rows.append({
        "τ": threshold,
        "drafted per call": f"{summary['mean_drafted']:.2f}",
        "of these accepted": f"{summary['acceptance_rate']:.0%}",
        "tokens per primary call": f"{summary['block_efficiency']:.2f}",
    })  # fmt: skip
display(HTML(show.html_table(rows, "A threshold trades drafts for calls (γ = 8)")))

# %% [markdown]
# ## What you have seen
# * Drafters differ in **what of the primary they read**; `te.speculate` takes any of them.
# * **Block verification** keeps at least as many drafts as token-by-token verification.
# * A **router** trades wasted drafts for calls of the primary, and its confidence can be checked.
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
# Leaving a draft out because of what it is makes the remaining drafts a biased sample of q, and the
# acceptance rule is right only for honest samples of q. Whether to *go on* may depend on anything.
# </details>
#
# ## The way on
# `tandem_edu/decode/drafters/` has each of these in a file of its own, none longer than a page. Write a
# seventh: `te.Drafter` has three methods.
