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
# # 05 Block sizes and speedups
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tandem-edu/tandem-edu/blob/main/notebooks/05_block_sizes_and_speedups.ipynb)
#
# **Time:** about two minutes of computing on a laptop's CPU, about one (an estimate) on a Colab GPU.
#
# **At the end you can**
# * compute a speedup from acceptance, block length and two costs;
# * measure all of them on your own machine, with their spread;
# * find the best block length, and say what limits it.

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
from tandem_edu.measure import tokens_per_call, tokens_per_call_iid, wall_clock_factor
from tandem_edu.show import ideas
from tandem_edu.show.panels import (
    acceptance_panel,
    measured_speedups,
    speedup_panel,
    timeline_panel,
    timeline_view,
)
from tandem_edu.zoo import held_out_text

FAST = bool(os.environ.get("TANDEM_EDU_FAST"))  # the tests' short cut: smaller numbers

pair = te.load_pair()
prompts = data.prompts(held_out_text(), pair.tokenizer, length=48, count=2 if FAST else 6)

# %% [markdown]
# ## Two numbers decide
# In each *cycle* the drafter guesses γ tokens (γ, gamma, is the *block length*) and the primary reads them
# in one call. Let
#
# * α be the **acceptance rate**: the probability that a draft is kept, given that all before it were;
# * *c* be the **cost of a draft step**, in units of one decoding step of the primary;
# * *v* be the **cost of a verification**: the primary's call that reads γ + 1 tokens, in the same units.
#
# If every draft is kept with the same α, a cycle yields 1 + α + α² + … + α^γ tokens (the 1 is the primary's
# own), which is (1 − α^(γ+1)) / (1 − α). It costs γ · c + v. So speculation makes decoding faster by
#
# $$\frac{1 - \alpha^{\gamma + 1}}{(1 - \alpha)\,(\gamma c + v)}.$$
#
# Papers often set v = 1. On a GPU that is nearly true; on a processor it is not, as you will see.

# %%
gamma = 4
for alpha in (0.5, 0.7, 0.9):
    tokens = tokens_per_call_iid(alpha, gamma)
    free, real = wall_clock_factor(tokens, gamma, 0.1, 1.0), wall_clock_factor(tokens, gamma, 0.1, 1.6)
    print(
        f"α = {alpha}: {tokens:.2f} tokens a call; {free:.2f} times as fast at v = 1, {real:.2f} at v = 1.6"
    )

# %% [markdown]
# ## The costs on this machine
# Measured as what a cycle costs: many cycles at γ = 1, 2, 4, 8, and a straight line through their times.
# (The library's `benchmarks/` do this more carefully.)

# %%
new_tokens = 32 if FAST else 96
comparison = te.measure.compare(
    pair.primary,
    {"distilled": pair.distilled, "tandem": pair.tandem},
    prompts,
    max_new_tokens=new_tokens,
    block_lens=(1, 2, 4, 8),
    sampling=te.Sampling(temperature=1.0),
    key=jax.random.key(0),
    repetitions=2 if FAST else 5,
    progress=True,
)
step = np.median(comparison.primary_seconds) / (len(prompts) * new_tokens)


def cycle_steps(name, gamma):
    """What one cycle takes, in decoding steps of the primary."""
    run = comparison.run(name, gamma)
    return float(np.median(run.seconds)) / run.summary["cycles"] / step


print(f"one step of the primary: {1e3 * step:.2f} ms")
for name in comparison.drafters:
    print(name, {gamma: f"{cycle_steps(name, gamma):.2f} steps a cycle" for gamma in comparison.block_lens})

# %% [markdown]
# ## Acceptance along the block
# α is not the same at every position: the further ahead, the harder the guess. The α_i below are
# *conditional*: of the drafts at position i that were reached (all before them accepted), the share that
# was kept.

# %%
show.acceptance_by_position(comparison, 8)

# %%
acceptance_panel(comparison)

# %% [markdown]
# In general a cycle yields 1 + α₁ + α₁α₂ + … tokens. The formula and the count agree:

# %%
for name in comparison.drafters:
    summary = comparison.run(name, 8).summary
    alphas = [alpha or 0.0 for alpha in summary["acceptance_by_position"]]
    formula, counted = tokens_per_call(alphas), summary["block_efficiency"]
    print(
        f"{name}: 1 + Σ Π α_i = {formula:.2f}, counted {counted:.2f} (blocks cut short at the end count too)"
    )

# %% [markdown]
# ## The formula against the clock
# The line is the formula, with the tandem's mean acceptance and this machine's costs; the points are
# measured, with the quartiles of the repetitions.

# %%
tandem = comparison.run("tandem", 4).summary
per_token = (cycle_steps("tandem", 8) - cycle_steps("tandem", 1)) / 7  # a draft, and one more row to verify
draft_cost = float(np.clip(per_token / 2, 0.01, 0.5))
verify_cost = float(np.clip(cycle_steps("tandem", 1) - per_token, 1.0, 3.0))
alpha = tandem["acceptance_rate"]
measured = measured_speedups(comparison)
print(f"α = {alpha:.2f}, v about {verify_cost:.2f}, and {per_token:.2f} for each further draft")
ideas.speedup_curve(alpha, draft_cost, verify_cost, per_token - draft_cost, most=10, measured=measured)

# %% [markdown]
# Move the sliders: how much acceptance would be needed for 2 times? What if verification were free?

# %%
speedup_panel(alpha, draft_cost, verify_cost, measured)

# %% [markdown]
# ## Who works when
# The primary alone works all the time, one token a step. With a drafter it works less often, and each of
# its calls yields more (the number above a call is the tokens that come out).

# %%
traces = {name: comparison.run(name, 4).outputs[0].trace for name in comparison.drafters}
costs = dict.fromkeys(traces, draft_cost)
display(HTML(timeline_view(traces, costs, verify_cost, tokens=24)))

# %%
timeline_panel(traces, costs, verify_cost, tokens=24)

# %% [markdown]
# ## The best block length
# Too short, and the primary is called too often; too long, and the last drafts are hardly ever kept.

# %%
show.speedups(comparison)

# %%
for name in comparison.drafters:
    run = comparison.fastest(name)
    print(f"{name}: fastest at γ = {run.block_len}, {np.median(run.speedup):.2f} times the primary alone")

# %% [markdown]
# **Your turn.** Repeat with `sampling=None` (greedy). Small models' greedy text runs in circles, which
# every drafter can foresee: watch the best γ grow.

# %% [markdown]
# ## What you have seen
# * Speed is tokens per call divided by the cost of a cycle. Acceptance decides the first, the machine the
#   second.
# * Acceptance falls along the block, so there is a best γ; a better drafter has a longer one.
# * A verification costs more than a step on a processor. That, not the drafter, limits the gain here.
#
# ## Questions
# <details><summary>A drafter is accepted with α = 0.8 and costs c = 0.1. Does γ = 20 help?</summary>
#
# Hardly: 1/(1 − α) = 5 tokens a call is the most there is, and γ = 8 gives 4.3 already, while each further
# draft costs 0.1 steps whether it is reached or not.
# </details>
#
# <details><summary>Why is the counted number of tokens a little below the formula's?</summary>
#
# The last block of a text is cut to what is still to be written, and counts as a whole call.
# </details>
#
# <details><summary>Two drafters have the same α, one costs twice as much. Which γ is best for each?</summary>
#
# The cheaper one's is longer: the last draft pays as long as what it adds, α^γ tokens, is worth more than
# it costs.
# </details>
#
# ## The way on
# [06 Adaptive block length](06_adaptive_block_length.ipynb): let the drafter itself say when to stop.
