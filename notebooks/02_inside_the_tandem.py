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
# * measure what access to the primary is worth to the secondary.
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
import inspect
import os

import jax
import jax.numpy as jnp
import numpy as np
from IPython.display import Markdown, display

import tandem_edu as te
from tandem_edu import data, nano, show
from tandem_edu.drafters import PrimaryOutput
from tandem_edu.show.panels import mask_panel
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
# secondary itself does. (The paper's Eq. 2, as printed, lets the primary's part reach to t ≤ k(i): one token
# further than its Figures 1 and 4 draw. We follow the figures and count from 0.)

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
# At γ = 1 the secondary attends to all of the past through the primary. If γ is as long as the text, there is
# only one block: the secondary has no access to the primary and is an ordinary small model. (After a prompt,
# it still attends to the prompt through the primary.)

# %%
display(show.block_mask(8, 1), show.block_mask(8, 8))

# %% [markdown]
# ## A cache that is overwritten
# In decoding nothing is computed twice: keys and values of past tokens are kept in a **cache**. Here is the
# tandem, seen that way: *an ordinary small transformer, whose cache the primary overwrites each time it has
# read a block*. Let us watch it in the paper's form (`own_history=False`), where the primary's entries take
# the place of the secondary's own. (With `True`, as in the shipped tandem, both are kept.) Its
# projections are untrained: we watch who wrote an entry, not how good it is.

# %%
paper = te.Tandem(pair.secondary, primary.config, layer_map=[states], key=jax.random.key(0))
text = held_out_text()
tokens = jnp.asarray(data.prompts(text, pair.tokenizer, length=12, count=1)[0])
_, hidden = primary(tokens, return_hidden=True)


def primary_reads(start, end):
    """What a drafter gets when the primary has read tokens start .. end - 1."""
    _, cache = primary.prefill(tokens, length=end, capacity=12)
    return PrimaryOutput(tokens[start:end], hidden[:, start:end], cache, jnp.int32(start))


everything = paper.start(primary_reads(0, 12), 4, jnp.int32(4)).own.k[0]


def owners(state, length):
    """For each entry: is it computed from the primary's states (P) or the secondary's own (s)?"""
    same = np.isclose(state.own.k[0], everything, atol=1e-5).all(axis=(0, 2))
    return "".join("P" if same[t] else "s" for t in range(length)).ljust(12, ".")


prompt, logits = primary_reads(0, 4), []
state = paper.start(prompt, max_draft_len=4, block_len=jnp.int32(4))
print(f"{owners(state, 4)}   the primary has read the prompt of 4")
for t in range(4, 8):
    draft = paper.step(tokens[t], state, primary, prompt.cache)
    state = draft.state
    logits.append(draft.logits)
    print(f"{owners(state, t + 1)}   the secondary reads token {t} and predicts the next")
state = paper.commit(state, primary_reads(4, 8))
print(f"{owners(state, 8)}   the primary has read the block: its entries replace the secondary's")

# %% [markdown]
# Training does not go token by token: with the mask above, all blocks of a text are computed in one pass.
# Both ways must give the same numbers, else the model would be used differently from how it was trained.

# %%
parallel = paper(tokens, hidden, block_len=4)
print(f"largest difference: {float(jnp.abs(jnp.stack(logits) - parallel[4:8]).max()):.1e}")

# %% [markdown]
# ## What the paper leaves open
# * Which of the primary's layers each layer of the secondary reads, ℓ(j): never given, not even for its
#   experiments. `layer_map` has several answers (notebook 03 compares).
# * How λ balances the two losses of distillation (its section 4): CE + 0.5 · KL, or 0.5 of each.
# * How many steps it trains, at which rate, from its pretrained models.
#
# ## The code
# The file [`nano.py`](https://github.com/tandem-edu/tandem-edu/blob/main/tandem_edu/nano.py) has the whole
# course in one page of plain JAX: no caches, nothing fast. This is its tandem in the paper's form. `sees` is
# the mask above.

# %%
display(Markdown(f"```python\n{inspect.getsource(nano.Tandem)}```"))

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
