"""From a name to a model: what is resolved, refused and suggested, before anything is loaded."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common import models
from common.problems import Problem
from common.shapes import SHAPES, TIERS

ROOT = Path(models.__file__).parent.parent


@pytest.fixture(scope="module")
def shapes_made_once(tmp_path_factory):
    return tmp_path_factory.mktemp("shapes")


@pytest.fixture
def cache(shapes_made_once, monkeypatch):
    """A folder for the shapes' folders, shared by the tests that only read them."""
    monkeypatch.setattr(models, "CACHE", shapes_made_once)
    return shapes_made_once


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


# ------------------------------------------------------------------------------------------------------- resolve


def test_course_lm_is_trained_and_named_by_its_weights():
    model = models.resolve("course-lm")
    assert (model.name, model.weights) == ("course-lm", "trained")
    assert len(model.weights_id) == 16
    assert int(model.weights_id, 16)
    assert model.config["model_type"] == "qwen3"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("course_lm", "course-lm"),
        ("courselm", "course-lm"),
        ("qwen2.5-7b", "shape:qwen2.5-7b"),
        ("llama-3-70b", "shape:llama-3-70b"),
        ("shpe:qwen2.5-3b", "shape:qwen2.5-3b"),
    ],
)
def test_a_typing_error_gets_a_suggestion(name, meant):
    with pytest.raises(Problem, match=f"no model {name}") as problem:
        models.resolve(name)
    assert f"Did you mean {meant}?" in problem.value.fix


def test_a_name_like_none_gets_no_suggestion():
    with pytest.raises(Problem) as problem:
        models.resolve("zzzzzz")
    assert "Did you mean" not in problem.value.fix
    assert "course-lm" in problem.value.fix


def test_an_unknown_shape_lists_the_shapes():
    with pytest.raises(Problem, match="no shape:qwen9-7b") as problem:
        models.resolve("shape:qwen9-7b")
    assert all(f"shape:{shape}" in problem.value.fix for shape in SHAPES)


def test_a_folder_with_a_model_is_taken(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"model_type": "llama"}}))
    (tmp_path / "a.safetensors").write_bytes(b"weights")
    model = models.resolve(str(tmp_path))
    assert (model.weights, model.path) == ("published", str(tmp_path))
    assert model.config == {"model_type": "llama"}
    before = model.weights_id
    (tmp_path / "a.safetensors").write_bytes(b"other weights")
    assert models.resolve(str(tmp_path)).weights_id != before


def test_a_folder_without_a_config_says_so(tmp_path):
    with pytest.raises(Problem, match=r"holds no config\.json"):
        models.resolve(str(tmp_path))


def test_a_damaged_config_is_a_problem(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(Problem, match=r"config\.json") as problem:
        _ = models.resolve(str(tmp_path)).config
    assert problem.value.fix


@pytest.mark.parametrize("name", ["/no/such/folder", "./model", "../model", "models/course/lm"])
def test_a_folder_that_is_not_there_says_so(name):
    with pytest.raises(Problem, match="no folder") as problem:
        models.resolve(name)
    assert problem.value.fix


def test_a_hub_name_without_a_network_fails_fast_with_the_way_out(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        environment = os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{closed.getsockname()[1]}",
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "1",  # as a demo sets it: asking for a hub model is what takes it back
            "PYTHONPATH": str(ROOT),
        }
        script = (
            "from common import models; from common.problems import Problem\n"
            "try: models.resolve('Qwen/Qwen3-8B')\nexcept Problem as problem: print(problem, '|', problem.fix)"
        )
        start = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
    assert "Qwen/Qwen3-8B is not on this disk and the hub could not be reached" in ended.stdout
    assert "course-lm" in ended.stdout
    assert "HF_ENDPOINT" in ended.stdout
    assert time.perf_counter() - start < 15


# -------------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("shape", ["llama-2-7b", "qwen2.5-0.5b"])
def test_the_tokenizer_of_a_shape_names_every_id(cache, shape):
    from transformers import AutoTokenizer

    model = models.resolve(f"shape:{shape}")
    tokenizer = AutoTokenizer.from_pretrained(model.path)
    size = SHAPES[shape]["vocab_size"]
    assert sorted(tokenizer.get_vocab().values()) == list(range(size))
    assert None not in tokenizer.convert_ids_to_tokens(range(size))
    assert tokenizer.decode([size - 1, 20_000]) == f"<{size - 1}><20000>"
    trained = AutoTokenizer.from_pretrained(models.COURSE_LM)
    text = "<|im_start|>user\nWhat is the KV cache? 什么是<|im_end|>"
    # For a Qwen2 shape Transformers rebuilds the tokenizer without `ignore_merges`: words lose the blank before them.
    assert (tokenizer.encode(text) == trained.encode(text)) is (SHAPES[shape]["model_type"] != "qwen2")
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_folder_of_a_shape_is_made_once_and_again_when_it_is_outdated(empty_cache, monkeypatch):
    model = models.resolve("shape:llama-2-7b")
    assert (model.weights, model.weights_id) == ("random", "random")
    assert {key: model.config[key] for key in SHAPES["llama-2-7b"]} == SHAPES["llama-2-7b"]
    tokenizer = empty_cache / "shapes" / "llama-2-7b" / "tokenizer.json"
    made = tokenizer.stat().st_mtime_ns
    models.resolve("shape:llama-2-7b")
    assert tokenizer.stat().st_mtime_ns == made
    monkeypatch.setitem(SHAPES, "llama-2-7b", SHAPES["llama-2-7b"] | {"num_hidden_layers": 3})
    assert models.resolve("shape:llama-2-7b").config["num_hidden_layers"] == 3
    assert [folder.name for folder in (empty_cache / "shapes").iterdir()] == ["llama-2-7b"]


def test_a_folder_that_was_left_half_made_is_made_again(empty_cache):
    half = empty_cache / "shapes" / "llama-2-7b"
    half.mkdir(parents=True)
    (half / "config.json").write_text("{")
    assert models.resolve("shape:llama-2-7b").config["vocab_size"] == 32000


# ------------------------------------------------------------------------------------------- fitting the machine


@pytest.mark.parametrize(
    ("free_gb", "shape"),
    [
        (80, "shape:qwen2.5-7b"),
        (24, "shape:qwen2.5-7b"),
        (22, "shape:qwen2.5-7b"),
        (21.9, "shape:qwen2.5-3b"),
        (16, "shape:qwen2.5-3b"),
        (8, "shape:qwen2.5-1.5b"),
        (4, "shape:qwen2.5-0.5b"),
        (3, "course-lm"),
    ],
)
def test_the_speed_model_follows_the_free_memory(cache, machine_with, free_gb, shape):
    model, why = models.speed_model(machine_with("NVIDIA H100 80GB HBM3", free_gb=free_gb))
    assert model.name == shape
    assert f"{free_gb:.0f}" in why


def test_the_speed_model_of_a_cpu_is_course_lm(machine_with):
    model, why = models.speed_model(machine_with())
    assert model.name == "course-lm"
    assert "no GPU" in why


@pytest.mark.parametrize(("need_gb", "shape"), TIERS)
def test_every_tier_passes_its_own_preflight(cache, machine_with, need_gb, shape):
    machine = machine_with("NVIDIA L4", free_gb=need_gb)
    assert models.preflight(models.resolve(f"shape:{shape}"), machine).fits


def test_preflight_refuses_what_cannot_fit_with_the_sum(cache, machine_with):
    with pytest.raises(Problem, match=r"shape:qwen2\.5-72b needs 138\.1 GiB") as problem:
        models.preflight(models.resolve("shape:qwen2.5-72b"), machine_with("NVIDIA L4", free_gb=24))
    # 72,706,203,648 weights of 2 bytes; 2 x 80 layers x 8 KV heads x 128 x 2 bytes x 2,048 tokens
    assert "weights 135.4, KV cache for 2048 tokens 0.6, overhead 2.0" in str(problem.value)
    assert "22.4 GiB of GPU memory are free" in str(problem.value)
    assert "--model shape:qwen2.5-7b" in problem.value.fix


def test_preflight_of_a_cpu_speaks_of_main_memory(cache, machine_with, monkeypatch):
    monkeypatch.setattr(models, "available_bytes", lambda: 4 * 2**30)
    with pytest.raises(Problem, match=r"4\.0 GiB of main memory are free") as problem:
        models.preflight(models.resolve("shape:qwen2.5-7b"), machine_with())
    assert "course-lm" in problem.value.fix
    assert models.preflight(models.resolve("course-lm"), machine_with()).fits


@pytest.mark.parametrize("change", [{"model_type": "deepseek_v3"}, {"quantization_config": {"quant_method": "awq"}}])
def test_preflight_leaves_what_it_cannot_count_to_vllm(tmp_path, machine_with, change):
    (tmp_path / "config.json").write_text(json.dumps(SHAPES["qwen2.5-72b"] | change))
    assert models.preflight(models.resolve(str(tmp_path)), machine_with("NVIDIA L4", free_gb=24)) is None


def test_two_engines_fit_where_each_finds_weights_and_room_for_its_work(cache, machine_with):
    seven, fourteen = (models.resolve(f"shape:qwen2.5-{size}") for size in ("7b", "14b"))
    h100 = machine_with("NVIDIA H100 80GB HBM3")  # 80 GB in all: 1.3 x 15.2 + 4 = 23.8 GB, and 42.4 for 14B
    assert models.two_fit(seven, h100, share=0.3) and not models.two_fit(seven, h100, share=0.29)
    assert not models.two_fit(fourteen, h100, share=0.5)
    assert models.two_fit(fourteen, machine_with(), share=0.5), "without a GPU both are in main memory"


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_old_gpus_get_float16(machine_with, capability, dtype):
    assert models.dtype(machine_with("Tesla T4", capability=capability)) == dtype
    assert models.dtype(machine_with()) == "bfloat16"


def test_engine_options(cache, machine_with):
    gpu, cpu = machine_with("NVIDIA H200"), machine_with()
    trained, random = models.resolve("course-lm"), models.resolve("shape:qwen2.5-0.5b")
    assert models.engine_options(random, gpu) == {
        "model": random.path,
        "dtype": "bfloat16",
        "max_model_len": 2048,
        "load_format": "dummy",
    }
    on_cpu = models.engine_options(trained, cpu, max_model_len=512, dtype="float32")
    assert on_cpu == {
        "model": trained.path,
        "dtype": "float32",
        "max_model_len": 512,
        "enforce_eager": True,
        "kv_cache_memory_bytes": models.CPU_KV_BYTES,
    }


def test_closing_no_engine_is_nothing():
    models.close_engine()
    models.free_memory()


def test_transformers_model_is_in_the_engines_dtype(machine_with):
    import torch

    network, tokenizer = models.transformers_model(models.resolve("course-lm"), machine_with())
    assert network.dtype == torch.bfloat16
    assert not network.training
    assert tokenizer.padding_side == "left"


@pytest.mark.engine
def test_an_engine_is_reused_and_closed(machine_with):
    llm = models.engine(models.resolve("course-lm"), machine_with(), max_model_len=256)
    try:
        assert models.engine(models.resolve("course-lm"), machine_with(), max_model_len=256) is llm
        other = models.engine(models.resolve("course-lm"), machine_with(), max_model_len=128)
        assert other is not llm
        assert len(other.generate([{"prompt_token_ids": [5, 6, 7]}], use_tqdm=False)[0].outputs[0].token_ids) > 0
    finally:
        models.close_engine()
