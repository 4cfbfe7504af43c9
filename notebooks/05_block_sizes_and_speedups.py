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
#
# You need: why a wider call costs little (notebook 01), and one cycle of speculative decoding (04).

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
from tandem_edu.measure import spread, timed, tokens_per_call, tokens_per_call_iid, wall_clock_factor
from tandem_edu.measure.steps import draft_steps, read_steps
from tandem_edu.show.panels import (
    acceptance_view,
    gamma_panel,
    speedup_panel,
    timeline_panel,
    timeline_view,
)
from tandem_edu.zoo import held_out_text

FAST = bool(os.environ.get("TANDEM_EDU_FAST"))  # the tests' short cut: smaller numbers

pair = te.load_pair()
prompts = data.prompts(held_out_text(), pair.tokenizer, length=48, count=2 if FAST else 12)

# %% [markdown]
# ## Three numbers decide
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
    free, dear = wall_clock_factor(tokens, gamma, 0.1, 1.0), wall_clock_factor(tokens, gamma, 0.1, 1.6)
    print(
        f"α = {alpha}: {tokens:.2f} tokens a call; {free:.2f} times as fast at v = 1, {dear:.2f} at v = 1.6"
    )

# %% [markdown]
# ## The costs on this machine
# Many steps in one compiled loop, all kinds in turn: a decoding step of the primary, its reading of γ + 1
# tokens, a step of each drafter, after as many tokens as the texts below have. In brackets the quartiles of
# the rounds. (In notebook 01 each call was started from Python: here a step is shorter, and a wider call
# dearer in proportion.)

# %%
drafters = {"distilled": pair.distilled, "tandem": pair.tandem}
block_lens = (2, 4, 8) if FAST else (1, 2, 4, 8)
where = {"length": 64, "capacity": 160}  # tokens in the cache at first, and its size
work = {"step": read_steps(pair.primary, **where)}
work |= {gamma: read_steps(pair.primary, gamma + 1, **where) for gamma in block_lens}
work |= {name: draft_steps(pair.primary, drafter, **where) for name, drafter in drafters.items()}
seconds, _ = timed(work, 3 if FAST else 9)
steps = {name: spread(taken / seconds["step"]) for name, taken in seconds.items()}

print(f"one step of the primary: {1e3 * np.median(seconds['step']):.2f} ms")
for name, (median, low, high) in list(steps.items())[1:]:
    what = f"c of {name}" if name in drafters else f"v at γ = {name}"
    print(f"{what:15} {median:.2f} steps [{low:.2f} to {high:.2f}]")

# %% [markdown]
# ## The texts
# Both drafters at each γ, and the primary alone, take turns on the same beginnings. (The paper calls
# speculative decoding SPEED; its baseline is SPEED with the distilled secondary.)

# %%
shared = {"max_draft_len": 8} if FAST else {}  # one program for all γ: sooner compiled, slower to run
comparison = te.measure.compare(
    pair.primary,
    drafters,
    prompts,
    max_new_tokens=32 if FAST else 96,
    block_lens=block_lens,
    sampling=te.Sampling(temperature=1.0),
    key=jax.random.key(0),
    repetitions=2 if FAST else 5,
    progress=True,
    **shared,
)

# %% [markdown]
# ## Acceptance along the block
# α need not be the same at every position. The α_i below are *conditional*: of the drafts at position i that
# were reached (all before them accepted), the share that was kept. Two things pull against each other. For
# the *tandem* a guess further ahead is harder: it has more of the latest tokens only in its own view (the
# distilled secondary loses nothing along the block). For both, a far position is only *reached* where the
# text is easy. The picture shows which wins, as far as there are drafts to tell by: the table says of how
# many each is the share.

# %%
display(HTML(acceptance_view(comparison, 8)))

# %%
gamma_panel(comparison, pair.tokenizer)

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
# The line is the formula, with the share of the tandem's judged drafts that were kept (behind a rejected one
# none is judged), its *c*, and for v a straight line that starts at 1; the points are measured, with the
# quartiles of the repetitions. The line is the tandem's only, and rough: one α for all places, a straight
# line for v. **Below 1, speculation is slower than the primary alone**; with models as small as ours, on a
# processor, that may happen.
#
# Below the picture the same from the tokens as counted and v as measured. What still lies between formula and
# clock comes partly **once a cycle** (writing the drafter's cache anew, the rejection rule, and the small
# model's weights, which the large one drives out of the processor's cache) and partly **with each draft** (a
# softmax and a random draw from *q*, and one more row to judge: the steps timed above are greedy). A straight
# line through the last figures of the lines tells the two apart, roughly. (The prompt is in the clock too:
# the primary alone reads it as well, the drafter besides.)

# %%
rows = [row for out in comparison.run("tandem", 4).outputs for row in out.trace.to_records()]
judged = sum(min(row["accepted"] + 1, row["drafted"]) for row in rows)
alpha = sum(row["accepted"] for row in rows) / judged
costs = {name: steps[name][0] for name in drafters}
# The line of least squares through v(0) = 1: a step.
slope = sum(g * (steps[g][0] - 1) for g in block_lens) / sum(g * g for g in block_lens)
verify_cost = 1.0
print(f"α = {alpha:.2f}, c = {costs['tandem']:.2f}, v(γ) about {verify_cost:.0f} + {slope:.2f} γ")
display(show.speedup_curve(alpha, costs["tandem"], verify_cost, slope, limit=10, measured=comparison))
besides = {}
for gamma in block_lens:
    run = comparison.run("tandem", gamma)
    said = wall_clock_factor(run.summary["block_efficiency"], gamma, costs["tandem"], steps[gamma][0])
    clock = np.median(run.speedup)
    besides[gamma] = run.summary["block_efficiency"] * (1 / clock - 1 / said)
    print(f"γ = {gamma}: by the steps {said:.2f}, by the clock {clock:.2f} times as fast", end="; ")
    print(f"a cycle takes {besides[gamma]:+.2f} steps besides")
each, once = np.polyfit(block_lens, list(besides.values()), 1)
print(f"besides, about: {once:.2f} steps once a cycle, {each:.3f} with each draft")

# %% [markdown]
# Move the sliders (v is the third, plus the fourth times γ): how much acceptance would be needed for 2 times?
# What if reading γ + 1 tokens took no longer than reading one (1, and 0 per draft)?

# %%
speedup_panel(alpha, costs["tandem"], verify_cost, slope, comparison)

# %% [markdown]
# What holds it back: acceptance, the drafts' cost, the verification's, or what a cycle takes besides? Mend
# one at a time and see. (One α for all places, so the first line is near what the clock says, not the same.)

# %%
real = {"alpha": alpha, "draft_cost": costs["tandem"], "verify_cost": steps[4][0], "besides": besides[4]}
mended = {
    "as it is": {},
    "nothing besides": {"besides": 0.0},
    "free drafts": {"draft_cost": 0.0},
    "v = 1": {"verify_cost": 1.0},
    "α = 0.9": {"alpha": 0.9},
    "all but the drafts": {"besides": 0.0, "verify_cost": 1.0, "alpha": 0.9},
}
for what, change in mended.items():
    now = real | change
    tokens, reading = tokens_per_call_iid(now["alpha"], 4), now["verify_cost"] + now["besides"]
    print(f"{what:18} {wall_clock_factor(tokens, 4, now['draft_cost'], reading):.2f} at γ = 4")

# %% [markdown]
# ## Who works when
# The primary alone works all the time, one token a step. With a drafter it works less often, and each of its
# calls yields more (the number above a call is the tokens that come out). This is the beginning of one text,
# one on which both drafters need about their mean number of calls. It is drawn from the timed steps: what a
# cycle takes besides is not in it. (The last call of a row may yield more than is shown of the others:
# compare the steps, not the tokens.)

# %%
shown = 24  # tokens
calls = np.array([[out.trace.cycles for out in comparison.run(name, 4).outputs] for name in drafters])
typical = int(np.abs(calls - calls.mean(1, keepdims=True)).sum(0).argmin())
traces = {name: comparison.run(name, 4).outputs[typical].trace for name in comparison.drafters}
display(HTML(timeline_view(traces, costs, steps[4][0], tokens=shown)))

# %%
timeline_panel(traces, costs, steps[4][0], tokens=shown)

# %% [markdown]
# ## The best block length
# Too short, and the primary is called too often; too long, and the last drafts are hardly ever reached. Near
# its top the curve is flat, and where the quartiles of several γ overlap, which of them comes out first is
# partly chance. By the formula, at equal cost, higher acceptance means a longer best block. Timings can show
# it only if the best γ stands clear of its neighbours; the cell names those whose quartiles it overlaps.

# %%
show.speedups(comparison)

# %%
for name in comparison.drafters:
    run = comparison.fastest(name)
    _, low, _ = spread(run.speedup)
    near = [
        str(one.block_len) for one in comparison.of(name) if one is not run and spread(one.speedup)[2] > low
    ]
    print(
        f"{name}: fastest at γ = {run.block_len}, {np.median(run.speedup):.2f} times the primary alone,",
        end=" ",
    )
    print(f"not clearly faster than at γ = {', '.join(near)}" if near else "clearly the fastest γ")

# %% [markdown]
# **Your turn.** Repeat with `sampling=None` (greedy) and add 12 and 16 to `block_lens`. Does the best γ
# change? Decode a text with `pair.tokenizer.decode`: does it repeat itself? That flatters every drafter.

# %% [markdown]
# ## What you have seen
# * Speed is tokens per call divided by the cost of a cycle: drafts, verification, and what it takes besides.
#   Acceptance decides the first, the machine the second.
# * The chance to *reach* a position falls along the block, so there is a best γ; by the formula, at equal
#   cost, higher acceptance means a longer one.
# * A verification costs more than a step on a processor; how much that takes from the gain is printed above.
#
# ## Questions
# <details><summary>With α = 0.8 and c = 0.1, does γ = 20 help if v = 1? If v(γ) = 1 + 0.1 γ?</summary>
#
# At v = 1 against the primary alone it does, against a shorter block not. 1/(1 − α) = 5 tokens a call is the
# most there is, and γ = 8 already gives most of that, while each further draft costs 0.1 steps whether it is
# reached or not. `wall_clock_factor(tokens_per_call_iid(0.8, 20), 20, 0.1, 1.0)` says how much; try 8 and 6
# too. With 3.0 instead of 1.0, what v comes to then, nothing of the gain is left.
# </details>
#
# <details><summary>Why is the counted number of tokens a little below the formula's?</summary>
#
# The last block of a text is cut to what is still to be written, and counts as a whole call.
# </details>
#
# <details><summary>Two drafters have the same α, one costs twice as much. Which γ is best for each?</summary>
#
# The cheaper one's is at least as long: the last draft pays as long as the tokens it adds, α^γ, are more than
# S times what it costs, c + v(γ) − v(γ − 1), where S is the speedup without it. A larger c ends that sooner
# (and γ is a whole number, so it may be the same).
# </details>
#
# ## The way on
# [06 Adaptive block length](06_adaptive_block_length.ipynb): let the drafter itself say when to stop. To
# practise: [exercises](exercises.ipynb) 8 and 9.
