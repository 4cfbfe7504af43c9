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
# # 07 The tandem alone
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tandem-edu/tandem-edu/blob/main/notebooks/07_tandem_alone.ipynb)
#
# **Time:** about a minute of computing on a laptop's CPU, about one (an estimate) on a Colab GPU.
#
# **At the end you can**
# * write with a tandem without verification, with and without the free token;
# * weigh quality against time for several models;
# * say when a tandem alone would be worth it, and what decides that;
# * draw what a *deep tandem* predicts each token from, and count how often its halves run.
#
# You need: the tandem (notebook 02), how it is trained (03), and the costs *c* and *v* (05).

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
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from IPython.display import HTML, display

import tandem_edu as te
from tandem_edu import data, show
from tandem_edu.measure import qualities, quality, timed
from tandem_edu.show.panels import panel, sketch_panel
from tandem_edu.show.panels.core import choice
from tandem_edu.zoo import texts

FAST = bool(os.environ.get("TANDEM_EDU_FAST"))  # the tests' short cut: smaller numbers

pair, parts = te.load_pair(), texts()
prompts = data.prompts(parts.dev, pair.tokenizer, length=48, count=1 if FAST else 3)
windows = data.windows(data.encode(pair.tokenizer, parts.dev), 256, 4 if FAST else 48)

# %% [markdown]
# ## Without verification
# In notebooks 04 to 06 the secondary was a *drafter*: the primary judged every token. The paper's first idea
# (section 3) is simpler: let the secondary's tokens stand. The secondary writes a **block** of γ tokens, the
# primary reads it in one call, and that refreshes the representations that the secondary looks at. The text
# is then no longer the primary's, but that of a model between the two. (`pair.tandem_ce` is the shipped
# tandem that learned from the text alone.)

# %%
out = te.block_generate(pair.primary, pair.tandem_ce, prompts[0], 48, block_len=3)
print(pair.tokenizer.decode(prompts[0].tolist())[-120:], "|", pair.tokenizer.decode(out.tokens.tolist()))

# %% [markdown]
# ## The free token
# When the primary reads a block, it also predicts the token after it, at no extra cost: the **free token**.
# It comes in addition to the γ tokens of the secondary, so a call of the primary yields γ + 1 tokens. The
# paper's table 3 has γ = 3 with the free token, so four tokens a call. With γ = 0 the primary writes alone.

# Without it (the paper's Figure 4) the primary only gives representations, and the secondary starts the next
# block from the last token that it wrote itself.

# %%
for free in (True, False):
    out = te.block_generate(pair.primary, pair.tandem_ce, prompts[0], 48, block_len=3, free_token=free)
    row = out.trace.to_records()[0]
    print(f"free_token={free}: {row['drafted']} of the first {row['emitted']} tokens are the secondary's")

# %% [markdown]
# The same beginning with and without, at several block lengths: green is the secondary's, framed the
# primary's free token. (Without a running kernel you see γ = 3 with the free token.)

# %%
written = {
    (gamma, free): te.block_generate(
        pair.primary, pair.tandem_ce, prompts[0], 48, block_len=gamma, free_token=free
    )
    for gamma in (2, 3, 8)
    for free in (True, False)
}


def coloured(gamma, free):
    """One of the texts, token by token."""
    setting = f"γ = {gamma}, the free token {'on' if free else 'off'}"
    who = {"accepted": "written by the secondary", "primary": "the primary's free token"}
    view = show.token_view(pair.tokenizer, prompts[0], written[gamma, free], setting, who)
    return f"<p>{setting}</p>" + show.legend(who) + view


display(HTML(coloured(3, True)))

# %%
panel(coloured, {"gamma": choice("γ", (2, 3, 8), 3), "free": choice("free token", (True, False))})

# %% [markdown]
# ## Quality against time
# The longer the block, the cheaper and, usually, the worse. **Cross-entropy** is the mean of −log of the
# probability given to the token that really comes: lower is better. It is *teacher-forced*: after the file's
# own words, within the block too. How a model fares on its own words it does not tell; the text above shows
# some of that (it is greedy, and may repeat itself). Beside the tandem stand the secondary alone, a
# *mid-size* model and the primary. The free token is left out of both figures. A model that is both slower
# and worse than the primary is no bargain: is there one?

# %%
new_tokens = 48 if FAST else 96
alone = {"secondary": pair.secondary, "mid-size": pair.mid_size, "primary": pair.primary}
write = {name: partial(te.generate, model, max_new_tokens=new_tokens) for name, model in alone.items()}
scores = {name: found.cross_entropy for name, found in qualities(alone, windows, pair.primary).items()}
for gamma in (2, 4, 8):
    name = f"tandem, γ = {gamma}"
    most = 8 if FAST else gamma  # FAST: one program for all γ, sooner compiled, slower to run
    how = {"block_len": gamma, "max_draft_len": most, "free_token": False, "max_new_tokens": new_tokens}
    write[name] = partial(te.block_generate, pair.primary, pair.tandem_ce, **how)
    scores[name] = quality(pair.tandem_ce, windows, pair.primary, block_len=gamma).cross_entropy


def write_all(one):
    """A continuation of each prompt."""
    return [one(prompt=prompt) for prompt in prompts]


seconds, _ = timed(
    {name: partial(write_all, one) for name, one in write.items()}, repetitions=2 if FAST else 5
)
per_token = {name: 1e3 * np.median(taken) / (len(prompts) * new_tokens) for name, taken in seconds.items()}
show.quality_against_time(scores, per_token)

# %%
rows = [
    {"model": name, "cross-entropy": f"{scores[name]:.3f}", "ms per token": f"{per_token[name]:.2f}"}
    for name in scores
]
display(HTML(show.html_table(rows, "On this machine")))

# %% [markdown]
# The paper's rival is Otter, an ordinary model of like quality. Ours is the mid-size one. The smaller the
# difference in cross-entropy, the more alike they are; negative means that the tandem is better:

# %%
print(f"mid-size: {pair.mid_size.config.n_layers} layers, primary: {pair.primary.config.n_layers}")
for gamma in (2, 4, 8):
    name = f"tandem, γ = {gamma}"
    faster, worse = per_token["mid-size"] / per_token[name], scores[name] - scores["mid-size"]
    print(f"{name}: {faster:.2f} times as fast as mid-size, cross-entropy {worse:+.2f}")

# %% [markdown]
# A token of the tandem costs a draft and its share of a reading: c + v/γ steps of the primary, where v is a
# call that reads γ tokens (one less than in notebook 05). In the paper's table 3 the rival costs nearly half
# a step (Otter is 2.36, the tandem 2.75 times as fast as the primary). The same table has the secondary alone
# at 6.40 times. From this one figure 2.75 can be computed: [exercise 11](exercises.ipynb). What would a token
# cost here, if a block were read in the time of one step?

# %%
rival, draft = (per_token[name] / per_token["primary"] for name in ("mid-size", "secondary"))
print(f"mid-size: {rival:.2f} steps a token")
for gamma in (2, 4, 8):
    print(f"tandem, γ = {gamma}, v = 1: {draft + 1 / gamma:.2f} steps a token")

# %% [markdown]
# (c is taken from the plain secondary.) If all of these figures are above the mid-size model's, no saving on
# reading would be enough at these γ: our rival is too cheap. The paper's, at nearly half a step, is not.
#
# ## γ without end
# With a block longer than the text the primary reads the prompt, and nothing more that the text depends on:
# an **encoder** for the secondary.

# %%
endless = te.block_generate(pair.primary, pair.tandem_ce, prompts[0], 32, block_len=64, free_token=False)
print(f"calls of the primary: {int(endless.trace.cycles)}, after the last token: nobody uses what it reads")

# %% [markdown]
# ## The deep tandem
# The paper's section 5 (Eqs 3 and 4) turns the idea into *one* model of two halves, trained together:
#
# * the **large half** reads block by block. Its output for the token γ places back is a **sketch** of the
#   token to come, so one call sketches a whole block, before any of its tokens is written;
# * the **small half** writes token by token, with a memory of its own text. Its input is the embedding of the
#   token before plus a linear map of the sketch.
#
# There is no attention from one half to the other. Row i of the picture is the token that is predicted.
# Tokens before its block are in its sketch; those of its own block only the small half has read. (Without a
# running kernel you see γ = 4.)

# %%
show.sketch_mask(12, 4, token=10)

# %%
sketch_panel(12)

# %% [markdown]
# Let us see that in an untrained one: change token 8. From where on do sketches change, and from where on
# predictions?

# %%
sizes = te.TransformerConfig(
    vocab_size=64, d_model=32, n_layers=4, n_heads=4, n_kv_heads=2, d_ff=64, max_len=64
)
deep = te.DeepTandem(sizes, block_len=4, key=jax.random.key(0))
text = jnp.arange(20)
changed = text.at[8].set(63)
for name, read in {"sketch": deep.sketch, "prediction": deep}.items():
    differs = jnp.abs(read(text) - read(changed)).max(axis=-1) > 1e-6
    print(f"the first {name} that changes is that of token {int(jnp.argmax(differs)) + 1}")

# %% [markdown]
# The large half runs once a block, the small half once a token. With halves of equal depth a token costs
# 1/2 + 1/(2γ) of the whole model, if a block is read in the time of a token: 1.33 times as fast at γ = 2, but
# for the output layer. The paper estimates 1.25 times, at 0.96 of the whole model's accuracy. What ours
# reaches, trained from scratch beside a whole model of as many layers, and what becomes of the large half
# *alone* (section 5.2: predict the whole block at once), is in the
# [table of results](https://github.com/tandem-edu/tandem-edu/blob/main/results/README.md#the-deep-tandem-and-block-prediction-section-5-of-the-paper).
#
# ## What you have seen
# * Without verification a tandem trades quality for fewer calls of the primary; γ is the knob. The table says
#   from which γ on that is also time on this machine.
# * The free token adds one token of the primary's to each block.
# * At γ without end the primary is an encoder for the secondary.
# * A deep tandem is one model: its large half sketches the next block, its small half writes it.
#
# ## Questions
# <details><summary>Why can quality fall with γ although the tandem was trained with long blocks?</summary>
#
# Deep in a block it has the latest tokens only as its own single layer reads them, not as the primary's many
# layers do. Training cannot make a shallow reading a deep one.
# </details>
#
# <details><summary>When would you choose the tandem alone over speculative decoding?</summary>
#
# When a fixed time per token matters more than having exactly the primary's text. It throws no draft away, so
# it also gains where few would be accepted; but nothing bounds how far its text strays.
# </details>
#
# <details><summary>What does the deep tandem's first block lack?</summary>
#
# A sketch: there is no token one block before. The small half writes it from its own history alone.
# </details>
#
# ## The way on
# [08 Beyond the paper](08_beyond_the_paper.ipynb). To practise: [exercise](exercises.ipynb) 11.
