"""Train the shipped models, one after the other; stopped half-way, it goes on next time."""

from pathlib import Path

import jax

from tandem_edu import data
from tandem_edu.model import Transformer
from tandem_edu.reproduce.plan import PRIMARY, VOCAB, primary_recipe, texts
from tandem_edu.train import train


def train_zoo(folder: Path) -> None:
    """Train everything in `folder`, each model in a folder of its own."""
    train_text, dev_text, _ = texts()
    tokenizer = data.train_tokenizer(train_text, vocab_size=VOCAB)
    tokens, dev = data.encode(tokenizer, train_text), data.encode(tokenizer, dev_text)
    primary_key, _ = jax.random.split(jax.random.key(0))
    primary = Transformer(PRIMARY, key=primary_key)
    train(primary, primary_recipe(), tokens, dev, folder=folder / "primary")


if __name__ == "__main__":
    train_zoo(Path("runs/zoo"))
