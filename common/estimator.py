"""What a model needs: bytes of weights, bytes of KV cache per token, and whether both fit.

Formulas count the tensors of a dense decoder with gated MLP (Llama, Qwen2, Qwen3).
"""

from dataclasses import dataclass

from common.hardware import GIB

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "fp8": 1}

# Activations, CUDA context and graphs of a model of 0.5 to 7 billion parameters on one GPU: an allowance
# for the check before loading, not a prediction.
OVERHEAD_BYTES = 2 * GIB


def head_dim(config: dict) -> int:
    """Width of one attention head."""
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def kv_heads(config: dict) -> int:
    """Number of KV heads; a config.json without it means one for each attention head."""
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


def kv_bytes_per_token(config: dict, dtype: str = "bfloat16") -> int:
    """Bytes that one token adds to the KV cache: a key and a value for each KV head of each layer."""
    return 2 * config["num_hidden_layers"] * kv_heads(config) * head_dim(config) * DTYPE_BYTES[dtype]


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
