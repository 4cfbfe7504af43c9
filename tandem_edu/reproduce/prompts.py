"""What the models are asked to continue: unseen prose and code, and prose unlike any they have read."""

import numpy as np
from tokenizers import Tokenizer

from tandem_edu import data
from tandem_edu.data import Corpus
from tandem_edu.data.stdlib import docstrings
from tandem_edu.reproduce.outside import TEXTS

LENGTH = 48
"""Tokens of a prompt."""


def prompts_of_kinds(tokenizer: Tokenizer, text: Corpus, count: int) -> dict[str, list[np.ndarray]]:
    """`count` prompts of each kind, those from outside at most as many as there are (12).

    `text` is a part of `load_text("stdlib")`: help topics, and source files by their path.
    """
    named = list(zip(text.titles, text.documents, strict=True))
    code = [document for title, document in named if title.endswith(".py")]
    prose = [document for title, document in named if not title.endswith(".py")]
    prose += ["\n\n".join(docstrings(source)) for source in code]
    take = lambda documents: data.prompts([d for d in documents if d.strip()], tokenizer, LENGTH, count)
    outside = [np.asarray(tokenizer.encode(story).ids[:LENGTH], np.int32) for story in TEXTS[:count]]
    return {"documentation": take(prose), "code": take(code), "outside": outside}
