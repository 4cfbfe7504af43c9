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
# # 06 Adaptive block length
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tandem-edu/tandem-edu/blob/main/notebooks/06_adaptive_block_length.ipynb)
#
# **Time:** about two minutes of computing on a laptop's CPU, about one (an estimate) on a Colab GPU.
#
# **At the end you can**
# * say what a router sees, and train one on the pair's own drafts;
# * read a reliability diagram, and compute a calibration error;
# * choose a threshold by what it costs and what it saves.
#
# You need: the acceptance rule (notebook 04), and what drafts and verification cost (05).

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
from tandem_edu.measure import calibration, compare, sweep_thresholds, verified_drafts
from tandem_edu.show.panels import router_panel, router_view
from tandem_edu.train import train_router
from tandem_edu.zoo import texts

FAST = bool(os.environ.get("TANDEM_EDU_FAST"))  # the tests' short cut: smaller numbers

pair, parts = te.load_pair(), texts()
prompts = data.prompts(parts.dev, pair.tokenizer, length=48, count=2 if FAST else 6)
warm = te.Sampling(temperature=1.0)

# %% [markdown]
# ## Some drafts are easy
# A drafter guesses γ tokens (a *block*) before the primary looks. Some tokens are easy to guess: the rest
# of a long name, a closing bracket. Others nobody could know. With a constant γ the drafter goes on
# guessing after a hopeless one, and all of that is thrown away. A **router** decides after each draft
# whether to go on: it estimates the probability that the draft will be accepted, and ends the block if that
# is below a **threshold** τ (tau).
#
# How different are the places? Here is the number of drafts accepted per cycle, with long blocks:

# %%
longest = 8
sampled = {"max_new_tokens": 48, "sampling": warm, "key": jax.random.key(0)}
drafters = {"tandem": pair.tandem}
constant = compare(pair.primary, drafters, prompts, block_lens=(longest,), repetitions=1, **sampled)
accepted = [row["accepted"] for out in constant.runs[0].outputs for row in out.trace.to_records()]
for length in range(longest + 1):
    share = np.mean(np.array(accepted) == length)
    print(f"{length} accepted: {share:5.1%}  {'█' * round(60 * share)}")

# %% [markdown]
# ## What a router can know
# It must be cheap, so it looks at what the drafter has computed anyway (summing that up still costs: a
# softmax, the most probable tokens of the vocabulary, and a small network, for each draft). Here *q* is the
# drafter's distribution at temperature 1, however the text is decoded: a greedy draft, too, can be a
# doubtful one.
#
# * the **entropy** of its distribution *q*, H = −Σ q log q: how undecided it is;
# * the largest probabilities of *q*;
# * the drafter's embeddings of those most probable tokens.
#
# The paper's router is a network of two layers on these. It learns from the pair's own drafts to estimate
# 1 − TV(*p*, *q*), the probability that such a draft is accepted. The primary has read every draft, also
# those after a rejected one, so all of them are examples.

# %%
training_prompts = data.prompts(parts.train, pair.tokenizer, length=48, count=16 if FAST else 96)
router, held_out = train_router(
    pair.primary,
    pair.tandem,
    training_prompts,
    block_len=longest,
    max_new_tokens=48,
    sampling=warm,
    steps=100 if FAST else 600,
    key=jax.random.key(1),
)
print(f"{len(held_out.accepted):,} drafts held out, {held_out.accepted.mean():.0%} of them accepted")

# %% [markdown]
# ## Does it mean what it says?
# Of all drafts to which the router gives 70 %, about 70 % should be accepted; then it is **calibrated**. A
# reliability diagram shows it: sort drafts into bins by confidence and compare with the share accepted. The
# *expected calibration error*, ECE = Σ_b (n_b/n) · |accepted_b − confidence_b|, is the mean distance from the
# diagonal, over bins b of n_b drafts. With few drafts it is above 0 even for a perfect router; the cell
# says how far. Beside it a rule that needs no training: the drafter's own probability of the token it drew.

# %%
rules = {"router": router.with_threshold(0.0), "own probability": te.ConfidenceRule(0.0)}


def checked(name, confidence, kept):
    """The calibration, and what a perfect one would come to on as many drafts."""
    found = calibration(confidence, kept)
    ideal = np.random.default_rng(0).random((200, len(kept))) < confidence  # kept just as often as said
    least = np.mean([calibration(confidence, one).error for one in ideal])
    print(f"{name}: ECE {found.error:.3f}; a perfect one on {len(kept)} drafts about {least:.3f}")
    return found


found = {}
for name, rule in rules.items():
    how = {"block_lens": (longest,), "router": rule, "repetitions": 1}
    outputs = compare(pair.primary, drafters, prompts, **how, **sampled).runs[0].outputs
    found[name] = checked(name, *verified_drafts([out.trace for out in outputs]))
confidence = np.asarray(router.confidence(held_out.features))
checked("router, held-out drafts of the training text", confidence, held_out.accepted)
show.reliability(found)

# %% [markdown]
# With *sampled* text a low own probability need not mean a bad guess: if *p* and *q* are alike, the draft is
# accepted however unlikely it was. A router could learn that; the rule cannot. Does this one? Where its curve
# lies above the diagonal at low confidence and below it at high, it is *over-confident*, and τ is then not
# the probability it claims to be. Two things can make it so: it has learned from few drafts, and those were
# of other files. On the held-out drafts of the training text only the first is left: compare how far each of
# its ECEs lies above a perfect one's.
#
# ## Turn the threshold
# At τ = 0 no block ends early (a constant γ, the longest); at τ near 1 nearly every block ends after its
# first draft (γ = 1). All settings run through one compiled program: τ is a number it is given. In it a
# call of the primary always reads one token more than the longest block holds, however early the block
# ended: a router here saves drafts, not verification. (A text's last block is cut to what is still to be
# written, so the mean of the drafts is a little below the constant γ.)

# %%
taus = (0.0, 0.5, 0.9) if FAST else (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
sweep = sweep_thresholds(
    pair.primary,
    pair.tandem,
    prompts,
    router,
    taus,
    block_len=longest,
    repetitions=2 if FAST else 4,
    progress=True,
    **sampled,
)
fastest = 1 + int(np.argmax([np.median(one.speedup) for one in sweep[1:]]))  # of those that ever stop
display(HTML(router_view(sweep, fastest)))

# %%
router_panel(sweep)

# %%
best, mine = sweep[fastest], np.median(sweep[fastest].speedup)
print(f"fastest that stops: τ = {best.threshold:g}, {mine:.2f} times the primary alone")
print(f"τ = 0 (γ = {longest}, and the router asked in vain): {np.median(sweep[0].speedup):.2f} times")

# %% [markdown]
# If τ = 0 is faster than all that stop, stopping early gains nothing here. Where the quartiles in the table
# overlap, which τ comes out first is partly chance; and so it is with the constant γ below.
#
# The fair rival is the *best* constant γ, not the longest. Where a wide verification costs more than a narrow
# one, a short constant γ saves twice: fewer drafts, and calls that read γ + 1 tokens only. So we take it both
# ways, in a program for at most γ drafts and in the router's. (The paper, τ = 0.8: a further 1.045 to 1.093
# times, its tables 4, 5 and 9.)

# %%
lengths = (2,) if FAST else (1, 2, 3, 4, 5, 6)
timed = {"repetitions": 2 if FAST else 4, **sampled}
rivals = compare(pair.primary, drafters, prompts, block_lens=(*lengths, longest), **timed)
rival, long = rivals.fastest("tandem"), rivals.run("tandem", longest)
print(f"constant γ = {longest}, no router: {np.median(long.speedup):.2f} times the primary alone")
print(f"best constant: γ = {rival.block_len}, {np.median(rival.speedup):.2f} times")
how = {"block_lens": (rival.block_len,), "max_draft_len": longest}
(wide,) = compare(pair.primary, drafters, prompts, **how, **timed).runs
print(f"the same, but reading {longest + 1} tokens a call: {np.median(wide.speedup):.2f} times")
gains = mine / np.median(rival.speedup), mine / np.median(wide.speedup)
print(f"the router against the first: {gains[0]:.2f} times as fast; against the second: {gains[1]:.2f}")

# %% [markdown]
# A figure below 1 means that the router does not pay here. In the second figure only two things are left:
# where it stops, and what asking it costs.

# %% [markdown]
# **Your turn.** Set `warm = te.Sampling()` (greedy) at the top and run all cells. Which of the two
# confidences is now better calibrated, and where does the best τ go?

# %% [markdown]
# ## What you have seen
# * How many drafts hold varies widely from place to place; a router ends blocks where it expects a
#   rejection.
# * It learns from the pair's own drafts, and its confidence can be checked against what happened.
# * τ trades wasted drafts against tokens per call. What is best depends on what a draft and a wide
#   verification cost.
#
# ## Questions
# <details><summary>Does a router change the text?</summary>
#
# Greedy text: no. Sampled: it is another sample of the same distribution. The router decides how many drafts
# are made, before anybody has judged them; verification keeps the distribution exact for any block length
# that depends only on the past.
# </details>
#
# <details><summary>If drafts were free, which τ would be best?</summary>
#
# 0: never stop early. Wasted drafts would cost nothing (as long as verifying a longer block does not).
# </details>
#
# <details><summary>Why must the router learn from this drafter's drafts, and not from another's?</summary>
#
# Its features are this drafter's probabilities and embeddings, and 1 − TV depends on how like the primary
# it is. The library refuses a router of another drafter.
# </details>
#
# ## The way on
# [07 The tandem alone](07_tandem_alone.ipynb): what if nobody verifies? To practise:
# [exercise](exercises.ipynb) 10.
