"""The hand-written decoder gives Transformers' tokens, with its KV cache and without one."""

import itertools

import pytest
import torch

from common import hardware, models
from common.chapters import ROOT, load
from common.problems import Problem

FOLDER = ROOT / "1.inference_basics"
PROMPTS, TOKENS = 50, 8


@pytest.fixture(scope="module")
def cache_timing():
    return load(FOLDER / "cache_timing.py")


@pytest.fixture(scope="module")
def kv_cache():
    return load(FOLDER / "kv_cache.py")


@pytest.fixture(scope="module")
def course_lm(cache_timing):
    """(programs, prompts) on course-lm in float32."""
    model = models.resolve("course-lm")
    network, tokenizer = models.transformers_model(model, hardware.machine())
    return cache_timing.programs(network.float(), model.config), cache_timing.course_prompts(tokenizer, PROMPTS)


def test_fifty_prompts_get_the_same_tokens(course_lm):
    programs, prompts = course_lm
    assert len({tuple(prompt) for prompt in prompts}) == PROMPTS
    answers = {name: [generate(p, TOKENS, True) for p in prompts] for name, generate in programs.items()}
    assert answers["ours"] == answers["transformers"]
    assert len({token for answer in answers["ours"] for token in answer}) > 50  # answers, not one token for ever


def test_without_a_cache_the_tokens_are_the_same(course_lm):
    programs, prompts = course_lm
    for prompt in sorted(prompts, key=len)[:: PROMPTS // 8]:
        assert programs["ours"](prompt, 4, False) == programs["transformers"](prompt, 4, True)


TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000.0,
    "initializer_range": 0.3,  # large weights, so that a wrong one shows
}
KINDS = [
    {"model_type": "llama", "num_key_value_heads": 4},  # multi-head attention
    {"model_type": "llama", "num_key_value_heads": 1, "tie_word_embeddings": True},  # multi-query
    {"model_type": "qwen2", "num_key_value_heads": 2},  # biases
    {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 24},  # norms in the heads, wider than hidden / heads
]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind['model_type']}-{kind['num_key_value_heads']}")
def tiny(request, kv_cache):
    """(a Transformers model of random weights, our decoder on them) for each kind that we read."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = TINY | request.param
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32).eval()
    for name, parameter in network.named_parameters():
        if name.endswith(("bias", "norm.weight")):  # which start as zeros and ones
            torch.nn.init.normal_(parameter, mean=0.5)
    return network, kv_cache.Decoder(config, dict(network.named_parameters()))


@torch.inference_mode()
def test_logits_of_other_models_are_those_of_transformers(tiny, kv_cache):
    network, decoder = tiny
    tokens = torch.arange(20) * 7 % 64
    wanted = network(tokens[None]).logits[0]
    assert torch.allclose(decoder.forward(tokens), wanted[-1], atol=1e-4)
    for cuts in ((19,), (1, 2, 3), (8, 16)):  # a prompt and a token; tokens one by one; a prompt in chunks
        cache = kv_cache.KVCache(decoder.config, 20, like=decoder.head)
        for begin, end in itertools.pairwise((0, *cuts, 20)):
            assert torch.allclose(decoder.forward(tokens[begin:end], cache), wanted[end - 1], atol=1e-4)
            assert cache.length == end


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "mamba"},
        {"model_type": "llama", "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {"model_type": "qwen3", "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}},
        {"model_type": "qwen2", "use_sliding_window": True},
    ],
)
def test_a_model_that_is_computed_otherwise_is_a_problem(kv_cache, config):
    with pytest.raises(Problem, match=f"of type {config['model_type']}"):
        kv_cache.Decoder(config, {})
