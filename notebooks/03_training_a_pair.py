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
# # 03 Training a pair
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tandem-edu/tandem-edu/blob/main/notebooks/03_training_a_pair.ipynb)
#
# **Time:** about two and a half minutes of computing on a laptop's CPU, about one (an estimate) on a Colab
# GPU.
#
# **At the end you can**
# * say what is trained in a tandem and what is frozen;
# * choose between learning the text and learning the primary, and measure the difference;
# * compare drafters fairly: the same secondary, data, steps and losses.
#
# You need: the tandem and its block length γ (notebook 02).

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
from IPython.display import HTML, display

import tandem_edu as te
from tandem_edu import data, show
from tandem_edu.measure import qualities
from tandem_edu.show.panels import TrainingDashboard
from tandem_edu.train import Objective, recipe, train_together
from tandem_edu.train.step import partition
from tandem_edu.zoo import texts

FAST = bool(os.environ.get("TANDEM_EDU_FAST"))  # the tests' short cut: smaller numbers, worse models

pair, parts = te.load_pair(), texts()
primary = pair.primary
tokens, valid = data.encode(pair.tokenizer, parts.train), data.encode(pair.tokenizer, parts.dev)
windows = data.windows(valid, 256, 4 if FAST else 48)

# %% [markdown]
# ## What is trained, and what is not
# In a tandem the **primary** (large) is finished and *frozen*: no gradient reaches it. Trained are the
# **secondary** (small) and what it looks at the primary with: projections and, with `own_history=True`, key
# and value maps for the primary's side. (That is not the paper's form; the study `history`
# measures what it is worth.)
#
# Both use the same embedding and the same output layer (the *head*, which turns a vector into a score for
# each token): the primary's, frozen. Attention heads are another matter: the primary's share keys and values
# in groups, the secondary's do not (`n_kv_heads=8`), because through its keys and values it sees the primary.

# %%
small = dataclasses.replace(primary.config, n_layers=1, n_kv_heads=8, d_ff=256, shared_vocab=True)
secondary = te.Transformer(small, key=jax.random.key(1), embedding=primary.embedding)


def new_tandem(layer_map):
    """An untrained tandem around the same secondary."""
    return te.Tandem(secondary, primary.config, layer_map, own_history=True, key=jax.random.key(2))


# %% [markdown]
# ## Two things to learn from
# With *p* the primary's and *q* the secondary's distribution of the next token, and *t* the token that
# really comes:
#
# * **cross-entropy**, CE = −log q(t): learn the text (`telling` below);
# * **distillation**, KL = Σ p log(p/q): learn to be like the primary, including what it thinks likely but
#   did not come.
#
# A drafter is judged by its primary, so likeness should pay. The paper trains with CE first and then with
# CE + λ·KL, λ = 0.5 (`recipe("tandem-distil")`; that λ's term is added is our reading); for the short
# trainings here we take little CE and much KL (`copying`).
#
# Four short trainings with the same untrained secondary, steps and data. They go side by side, so that the
# primary reads each batch once for all four. The curves show one figure for each, whatever it learns by:
# cross-entropy to held-out text, the mean of −log q(t), in *nats* (natural logarithms); tandems in blocks of
# 2.

# %%
settings = {"batch_size": 8, "seq_len": 128, "learning_rate": 4e-3}
settings |= {"steps": 6, "eval_windows": 4} if FAST else {"steps": 140, "eval_windows": 32}
copying = ((1.0, Objective(ce=0.1, kl=0.9)),)  # from the first step to the last (1.0: all of them)
telling = ((1.0, Objective(ce=1.0)),)
blocks = {"block_lens": (2, 4, 8)}
plans = {
    "secondary, CE": (secondary, recipe("secondary", objectives=telling, **settings)),
    "secondary, distilled": (secondary, recipe("distilled", objectives=copying, **settings)),
    "tandem, CE": (new_tandem("middle"), recipe("tandem-ce", objectives=telling, **blocks, **settings)),
    "tandem": (new_tandem("middle"), recipe("tandem-distil", objectives=copying, **blocks, **settings)),
}
dashboard = TrainingDashboard(list(plans))
display(dashboard)

# %%
trained = train_together(plans, tokens, valid, primary=primary, progress=False, on_eval=dashboard.follow())
dashboard.picture()

# %% [markdown]
# ## A table like the paper's first
# **Accuracy**: how often the likeliest token is the one that comes. **Agreement**: how often it is the
# primary's likeliest too (the paper's relative accuracy; the acceptance of greedy drafts, each the
# drafter's likeliest token). **TV** = ½ Σ |p − q|: 1 − TV is the acceptance of sampled drafts. On files
# that no model has seen; tandems with a block length γ of 2, so that they see the primary's view of all but
# the last one or two tokens. All after the file's own words (*teacher-forced*); while decoding, the text
# before is what the models wrote, and acceptance differs somewhat.
#
# The secondary that learned like the tandem, but may not look, is its *control*: what sets them apart is
# the looking, and the weights that looking takes, counted in a column. The shipped models were trained
# longer and by other losses, printed below the table.

# %%
contenders = {
    **{name: result.model for name, result in trained.items()},
    "shipped: distilled": pair.distilled,
    "shipped: tandem": pair.tandem,
    "primary": primary,
}


def row(name, found):
    """One line of the table."""
    learning, _ = partition(contenders[name])  # what is trained, and what is frozen
    return {
        "model": name,
        "trained weights": f"{sum(leaf.size for leaf in jax.tree.leaves(learning)):,}",
        "accuracy": f"{found.accuracy:.1%}",
        "cross-entropy": f"{found.cross_entropy:.3f}",
        "agreement": f"{found.agreement:.1%}",
        "TV": f"{found.total_variation:.3f}",
    }


measured = qualities(contenders, windows, primary, block_len=2)
display(HTML(show.html_table([row(*one) for one in measured.items()], "On held-out files")))
shipped = pair.card["tandem"]["recipe"]
print(f"shipped tandem: {shipped['steps']:,} steps of {shipped['batch_size'] * shipped['seq_len']:,} tokens;")
print("its losses' weights:", shipped["objectives"][-1][1])

# %% [markdown]
# After so short a training a tandem's lead over its control is small, and another seed may turn it: it must
# learn to read the primary besides. Compare the two shipped rows. (The curves above end elsewhere than the
# table's cross-entropies: they are of less text, in windows half as long.)
#
# Does copying teach even the *text* faster than the text does? Compare the cross-entropies. The primary's
# distribution says at each place what a thousand texts would say there; the text says one token. After a long
# training the order may turn.
#
# The paper's secondary is a finished model before it becomes half of a tandem, and is trained with γ = 2;
# ours begins from nothing, with γ of 2, 4 or 8. The paper's own figures, secondary alone → tandem: accuracy
# 55.06 → 58.61 %, TV 0.391 → 0.141.
#
# ## Which layers to look at
# The primary has a residual stream after each of its layers. Which does the secondary read? `"last"`: the
# state as far below the primary's top as the layer's own *input* is below the secondary's (for one layer, the
# last but one); `"uniform"`: evenly spaced, the top one for the top layer; `"middle"`: the one half-way up,
# as above; `"fused"`: a low, a middle and the top one together.

# %%
maps = {"last": "last", "fused": "fused"}
plan = recipe("tandem-distil", objectives=copying, **blocks, **settings)
readers = {"middle": trained["tandem"]}  # from above
readers |= train_together(
    {name: (new_tandem(layer_map), plan) for name, layer_map in maps.items()}, tokens, valid, primary=primary
)
tandems = {name: result.model for name, result in readers.items()}
for name, found in qualities(tandems, windows, primary, block_len=2).items():
    print(f"{name:8} reads states {tandems[name].projections[0].states}: agreement {found.agreement:.1%}")
show.loss_curves({name: result.history for name, result in readers.items()})

# %% [markdown]
# One seed and so little text do not rank these maps: agreement and the curves need not even tell the same.
# The study `states` trains longer, in the paper's form (`own_history=False`), with the
# control and confidence intervals, and does tell them apart: see `results/README.md` in the repository.
#
# **Your turn.** Add `"mine": [(2, 5, 8)]` to `maps`. Or set `blocks = {"block_lens": (2,)}` above,
# then `(2, 4, 8)`, and measure both with `qualities(..., block_len=8)`: what do long blocks in training buy?
#
# **Your turn.** Is it the weights? `dataclasses.replace(small, d_ff=512)` makes a secondary with as many
# trained weights as the tandem. Train it as a second control.

# %% [markdown]
# ## What you have seen
# * The primary is frozen; a small secondary and its projections learn.
# * Distillation makes the drafter like its primary, which is what drafting needs.
# * Which of the primary's layers to read is a choice to be measured; the cell above says what it was worth
#   in this short training.
#
# ## Questions
# <details><summary>A drafter with lower cross-entropy on the text can be accepted less often. How?</summary>
#
# Acceptance compares it with the primary, not with the text. Where the primary errs, a good drafter errs
# with it. (The short trainings above need not show it.)
# </details>
#
# <details><summary>Why is the offset of the blocks drawn at random in training?</summary>
#
# So that each token is seen at each place of a block: first, with all of the past through the primary, or
# last.
# </details>
#
# <details><summary>Why does the control get the same secondary, steps and loss?</summary>
#
# Otherwise the comparison would show the effect of training, not of looking. One difference is left: the
# weights that the tandem looks with. The second "Your turn" gives the control as many.
# The study `weights` also trains it as long as the shipped pair.
# </details>
#
# ## The way on
# [04 Speculative decoding](04_speculative_decoding.ipynb). To practise: [exercises](exercises.ipynb) 4 and 5.
