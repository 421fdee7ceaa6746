"""The estimator against Transformers' own count and against sums done by hand."""

import json

import pytest

from common import estimator, models
from common.hardware import GIB
from common.shapes import KV_SHAPES, SHAPES

COURSE_LM = json.loads((models.COURSE_LM / "config.json").read_text())
WITHOUT_KV_HEADS = {key: value for key, value in SHAPES["llama-2-7b"].items() if key != "num_key_value_heads"}
MISTRAL = SHAPES["llama-3-8b"] | {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "head_dim": None,
    "vocab_size": 32768,
}
CONFIGS = SHAPES | {"course-lm": COURSE_LM, "llama-1-7b": WITHOUT_KV_HEADS, "mistral-7b": MISTRAL}


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_and_bytes_are_those_of_transformers(name):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**{"dtype": "bfloat16", **CONFIGS[name]})
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    counted = list(network.parameters())  # a tied embedding counts once
    assert estimator.parameters(CONFIGS[name]) == sum(p.numel() for p in counted)
    assert estimator.weight_bytes(CONFIGS[name]) == sum(p.numel() * p.element_size() for p in counted)


def test_the_trained_files_are_as_large_as_the_estimate():
    # Each file has a JSON header before its tensors.
    size = sum(file.stat().st_size for file in models.COURSE_LM.glob("*.safetensors"))
    assert 0 <= size - estimator.weight_bytes(COURSE_LM) < 64 * 1024


@pytest.mark.parametrize(
    ("shape", "bytes_per_token"),
    [
        ("llama-2-7b", 524_288),  # 2 (K, V) x 32 layers x 32 heads x 128 x 2 bytes: half a MiB
        ("qwen2.5-7b", 57_344),  # 2 x 28 x 4 x 128 x 2
        ("llama-3-70b", 327_680),  # 2 x 80 x 8 x 128 x 2
    ],
)
def test_kv_bytes_per_token_by_hand(shape, bytes_per_token):
    assert estimator.kv_bytes_per_token(SHAPES[shape]) == bytes_per_token
    assert estimator.kv_bytes_per_token(SHAPES[shape], "fp8") == bytes_per_token // 2
    assert estimator.kv_bytes_per_token(SHAPES[shape], "float32") == bytes_per_token * 2


def test_kv_bytes_follow_head_dim_where_it_is_not_hidden_over_heads():
    # course-lm has heads of 64, although hidden size over heads is less.
    assert COURSE_LM["hidden_size"] // COURSE_LM["num_attention_heads"] < COURSE_LM["head_dim"] == 64
    heads = COURSE_LM["num_hidden_layers"] * COURSE_LM["num_key_value_heads"]
    assert estimator.kv_bytes_per_token(COURSE_LM) == 2 * heads * 64 * 2


def test_kv_bytes_of_a_config_without_kv_heads_are_those_of_full_attention():
    assert estimator.kv_bytes_per_token(WITHOUT_KV_HEADS) == 524_288


def test_fit_is_exact_to_the_byte():
    config = SHAPES["qwen2.5-0.5b"]
    needed = estimator.weight_bytes(config) + 100 * estimator.kv_bytes_per_token(config) + GIB
    assert estimator.fit(config, needed, tokens=100, overhead=GIB).fits
    too_little = estimator.fit(config, needed - 1, tokens=100, overhead=GIB)
    assert not too_little.fits
    assert too_little.needed == needed


@pytest.mark.parametrize(
    ("shape", "bytes_per_token"),
    [
        ("falcon-7b", 8_192),  # 2 x 32 layers x 1 head x 64 x 2 bytes: multi_query
        ("gemma-2b", 18_432),  # 2 x 18 x 1 x 256 x 2
        ("gemma-3n-e4b", 40_960),  # 2 x (35 - 15) x 2 x 256 x 2: 15 layers use the cache of another
        ("deepseek-v2-lite", 31_104),  # 27 x (512 + 64) x 2: one latent vector and one rotary key
        ("deepseek-v3", 70_272),  # 61 x (512 + 64) x 2
    ],
)
def test_kv_bytes_of_other_kinds_of_attention_by_hand(shape, bytes_per_token):
    assert estimator.kv_bytes_per_token(KV_SHAPES[shape]) == bytes_per_token
    assert estimator.kv_bytes_per_token(KV_SHAPES[shape], "float32") == 2 * bytes_per_token


@pytest.mark.parametrize("shape", ["falcon-7b", "gemma-3n-e4b", "deepseek-v3"])
def test_shapes_are_those_that_transformers_has_as_defaults(shape):
    from transformers import AutoConfig

    published = AutoConfig.for_model(KV_SHAPES[shape]["model_type"])
    for name in ("num_hidden_layers", "num_attention_heads", "hidden_size", "kv_lora_rank", "qk_rope_head_dim",
                 "num_kv_shared_layers", "multi_query", "q_lora_rank"):  # fmt: skip
        assert getattr(published, name, None) == KV_SHAPES[shape].get(name), name
    for name in ("num_key_value_heads", "head_dim"):
        if name in KV_SHAPES[shape]:
            assert getattr(published, name) == KV_SHAPES[shape][name], name


@pytest.mark.parametrize("name", ["course-lm", "qwen2.5-0.5b", "llama-2-7b"])
def test_operations_of_a_step_are_those_that_pytorch_counts(name):
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {"num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 96, "vocab_size": 200}
    small |= {"num_attention_heads": 8, "num_key_value_heads": 4}
    config = CONFIGS[name] | small | dict.fromkeys(("layer_types", "pad_token_id", "eos_token_id"))
    described = AutoConfig.for_model(**config)
    network = AutoModelForCausalLM.from_config(described, attn_implementation="eager")  # PyTorch sees its products
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 24, dtype=torch.long), use_cache=False)
    # PyTorch counts the masked half of attention too, and Transformers computes the head for every token. PyTorch
    # counts products of matrices; ours are two for every weight, those of norms and biases included.
    vectors = sum(parameter.numel() for parameter in network.parameters() if parameter.ndim == 1)
    assert estimator.step_flop(config, 24, 24 * 24, sampled_tokens=24) - 2 * 24 * vectors == counter.get_total_flops()


def test_bytes_of_a_step_are_weights_and_cache():
    tied, untied = SHAPES["qwen2.5-0.5b"], SHAPES["qwen2.5-7b"]
    assert estimator.step_bytes(tied, 0) == estimator.weight_bytes(tied)
    # The embedding is a table of which a step reads a few rows; only a head of its own is read whole.
    assert estimator.step_bytes(untied, 0) == estimator.weight_bytes(untied) - 152064 * 3584 * 2
    assert estimator.step_bytes(untied, 1000) - estimator.step_bytes(untied, 0) == 1000 * 57_344
    assert estimator.step_bytes(untied, 10, "float32") == 2 * estimator.step_bytes(untied, 10)
