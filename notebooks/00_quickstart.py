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
# **Time:** about two minutes of computing on a laptop's CPU, and as long as you like for reading.
#
# **At the end you can**
# * say what *primary*, *drafter* and *block* mean, and why drafting saves time but never changes the text;
# * read off which drafted tokens were accepted, and what the block length γ does to that;
# * train a *tandem*: a drafter that attends to the primary's own representations.

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
import numpy as np
from IPython.display import HTML, display

import tandem_edu as te
from tandem_edu import data, show
from tandem_edu.show.panels import gamma_panel, gamma_view
from tandem_edu.train import Objective, recipe, train

FAST = bool(os.environ.get("TANDEM_EDU_FAST"))  # the tests' short cut: smaller numbers, worse models

# %% [markdown]
# ## A text
# A language model reads *tokens*, pieces of text with a number each. Our text is the documentation that
# comes with Python. Whole documents are held out: no model sees them in training, and everything we
# measure, we measure on them.

# %%
train_text, valid_text = te.load_text("pydocs").train_valid()
tokenizer = data.train_tokenizer(train_text, vocab_size=1024)
tokens, valid = data.encode(tokenizer, train_text), data.encode(tokenizer, valid_text)
print(f"{len(tokens):,} tokens to learn from, {len(valid):,} held out")
print(data.token_strings(tokenizer, valid[:24]))

# %% [markdown]
# ## The primary
# The *primary* is the model whose text we want. Ours has six layers; the ones you talk to have a hundred
# times the width and are still built of the same parts. Half a minute of training is enough for it to
# learn common words and a little grammar.

# %%
config = te.TransformerConfig(
    vocab_size=1024, d_model=128, n_layers=6, n_heads=4, n_kv_heads=4, d_ff=352, max_len=256
)
short = {"batch_size": 8, "seq_len": 128, "eval_windows": 32}
steps = 20 if FAST else 300
primary_recipe = recipe("primary", steps=steps, learning_rate=4e-3, **short)
primary, primary_history = train(te.Transformer(config, key=jax.random.key(0)), primary_recipe, tokens, valid)

# %% [markdown]
# ## A drafter
# Writing is slow because each new token needs a whole call of the primary. So let a small model, the
# *drafter*, guess a *block* of γ tokens ahead, one cheap step each. Then the primary reads the whole block
# in **one** call and keeps the guesses that are what it would have written itself. From the first wrong
# guess on, the block is thrown away, and the primary's own token takes its place. The text is the
# primary's, token for token; the drafter only changes how many calls it takes.
#
# This drafter has a single layer. It borrows the primary's embedding and head (it "speaks its language")
# and learns by *distillation*: to copy the primary's predictions rather than the text itself.

# %%
small = te.TransformerConfig(
    vocab_size=1024,
    d_model=128,
    n_layers=1,
    n_heads=4,
    n_kv_heads=4,
    d_ff=352,
    max_len=256,
    shared_vocab=True,
)
secondary = te.Transformer(small, key=jax.random.key(1), vocabulary=primary.vocabulary)
copying = {
    "steps": 20 if FAST else 200,
    "learning_rate": 4e-3,
    "objectives": ((1.0, Objective(ce=0.1, kl=0.9)),),
    **short,
}
distilled, distilled_history = train(
    secondary, recipe("distilled", **copying), tokens, valid, primary=primary
)

# %% [markdown]
# ## Speculate
# One held-out beginning, continued by the pair with blocks of γ = 4.

# %%
prompt = data.prompts(valid_text, tokenizer, length=40, count=1)[0]
out = te.speculate(primary, distilled, prompt, max_new_tokens=80, block_len=4)
display(HTML(show.legend() + show.token_view(tokenizer, prompt, out, "Drafted by the distilled secondary")))

# %% [markdown]
# Each call of the primary yields the accepted drafts and one token of its own. The trace counts them, and
# the text is indeed what the primary writes alone:

# %%
summary = out.trace.summary()
alone = te.generate(primary, prompt, max_new_tokens=80)
print(f"{summary['emitted']} tokens in {summary['cycles']} calls of the primary")
print("the same text as the primary alone:", bool(np.array_equal(out.tokens, alone.tokens)))

# %% [markdown]
# ## Your turn: a tandem
# The drafter knows only tokens. The primary has already *understood* everything before the block, and
# wrote what it understood into its residual stream. A **tandem** lets the drafter attend to that: for
# everything before the current block, its keys and values are computed from the primary's
# representations; within the block, from its own.
#
# Train one. It starts as the same untrained secondary, sees the same text for as many steps and has the
# same losses, so that any difference is the tandem's doing. `layer_map` says which of the primary's layers
# it reads: `"last"`, `"uniform"` or `"fused"` (a low, a middle and the top one together). Try another one
# when you are through.

# %%
layer_map = "fused"

tandem = te.Tandem(secondary, config, layer_map=layer_map, key=jax.random.key(2))
tandem_recipe = recipe("tandem-distil", block_lens=(2, 4, 8), **copying)
tandem, tandem_history = train(tandem, tandem_recipe, tokens, valid, primary=primary)

# %%
show.loss_curves(
    {"primary": primary_history, "distilled secondary": distilled_history, "tandem": tandem_history}
)

# %% [markdown]
# ## Side by side
# The same held-out beginnings, each drafter, several block lengths. Tokens are *sampled* here, because
# the greedy text of such small models soon runs in circles, which any drafter can foresee. Sampled
# speculative text has exactly the primary's distribution.

# %%
prompts = data.prompts(valid_text, tokenizer, length=40, count=2 if FAST else 8)
comparison = te.measure.compare(
    primary,
    {"distilled secondary": distilled, "tandem": tandem},
    prompts,
    max_new_tokens=64,
    block_lens=(1, 2, 4, 8),
    sampling=te.Sampling(temperature=1.0),
    key=jax.random.key(3),
    repetitions=2,
    progress=True,
)
show.tokens_per_call(comparison)

# %% [markdown]
# Does the tandem win here? Do not be surprised if it does not. A primary that has trained for half a
# minute knows little more than one layer can know by itself, and where there is nothing to see, looking
# does not help. Let it learn longer (`steps = 3000` above takes some minutes) and compare again.
#
# And token by token. Move the slider: longer blocks get more accepted per call, but each further guess is
# less likely to be reached. (Without a running kernel you see γ = 4.)

# %%
display(HTML(gamma_view(comparison, tokenizer, 4)))

# %%
gamma_panel(comparison, tokenizer)

# %% [markdown]
# ## What you have seen
# * A **drafter** guesses γ tokens, the **primary** checks them in one call. The text stays the primary's.
# * What counts is how often guesses are **accepted**, which depends on the drafter and falls along the block.
# * A **tandem** is a drafter that attends to the primary's representations. The cell above measured what
#   that is worth here.
#
# ## Questions
# <details><summary>Why does the primary's own token come for free in every cycle?</summary>
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
# The command line does the same at a larger scale: `tandem-edu demo` trains a pair in six minutes and writes
# a report; `tandem-edu train --help` shows every knob.
