"""Where a tandem looks: one head's weights, its own side left, the primary's right."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import PowerNorm

from tandem_edu.measure.attention import OWN, PRIMARY, primary_share
from tandem_edu.show.distributions import label_of
from tandem_edu.show.picture import Picture, canvas, widest


def attention_head(
    maps: np.ndarray, strings: Sequence[str], layer: int, head: int, token: int | None = None
) -> Picture:
    """The weights of one head over `maps` (see `measure.attention_maps`); `token` marks one row."""
    seq = maps.shape[2]
    height = max(4.2, 1.0 + 0.18 * seq)
    names = [f"{label_of(string)}  {i}" for i, string in enumerate(strings)]
    title, beside = f"Where head {head} of layer {layer} looks", widest(names, 9)
    figure, axes = canvas(title, "", "token that looks", 7.6, height, (0.4 + beside, 0.2))
    axes.grid(visible=False)
    both = np.concatenate([maps[layer, head, :, side] for side in (OWN, PRIMARY)], axis=-1)
    axes.set_facecolor("#dddddd")  # of what is not looked at
    # The square root of a weight, or all but the largest would be black.
    looked = np.ma.masked_equal(both, 0)
    image = axes.imshow(looked, "cividis", PowerNorm(0.5, 0, 1), aspect="auto", interpolation="nearest")
    ticks = [0, 0.1, 0.25, 0.5, 1]
    figure.colorbar(image, ax=axes, label="attention weight (grey: none)", shrink=0.8, ticks=ticks)
    axes.axvline(seq - 0.5, color="white", linewidth=2)
    every = range(0, seq, 4)
    axes.set_xticks(
        [side * seq + i for side in (0, 1) for i in every], 2 * [str(i) for i in every], fontsize=9
    )
    axes.set_xlabel("token looked at: left by its own view, right as the primary sees it")
    axes.set_yticks([])
    beside_it = axes.get_yaxis_transform()
    for i, name in enumerate(names):  # by hand: a tick has two labels, two marks and a line of the grid
        axes.text(-0.01, i, name, fontsize=9, ha="right", va="center", transform=beside_it)
    axes.yaxis.labelpad = 72 * beside + 10
    alt = f"Attention of head {head} of layer {layer} over {seq} tokens."
    if token is not None:
        axes.axhspan(token - 0.5, token + 0.5, fill=False, edgecolor="black", linewidth=2)
        share = primary_share(maps)[layer, head, token]
        alt += f" Token {token} gives {share:.0%} to the primary."
    return Picture(figure, alt)


def primary_shares(maps: np.ndarray, block_len: int) -> Picture:
    """Each head's mean share for the primary at each place in the block; the first block is left out."""
    shares = primary_share(maps)[:, :, block_len:]
    place = np.arange(block_len, maps.shape[2]) % block_len
    means = np.stack([shares[..., place == i].mean(-1) for i in range(block_len)], axis=-1)
    names = [f"layer {layer}, head {head}" for layer, head in np.ndindex(shares.shape[:2])]
    rows = means.reshape(len(names), block_len)
    title = "How much of each head goes to the primary"
    figure, axes = canvas(title, "place in the block", "", 1.8 + 0.9 * block_len, 0.9 + 0.36 * len(names))
    axes.grid(visible=False)
    axes.imshow(rows, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(rows):
        colour = "black" if share > 0.5 else "white"
        axes.text(column, row, f"{share:.0%}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(block_len), [str(i + 1) for i in range(block_len)])
    axes.set_yticks(range(len(names)), names, fontsize=9)
    told = (
        f"{name} {', '.join(f'{share:.0%}' for share in row)}" for name, row in zip(names, rows, strict=True)
    )
    return Picture(figure, f"Share of attention for the primary, place by place: {'; '.join(told)}.")


def shares_in_words(maps: np.ndarray, layer: int, head: int, token: int) -> str:
    """One token's share for the primary as a sentence.

    >>> maps = np.zeros((1, 1, 2, 2, 2)); maps[0, 0, 1, 1, 0], maps[0, 0, 1, 0, 1] = 0.75, 0.25
    >>> shares_in_words(maps, 0, 0, 1)
    'Head 0 of layer 0, at token 1: 75% to the primary, 25% to its own view.'
    """
    share = float(primary_share(maps)[layer, head, token])
    where = f"Head {head} of layer {layer}, at token {token}"
    return f"{where}: {share:.0%} to the primary, {1 - share:.0%} to its own view."
