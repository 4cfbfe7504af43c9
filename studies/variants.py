"""Two variants of the tandem that the paper's appendix measures, and one that its section 4 rejects.

- `Joint`: the primary learns too. From nothing, end to end, the two are the halves of one *deep tandem*;
  from a trained primary, they show what freezing it costs.
- `BlockPrediction`: the block's tokens are predicted at once; the secondary sees none but the first.
"""

from typing import Any, ClassVar, NoReturn

import equinox as eqx

from tandem_edu.drafters import PrimaryReader, Tandem, describe
from tandem_edu.errors import BadInput
from tandem_edu.model import Transformer, TransformerConfig
from tandem_edu.model.masks import block_starts


class TrainedOnly(PrimaryReader):
    """A model whose predictions are compared, and which nothing decodes with."""

    def start(self, output, max_draft_len, block_len) -> NoReturn:
        raise BadInput("a drafter", f"a {self.kind}", "it is for teacher-forced comparisons only")

    def step(self, token, state, primary, cache) -> NoReturn:
        raise BadInput("a drafter", f"a {self.kind}", "it is for teacher-forced comparisons only")

    def commit(self, state, output) -> NoReturn:
        raise BadInput("a drafter", f"a {self.kind}", "it is for teacher-forced comparisons only")


class Joint(TrainedOnly):
    """A tandem together with a primary of its own, both trained, on the secondary's loss alone.

    `teacher_forced` ignores the primary it is given, whose config is `primary_config`; a recipe may have it
    as the teacher. A secondary that shares the primary's vocabulary uses that of its own primary.
    """

    kind: ClassVar[str] = "joint"
    primary: Transformer
    tandem: Tandem
    primary_config: TransformerConfig = eqx.field(static=True)

    @property
    def config(self) -> TransformerConfig:
        """The secondary's config."""
        return self.tandem.config

    @property
    def tied(self) -> Tandem:
        """The tandem; its secondary has this primary's vocabulary, if it shares one."""
        if not self.config.shared_vocab:
            return self.tandem
        return eqx.tree_at(lambda tandem: tandem.secondary.embedding, self.tandem, self.primary.embedding)

    def teacher_forced(self, primary, tokens, hidden, block_len, offset=0):
        """The tandem's logits, from the states of its own primary."""
        _, hidden = self.primary(tokens, return_hidden=True)
        return self.tied(tokens, hidden, block_len, offset)

    def settings(self) -> dict[str, Any]:
        """What defines the two models but their weights."""
        return {"primary": self.primary.config.to_dict(), "tandem": describe(self.tandem)}


class BlockPrediction(TrainedOnly):
    """The tandem without its autoregressive part: all γ tokens of a block from the text before it.

    Instead of each token of a block the secondary reads the block's first one, the pending token that the
    text ends with. Only the rotary positions differ.
    """

    kind: ClassVar[str] = "block-prediction"
    tandem: Tandem
    primary_config: TransformerConfig = eqx.field(static=True)

    def __init__(self, tandem: Tandem):
        self.tandem, self.primary_config = tandem, tandem.primary_config

    @property
    def config(self) -> TransformerConfig:
        """The secondary's config."""
        return self.tandem.config

    def teacher_forced(self, primary, tokens, hidden, block_len, offset=0):
        """The tandem's logits for tokens replaced by the first of their block."""
        self.check_block_len(block_len)
        starts = block_starts(tokens.shape[-1], block_len, offset)
        return self.tandem(tokens[..., starts], hidden, block_len, offset)

    def settings(self) -> dict[str, Any]:
        """What defines the tandem but its weights."""
        return describe(self.tandem)
