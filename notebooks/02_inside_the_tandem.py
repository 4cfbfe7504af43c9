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
# # 02 Inside the tandem
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tandem-edu/tandem-edu/blob/main/notebooks/02_inside_the_tandem.ipynb)
#
# **Time:** about half a minute of computing on a laptop's CPU, less on a Colab GPU (an estimate).
#
# **At the end you can**
# * draw the mask of a tandem for any block length: who sees which token, and through whose eyes;
# * say what the primary overwrites in the secondary's cache, and when;
# * read an attention map, and measure how much of each head goes to the primary.
#
# You need: *primary* and *drafter* (notebook 00), and what attention is, in outline.

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
import jax.numpy as jnp
import numpy as np
from IPython.display import HTML, display

import tandem_edu as te
from tandem_edu import data, show
from tandem_edu.measure import attention_maps, primary_share
from tandem_edu.show.panels import attention_panel, attention_view, mask_panel
from tandem_edu.zoo import held_out_text

FAST = bool(os.environ.get("TANDEM_EDU_FAST"))  # the tests' short cut: smaller numbers

pair = te.load_pair()
primary, tandem = pair.primary, pair.tandem

# %% [markdown]
# ## Two models, two jobs
# A language model does two things at once: it *understands* the text so far, and it *writes* the next
# token. The paper (Aishwarya et al., [arXiv:2402.08644](https://arxiv.org/abs/2402.08644)) gives the two
# jobs to two models:
#
# * the **primary**, large, reads the text in **blocks** of γ tokens (gamma), all of a block in one call;
# * the **secondary**, small, writes token by token. For everything *before* the current block it looks at
#   what the primary made of it; inside the block, which the primary has not read yet, it has only its own
#   view.
#
# Together they are a **tandem**. What the primary "made of a token" is its **residual stream**: the vector
# that each layer reads and adds to. In a transformer, a token attends to earlier ones through **keys** (what
# is there?) and **values** (what does it say?), both computed from such vectors. In the tandem, the
# secondary's keys and values of past blocks are computed from the *primary's* vectors: a linear map for each
# layer, then that layer's own norm, keys and values. Each layer does all this several times side by side,
# with other maps: its *heads*.
#
# That is the paper's form, which the mask below draws. The shipped tandem differs in three things: it joins
# several of the primary's states before the linear map, makes keys and values of them with maps of their own,
# and keeps its own view of the past beside the primary's.

# %%
sizes = {"primary": primary.config, "secondary": tandem.config}
for name, config in sizes.items():
    print(f"{name}: layers {config.n_layers}, width {config.d_model}, heads {config.n_heads}")
states = tandem.projections[0].states
print(f"the secondary's first layer reads the primary's residual stream after its layers {states}")

# %% [markdown]
# ## Who sees what
# Row i of the picture is the token that looks, column t the one looked at. k(i) = ⌊i/γ⌋·γ is where token i's
# block starts. Tokens before it (t < k(i)) are seen as the primary sees them, those from it on as the
# secondary itself does.

# %%
show.block_mask(12, 4, token=9)

# %% [markdown]
# Change the block length, and where blocks start: at `offset`, `offset` + γ, and so on. What lies before is
# cut on the same grid, so that k(i) = max(0, offset + ⌊(i − offset)/γ⌋·γ). In training the offset is drawn at
# random, so that each token is seen at each place of a block. Step through the tokens with the arrow keys.
# (Without a running kernel you see the picture above.)

# %%
mask_panel()

# %% [markdown]
# At γ = 1 the secondary sees all of the past through the primary. If γ is as long as the text, there is
# only one block: the secondary sees nothing through the primary and is an ordinary small model (after a
# prompt, one that sees the prompt through it).
#
# ## A cache that is overwritten
# In decoding nothing is computed twice: keys and values of past tokens are kept in a **cache**. Here is the
# tandem, seen that way: *an ordinary small transformer, whose cache the primary overwrites each time it has
# read a block*. Let us watch it in the paper's form (`own_history=False`), where the primary's entries take
# the place of the secondary's own. (With `True`, see below, both are kept.) Its projections are untrained: we
# watch who wrote an entry, not how good it is.

# %%
paper = te.Tandem(pair.secondary, primary.config, layer_map=[states], key=jax.random.key(0))
text = held_out_text()
tokens = jnp.asarray(data.prompts(text, pair.tokenizer, length=12, count=1)[0])
_, hidden = primary(tokens, return_hidden=True)


def owners(cache, length):
    """For each entry: is it what the primary's vectors give, or the secondary's own?"""
    committed = paper.commit(hidden, paper.init_cache(12), 0, 12).own.k[0]
    same = np.isclose(cache.own.k[0], committed, atol=1e-5).all(axis=(0, 2))
    return "".join("P" if same[t] else "s" for t in range(length)).ljust(12, ".")


cache = paper.commit(hidden[:, :4], paper.init_cache(12), 0, 4)
print(f"{owners(cache, 4)}   the primary has read the prompt of 4")
for t in range(4, 8):
    _, cache = paper.extend(tokens[t : t + 1], cache)
    print(f"{owners(cache, t + 1)}   the secondary reads token {t} and predicts the next")
cache = paper.commit(hidden[:, 4:8], cache, 4, 8)
print(f"{owners(cache, 8)}   the primary has read the block: its entries replace the secondary's")

# %% [markdown]
# Training does not go token by token: with the mask above, all blocks of a text are computed in one pass.
# Both ways must give the same numbers, else the model would be used differently from how it was trained.

# %%
parallel = paper(tokens, hidden, block_len=4)
cache, steps = paper.commit(hidden[:, :4], paper.init_cache(12), 0, 4), []
for t in range(4, 8):
    logits, cache = paper.extend(tokens[t : t + 1], cache)
    steps.append(logits[0])
print(f"largest difference: {float(jnp.abs(jnp.stack(steps) - parallel[4:8]).max()):.1e}")

# %% [markdown]
# ## Where does it look?
# The shipped tandem keeps its own entries of past blocks *beside* the primary's (`own_history=True`, our
# addition), and each head divides its attention between the two. How much goes to the primary, and how much
# would if all were attended to equally? Place by place in the block, from the second block on. (In the
# pictures layers and heads are counted from 0, as in Python.)

# %%
ids = data.prompts(text, pair.tokenizer, length=24, count=1, seed=2)[0]
strings = data.token_strings(pair.tokenizer, ids)
gamma = 4
maps = attention_maps(primary, tandem, ids, block_len=gamma)
display(show.primary_shares(maps, block_len=gamma))
share = primary_share(maps).mean((0, 1))[gamma:]  # of all heads; in the first block it is 0
i = np.arange(gamma, len(ids))
seen = i // gamma * gamma  # through the primary; besides, of its own, i + 1
equal = seen / (seen + i + 1)
for place in range(gamma):
    here = i % gamma == place
    print(f"place {place + 1}: {share[here].mean():.0%} to the primary; if equal, {equal[here].mean():.0%}")
print(f"all places: {share.mean():.0%}; if equal, {equal.mean():.0%}")

# %% [markdown]
# A small weight is not a small use: what looking is worth is measured at the end of this notebook. And this
# is one short text. Where each head looks, token by token:

# %%
display(HTML(attention_view(maps, strings, layer=0, head=0, token=22)))

# %%
attention_panel(maps, strings)

# %% [markdown]
# **Your turn.** Set `gamma = 8` where the maps are made, and `length=96` for more tokens of each place. Does
# the share for the primary fall towards the end of the block, and by more than with equal attention? (There
# are more and more of its own to look at.)

# %% [markdown]
# ## What it is worth
# How often is the drafter's likeliest token the primary's too, on text that neither has seen? The *distilled*
# secondary is the same model with the same training text, steps and losses, but may not look; the tandem has
# further weights, to look with. *TV distance*, ½ Σ |p − q|, says how far its whole distribution q is from the
# primary's p: 0 if they are the same, 1 if they share no token.

# %%
windows = data.windows(data.encode(pair.tokenizer, text), 256, 4 if FAST else 48)
for name, model, gamma in (
    ("distilled", pair.distilled, 1),
    ("tandem, γ = 2", tandem, 2),
    ("tandem, γ = 8", tandem, 8),
):
    found = te.measure.quality(model, windows, primary, block_len=gamma)
    print(f"{name:14} agreement {found.agreement:.1%}, TV distance {found.total_variation:.3f}")

# %% [markdown]
# ## What you have seen
# * In a tandem the primary reads in blocks, and the secondary writes and looks at what the primary has
#   read.
# * It is an ordinary transformer with a cache that the primary overwrites.
# * One mask lets all blocks of a text be trained in one pass.
#
# ## Questions
# <details><summary>How many keys of its own view does the third token of a block see?</summary>
#
# In the paper's form three: its own and those of the two tokens before it in the block. All others come
# through the primary. With `own_history=True` its own of all tokens up to itself; those of past blocks it
# sees through the primary as well.
# </details>
#
# <details><summary>Why not let the secondary see the primary's view of the token just before?</summary>
#
# The primary would have to read it first: one call a token, which is what we want to avoid.
# </details>
#
# <details><summary>Which of the primary's layers should it read?</summary>
#
# The top ones hold the prediction of the next token, the low ones which token it is. A single secondary
# layer may have use for both: the shipped one reads the states printed above. Notebook 03 compares.
# </details>
#
# ## The way on
# [03 Training a pair](03_training_a_pair.ipynb). To practise: [exercises](exercises.ipynb) 2 and 3.
