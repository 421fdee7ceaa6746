"""The LoRA adapters, trained with PEFT on the finished model.

`chinese` answers English questions on the course's terms in Chinese; `sql` turns a question on a table into SQL, which
the base model has never seen.
"""

import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Qwen3ForCausalLM

from common.course_lm.stream import Stream

# The share of the main model's training time.
SHARES = {"chinese": 0.05, "sql": 0.15}
RANK = 8
BATCH, SMOKE_BATCH = 256, 4
WARM_UP = 0.05


def train_adapter(
    task: str,
    base: Path,
    folder: Path,
    device: str,
    seconds: float,
    steps: int | None,
    batches: Stream,
    lr: float = 2e-3,
) -> str:
    """Train one adapter for some seconds (or steps) and save it in PEFT's format, in bf16."""
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
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
    start, step, progress = time.perf_counter(), 0, 0.0
    while progress < 1.0:
        ids, weights = (torch.from_numpy(array).to(device) for array in next(batches))
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            logits = model(input_ids=ids).logits[:, :-1]
        losses = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.param_groups[0]["lr"] = lr * max(0.02, min(progress / WARM_UP, 1 - progress))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        progress = step / steps if steps else (time.perf_counter() - start) / seconds
    model.save_pretrained(folder)
    file = folder / "adapter_model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "course-lm"  # not the folder of this run
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return f"{step} steps, loss {loss.item():.4f}"
