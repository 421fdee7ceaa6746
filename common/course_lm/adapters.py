"""The two LoRA adapters, trained with PEFT on the finished model.

`chinese` answers English questions on the course's terms in Chinese; `sql` turns a question on a table into
SQL, which the base model has never seen.
"""

import json
import time
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from common.course_lm import corpus
from common.course_lm.corpus_sql import sql
from common.course_lm.corpus_terms import term_in_chinese
from common.course_lm.corpus_values import TRAIN
from common.course_lm.tokenizer import load_tokenizer

TASKS = {"chinese": term_in_chinese, "sql": sql}
RANK = 8
BATCH = 128


def padded_batch(
    rng: Random, task: str, tokenizer: PreTrainedTokenizerFast, size: int
) -> tuple[Tensor, Tensor]:
    """Token ids and loss weights, [size, longest document], padded on the right."""
    encoded = corpus.encode([TASKS[task](rng, TRAIN) for _ in range(size)], tokenizer)
    longest = max(len(tokens) for tokens, _ in encoded)
    ids = torch.full((size, longest), tokenizer.pad_token_id)
    weights = torch.zeros((size, longest))
    for row, (tokens, weight) in enumerate(encoded):
        ids[row, : len(tokens)] = torch.from_numpy(tokens)
        weights[row, : len(tokens)] = torch.from_numpy(weight.astype("float32"))
    return ids, (weights == 1).float()


def train_adapter(
    task: str, base: Path, folder: Path, device: str, seconds: float, steps: int | None, lr: float = 2e-3
) -> str:
    """Train one adapter for some seconds (or steps) and save it in PEFT's format, in bf16."""
    tokenizer = load_tokenizer(base)
    model = Qwen3ForCausalLM.from_pretrained(base, dtype=torch.float32).to(device)
    model = get_peft_model(
        model,
        LoraConfig(
            r=RANK,
            lora_alpha=2 * RANK,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            task_type="CAUSAL_LM",
        ),
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
    rng, start, step, progress = Random(f"adapter {task}"), time.perf_counter(), 0, 0.0
    while progress < 1.0:
        ids, weights = padded_batch(rng, task, tokenizer, BATCH if device == "cuda" else 4)
        ids, weights = ids.to(device), weights.to(device)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            logits = model(input_ids=ids).logits[:, :-1]
        losses = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()
        loss.backward()
        optimizer.param_groups[0]["lr"] = lr * max(0.02, 1 - progress)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        progress = step / steps if steps else (time.perf_counter() - start) / seconds
    model.save_pretrained(folder)
    file = folder / "adapter_model.safetensors"
    save_file(
        {name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"}
    )
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "course-lm"  # not the folder of this run
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return f"{step} steps, loss {loss.item():.4f}"
