"""The same architecture in PyTorch, written plainly and as fast as plain PyTorch is.

The names of the parameters are Llama's, so a folder that `tandem_edu.zoo.to_hf` wrote loads as it is.
Attention is `scaled_dot_product_attention`, which picks the fused kernel by itself.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn


def linear(n_in: int, n_out: int) -> nn.Linear:
    """Llama's linear layers have no bias."""
    return nn.Linear(n_in, n_out, bias=False)


def rope_table(seq: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin, [seq, head_dim], both halves alike."""
    frequency = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angle = torch.arange(seq, dtype=torch.float32)[:, None] * frequency
    return torch.cos(angle).repeat(1, 2), torch.sin(angle).repeat(1, 2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Llama's pairing: x_i with x_{i + head_dim/2}."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Attention(nn.Module):
    """Causal grouped-query attention."""

    def __init__(self, c: SimpleNamespace):
        super().__init__()
        kv_dim = c.num_key_value_heads * c.head_dim
        self.head_dim, self.grouped = c.head_dim, c.num_key_value_heads != c.num_attention_heads
        self.q_proj, self.o_proj = (linear(c.hidden_size, c.hidden_size) for _ in range(2))
        self.k_proj, self.v_proj = (linear(c.hidden_size, kv_dim) for _ in range(2))

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], cache: Tensor | None, start: int) -> Tensor:
        """x: [batch, seq, hidden_size]; `cache` [2, batch, heads, len, head_dim] has `start` tokens."""
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (p(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for p in projections)
        q, k = rotate(q, *rope), rotate(k, *rope)
        if cache is not None:
            end = start + x.shape[1]
            cache[0, :, :, start:end], cache[1, :, :, start:end] = k, v
            k, v = cache[0, :, :, :end], cache[1, :, :, :end]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=start == 0, enable_gqa=self.grouped)
        return self.o_proj(y.transpose(1, 2).flatten(-2))


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, c: SimpleNamespace):
        super().__init__()
        self.gate_proj, self.up_proj = (linear(c.hidden_size, c.intermediate_size) for _ in range(2))
        self.down_proj = linear(c.intermediate_size, c.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """x: [batch, seq, hidden_size]."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and MLP, each behind its norm."""

    def __init__(self, c: SimpleNamespace):
        super().__init__()
        norm = lambda: nn.RMSNorm(c.hidden_size, eps=c.rms_norm_eps)
        self.input_layernorm, self.self_attn = norm(), Attention(c)
        self.post_attention_layernorm, self.mlp = norm(), MLP(c)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], cache: Tensor | None, start: int) -> Tensor:
        """x: [batch, seq, hidden_size]."""
        x = x + self.self_attn(self.input_layernorm(x), rope, cache, start)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """Tokens [batch, seq] to logits [batch, seq, vocab]; the head is tied to the embedding."""

    def __init__(self, c: SimpleNamespace):
        super().__init__()
        self.config = c
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = nn.RMSNorm(c.hidden_size, eps=c.rms_norm_eps)
        cos, sin = rope_table(c.max_position_embeddings, c.head_dim, c.rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens: Tensor, caches: list[Tensor] | None = None, start: int = 0) -> Tensor:
        """Next-token logits; with `caches`, of the last token only, after `start` cached ones."""
        here = slice(start, start + tokens.shape[1])
        rope, x = (self.cos[here], self.sin[here]), self.embed_tokens(tokens)
        for layer, cache in zip(self.layers, caches or [None] * len(self.layers), strict=True):
            x = layer(x, rope, cache, start)
        return F.linear(self.norm(x[:, -1] if caches else x), self.embed_tokens.weight)


@torch.inference_mode()
def generate(model: Llama, prompt: list[int], new: int) -> list[int]:
    """Greedy decoding in a plain loop: what PyTorch itself costs."""
    c = model.config
    shape = (2, 1, c.num_key_value_heads, len(prompt) + new, c.head_dim)
    caches = [torch.zeros(shape) for _ in model.layers]
    tokens, start, out = torch.tensor([prompt]), 0, []
    while len(out) < new:
        logits = model(tokens, caches, start)
        start += tokens.shape[1]
        tokens = logits.argmax(-1, keepdim=True)
        out.append(int(tokens))
    return out


def load(folder: str) -> Llama:
    """The model in a folder that `to_hf` wrote."""
    model = Llama(SimpleNamespace(**json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))))
    weights = load_file(Path(folder, "model.safetensors"))
    model.load_state_dict({name.removeprefix("model."): weight for name, weight in weights.items()})
    return model
