"""Panels on ideas: the block mask, the roofline and the speedup formula."""

from functools import partial

import ipywidgets as widgets

from tandem_edu.measure import PRESETS, Comparison
from tandem_edu.show import ideas
from tandem_edu.show.panels.core import choice, panel, slider


def mask_panel(seq: int = 12) -> widgets.VBox:
    """Choose the length of the text, γ, the offset and a token: what does it attend to?"""
    controls = {
        "seq": slider("tokens", 4, 24, seq),
        "block_len": slider("γ", 1, 8, 4),
        "offset": slider("offset of the first block", 0, 3, 0),
        "token": slider("attending token", 0, seq - 1, seq - 3),
    }
    for limited, limit in (("token", "seq"), ("offset", "block_len")):
        end = controls[limited], "max"
        widgets.dlink((controls[limit], "value"), end, lambda value: value - 1)
        widgets.dlink(end, (controls[limited], "disabled"), lambda most: most == 0)
    draw = lambda **values: ideas.block_mask(**values).with_table("What each token attends to", folded=True)
    return panel(draw, controls)


def sketch_panel(seq: int = 12) -> widgets.VBox:
    """Choose γ and a token: what does the deep tandem predict it from?"""
    controls = {"block_len": slider("γ", 1, 8, 4), "token": slider("predicted token", 0, seq - 1, seq - 2)}
    draw = partial(ideas.sketch_mask, seq)
    return panel(
        lambda **values: draw(**values).with_table("What is read for each token", folded=True), controls
    )


def roofline_panel(weights: float = 4.7e6) -> widgets.VBox:
    """Choose hardware and model size: how many tokens does a call read in the time of one?"""
    sizes = {f"this course's primary, {weights / 1e6:.1f} M": weights, "1 B": 1e9, "8 B": 8e9, "70 B": 70e9}
    chips = [(chip.name, chip) for chip in PRESETS]
    controls = {"hardware": choice("hardware", chips), "weights": choice("weights", [*sizes.items()])}
    draw = lambda **values: ideas.roofline(**values).with_table("Time of one call", folded=True)
    return panel(draw, controls)


def speedup_panel(
    alpha: float, draft_cost: float, verify_cost: float, slope: float = 0, measured: Comparison | None = None
) -> widgets.VBox:
    """Choose acceptance and costs as in `show.speedup_curve`; `measured` adds points."""
    controls = {
        "alpha": slider("acceptance α", 0.0, 0.99, alpha, 0.01),
        "draft_cost": slider("draft step c", 0.01, 0.5, draft_cost, 0.01),
        "verify_cost": slider("verification v at γ = 0", 0.5, 3.0, verify_cost, 0.01),
        "slope": slider("more v per draft", 0.0, 0.5, slope, 0.01),
    }
    curve = partial(ideas.speedup_curve, measured=measured)
    return panel(lambda **values: curve(**values).with_table("Speedup", folded=True), controls)
