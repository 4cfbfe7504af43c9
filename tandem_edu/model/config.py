"""The sizes that define a model: one frozen, JSON-able dataclass, checked when it is made."""

import dataclasses
from typing import Any

from tandem_edu.errors import BadInput, at_least, positive, require


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a Llama-style transformer. Raises `BadInput` for sizes that do not fit together.

    - `vocab_size`: number of token ids; ids are `0 .. vocab_size - 1`.
    - `d_model`: width of the residual stream. `head_dim`, `d_model / n_heads`, must be even (rotary pairs).
    - `n_layers`, `n_heads`, `d_ff`: depth, query heads, inner width of the SwiGLU.
    - `n_kv_heads`: key/value heads, a divisor of `n_heads` (grouped-query attention).
    - `max_len`: the context: prompt and new tokens together are at most this many.
    - `tie_embeddings`: the output layer is the transposed embedding.
    - `shared_vocab`: the embedding and the output layer are the primary's, frozen. `d_embed` is then the
      primary's width; where it differs from `d_model`, two trained matrices connect the widths.

    >>> cfg = TransformerConfig(8, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=16, max_len=16)
    >>> cfg.head_dim, TransformerConfig.from_dict(cfg.to_dict()) == cfg
    (4, True)
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_ff: int
    max_len: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tie_embeddings: bool = True
    shared_vocab: bool = False
    d_embed: int | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if field.type is bool:
                require(isinstance(value, bool), f"{name} to be True or False", repr(value), "fix the config")
            elif field.type is float:
                value = positive(value, name, "leave it out")
            elif value is not None or field.type is int:
                value = at_least(1, value, name, "fix the config")
            # A plain number, because JSON has no others. The class is frozen, hence this way.
            object.__setattr__(self, name, value)
        d_model, n_heads, n_kv_heads = self.d_model, self.n_heads, self.n_kv_heads
        expected = "d_model divisible by 2 · n_heads (rotary embeddings rotate pairs)"
        got = f"d_model={d_model} and n_heads={n_heads}"
        fix = f"take d_model={-(-d_model // (2 * n_heads)) * 2 * n_heads}"
        require(d_model % (2 * n_heads) == 0, expected, got, fix)
        got, fix = f"n_heads={n_heads} and n_kv_heads={n_kv_heads}", f"take n_kv_heads={n_heads} or 1"
        require(n_heads % n_kv_heads == 0, "n_heads divisible by n_kv_heads", got, fix)
        fits = self.d_embed is None or self.shared_vocab
        expected = "d_embed only together with shared_vocab=True"
        require(fits, expected, f"d_embed={self.d_embed} and shared_vocab=False", "leave d_embed out")

    @property
    def head_dim(self) -> int:
        """Width of one attention head, `d_model / n_heads`."""
        return self.d_model // self.n_heads

    @property
    def embed_dim(self) -> int:
        """Width of the embedding table and of the head: `d_embed`, or `d_model` where unset."""
        return self.d_model if self.d_embed is None else self.d_embed

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict; `from_dict` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "TransformerConfig":
        """The config of `to_dict`. Raises `BadInput` for missing or unknown fields."""
        try:
            return cls(**fields)
        except TypeError as error:
            fix = "was this written by another version?"
            raise BadInput("the fields of a TransformerConfig", error, fix) from None
