"""What the models are asked to continue: unseen prose and code, and prose unlike any they have read."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from tandem_edu import data
from tandem_edu.data.stdlib import docstrings
from tandem_edu.zoo.shipped import Texts

LENGTH = 48
"""Tokens of a prompt."""


def prompts_of_kinds(
    tokenizer: Tokenizer, parts: Texts, split: str, count: int
) -> dict[str, list[np.ndarray]]:
    """`count` prompts of each kind from one split ("dev" or "test"); those from outside at most 4 or 8."""
    text = getattr(parts, split)
    named = list(zip(text.titles, text.documents, strict=True))
    code = [document for title, document in named if title.endswith(".py")]
    prose = [document for title, document in named if not title.endswith(".py")]
    prose += ["\n\n".join(docstrings(source)) for source in code]
    take = lambda documents: data.prompts([d for d in documents if d.strip()], tokenizer, LENGTH, count)
    stories = outside(split)[:count]
    others = [np.asarray(tokenizer.encode(story).ids[:LENGTH], np.int32) for story in stories]
    return {"documentation": take(prose), "code": take(code), "outside": others}


def outside(split: str) -> list[str]:
    """A story, a recipe, a letter, ..., written for this purpose: 8 for "test", 4 for "dev"."""
    texts = Path(__file__).with_name("outside.txt").read_text("utf-8").strip().split("\n\n")
    return texts[:8] if split == "test" else texts[8:]
