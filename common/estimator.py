"""What a model needs: bytes of weights, bytes of KV cache per token, the work of one step, and whether it all fits.

Formulas that count weights are for a dense decoder with gated MLP (Llama, Qwen2, Qwen3); those that count the KV cache
are for every kind of attention in `shapes.py`.
"""

from dataclasses import dataclass

from common.hardware import GIB

COUNTED = ("llama", "mistral", "qwen2", "qwen3")  # model types whose weights and operations are counted here
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "fp8": 1}

# Activations, CUDA context and graphs of a model of 0.5 to 7 billion parameters on one GPU: an allowance
# for the check before loading, not a prediction.
OVERHEAD_BYTES = 2 * GIB


def head_dim(config: dict) -> int:
    """Width of one attention head."""
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def kv_heads(config: dict) -> int:
    """Number of KV heads; a config.json without it means one for each attention head, with `multi_query` one in all."""
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1  # how Falcon-7B says it
    return config.get("num_key_value_heads") or config["num_attention_heads"]


def parameters(config: dict) -> int:
    """Number of weights of the model that `config` (a config.json) describes."""
    hidden = config["hidden_size"]
    query, key_value = config["num_attention_heads"] * head_dim(config), kv_heads(config) * head_dim(config)
    attention = hidden * (query + 2 * key_value) + query * hidden
    if config["model_type"] == "qwen2":
        attention += query + 2 * key_value  # Qwen2 has a bias on Q, K and V
    if config["model_type"] == "qwen3":
        attention += 2 * head_dim(config)  # Qwen3 normalises Q and K in each head
    mlp = 3 * hidden * config["intermediate_size"]
    embeddings = config["vocab_size"] * hidden * (1 if config.get("tie_word_embeddings") else 2)
    return embeddings + config["num_hidden_layers"] * (attention + mlp + 2 * hidden) + hidden


def weight_bytes(config: dict, dtype: str = "bfloat16") -> int:
    """Bytes of the weights alone."""
    return parameters(config) * DTYPE_BYTES[dtype]


def kv_layers(config: dict) -> int:
    """Number of layers that keep keys and values; the last `num_kv_shared_layers` use those of a layer before them."""
    return config["num_hidden_layers"] - config.get("num_kv_shared_layers", 0)


def kv_numbers_per_layer(config: dict) -> int:
    """Numbers that one token adds to the KV cache of one layer.

    A key and a value for each KV head; with latent attention (MLA: DeepSeek-V2, https://arxiv.org/abs/2405.04434,
    section 2.1) one compressed vector of `kv_lora_rank` for all heads, and one rotary key of `qk_rope_head_dim`.
    """
    if config.get("kv_lora_rank"):
        return config["kv_lora_rank"] + config["qk_rope_head_dim"]
    return 2 * kv_heads(config) * head_dim(config)


def kv_bytes_per_token(config: dict, dtype: str = "bfloat16") -> int:
    """Bytes that one token adds to the KV cache of all layers, sliding windows counted as full attention."""
    return kv_layers(config) * kv_numbers_per_layer(config) * DTYPE_BYTES[dtype]


def step_bytes(config: dict, cached_tokens: float, dtype: str = "bfloat16") -> float:
    """Bytes that one forward pass reads from memory, at least: the weights once and `cached_tokens` tokens of KV cache.

    Of an embedding table that is not also the output head only the rows of the step's tokens are read: not counted.
    """
    table = 0 if config.get("tie_word_embeddings") else config["vocab_size"] * config["hidden_size"]
    return (parameters(config) - table) * DTYPE_BYTES[dtype] + cached_tokens * kv_bytes_per_token(config, dtype)


def step_flop(config: dict, new_tokens: int, attended_tokens: float, sampled_tokens: int) -> float:
    """Floating-point operations of one forward pass: two for each weight that a token meets, and attention.

    new_tokens: computed in this pass. attended_tokens: how many tokens each of them looks at, itself included, summed
    over all. sampled_tokens: those that go through the output head, one for each sequence.
    """
    head = config["vocab_size"] * config["hidden_size"]
    layers = parameters(config) - head * (1 if config.get("tie_word_embeddings") else 2)
    # Query times key and share times value: each two operations for every number of every attention head.
    attention = 4 * config["num_hidden_layers"] * config["num_attention_heads"] * head_dim(config)
    return 2 * layers * new_tokens + attention * attended_tokens + 2 * head * sampled_tokens


@dataclass(frozen=True)
class Fit:
    """The sum that decides whether a model can be loaded, in bytes."""

    weights: int
    kv_cache: int
    overhead: int
    available: int

    @property
    def needed(self) -> int:
        return self.weights + self.kv_cache + self.overhead

    @property
    def fits(self) -> bool:
        return self.needed <= self.available


def fit(config: dict, available: int, tokens: int, dtype: str = "bfloat16", overhead: int = OVERHEAD_BYTES) -> Fit:
    """What it takes to load the model and keep `tokens` tokens in its KV cache, against `available` bytes."""
    return Fit(weight_bytes(config, dtype), tokens * kv_bytes_per_token(config, dtype), overhead, available)
