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
# # 01 Why decoding is slow
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tandem-edu/tandem-edu/blob/main/notebooks/01_why_decoding_is_slow.ipynb)
#
# **Time:** about one minute of computing on a laptop's CPU, about half a minute (an estimate) on a Colab
# GPU.
#
# **At the end you can**
# * say why writing one token takes about as long as reading several;
# * measure bandwidth and the cost of a wider call on your own machine;
# * read a roofline, and tell where further tokens stop being nearly free.
#
# You need: the product of a matrix and a vector; no other notebook.

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
from IPython.display import display

import tandem_edu as te
from tandem_edu import data, show
from tandem_edu.measure import spread, timed
from tandem_edu.measure.roofline import PRESETS
from tandem_edu.show.panels import roofline_panel
from tandem_edu.zoo import held_out_text

FAST = bool(os.environ.get("TANDEM_EDU_FAST"))  # the tests' short cut: smaller numbers

# %% [markdown]
# ## One token at a time
# A language model writes by **decoding**: from the text so far it computes how likely each token (piece of
# text) is to come next, one is chosen, and the model is run again, for that token only: what it needs of the
# earlier ones it has kept (in a *cache*, see notebook 02). So each weight matrix of the model is multiplied
# by *one* vector. For reading a prompt of n tokens, the same matrix is multiplied by *n* vectors at once, a
# matrix by a matrix.
#
# The matrix has to be fetched from memory in both cases. Does it take n times as long to multiply it by n
# vectors? Measure it here.

# %%
size = 1024 if FAST else 2048
weights = jax.random.normal(jax.random.key(0), (size, size))
widths = [1, 2, 4, 8, 16, 32, 64, 128]
multiply = jax.jit(lambda rows, matrix: rows @ matrix)


def contender(width):
    """One product of `width` vectors with the matrix."""
    rows = jax.random.normal(jax.random.key(width), (width, size))
    return lambda: multiply(rows, weights)


seconds, _ = timed({width: contender(width) for width in widths}, repetitions=20 if FAST else 100)
show.time_against_width(seconds, f"One product with a matrix of {size * size:,} numbers")

# %%
one, many = np.median(seconds[1]), np.median(seconds[64])
moved = 4 * size * size / one / 1e9
print(f"1 vector: {1e6 * one:.0f} µs, {moved:.0f} GB of weights a second")
each, saving = 1e6 * many / 64, 64 * one / many
print(f"64 vectors: {1e6 * many:.0f} µs, that is {each:.1f} µs each: {saving:.0f} times cheaper")

# %% [markdown]
# A processor fetches weights at some gigabytes a second, its **bandwidth** (the figure above; that of a
# faster memory close to it, if the matrix fits in there), and computes at many more operations a second.
# One vector uses each fetched weight for two operations (multiply, add), far too few to keep the arithmetic
# busy. So decoding waits for memory, and *each further vector costs a fraction of the first*. That gap is
# what every method in this course lives on.
#
# ## A whole model
# The same for the model that comes with this course: reading 1, 2, 3, 5, 9, ... tokens in one call
# (one, and 1, 2, 4, 8, ... guesses), after a prompt.

# %%
pair = te.load_pair()
prompt = data.prompts(held_out_text(), pair.tokenizer, length=64, count=1)[0]
_, cache = pair.primary.prefill(jnp.asarray(prompt), length=64, capacity=256)
read = jax.jit(lambda model, tokens, cache: model.extend(tokens, cache)[0])


def reader(width):
    """One call of the primary that reads `width` tokens."""
    tokens = jnp.asarray(np.resize(prompt, width), jnp.int32)
    return lambda: read(pair.primary, tokens, cache)


model_widths = [1, 2, 3, 5, 9, 17, 33]
calls, _ = timed({width: reader(width) for width in model_widths}, repetitions=20 if FAST else 60)
show.time_against_width(calls, "One call of the primary")

# %%
step, low, high = spread(calls[1])
print(f"one token: {1e3 * step:.2f} ms ({1e3 * low:.2f} to {1e3 * high:.2f})")
for width in (5, 9, 33):
    cost = np.median(calls[width]) / step
    print(f"{width} tokens in one call: {cost:.2f} times one step, {cost / width:.2f} a token")

# %% [markdown]
# Each call here is started from Python, which takes the same time however much the call reads and so flatters
# the wide ones; notebook 05 times many steps in one compiled loop.
#
# Reading 5 tokens costs less than 5 steps. If only somebody told us the next 4 tokens, we could *check* them
# all in one call! That is **speculative decoding**: a small model, the **drafter**, guesses them, and the
# large one, the **primary**, checks the guesses. It is exact, as notebook 04 shows.
#
# ## The roofline
# How many tokens are nearly free depends on the machine. Let *B* be its bandwidth and *F* its operations a
# second. Fetching *w* weights of *b* bytes takes w·b/B; computing with n tokens takes 2·w·n/F. At best the
# two overlap entirely, and the longer one decides:
#
# $$t(n) = \max\left(\frac{w\,b}{B},\ \frac{2\,w\,n}{F}\right).$$
#
# They are equal at n = b·F / (2·B), the **ridge**. Below it the machine waits for memory, and by the formula
# more tokens are free; above it they cost. It is a bound: no machine is faster, and real ones bend away from
# it well before the ridge. (Fetching the cache is left out: it is little while texts are short.) Here is your
# own, with *B* and *F* out of the first picture:

# %%
B, F = 4 * size * size / one, 2 * size * size * widths[-1] / np.median(seconds[widths[-1]])
print(f"B = {B / 1e9:.0f} GB/s, F = {F / 1e9:.0f} billion operations a second")
print(f"ridge: {4 * F / (2 * B):.0f} tokens")
for width in (4, 16, 64):
    bound = max(4 * size * size / B, 2 * size * size * width / F)
    real = np.median(seconds[width])
    print(f"{width:2} vectors: {real / one:5.2f} times one; by the roofline {bound / one:5.2f}")

# %% [markdown]
# And other hardware, with this model and with one of 8 billion weights:

# %%
n_weights = sum(leaf.size for leaf in jax.tree.leaves(pair.primary) if isinstance(leaf, jax.Array))
display(show.roofline(PRESETS[0], n_weights))
display(show.roofline(PRESETS[-1], 8e9))

# %% [markdown]
# Pick other hardware and other models: a model's size changes the milliseconds, not the ridge. The chips'
# numbers are the makers' peak figures, of which real programs reach part; the laptop's are a round guess.
# (Without a running kernel you see the two pictures above.)

# %%
roofline_panel(n_weights)

# %% [markdown]
# **Your turn.** The matrix has 4·size² bytes, and a processor keeps what it used last in smaller, faster
# memories of its own. Set `size = 512`, then `size = 4096`: what happens to the gigabytes a second, and to
# the advantage of many vectors? (Part of a very short time is the fixed cost of any call.)

# %% [markdown]
# ## What you have seen
# * Decoding multiplies each weight matrix by one vector at a time and waits for memory.
# * Reading several tokens in one call costs less than reading them one by one: by the roofline nothing more
#   up to the ridge, in practice what you have measured.
# * Whoever can guess the next tokens can have them checked for less than it costs to write them. Hence
#   drafters.
#
# ## Questions
# <details><summary>Half as many bytes a weight: what happens to decoding speed, and to the ridge?</summary>
#
# Decoding waits for bytes, so it becomes up to twice as fast. The ridge b·F/(2·B) moves to half as many
# tokens (unless the arithmetic gets faster too): fewer further tokens are free.
# </details>
#
# <details><summary>A server decodes for 64 users at once. Is speculative decoding still worth it?</summary>
#
# Less. Those 64 vectors already share each fetched weight. What is left below the ridge is what drafts can
# use. (With long texts each user's own cache has to be fetched too, and is shared by nobody else; there
# drafts help again.)
# </details>
#
# <details><summary>Why is reading a long prompt not slow in the same way?</summary>
#
# All its tokens are known, so they go through the model in one call: matrix by matrix.
# </details>
#
# ## The way on
# [02 Inside the tandem](02_inside_the_tandem.ipynb): a drafter that looks at what the primary has understood.
# To practise: [exercise](exercises.ipynb) 1.
