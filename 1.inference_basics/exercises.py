"""The exercises of 1.inference_basics. Write the functions that raise NotImplementedError, then: make check CH=1

The check says in words what is still wrong; it never asks for more than the docstring says. Print what you like:
it is shown. `solutions.py` in this folder passes the same checks. Try first.

  1  The KV cache                      KVCache.append, cached_attention, generate                          60 minutes
  2  What it saves                     ms_per_token, worth_it_from                                         25 minutes
  3  The memory of three models        weight_bytes, kv_bytes_per_token, room                              30 minutes
  4  What holds this run up            shares, bottleneck                                                  25 minutes
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# ---------------------------------------------------------------------- 1. the KV cache
#
# A small decoder without a cache is given; it computes all tokens again for each new one. Yours computes only what is
# new. The answers must be the same. kv_cache.py in this folder is a real decoder of that kind: look there last.


@dataclass(frozen=True)
class Layer:
    """The weights of one attention layer. `heads` query heads share `kv_heads` KV heads, all of them `width` wide."""

    heads: int
    kv_heads: int
    width: int
    q: Tensor  # [hidden, heads × width]
    k: Tensor  # [hidden, kv_heads × width]
    v: Tensor  # [hidden, kv_heads × width]
    out: Tensor  # [heads × width, hidden]


@dataclass(frozen=True)
class Model:
    """A decoder of attention layers alone: as much as a KV cache needs to be tried out."""

    embedding: Tensor  # [vocabulary, hidden]
    layers: Sequence[Layer]


def project(layer: Layer, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Q of [heads, tokens, width], K and V of [kv_heads, tokens, width] for x of [tokens, hidden].

    `positions` says where in the text each of these tokens stands, from 0: the rotary embedding of Q and K needs it.
    """

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
    """Causal attention over a whole text, x of [tokens, hidden], without a cache."""
    q, k, v = project(layer, x, torch.arange(len(x)))
    group = layer.heads // layer.kv_heads
    k, v = k.repeat_interleave(group, dim=0), v.repeat_interleave(group, dim=0)
    scores = q @ k.transpose(-1, -2) / math.sqrt(layer.width)
    later = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    mixed = scores.masked_fill(later, -math.inf).softmax(-1) @ v
    return mixed.transpose(0, 1).flatten(1) @ layer.out


class KVCache:
    """The keys and values of one text: for each layer a tensor of [kv_heads, capacity, width], and one length."""

    def __init__(self, layers: Sequence[Layer], capacity: int) -> None:
        self.capacity = capacity
        self.length = 0  # tokens that all layers hold; `logits` moves it on at the end of a pass
        self.keys = [torch.zeros(layer.kv_heads, capacity, layer.width) for layer in layers]
        self.values = [torch.zeros(layer.kv_heads, capacity, layer.width) for layer in layers]

    def append(self, number: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values of new tokens, [kv_heads, new, width], behind those that layer `number` holds.

        Write them into self.keys[number] and self.values[number], in place, from position self.length on. Return the
        keys and values of all tokens so far, old and new, each [kv_heads, length + new, width].

        Leave self.length as it is: the other layers of the same pass write to the same positions. Raise ValueError,
        before anything is written, if the new tokens do not fit the capacity.
        """
        raise NotImplementedError("KVCache.append")


def cached_attention(number: int, layer: Layer, x: Tensor, cache: KVCache) -> Tensor:
    """Causal attention of the new tokens, x of [new, hidden], to the cached ones and to each other: [new, hidden].

    `number` is the layer's number in the cache. The result is that of `attention` over the whole text, for its last
    `new` tokens. There may be one new token (decode) or several (a prompt, or the next chunk of one). Three things
    differ from `attention`: where the new tokens stand, where K and V come from, and the shape of the mask, which is
    [new, all]: a new token sees every cached one, itself, and the new ones before it.
    """
    raise NotImplementedError("cached_attention")


def logits(model: Model, tokens: Sequence[int], cache: KVCache | None = None) -> Tensor:
    """Scores, [vocabulary], for the token after the last of `tokens`.

    Without a cache `tokens` is the whole text. With one it is what the cache does not hold yet.
    """
    x = model.embedding[torch.tensor(list(tokens))]
    for number, layer in enumerate(model.layers):
        x = x + (attention(layer, x) if cache is None else cached_attention(number, layer, x, cache))
    if cache is not None:
        cache.length += len(tokens)
    return x[-1] @ model.embedding.T


def generate(model: Model, prompt: Sequence[int], count: int, cache: KVCache) -> list[int]:
    """`count` tokens that follow the prompt, each the one with the highest score; the cache is empty at the start.

    Call `logits` `count` times: first with the whole prompt (prefill), then with one token each time (decode). The last
    token needs no pass of its own, so the cache holds len(prompt) + count - 1 tokens at the end.
    """
    raise NotImplementedError("generate")


# ---------------------------------------------------------------------- 2. what it saves
#
# When you have written it, measure your own generate with and without a cache, or compare with the demo:
#
#   make demo CH=1 ARGS='--only kv_cache'


def ms_per_token(
    run: Callable[[int, int], object],
    lengths: Sequence[int],
    tokens: int,
    clock: Callable[[], float],
    repeats: int = 3,
) -> dict[int, float]:
    """Milliseconds for each token after the first, by the length of the text before it.

    run(length, n) generates n tokens after a prompt of `length` tokens; clock() gives seconds, as time.perf_counter.

    The first token also pays for the prompt, so time a run of 1 token and a run of tokens + 1: the difference is for
    `tokens` tokens. Do that `repeats` times for each length, and take the median of the differences. Before that, for
    each length, run once with tokens + 1 and throw it away: a first call loads, allocates and compiles. No other calls.
    """
    raise NotImplementedError("ms_per_token")


def worth_it_from(with_cache: Mapping[int, float], without: Mapping[int, float], factor: float = 2.0) -> int | None:
    """The shortest length from which on a token without the cache takes at least `factor` times as long.

    Both map the same lengths, in any order, to ms per token. It must hold at that length and at every longer one: a
    single noisy point at a short length does not count. None if it does not hold at the longest.
    """
    raise NotImplementedError("worth_it_from")


# ---------------------------------------------------------------------- 3. the memory of three models
#
# Compare with the real thing: make demo CH=1 ARGS='--only kv_bytes'

GIB = 1024**3


@dataclass(frozen=True)
class Room:
    """What a GPU has left for the KV cache of a model, in three units."""

    kv_bytes: int
    tokens: int
    requests: int


def weight_bytes(config: Mapping[str, object]) -> int:
    """Bytes of a Llama model in 16 bits, from its config.json.

    With H = hidden_size, I = intermediate_size, V = vocab_size, L = num_hidden_layers, A = num_attention_heads and
    K = num_key_value_heads, a head is H / A wide. There are

    - an embedding of V × H, and an output head of the same size (these models do not tie the two);
    - in each layer Q and the output of attention, H × H each; K and V, H × (K heads × width) each; three matrices of
      the MLP, H × I each; two norms of H;
    - one more norm of H at the end.
    """
    raise NotImplementedError("weight_bytes")


def kv_bytes_per_token(config: Mapping[str, object]) -> int:
    """Bytes that one token takes in the KV cache, in 16 bits.

    - In each layer a key and a value for each KV head. `head_dim` is the width of a head, and where the config has none
      it is hidden_size / num_attention_heads. Without num_key_value_heads every attention head has its own.
    - With latent attention (the config has `kv_lora_rank`) a layer keeps kv_lora_rank + qk_rope_head_dim numbers
      instead, for all heads, and there is no second half: K and V are both made from it.
    - The last `num_kv_shared_layers` layers, if the config has that, use the cache of an earlier layer.
    """
    raise NotImplementedError("kv_bytes_per_token")


def room(config: Mapping[str, object], gpu_bytes: int, context: int, share: float = 0.9, other: int = 3 * GIB) -> Room:
    """How much KV cache one GPU has beside a Llama model, in bytes, tokens, and requests of `context` tokens.

    The engine takes `share` of the GPU's memory; from that come off the weights and `other` bytes (activations, CUDA
    graphs, libraries). Bytes, tokens and requests are whole and rounded down, and 0 where the weights do not fit.
    """
    raise NotImplementedError("room")


# ---------------------------------------------------------------------- 4. what holds this run up
#
# Samples of a running engine, one for each second or so. Watch your own while a demo runs: nvidia-smi dmon -s pucvmt


@dataclass(frozen=True)
class Sample:
    """What an engine did between two looks at it, and what was to be seen at the end."""

    seconds: float
    steps: int  # forward passes
    new_tokens: int  # tokens computed in them, of prompts and answers
    cached_tokens: int  # tokens read from the KV cache, summed over the steps
    waiting: int  # requests that had not begun
    kv_use: float  # share of the KV cache that was in use, 0 to 1
    gpu_util_pct: float  # as nvidia-smi shows it: the share of time in which some kernel ran


@dataclass(frozen=True)
class Machine:
    """A model on a GPU, as far as the arithmetic needs it. The rates are measured ones, not the data sheet's."""

    parameters: float
    weight_bytes: float
    kv_bytes_per_token: float
    bandwidth_bytes_s: float
    flop_s: float


def shares(samples: Sequence[Sample], machine: Machine) -> tuple[float, float]:
    """(memory, compute): the shares of the whole time for which the memory and the arithmetic were needed, 0 to 1.

    Each step reads all weights once, and the cached tokens' bytes come on top, at the machine's bandwidth. The
    arithmetic is 2 FLOP for each parameter and new token, at its FLOP/s. Take all samples together: the sum of the
    needed times over the sum of the seconds, since the samples are not equally long.
    """
    raise NotImplementedError("shares")


def bottleneck(samples: Sequence[Sample], machine: Machine) -> str:
    """What to look at first: "capacity", "memory", "compute" or "overhead". The rule, in this order:

    1. capacity: in more than half of the samples requests wait and at least 0.95 of the KV cache is in use. The batch
       can't grow, whatever else is true.
    2. memory or compute: the larger of the two `shares`, if it is at least 0.5. If they are equal, memory.
    3. overhead: neither reaches 0.5, so most of the time goes to neither of them.

    `gpu_util_pct` is no part of the rule. See what it says in the three cases.
    """
    raise NotImplementedError("bottleneck")


if __name__ == "__main__":
    llama_3_8b = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256}
    llama_3_8b |= {"num_attention_heads": 32, "num_key_value_heads": 8}
    print(f"Llama-3-8B on 80 GiB: {room(llama_3_8b, 80 * GIB, context=8192)}")
