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
# # 04 Speculative decoding
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tandem-edu/tandem-edu/blob/main/notebooks/04_speculative_decoding.ipynb)
#
# **Time:** about one minute of computing on a laptop's CPU, less on a Colab GPU (an estimate).
#
# **At the end you can**
# * go through one cycle of draft, verify and accept by hand;
# * prove that the result has exactly the primary's distribution, and test it with chi-square;
# * say what 1 − TV has to do with the calls that are saved.
#
# You need: *primary*, *drafter* and *block* (notebook 00), and what a *tandem* is (02).

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
from IPython.display import HTML, Markdown, display

import tandem_edu as te
from tandem_edu import data, nano, show
from tandem_edu.show.panels import cycle_panel, cycle_view
from tandem_edu.zoo import held_out_text

FAST = bool(os.environ.get("TANDEM_EDU_FAST"))  # the tests' short cut: smaller numbers

pair = te.load_pair()
text = held_out_text()
strings = data.token_strings(pair.tokenizer, range(pair.primary.config.vocab_size))

# %% [markdown]
# ## The pieces
# * The **primary** is the large model whose text we want. Its distribution of the next token is *p*.
# * The **drafter** is a small model that guesses ahead. Its distribution is *q*.
# * A **block** is the γ tokens (gamma, the *block length*) that the drafter guesses before the primary
#   looks.
# * A **cycle** is: draft a block, let the primary read it in *one* call, keep what holds.
#
# Reading γ + 1 tokens at once costs the primary less than reading them one by one; how much less, notebook
# 01 measures. So a cycle costs γ steps of the drafter and one wider call, and yields the kept drafts and
# one token more. Drafting pays if that is cheaper than as many single steps.
#
# Below, the drafter is a **tandem**: a small model, the *secondary*, that looks at what the primary made of
# the text (notebook 02). The *pending* token is the last of the text: the primary has not read it yet, and
# reads it with the drafts. Σ min(p, q) says how likely a draft at that place was to stay; why, you will see.
# The text is *sampled*: each token is drawn with its probability (at temperature 1 as the model states it).

# %%
prompt = data.prompts(text, pair.tokenizer, length=48, count=1, seed=4)[0]
warm = te.Sampling(temperature=1.0)
out = te.speculate(pair.primary, pair.tandem, prompt, 48, block_len=4, sampling=warm, key=jax.random.key(0))
for stage in ("draft", "verify", "accept"):
    display(HTML(cycle_view(pair.tokenizer, prompt, out, 1, stage)))

# %% [markdown]
# Step through all cycles, with the mouse or the arrow keys. (Without a running kernel you see the three
# steps of one cycle above.)

# %%
cycle_panel(pair.tokenizer, prompt, out)

# %% [markdown]
# ## One cycle by hand
# Without any of the library's machinery, greedy, and wastefully: everything is computed anew each time. The
# tandem's block starts at the pending token.

# %%
pending, text_so_far, drafts = len(prompt) - 1, prompt.tolist(), []
for _ in range(4):
    tokens = jnp.array(text_so_far + drafts)
    _, hidden = pair.primary(tokens, return_hidden=True)  # what it made of the block is masked out
    guess = pair.tandem(tokens, hidden, block_len=4, offset=pending % 4)[-1]
    drafts.append(int(jnp.argmax(guess)))

logits = pair.primary(jnp.array(text_so_far + drafts))  # one call, of which five positions are asked
own = jnp.argmax(logits, axis=-1)[pending:].tolist()
kept = 0
while kept < 4 and drafts[kept] == own[kept]:
    kept += 1
for place in range(4):
    verdict = "kept" if place < kept else "rejected" if place == kept else "thrown away unjudged"
    print(f"draft {place + 1}: {strings[drafts[place]]!r:12} {verdict}")
print(f"then the primary's own {strings[own[kept]]!r}")

written = [*drafts[:kept], own[kept]]
alone = te.generate(pair.primary, prompt, len(written)).tokens
print("the primary alone writes the same:", alone.tolist() == written)

# %% [markdown]
# ## When may a draft stay?
# With **greedy** decoding (always the likeliest token) the rule is plain: a draft stays if it is the
# primary's own likeliest token. With **sampling** that would be wrong: the text must come out distributed
# *exactly* as if the primary had drawn each token from *p*. The rule (Leviathan et al. 2022, Chen et al.
# 2023):
#
# 1. The drafter draws *x* from *q*.
# 2. *x* stays with probability min(1, p(x) / q(x)).
# 3. If it goes, draw from the **residual** instead: what *p* has more than *q*, scaled to add up to 1. All
#    drafts behind it go too.
# 4. If all γ drafts stay, one more token is drawn from *p*, at the place behind them.
#
# Here are *p* and *q* at one place of a held-out text.

# %%
tokens = jnp.asarray(prompt)
logits_p, hidden = pair.primary(tokens, return_hidden=True)
logits_q = pair.tandem(tokens, hidden, block_len=4)
place = 21
p, q = (np.asarray(warm.probabilities(logits[place])) for logits in (logits_p, logits_q))
print("after:", repr(pair.tokenizer.decode(prompt[: place + 1].tolist())[-60:]))
show.acceptance_prob(p, q, strings)

# %% [markdown]
# (The last bar stacks all three parts of the other tokens: *p* is its green and blue, *q* its green and
# orange.) The green part, that of the other tokens together included, is what both agree on. A draft lands
# there with probability Σ min(p, q), and that is the probability that it is accepted. The **total variation
# distance** is TV = ½ Σ |p − q|, and
#
# $$\sum_v \min(p(v), q(v)) = 1 - \mathrm{TV}(p, q).$$
#
# So a drafter that is trained to come near the primary's distribution is trained to be accepted.

# %%
kept = np.minimum(p, q).sum()
distance = 0.5 * np.abs(p - q).sum()
print(f"Σ min(p, q) = {kept:.4f},  1 - TV = {1 - distance:.4f}")

# %% [markdown]
# ## Why the residual?
# A token *v* can come out in two ways: drafted and kept, with probability min(p(v), q(v)); or after a
# rejection, with probability (1 − Σ min(p, q)) · r(v). For the sum to be p(v), r(v) has to be what is
# missing: max(0, p(v) − q(v)), scaled. (All of max(0, p − q) together is 1 − Σ min(p, q): the factor cancels,
# and the two ways add up to p(v).)
#
# That is one token, given the text before it. Each token that comes out, kept, redrawn or added, has the
# distribution *p* given what stands before it; multiplied along the text, these are the primary's
# probability of the whole text. Try it: one draft, many thousand times, on small distributions that you can
# change.

# %%
small_p = np.array([0.45, 0.25, 0.15, 0.10, 0.05])
small_q = np.array([0.10, 0.50, 0.15, 0.05, 0.20])
draws = 2_000 if FAST else 40_000
rng = np.random.default_rng(4)


def emitted(stated_q):
    """The tokens that come out where drafts from q are judged by `stated_q`, and which drafts stayed."""
    x = rng.choice(5, draws, p=small_q)
    stays = rng.random(draws) < np.minimum(1, small_p[x] / stated_q[x])
    left = np.maximum(0, small_p - stated_q)
    residual = left / left.sum() if left.any() else small_p
    return np.where(stays, x, rng.choice(5, draws, p=residual)), stays


def shares(sample):
    """How often each of the five tokens came out."""
    return np.bincount(sample, minlength=5) / len(sample)


honest, stayed = emitted(small_q)
print(f"Σ min(p, q) = {np.minimum(small_p, small_q).sum():.3f}; drafts that stayed: {stayed.mean():.3f}")
print("p:            ", *(f"{share:.3f}" for share in small_p))
print("what came out:", *(f"{share:.3f}" for share in shares(honest)))


# %% [markdown]
# ## A test you can run: chi-square
# Shares of a sample are never exactly *p*. How far off may they be? With *n* draws, the sum χ² = Σ
# (observed − expected)² / expected is about as large as the number of tokens less one (here 4) if the draws
# do come from *p*, and it grows with *n* if they do not. The cell says how often chance alone gives a χ² as
# large as this: anything from some per cent up is no ground for doubt, one in a million is.

# %%


def chi_square(sample):
    """χ² of a sample against `small_p`."""
    observed, expected = np.bincount(sample, minlength=5), small_p * len(sample)
    return float(np.sum((observed - expected) ** 2 / expected))


def by_chance(chi2):
    """How often chance alone gives a larger χ², with five tokens: exp(-x/2) · (1 + x/2)."""
    return float(np.exp(-chi2 / 2) * (1 + chi2 / 2))


found = chi_square(honest)
print(f"χ² = {found:.1f}; larger by chance alone: {by_chance(found):.0%} of the time")

# %% [markdown]
# ## What goes wrong with a wrong q
# The rule must be told the distribution that the draft was *really* drawn from. A common mistake is to draw
# at one *temperature* and state another (the *logits*, the scores that a softmax turns into probabilities,
# are divided by it: below 1 the likely tokens become likelier), or to forget *top-k* (only the k likeliest
# tokens may be drawn). Suppose the rule is told that *q* is uniform:

# %%
lie = np.full(5, 0.2)
wrong, _ = emitted(lie)
chance = by_chance(chi_square(wrong))
often = f"{chance:.0e} of the time" if chance else "never, to all of a float's digits"
print(f"χ² with a wrong q = {chi_square(wrong):,.0f}; larger by chance alone: {often}")
show.frequencies(small_p, {"true q": shares(honest), "wrong q": shares(wrong)}, [str(i) for i in range(5)])

# %% [markdown]
# Real text may still read well after such a mistake, which makes it hard to notice; a statistical test finds
# it. The toolkit's own tests do this for every drafter, over all texts of several tokens at once.
#
# ## On real text
# How often is a draft accepted along held-out text? For each place, Σ min(p, q) predicts it. (The words
# before each place are the file's own; what the models write themselves may be easier or harder.) The
# *secondary* learned the text, the *distilled* one the primary's predictions, the tandem those too, and it
# may look.

# %%
windows = data.windows(data.encode(pair.tokenizer, text), 256, 4 if FAST else 48)
for name in ("secondary", "distilled", "tandem"):
    found = te.measure.quality(getattr(pair, name), windows, pair.primary, block_len=4)
    print(f"{name:10} 1 - TV = {1 - found.total_variation:.3f}, same likeliest token {found.agreement:.3f}")

# %% [markdown]
# **Your turn.** Set `small_q = small_p.copy()`, then `small_p[::-1].copy()`, and foresee the share of drafts
# that stays before you run the cells again. Then restore `small_q` and state a `lie` that is only a little
# wrong, `np.array([0.10, 0.48, 0.15, 0.05, 0.22])`: does χ² notice with `draws = 2_000`? With 40,000?

# %% [markdown]
# ## The code
# All of speculative decoding in plain JAX, from
# [`nano.py`](https://github.com/tandem-edu/tandem-edu/blob/main/tandem_edu/nano.py): the acceptance rule, a
# cycle, and the loop over cycles. The package computes the same with caches, in one compiled loop.

# %%
functions = (nano.verify, nano.cycle, nano.speculate)
source = "\n\n".join(inspect.getsource(inspect.unwrap(function)) for function in functions)
display(Markdown(f"```python\n{source}```"))

# %% [markdown]
# ## What you have seen
# * A draft is kept with probability min(1, p/q); after a rejection the primary draws from the residual, after
#   a whole block from *p*.
# * The probability that a draft is kept is 1 − TV(p, q): likeness saves calls.
# * The result has exactly the primary's distribution, if the rule knows the true *q*.
#
# ## Questions
# <details><summary>Under greedy decoding all weight is on one token. What does the rule become?</summary>
#
# If both choose the same token, p(x)/q(x) = 1 and it stays. If not, p(x) = 0 and it goes; the residual is
# then the primary's own token. That is "keep while the likeliest tokens agree".
# </details>
#
# <details><summary>Why are all drafts behind a rejected one thrown away, even good ones?</summary>
#
# They were drawn given the rejected token. The text now goes on from another token, and the primary's
# distributions at those places belong to a text that does not exist.
# </details>
#
# <details><summary>Could one accept more often than 1 − TV and stay exact?</summary>
#
# Not for a single token: a draft equal to the emitted token is possible with probability Σ min(p, q) at
# most. For a whole block, yes, a little: block verification (notebook 08).
# </details>
#
# ## The way on
# [05 Block sizes and speedups](05_block_sizes_and_speedups.ipynb): how long should a block be? To practise:
# [exercises](exercises.ipynb) 6 and 7.
