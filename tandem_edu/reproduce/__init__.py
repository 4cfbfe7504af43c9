"""Floor 6: how the shipped pair is made, and how its results are measured."""
