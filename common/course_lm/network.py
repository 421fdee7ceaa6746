"""The model as it is trained: Qwen3 in plain PyTorch, on rows packed with several documents.

Parameter names and results are those of Transformers' `Qwen3ForCausalLM`, so `state_dict` is the checkpoint.
It exists because a packed row needs attention that stops at the borders of documents, which FlexAttention
does fast.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

HEAD_DIM = 64


@dataclass(frozen=True)
class Shape:
    """The sizes of one model; every other setting is shared."""

    num_hidden_layers: int
    hidden_size: int = 256
    intermediate_size: int = 512
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    vocab_size: int = 10_240
    max_position_embeddings: int = 2_048
    rope_theta: float = 10_000.0


MODEL = Shape(num_hidden_layers=8)
DRAFT = Shape(num_hidden_layers=1, intermediate_size=256)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x, [rows, heads, tokens, 64], by tables of [rows, 1, tokens, 64]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Grouped-query attention with normalised queries and keys."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.heads, self.kv_heads = shape.num_attention_heads, shape.num_key_value_heads
        self.q_proj = nn.Linear(shape.hidden_size, self.heads * HEAD_DIM, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, self.kv_heads * HEAD_DIM, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, self.kv_heads * HEAD_DIM, bias=False)
        self.o_proj = nn.Linear(self.heads * HEAD_DIM, shape.hidden_size, bias=False)
        self.q_norm = nn.RMSNorm(HEAD_DIM, eps=1e-6)
        self.k_norm = nn.RMSNorm(HEAD_DIM, eps=1e-6)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: BlockMask | Tensor) -> Tensor:
        rows, tokens, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(rows, tokens, self.heads, HEAD_DIM)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(rows, tokens, self.kv_heads, HEAD_DIM)).transpose(1, 2)
        v = self.v_proj(x).view(rows, tokens, self.kv_heads, HEAD_DIM).transpose(1, 2)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        if isinstance(mask, Tensor):
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        else:
            out = flex_attention(q, k, v, block_mask=mask, enable_gqa=True)
        return self.o_proj(out.transpose(1, 2).reshape(rows, tokens, self.heads * HEAD_DIM))


class MLP(nn.Module):
    """The gated feed-forward layer."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One transformer layer, normalised before each part."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=1e-6)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=1e-6)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: BlockMask | Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=1e-6)


class CausalLM(nn.Module):
    """A Qwen3 language model whose output layer is its embedding."""

    def __init__(self, shape: Shape, seed: int = 0):
        super().__init__()
        self.shape = shape
        self.model = Decoder(shape)
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                # The layers that write into the residual stream start small.
                small = name.endswith(("o_proj.weight", "down_proj.weight"))
                std = 0.02 / (2 * shape.num_hidden_layers) ** 0.5 if small else 0.02
                nn.init.normal_(weight, std=std, generator=generator)

    def forward(
        self, tokens: Tensor, positions: Tensor, mask: BlockMask | Tensor, picked: Tensor | None = None
    ) -> Tensor:
        """Logits of packed rows, [rows, tokens, vocabulary]; positions count from 0 in each document.

        With `picked`, the indices of some tokens in the flattened rows, only theirs: [picked, vocabulary].
        """
        frequency = self.shape.rope_theta ** (
            -torch.arange(0, HEAD_DIM, 2, device=tokens.device, dtype=torch.float32) / HEAD_DIM
        )
        angle = positions[:, None, :, None].float() * frequency
        angle = torch.cat((angle, angle), dim=-1)
        cos, sin = angle.cos(), angle.sin()
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            x = layer(x, cos, sin, mask)
        if picked is not None:
            x = x.flatten(0, 1)[picked]
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)


def document_mask(documents: Tensor) -> Tensor:
    """The dense form of the packed rows' mask, [rows, 1, tokens, tokens]: causal within a document."""
    same = documents[:, :, None] == documents[:, None, :]
    return (same & torch.ones_like(same).tril())[:, None]
