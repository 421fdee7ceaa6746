"""course-lm's network and its training: equal to Transformers', saved and loaded, trained in a small form."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen3ForCausalLM

from common.course_lm import corpus
from common.course_lm.checkpoint import load_model, save_model
from common.course_lm.network import MODEL, CausalLM, Shape, document_mask
from common.course_lm.tokenizer import load_tokenizer

FOLDER = Path(corpus.__file__).parent


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(FOLDER / "model")


def test_picking_logits_changes_nothing_else(tokenizer):
    model = CausalLM(Shape(num_hidden_layers=1, intermediate_size=256), seed=1)
    ids = tokenizer("Once upon a time", add_special_tokens=False, return_tensors="pt")["input_ids"]
    positions, mask = torch.arange(ids.shape[1])[None], document_mask(torch.zeros_like(ids))
    picked = torch.tensor([2, 0])
    with torch.inference_mode():
        everything, some = model(ids, positions, mask), model(ids, positions, mask, picked)
    torch.testing.assert_close(some, everything[0, picked])


def test_network_equals_transformers(tokenizer):
    texts = ["What is 12 + 30?", "什么是词元？", "Once upon a time"]
    reference = Qwen3ForCausalLM.from_pretrained(FOLDER / "model", dtype=torch.float32)
    ours = load_model(FOLDER / "model", MODEL)
    documents = [tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"] for text in texts]
    packed = torch.cat(documents, dim=1)
    positions = torch.cat([torch.arange(ids.shape[1]) for ids in documents])[None]
    owners = torch.cat([torch.full((ids.shape[1],), index) for index, ids in enumerate(documents)])[None]
    with torch.inference_mode():
        expected = torch.cat([reference(ids).logits for ids in documents], dim=1)
        got = ours(packed, positions, document_mask(owners))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)


def test_saved_model_loads_again(tokenizer, tmp_path):
    shape = Shape(num_hidden_layers=1, intermediate_size=256)
    model = CausalLM(shape, seed=3)
    save_model(model, tokenizer, tmp_path, shards=2)
    again = load_model(tmp_path, shape)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor.bfloat16().float())
    assert Qwen3ForCausalLM.from_pretrained(tmp_path).config.num_hidden_layers == 1


@pytest.mark.long
def test_training_runs_in_its_small_form(tmp_path):
    command = [sys.executable, "-m", "common.course_lm.train", "--smoke", "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=600, capture_output=True)
    for name in ("model", "draft", *(f"adapters/{task}" for task in corpus.ADAPTERS)):
        assert list((tmp_path / name).glob("*.safetensors")), name
    Qwen3ForCausalLM.from_pretrained(tmp_path / "model")
