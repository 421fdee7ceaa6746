"""Our solutions to exercises.py, where the docstrings are. They pass:  python -m common.check 1 --file solutions.py"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# ---------------------------------------------------------------------- 1. the KV cache


@dataclass(frozen=True)
class Layer:
    heads: int
    kv_heads: int
    width: int
    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor


@dataclass(frozen=True)
class Model:
    embedding: Tensor
    layers: Sequence[Layer]


def project(layer: Layer, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    def split(weight: Tensor, heads: int) -> Tensor:
        return (x @ weight).view(len(x), heads, layer.width).transpose(0, 1)

    def rotate(y: Tensor) -> Tensor:
        frequency = 100.0 ** (-torch.arange(0, layer.width, 2) / layer.width)
        angle = positions[:, None] * frequency
        even, odd = y[..., 0::2], y[..., 1::2]
        turned = (even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos())
        return torch.stack(turned, dim=-1).flatten(-2)

    return rotate(split(layer.q, layer.heads)), rotate(split(layer.k, layer.kv_heads)), split(layer.v, layer.kv_heads)


def attention(layer: Layer, x: Tensor) -> Tensor:
    q, k, v = project(layer, x, torch.arange(len(x)))
    group = layer.heads // layer.kv_heads
    k, v = k.repeat_interleave(group, dim=0), v.repeat_interleave(group, dim=0)
    scores = q @ k.transpose(-1, -2) / math.sqrt(layer.width)
    later = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    mixed = scores.masked_fill(later, -math.inf).softmax(-1) @ v
    return mixed.transpose(0, 1).flatten(1) @ layer.out


class KVCache:
    def __init__(self, layers: Sequence[Layer], capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self.keys = [torch.zeros(layer.kv_heads, capacity, layer.width) for layer in layers]
        self.values = [torch.zeros(layer.kv_heads, capacity, layer.width) for layer in layers]

    def append(self, number: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        end = self.length + keys.shape[1]
        if end > self.capacity:
            raise ValueError(f"{end} tokens do not fit a cache for {self.capacity}")
        self.keys[number][:, self.length : end] = keys
        self.values[number][:, self.length : end] = values
        return self.keys[number][:, :end], self.values[number][:, :end]


def cached_attention(number: int, layer: Layer, x: Tensor, cache: KVCache) -> Tensor:
    positions = torch.arange(cache.length, cache.length + len(x))
    q, k, v = project(layer, x, positions)
    k, v = cache.append(number, k, v)
    group = layer.heads // layer.kv_heads
    k, v = k.repeat_interleave(group, dim=0), v.repeat_interleave(group, dim=0)
    scores = q @ k.transpose(-1, -2) / math.sqrt(layer.width)
    later = torch.arange(k.shape[1]) > positions[:, None]
    mixed = scores.masked_fill(later, -math.inf).softmax(-1) @ v
    return mixed.transpose(0, 1).flatten(1) @ layer.out


def logits(model: Model, tokens: Sequence[int], cache: KVCache | None = None) -> Tensor:
    x = model.embedding[torch.tensor(list(tokens))]
    for number, layer in enumerate(model.layers):
        x = x + (attention(layer, x) if cache is None else cached_attention(number, layer, x, cache))
    if cache is not None:
        cache.length += len(tokens)
    return x[-1] @ model.embedding.T


def generate(model: Model, prompt: Sequence[int], count: int, cache: KVCache) -> list[int]:
    answer: list[int] = []
    new = list(prompt)
    for _ in range(count):
        answer.append(int(logits(model, new, cache).argmax()))
        new = answer[-1:]
    return answer


# ---------------------------------------------------------------------- 2. what it saves


def ms_per_token(
    run: Callable[[int, int], object],
    lengths: Sequence[int],
    tokens: int,
    clock: Callable[[], float],
    repeats: int = 3,
) -> dict[int, float]:
    def seconds(length: int, count: int) -> float:
        start = clock()
        run(length, count)
        return clock() - start

    found = {}
    for length in lengths:
        run(length, tokens + 1)  # warm-up
        differences = [seconds(length, tokens + 1) - seconds(length, 1) for _ in range(repeats)]
        found[length] = statistics.median(differences) / tokens * 1e3
    return found


def worth_it_from(with_cache: Mapping[int, float], without: Mapping[int, float], factor: float = 2.0) -> int | None:
    found = None
    for length in sorted(with_cache, reverse=True):
        if without[length] < factor * with_cache[length]:
            break
        found = length
    return found


# ---------------------------------------------------------------------- 3. the memory of three models

GIB = 1024**3


@dataclass(frozen=True)
class Room:
    kv_bytes: int
    tokens: int
    requests: int


def weight_bytes(config: Mapping[str, object]) -> int:
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    key_value = config["num_key_value_heads"] * hidden // config["num_attention_heads"]
    layer = 2 * hidden * hidden + 2 * hidden * key_value + 3 * hidden * config["intermediate_size"] + 2 * hidden
    return 2 * (2 * config["vocab_size"] * hidden + layers * layer + hidden)


def kv_bytes_per_token(config: Mapping[str, object]) -> int:
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    numbers = 2 * config.get("num_key_value_heads", heads) * width
    if config.get("kv_lora_rank"):
        numbers = config["kv_lora_rank"] + config["qk_rope_head_dim"]
    return 2 * numbers * (config["num_hidden_layers"] - config.get("num_kv_shared_layers", 0))


def room(config: Mapping[str, object], gpu_bytes: int, context: int, share: float = 0.9, other: int = 3 * GIB) -> Room:
    kv_bytes = max(0, int(share * gpu_bytes - weight_bytes(config) - other))
    tokens = kv_bytes // kv_bytes_per_token(config)
    return Room(kv_bytes, tokens, tokens // context)


# ---------------------------------------------------------------------- 4. what holds this run up


@dataclass(frozen=True)
class Sample:
    seconds: float
    steps: int
    new_tokens: int
    cached_tokens: int
    waiting: int
    kv_use: float
    gpu_util_pct: float


@dataclass(frozen=True)
class Machine:
    parameters: float
    weight_bytes: float
    kv_bytes_per_token: float
    bandwidth_bytes_s: float
    flop_s: float


def shares(samples: Sequence[Sample], machine: Machine) -> tuple[float, float]:
    seconds = sum(sample.seconds for sample in samples)
    read = sum(s.steps * machine.weight_bytes + s.cached_tokens * machine.kv_bytes_per_token for s in samples)
    flop = 2 * machine.parameters * sum(sample.new_tokens for sample in samples)
    return read / machine.bandwidth_bytes_s / seconds, flop / machine.flop_s / seconds


def bottleneck(samples: Sequence[Sample], machine: Machine) -> str:
    full = [sample.waiting > 0 and sample.kv_use >= 0.95 for sample in samples]
    if sum(full) > len(samples) / 2:
        return "capacity"
    memory, compute = shares(samples, machine)
    if max(memory, compute) < 0.5:
        return "overhead"
    return "memory" if memory >= compute else "compute"


if __name__ == "__main__":
    llama_3_8b = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256}
    llama_3_8b |= {"num_attention_heads": 32, "num_key_value_heads": 8}
    print(f"Llama-3-8B on 80 GiB: {room(llama_3_8b, 80 * GIB, context=8192)}")
