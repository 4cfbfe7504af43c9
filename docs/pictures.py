"""Draw the two pictures of the README: `make pictures`.

docs/mask.png     who sees what in a tandem
docs/drafts.png   the same greedy text, drafted by two drafters: what was accepted
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import tandem_edu as te
from tandem_edu import data, show
from tandem_edu.show.palette import ACCEPTED, GREY, PRIMARY, REJECTED, plain
from tandem_edu.show.picture import Picture
from tandem_edu.show.tokens import marked_tokens
from tandem_edu.zoo import texts

HERE = Path(__file__).parent
NEW_TOKENS, BLOCK_LEN = 48, 4
COLUMNS, LINE, CHARACTER = 64, 0.26, 0.086  # characters a line; inches
FACES = {"prompt": "none", "accepted": "#bfe8d9", "primary": "none", "rejected": "#f6d3c0"}
EDGES = {"prompt": "none", "accepted": ACCEPTED, "primary": PRIMARY, "rejected": REJECTED}


def typical(pair) -> tuple[np.ndarray, dict[str, te.decode.Output]]:
    """Of 64 held-out prompts the one on which both drafters need most nearly their mean number of passes."""
    drafters = {"the small model alone": pair.distilled, "the small model in a tandem": pair.tandem}
    prompts = data.prompts(texts().dev, pair.tokenizer, length=12, count=64)
    outputs = {
        name: [te.speculate(pair.primary, drafter, prompt, NEW_TOKENS, BLOCK_LEN) for prompt in prompts]
        for name, drafter in drafters.items()
    }
    passes = np.array([[int(out.trace.cycles) for out in outs] for outs in outputs.values()])
    print("mean number of passes:", passes.mean(axis=1).round(1).tolist())
    number = int(np.abs(passes - passes.mean(axis=1, keepdims=True)).sum(axis=0).argmin())
    return prompts[number], {name: outs[number] for name, outs in outputs.items()}


def draw(pair) -> Picture:
    """Each token in a box: accepted drafts green, rejected ones orange-red, the primary's own blue."""
    prompt, outputs = typical(pair)
    figure = Figure(figsize=(COLUMNS * CHARACTER + 0.2, 4.6), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, COLUMNS * CHARACTER + 0.2), ylim=(-4.6, 0))
    axes.axis("off")
    y, sentences = -0.3, []
    for drafter, out in outputs.items():
        title = f"Drafted by {drafter}: {NEW_TOKENS} tokens in {out.trace.summary()['cycles']} passes"
        sentences.append(title)
        axes.text(0.1, y, title, fontsize=11, fontweight="bold", va="center")
        y = _tokens(axes, pair.tokenizer, prompt, out, y - 1.3 * LINE) - 2 * LINE
    meanings = {"accepted": "draft accepted", "rejected": "draft rejected", "primary": "primary's own"}
    for i, (kind, meaning) in enumerate(meanings.items()):
        x = 0.1 + 2 * i
        axes.add_patch(Rectangle((x, y - 0.08), 0.2, 0.16, facecolor=FACES[kind], edgecolor=EDGES[kind]))
        axes.text(x + 0.28, y, meaning, fontsize=10, va="center")
    figure.set_size_inches(COLUMNS * CHARACTER + 0.2, 0.25 - y)
    axes.set_ylim(y - 0.25, 0)
    return Picture(figure, ". ".join(sentences) + ".")


def _tokens(axes, tokenizer, prompt, out, y: float) -> float:
    """Draw the tokens in lines of `COLUMNS` characters; the height of the last line."""
    column = 0
    for kind, token in marked_tokens(prompt, out):
        string = data.token_strings(tokenizer, [token])[0]
        shown = string.rstrip(" ").replace("\n", "⏎") if "\n" in string else string
        if column + len(shown) > COLUMNS:
            column, y = 0, y - LINE
        x = 0.1 + column * CHARACTER
        box = {"facecolor": FACES[kind], "edgecolor": EDGES[kind], "linewidth": 0.8}
        axes.add_patch(Rectangle((x, y - 0.1), len(shown) * CHARACTER, 0.2, **box))
        for i, character in enumerate(shown):
            colour = GREY if kind == "prompt" else "black"
            at = (x + (i + 0.5) * CHARACTER, y)
            axes.text(
                *at, plain(character), family="monospace", fontsize=9, color=colour, ha="center", va="center"
            )
        if kind == "rejected":
            axes.plot([x, x + len(shown) * CHARACTER], [y, y], color=REJECTED, linewidth=1)
        column += len(shown)
        if "\n" in string:
            column, y = 0, y - LINE
    return y


if __name__ == "__main__":
    (HERE / "mask.png").write_bytes(show.block_mask(12, 4, token=9).png())
    picture = draw(te.load_pair())
    (HERE / "drafts.png").write_bytes(picture.png())
    print(picture.alt)
