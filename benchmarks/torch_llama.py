"""The same architecture in PyTorch, written plainly and as fast as plain PyTorch is.

The names of the parameters are Llama's, so a folder that `tandem_edu.zoo.to_hf` wrote loads as it is.
Attention is `scaled_dot_product_attention(is_causal=True)`, which picks the fused kernel by itself.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn


def rope_table(seq: int, head_dim: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, [seq, head_dim], both halves alike."""
    frequency = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angle = torch.arange(seq, dtype=torch.float32)[:, None] * frequency
    return torch.cos(angle).repeat(1, 2), torch.sin(angle).repeat(1, 2)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Llama's pairing: x_i with x_{i + head_dim/2}."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Attention(nn.Module):
    """Causal grouped-query attention."""

    def __init__(self, c: SimpleNamespace):
        super().__init__()
        kv_dim = c.num_key_value_heads * c.head_dim
        self.head_dim, self.grouped = c.head_dim, c.num_key_value_heads != c.num_attention_heads
        self.q_proj = nn.Linear(c.hidden_size, c.hidden_size, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, kv_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, kv_dim, bias=False)
        self.o_proj = nn.Linear(c.hidden_size, c.hidden_size, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """x: [batch, seq, hidden_size]."""
        maps = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (linear(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for linear in maps)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.grouped)
        return self.o_proj(y.transpose(1, 2).flatten(-2))

    def extend(self, x, cos, sin, cache: torch.Tensor, start: int) -> torch.Tensor:
        """The same for new tokens after `start` cached ones. `cache`: [2, batch, heads, len, head_dim]."""
        end, maps = start + x.shape[1], (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (linear(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for linear in maps)
        cache[0, :, :, start:end], cache[1, :, :, start:end] = rotate(k, cos, sin), v
        q, k, v = rotate(q, cos, sin), cache[0, :, :, :end], cache[1, :, :, :end]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=start == 0, enable_gqa=self.grouped)
        return self.o_proj(y.transpose(1, 2).flatten(-2))


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, c: SimpleNamespace):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [batch, seq, hidden_size]."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and MLP, each behind its norm."""

    def __init__(self, c: SimpleNamespace):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(c.hidden_size, eps=c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = nn.RMSNorm(c.hidden_size, eps=c.rms_norm_eps)
        self.mlp = MLP(c)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """x: [batch, seq, hidden_size]."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """Tokens [batch, seq] to logits [batch, seq, vocab]; the head is tied to the embedding."""

    def __init__(self, c: SimpleNamespace):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = nn.RMSNorm(c.hidden_size, eps=c.rms_norm_eps)
        cos, sin = rope_table(c.max_position_embeddings, c.head_dim, c.rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Next-token logits."""
        seq = tokens.shape[1]
        cos, sin = self.cos[:seq], self.sin[:seq]
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.linear(self.norm(x), self.embed_tokens.weight)

    def extend(self, tokens: torch.Tensor, caches: list[torch.Tensor], start: int) -> torch.Tensor:
        """Logits of the last of `tokens`, which follow `start` cached ones: a prompt, or one token."""
        here = slice(start, start + tokens.shape[1])
        cos, sin = self.cos[here], self.sin[here]
        x = self.embed_tokens(tokens)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = x + layer.self_attn.extend(layer.input_layernorm(x), cos, sin, cache, start)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return F.linear(self.norm(x[:, -1]), self.embed_tokens.weight)


@torch.inference_mode()
def generate(model: Llama, prompt: list[int], new: int) -> list[int]:
    """Greedy decoding in a loop without any frills: what PyTorch itself costs."""
    attention = model.layers[0].self_attn
    heads = attention.k_proj.out_features // attention.head_dim
    caches = [torch.zeros(2, 1, heads, len(prompt) + new, attention.head_dim) for _ in model.layers]
    tokens, start, out = torch.tensor([prompt]), 0, []
    while len(out) < new:
        logits = model.extend(tokens, caches, start)
        start += tokens.shape[1]
        tokens = logits.argmax(-1, keepdim=True)
        out.append(int(tokens))
    return out


def load(folder: str) -> Llama:
    """The model in a folder that `to_hf` wrote."""
    config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    model = Llama(SimpleNamespace(**config))
    weights = load_file(Path(folder, "model.safetensors"))
    model.load_state_dict({name.removeprefix("model."): weight for name, weight in weights.items()})
    return model
