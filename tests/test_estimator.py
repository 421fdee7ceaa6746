"""The estimator against Transformers' own count and against sums done by hand."""

import json

import pytest

from common import estimator, models
from common.hardware import GIB
from common.shapes import SHAPES

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
