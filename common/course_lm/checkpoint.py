"""Model folders as vLLM and Transformers read them: config, bf16 weights, generation config, tokenizer."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config

from common.course_lm.network import HEAD_DIM, CausalLM, Shape
from common.course_lm.tokenizer import END, END_OF_TEXT


def config_of(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    """The Transformers configuration of a shape."""
    end, end_of_text = tokenizer.convert_tokens_to_ids([END, END_OF_TEXT])
    return Qwen3Config(
        architectures=["Qwen3ForCausalLM"],
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        head_dim=HEAD_DIM,
        max_position_embeddings=shape.max_position_embeddings,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        attention_bias=False,
        use_sliding_window=False,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=end_of_text,
        dtype="bfloat16",
    )


def save_model(model: CausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, shards: int) -> None:
    """Write a model folder, its weights in `shards` files of about the same size."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    total = sum(tensor.nbytes for tensor in weights.values())
    files: list[dict[str, torch.Tensor]] = [{} for _ in range(shards)]
    done = 0
    for name, tensor in weights.items():
        files[min(shards - 1, done * shards // total)][name] = tensor
        done += tensor.nbytes
    names = (
        ["model.safetensors"]
        if shards == 1
        else [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    )
    for name, part in zip(names, files, strict=True):
        save_file(part, folder / name, metadata={"format": "pt"})
    if shards > 1:
        index = {
            "metadata": {"total_size": total},
            "weight_map": {key: name for name, part in zip(names, files, strict=True) for key in part},
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    config_of(model.shape, tokenizer).save_pretrained(folder)
    end, end_of_text = tokenizer.convert_tokens_to_ids([END, END_OF_TEXT])
    GenerationConfig(
        eos_token_id=[end, end_of_text], pad_token_id=end_of_text, do_sample=False
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_model(folder: Path, shape: Shape) -> CausalLM:
    """The training network with a folder's weights, in float32."""
    model = CausalLM(shape)
    weights: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= load_file(file)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return model


def weights_hash(folder: Path) -> str:
    """SHA-256 of a folder's safetensors files, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
