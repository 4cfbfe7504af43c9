"""A variant of the deep tandem that the paper's section 5.2 rejects."""

from typing import ClassVar, NoReturn

import equinox as eqx
from jaxtyping import Array, Float, Int

from tandem_edu.drafters.deep import sketch_blocks
from tandem_edu.errors import BadInput
from tandem_edu.model import LanguageModel, Transformer, TransformerConfig


class BlockPrediction(LanguageModel):
    """The deep tandem's large half alone: the sketch of a token predicts it, and all γ of a block at once.

    The first γ tokens of a text have no sketch; their predictions are uniform.
    """

    kind: ClassVar[str] = "block-prediction"
    large: Transformer
    config: TransformerConfig = eqx.field(static=True)
    block_len: int = eqx.field(static=True)

    def __call__(self, tokens: Int[Array, "*batch seq"]) -> Float[Array, "*batch seq vocab"]:
        """The next token's logits at every position."""
        return self.large.logits(sketch_blocks(self.large, tokens, self.block_len)[0])

    def settings(self) -> dict[str, int]:
        """The block length."""
        return {"block_len": self.block_len}

    def embed(self, tokens: Int[Array, "*batch seq"]) -> Float[Array, "*batch seq d_model"]:
        """The vector of each token."""
        return self.large.embed(tokens)

    def prefill(self, tokens, length, capacity: int) -> NoReturn:
        raise BadInput("a model that writes", f"a {self.kind}", "it is for teacher-forced comparisons only")

    def extend(self, tokens, cache) -> NoReturn:
        raise BadInput("a model that writes", f"a {self.kind}", "it is for teacher-forced comparisons only")
