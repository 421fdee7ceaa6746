"""The exact shapes of published models, for engines with random weights (`--model shape:NAME`).

Values are those of each model's config.json on its hub page; a learner with a network can compare.
"""


def _qwen2(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocab: int, tied: bool) -> dict:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
    }


def _llama(
    hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocab: int, positions: int, theta: float
) -> dict:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "max_position_embeddings": positions,
        "rms_norm_eps": 1e-5,
        "rope_theta": theta,
    }


def _deepseek(
    version: str, hidden: int, intermediate: int, layers: int, heads: int, query_rank: int | None, vocab: int
) -> dict:
    return {
        "architectures": [f"Deepseek{version.upper()}ForCausalLM"],
        "model_type": f"deepseek_{version}",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "q_lora_rank": query_rank,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "vocab_size": vocab,
        "max_position_embeddings": 163840,
    }


SHAPES: dict[str, dict] = {
    "qwen2.5-0.5b": _qwen2(896, 4864, 24, 14, 2, 151936, True),
    "qwen2.5-1.5b": _qwen2(1536, 8960, 28, 12, 2, 151936, True),
    "qwen2.5-3b": _qwen2(2048, 11008, 36, 16, 2, 151936, True),
    "qwen2.5-7b": _qwen2(3584, 18944, 28, 28, 4, 152064, False),
    "qwen2.5-14b": _qwen2(5120, 13824, 48, 40, 8, 152064, False),
    "qwen2.5-32b": _qwen2(5120, 27648, 64, 40, 8, 152064, False),
    "qwen2.5-72b": _qwen2(8192, 29568, 80, 64, 8, 152064, False),
    "llama-2-7b": _llama(4096, 11008, 32, 32, 32, 32000, 4096, 10000.0),
    "llama-3-8b": _llama(4096, 14336, 32, 32, 8, 128256, 8192, 500000.0),
    "llama-3-70b": _llama(8192, 28672, 80, 64, 8, 128256, 8192, 500000.0),
}

# What a speed experiment takes: the first whose need is met by the free GPU memory, in GB (10^9 bytes).
TIERS: tuple[tuple[float, str], ...] = (
    (22.0, "qwen2.5-7b"),
    (12.0, "qwen2.5-3b"),
    (6.5, "qwen2.5-1.5b"),
    (3.5, "qwen2.5-0.5b"),
)

# Kinds of attention beside those above, as far as they decide the KV cache: what `estimator.kv_bytes_per_token` and an
# engine with narrow layers need (1.inference_basics). Their weights are not counted, so they are no --model.
# Sources: config.json of tiiuae/falcon-7b, google/gemma-2b, google/gemma-3n-E4B (its text part), DeepSeek-V2-Lite and
# DeepSeek-V3 (both deepseek-ai) on the hub; Transformers has those of Falcon, Gemma 3n and DeepSeek-V3 as defaults.
KV_SHAPES: dict[str, dict] = {
    "falcon-7b": {
        "architectures": ["FalconForCausalLM"],
        "model_type": "falcon",
        "hidden_size": 4544,
        "num_hidden_layers": 32,
        "num_attention_heads": 71,
        "multi_query": True,
        "new_decoder_architecture": False,
        "parallel_attn": True,
        "bias": False,
        "alibi": False,
        "vocab_size": 65024,
        "max_position_embeddings": 2048,
    },
    "gemma-2b": {
        "architectures": ["GemmaForCausalLM"],
        "model_type": "gemma",
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 18,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
    },
    "gemma-3n-e4b": {
        "architectures": ["Gemma3nForCausalLM"],
        "model_type": "gemma3n_text",
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 35,
        "num_kv_shared_layers": 15,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "sliding_window": 512,
        "vocab_size": 262400,
        "vocab_size_per_layer_input": 262144,
        "max_position_embeddings": 32768,
    },
    "deepseek-v2-lite": _deepseek("v2", 2048, 10944, 27, 16, None, 102400),
    "deepseek-v3": _deepseek("v3", 7168, 18432, 61, 128, 1536, 129280),
}
