"""Floor 6: how the shipped pair is made, and the paper's tables measured with it."""

from tandem_edu.reproduce.run import reproduce as reproduce
