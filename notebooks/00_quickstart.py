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
# # 00 Quickstart: a small model that may look at the large one's thoughts
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tandem-edu/tandem-edu/blob/main/notebooks/00_quickstart.ipynb)
#
# **Time:** about three minutes of computing on a laptop's CPU, about one (an estimate) on a Colab GPU.
#
# **At the end you can**
# * say what *primary*, *drafter* and *block* mean, and why drafting saves calls of the primary but never
#   changes what it writes;
# * read off which drafted tokens were accepted, and what the block length γ does to that;
# * train a *tandem*: a drafter that looks at what the primary has understood.
#
# You need: nothing but a little Python.

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

import jax
import numpy as np
from IPython.display import HTML, display

import tandem_edu as te
from tandem_edu import data, show
from tandem_edu.show.panels import gamma_panel, gamma_view
from tandem_edu.train import Objective, recipe, train_together
from tandem_edu.zoo import texts

FAST = bool(os.environ.get("TANDEM_EDU_FAST"))  # the tests' short cut: smaller numbers, worse models

# %% [markdown]
# ## A text
# A language model reads *tokens*, pieces of text with a number each. Our text is what every Python carries
# with it: its help topics and the source of its standard library. Whole files are held out: no model
# sees them in training, and everything we measure, we measure on them.

# %%
pair = te.load_pair()
parts = texts()
tokens, held_out = (data.encode(pair.tokenizer, part) for part in (parts.train, parts.dev))
print(f"{len(tokens):,} tokens to learn from, {len(held_out):,} held out")
print(data.token_strings(pair.tokenizer, held_out[:24]))

# %% [markdown]
# ## The primary
# The *primary* is the model whose text we want. Ours comes with this toolkit, trained on that text; the ones
# you talk to are thousands of times as large and still built of the same parts.

# %%
primary = pair.primary
weights = sum(leaf.size for leaf in jax.tree.leaves(primary) if isinstance(leaf, jax.Array))
print(
    f"{weights / 1e6:.1f} million weights: {primary.config.n_layers} layers of width {primary.config.d_model}"
)
print(f"trained for {pair.card['primary']['recipe']['steps']:,} steps")

# %% [markdown]
# ## A drafter
# Writing is slow because each new token needs a whole call of the primary. So let a small model, the
# *drafter*, guess a *block* of γ tokens ahead, one cheap step each. Then the primary reads the whole block in
# **one** call and keeps the guesses that are what it would have written itself. From the first wrong guess
# on, the block is thrown away, and the primary's own token takes its place. Here that is always its likeliest
# one (*greedy* decoding), so the text is the primary's, token for token; the drafter only changes how many
# calls it takes.
#
# A small model trained beside a primary is called its *secondary*. This one has a single layer, borrows the
# primary's *embedding* (a vector for each token) and *head* (a score for each token, out of a vector), and
# has learnt by *distillation*: to copy the primary's predictions rather than the text itself. One held-out
# beginning, continued with blocks of γ = 4. Of a block's rejected guesses only the first is shown, struck
# out: the primary read those behind it too, but behind a wrong token, so they went unjudged.

# %%
prompt = data.prompts(parts.dev, pair.tokenizer, length=40, count=1)[0]
out = te.speculate(primary, pair.distilled, prompt, max_new_tokens=80, block_len=4)
display(
    HTML(show.legend() + show.token_view(pair.tokenizer, prompt, out, "Drafted by the distilled secondary"))
)

# %% [markdown]
# Each call of the primary yields the accepted drafts and one token of its own. The output's *trace* records
# every call after the one that read the prompt; and the text is indeed what the primary writes alone:

# %%
alone = te.generate(primary, prompt, max_new_tokens=80)
summary = out.trace.summary()
print(f"{summary['emitted']} tokens in {summary['cycles']} calls of the primary")
print("the same text as the primary alone:", bool(np.array_equal(out.tokens, alone.tokens)))

# %% [markdown]
# ## A tandem
# The drafter knows only tokens. The primary has already *understood* everything before the block, and wrote
# what it understood into its *residual stream*, the vectors that its layers compute. A token of a transformer
# looks at earlier ones (*attends* to them) through *keys* and *values* that are computed from such vectors
# (more in notebook 02). In a **tandem**, the drafter's keys and values of everything before the current block
# are computed from the primary's vectors; within the block, from its own.
#
# This one is the same small model, trained on the same text for as many steps. Besides, it has weights to
# look with: *projections* of the primary's vectors, and maps that make keys and values of them. (What the
# drafter itself made of the past it keeps as well, beside the primary's: `own_history`.)

# %%
out = te.speculate(primary, pair.tandem, prompt, max_new_tokens=80, block_len=4)
display(HTML(show.token_view(pair.tokenizer, prompt, out, "Drafted by the tandem")))
summary = out.trace.summary()
print(f"{summary['emitted']} tokens in {summary['cycles']} calls of the primary")
print("the same text as the primary alone:", bool(np.array_equal(out.tokens, alone.tokens)))

# %% [markdown]
# ## Side by side
# More held-out beginnings, each drafter, several block lengths. Above, the text was greedy. Here each token
# is *sampled*, drawn with the probability the primary gives it, because greedy text of small models often
# repeats itself, which flatters every drafter. So the texts below differ from each other, and from what the
# primary alone would draw; what is the same is their *distribution*, exactly. How a drawn guess is judged for
# that, notebook 04 shows.
#
# Tokens per call: all that came out, the primary's own included, over all calls after the prompts were read.
# (A text's last block may be cut short.)

# %%
prompts = data.prompts(parts.dev, pair.tokenizer, length=40, count=2 if FAST else 8)
sampled = {
    "max_new_tokens": 64,
    "sampling": te.Sampling(temperature=1.0),
    "key": jax.random.key(3),
    "repetitions": 1,
}
if FAST:  # greedy, with the programs that are compiled already
    sampled |= {"max_new_tokens": 80, "max_draft_len": 8, "sampling": te.Sampling()}
shipped = te.measure.compare(
    primary,
    {"distilled secondary": pair.distilled, "tandem": pair.tandem},
    prompts,
    block_lens=(2, 4) if FAST else (1, 2, 4, 8),
    progress=True,
    **sampled,
)
show.tokens_per_call(shipped)

# %% [markdown]
# And token by token. Move the slider: a longer block gives more guesses a chance, but each further one is
# less likely to be reached. (Without a running kernel you see γ = 4.)
#
# The table's last column is *time*: the primary alone ÷ with the drafter. Below 1 the drafter costs more than
# it saves; notebook 05 says why that happens, and where. The last picture counts only drafts that were
# *reached*: mostly easy stretches, and few, so its points may rise along the block. Compare position 1, where
# both are asked every time.

# %%
display(HTML(gamma_view(shipped, pair.tokenizer, 4)))

# %%
gamma_panel(shipped, pair.tokenizer)

# %% [markdown]
# ## Your turn: train one
# From random weights, on the same primary: a distilled secondary, and a tandem that begins as the same
# secondary. Both see the same *batches* (some windows of the text at each step) and have the same *losses*
# (what training makes small); they are trained side by side, so that the primary reads each batch once for
# both.
#
# `layer_map` says after which of the primary's layers the tandem reads its vectors: `"last"` (here the last
# but one), `"middle"` (half-way up), or `"fused"` (a low, a middle and the top one together, as the shipped
# tandem does). Try another one when you are through.

# %%
layer_map = "middle"

small = dataclasses.replace(primary.config, n_layers=1, n_kv_heads=8, d_ff=256, shared_vocab=True)
secondary = te.Transformer(small, key=jax.random.key(1), embedding=primary.embedding)
tandem = te.Tandem(secondary, primary.config, layer_map, own_history=True, key=jax.random.key(2))
copying = {
    "steps": 6 if FAST else 800,
    "learning_rate": 4e-3,
    "objectives": ((1.0, Objective(ce=0.1, kl=0.9)),),  # a little the text, mostly the primary: notebook 03
    "batch_size": 4,
    "seq_len": 128,
}
models = {
    "distilled secondary": (secondary, recipe("distilled", **copying)),
    "tandem": (tandem, recipe("tandem-distil", block_lens=(2, 4, 8), **copying)),  # γ: one of these a step
}
trained = {name: result.model for name, result in train_together(models, tokens, primary=primary).items()}

# %%
yours = te.measure.compare(primary, trained, prompts, block_lens=(4,), **sampled)
steps = pair.card["tandem"]["recipe"]["steps"]
for name in trained:
    few, many = (found.run(name, 4).summary["block_efficiency"] for found in (yours, shipped))
    print(f"{name}: {few:.2f} tokens a call after {copying['steps']} steps, {many:.2f} after {steps:,}")

# %% [markdown]
# So short a training is only a beginning: the shipped ones had many more steps, each of more text, and a
# tandem has more to learn than the distilled secondary. Where yours still fails, and where it does not:

# %%
display(HTML(gamma_view(yours, pair.tokenizer, 4)))

# %% [markdown]
# ## What you have seen
# * A **drafter** guesses γ tokens, the **primary** checks them in one call. Greedy, the text is the primary's
#   own; sampled, its distribution is.
# * What counts is how often guesses are **accepted**, which depends on the drafter; the chance that a
#   guess is still reached falls along the block. You have counted *calls*; whether they save seconds depends
#   on what a draft and a longer read cost on your machine (notebooks 01 and 05).
# * A **tandem** is a drafter that attends to the primary's representations. It has more to learn: compare its
#   lead over the distilled secondary after the short training with that after the long one, and remember
#   that eight prompts leave something to chance.
#
# ## Questions
# <details><summary>Why does the primary's own token come for free in every call?</summary>
#
# To check a block of γ drafts the primary reads the last token of the text and the γ drafts: γ + 1
# positions, each with a prediction. If all drafts are accepted, the last prediction is that of the token
# after them; if one is rejected, the prediction at its place replaces it.
# </details>
#
# <details><summary>How many tokens per call at γ = 4, if all guesses are right? If none is?</summary>
#
# Five: the four drafts and the primary's own. And one, so that the primary alone would have been faster.
# </details>
#
# <details><summary>Why can the tandem not see the primary's view of the token just drafted?</summary>
#
# Because the primary has not read it: it reads a block when the block is finished, which is the saving.
# Inside the block the tandem has to make do with its own representations.
# </details>
#
# ## The way on
# [01 Why decoding is slow](01_why_decoding_is_slow.ipynb). The whole idea in one file is
# [`tandem_edu/nano.py`](https://github.com/tandem-edu/tandem-edu/blob/main/tandem_edu/nano.py).
