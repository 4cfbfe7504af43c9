"""The drafter protocol: how anything that proposes tokens takes part in speculative decoding.

A decoding cycle calls three methods: `start` after the primary has read the prompt, `step` once for each
draft, `commit` after the primary has read and verified the block: the *pending* token (emitted, but not read
yet) and the drafts after it. A drafter remembers in its *state*, a value of its own choice.

Axis names: `width` tokens of a block, `depth` residual states of the primary, each `d_primary` wide.
"""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from tandem_edu.errors import BadInput, at_least, require
from tandem_edu.model import Cache, Transformer, TransformerConfig


class PrimaryOutput(eqx.Module):
    """What the primary has just read: a prompt or a block, and how much of it is accepted."""

    tokens: Int[Array, " width"]
    hidden: Float[Array, "depth width d_primary"]
    cache: Cache
    start: Int[Array, ""]
    """Position of `tokens[0]`."""

    @property
    def length(self) -> Int[Array, ""]:
        """Accepted tokens of the text that the primary has read. The rest of `tokens` does not count."""
        return self.cache.length


class Draft(eqx.Module):
    """A drafter's answer to one token: scores for the next one."""

    logits: Float[Array, " vocab"]
    state: Any
    hidden: Float[Array, " d_model"] = eqx.field(default_factory=lambda: jnp.zeros(0, jnp.float32))
    """Its last hidden state, for routers trained with features="hidden"; empty if there is none."""
    has_draft: Bool[Array, ""] = eqx.field(default=True, converter=jnp.asarray)
    """`False` if it proposes nothing; drafting ends here."""


class Drafter(eqx.Module):
    """Implement these three methods to compare an idea of your own with the tandem.

    In a batch, a row may be stepped after its drafting has ended; it then reads its last draft again.
    After `commit`, only the first `output.length` tokens of a state may matter.
    """

    @abc.abstractmethod
    def start(self, output: PrimaryOutput, max_draft_len: int, block_len: Int[Array, ""]) -> Any:
        """The state after the prompt, with room for `output.cache.capacity` tokens; `block_len` is γ."""

    @abc.abstractmethod
    def step(self, token: Int[Array, ""], state: Any, primary: Transformer, cache: Cache) -> Draft:
        """Read one token and propose the next. `cache` is the primary's, up to the pending token."""

    @abc.abstractmethod
    def commit(self, state: Any, output: PrimaryOutput) -> Any:
        """The state after verification: exactly `output.length` tokens are read."""

    def embed(self, tokens: Int[Array, " k"], primary: Transformer) -> Float[Array, "k d_embed"]:
        """The embeddings of these tokens for a router: the primary's, if the drafter has none of its own."""
        return primary.embed(tokens)

    def check_primary(self, primary: Transformer) -> None:
        """Raise `BadInput` if this drafter cannot draft for `primary`."""


class PrimaryReader(Drafter):
    """A model that drafts with the help of its frozen primary, and can be trained for it.

    | class | of the text before the block it sees | trained weights |
    |---|---|---|
    | `Tandem` | the primary's states, projected, at every layer | a secondary, projections |
    | `Eagle` | the primary's states at its input, and its own keys and values | a secondary, a fusion |
    | `Glide` | the primary's own keys and values | a secondary |
    | `EarlyExit` | the primary's own keys and values | a norm and one matrix |

    A subclass names its `kind` (in files and on the command line), and is built by
    `cls(secondary, primary_config, **settings, key=key)` from a small `Transformer` and the primary's sizes,
    without `secondary` where `needs_secondary = False`. Nothing else is needed to train, save and load it.
    """

    kind: ClassVar[str]
    needs_secondary: ClassVar[bool] = True
    primary_config: eqx.AbstractVar[TransformerConfig]

    @property
    def config(self) -> TransformerConfig:
        """Sizes of what drafts: the secondary's, unless a subclass says otherwise."""
        return self.secondary.config  # pyright: ignore

    def embed(self, tokens: Int[Array, " k"], primary: Transformer) -> Float[Array, "k d_embed"]:
        """The secondary's embeddings, or the primary's."""
        return getattr(self, "secondary", primary).embed(tokens)

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's further arguments, JSON-able."""

    @abc.abstractmethod
    def teacher_forced(
        self,
        primary: Transformer,
        tokens: Int[Array, "*batch seq"],
        hidden: Float[Array, "*batch depth seq d_primary"],
        block_len: int | Int[Array, ""],
        offset: int | Int[Array, ""] = 0,
    ) -> Float[Array, "*batch seq vocab"]:
        """The logits of `step` at every position at once, from the primary's states `hidden`.

        Blocks start at `offset`, `offset + block_len`, ... (`masks.block_starts`); both may be traced.
        Token i of the block that starts at k(i) knows the primary's states of the tokens t < k(i) only.
        Raises `BadInput` for a `block_len` that the model cannot be trained with.
        """

    @property
    def max_train_block_len(self) -> int | None:
        """The longest block that `teacher_forced` computes exactly; `None` if there is no limit."""
        return None

    def check_block_len(self, block_len: int | Int[Array, ""]) -> None:
        """Raise `BadInput` for a `block_len` below 1 or above the limit; a traced one is not checked."""
        if isinstance(block_len, Tracer):
            return
        block_len = at_least(1, block_len, "block_len", "the paper trains with block_len=2")
        limit = self.max_train_block_len
        expected, fix = f"block_len of at most {limit}", f"build the {self.kind} for block_len={block_len}"
        require(limit is None or block_len <= limit, expected, block_len, fix)

    def check_primary(self, primary: Transformer) -> None:
        """Raise `BadInput` unless `primary` has the sizes this model was built for."""
        wanted, got = self.primary_config.to_dict(), primary.config.to_dict()
        differing = [name for name in wanted if name != "max_len" and wanted[name] != got[name]]
        show = lambda sizes: ", ".join(f"{name}={sizes[name]}" for name in differing)
        expected, fix = f"a primary with {show(wanted)}", "pass the primary it was trained with"
        require(not differing, f"{expected} for this {self.kind}", show(got), fix)


def readers() -> dict[str, type[PrimaryReader]]:
    """Every `PrimaryReader` that has been imported, by its kind."""
    subclasses = list(PrimaryReader.__subclasses__())
    for cls in subclasses:
        subclasses += cls.__subclasses__()
    return {cls.kind: cls for cls in subclasses if hasattr(cls, "kind")}


def build_reader(
    kind: str,
    secondary: Transformer | None,
    primary_config: TransformerConfig,
    settings: dict[str, Any],
    key: PRNGKeyArray,
) -> PrimaryReader:
    """A new model of this kind. Raises `BadInput` for an unknown kind or unknown settings."""
    known = readers()
    require(kind in known, f"a kind among {', '.join(known)}", kind, "import the file that defines it first")
    cls = known[kind]
    parts = (secondary, primary_config) if cls.needs_secondary else (primary_config,)
    try:
        return cls(*parts, **settings, key=key)  # pyright: ignore
    except TypeError as error:
        raise BadInput(f"the settings of {cls.__name__}", error, f"see help({cls.__name__})") from error


def check_same_vocabulary(primary_config: TransformerConfig, config: TransformerConfig) -> None:
    """Raise `BadInput` unless both models have the same number of token ids."""
    is_config, got = isinstance(primary_config, TransformerConfig), type(primary_config).__name__
    require(is_config, "primary_config as a TransformerConfig", got, "pass primary.config")
    expected = "primary and drafter with the same vocabulary"
    got = f"vocab_size {primary_config.vocab_size} and {config.vocab_size}"
    require(primary_config.vocab_size == config.vocab_size, expected, got, "train both with one tokenizer")
