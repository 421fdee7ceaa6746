"""A decoder in plain PyTorch, with a KV cache and without one. It reads the checkpoints of Llama, Qwen2 and Qwen3.

One sequence, no batch, no padding: what is left is the mathematics of a forward pass. The names of the tensors are
those of the checkpoint. With a cache, a pass gets the new tokens alone and finds the keys and values of those before
them in the cache; without one, it gets all tokens each time and computes everything again. Both give the same logits.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from common.problems import Problem

READABLE = ("llama", "qwen2", "qwen3")


class KVCache:
    """Keys and values of every layer, [layers, kv_heads, capacity, head_dim], and how many tokens they are of."""

    def __init__(self, config: dict, capacity: int, like: Tensor):
        shape = (config["num_hidden_layers"], config["num_key_value_heads"], capacity, head_dim(config))
        self.keys, self.values = like.new_empty(shape), like.new_empty(shape)
        self.length = 0

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write a layer's new keys and values, [kv_heads, new, head_dim]; returns those of all tokens so far.

        `length` moves on only after the last layer: all layers of a pass write to the same places.
        """
        end = self.length + keys.shape[1]
        self.keys[layer, :, self.length : end] = keys
        self.values[layer, :, self.length : end] = values
        return self.keys[layer, :, :end], self.values[layer, :, :end]


class Decoder:
    """The model that `config` (a config.json) and `weights` (tensors by their names in the checkpoint) describe."""

    def __init__(self, config: dict, weights: Mapping[str, Tensor]):
        check(config)
        self.config, self.weights = config, weights
        self.head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
        rope = config.get("rope_parameters") or config
        exponents = torch.arange(0, head_dim(config), 2, device=self.head.device).float() / head_dim(config)
        self.frequencies = rope["rope_theta"] ** -exponents

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, name: str, x: Tensor) -> Tensor:
        """RMSNorm, computed in float32; nothing where the checkpoint has no such norm."""
        if f"{name}.weight" not in self.weights:
            return x
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.config["rms_norm_eps"])
        return self.weights[f"{name}.weight"] * (wide * scale).to(x.dtype)

    def attention(self, layer: int, x: Tensor, positions: Tensor, cache: KVCache | None) -> Tensor:
        """Attention of the new tokens, x of [new, hidden], to themselves and to all tokens before them."""
        name, new, heads = f"model.layers.{layer}.self_attn", len(x), self.config["num_attention_heads"]
        kv_heads = self.config["num_key_value_heads"]
        q = self.norm(f"{name}.q_norm", self.linear(f"{name}.q_proj", x).view(new, heads, -1)).transpose(0, 1)
        k = self.norm(f"{name}.k_norm", self.linear(f"{name}.k_proj", x).view(new, kv_heads, -1)).transpose(0, 1)
        v = self.linear(f"{name}.v_proj", x).view(new, kv_heads, -1).transpose(0, 1)
        q, k = self.rotate(q, positions), self.rotate(k, positions)
        if cache is not None:
            k, v = cache.append(layer, k, v)  # now those of all tokens so far
        # Grouped-query attention: heads / kv_heads query heads share one KV head.
        q = q.reshape(kv_heads, heads // kv_heads * new, -1) / math.sqrt(q.shape[-1])
        scores = (q @ k.transpose(-1, -2)).view(heads, new, -1)  # the last dimension: all tokens so far
        later = torch.arange(k.shape[1], device=x.device) > positions[:, None]
        shares = scores.masked_fill_(later, -math.inf).softmax(-1, dtype=torch.float32).to(v.dtype)
        mixed = shares.view(kv_heads, heads // kv_heads * new, -1) @ v
        mixed = mixed.view(heads, new, -1).transpose(0, 1).reshape(new, -1)
        return self.linear(f"{name}.o_proj", mixed)

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotary embedding of [heads, new, head_dim]: the angle says where a token stands."""
        angle = positions[:, None].float() * self.frequencies
        angle = torch.cat((angle, angle), dim=-1)
        first, second = x.chunk(2, dim=-1)
        return x * angle.cos().to(x.dtype) + torch.cat((-second, first), dim=-1) * angle.sin().to(x.dtype)

    @torch.inference_mode()
    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits, [vocabulary], for the token after the last of `tokens`, [new]; the cache knows those before them."""
        before = cache.length if cache is not None else 0
        positions = torch.arange(before, before + len(tokens), device=tokens.device)
        x = F.embedding(tokens, self.weights["model.embed_tokens.weight"])
        for layer in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{layer}"
            x = x + self.attention(layer, self.norm(f"{name}.input_layernorm", x), positions, cache)
            y = self.norm(f"{name}.post_attention_layernorm", x)
            gated = F.silu(self.linear(f"{name}.mlp.gate_proj", y)) * self.linear(f"{name}.mlp.up_proj", y)
            x = x + self.linear(f"{name}.mlp.down_proj", gated)
        if cache is not None:
            cache.length += len(tokens)
        return F.linear(self.norm("model.norm", x[-1]), self.head)

    def generate(self, prompt: list[int], max_tokens: int, use_cache: bool = True) -> list[int]:
        """`max_tokens` tokens that follow the prompt, always the likeliest."""
        everything = torch.tensor(prompt, device=self.head.device)
        cache = KVCache(self.config, len(prompt) + max_tokens, like=self.head) if use_cache else None
        answer, new = [], everything  # the first pass computes the prompt: prefill
        for _ in range(max_tokens):
            token = self.forward(new if use_cache else everything, cache).argmax()
            answer.append(token)
            new = token[None]  # each later pass computes one token: decode
            everything = torch.cat((everything, new))
        return torch.stack(answer).tolist()


def check(config: dict) -> None:
    """Raise Problem for a model that is computed in another way than here."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    stretched = rope.get("rope_type", rope.get("type", "default")) != "default"
    if config["model_type"] not in READABLE or stretched or config.get("use_sliding_window"):
        raise Problem(
            f"kv_cache.py can't compute this model of type {config['model_type']}.",
            f"Take one of type {', '.join(READABLE)} without a stretched rotary embedding or sliding windows, such as "
            "--model course-lm.",
        )


def head_dim(config: dict) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
