"""Train course-lm from nothing: tokenizer, model, draft model and the two LoRA adapters.

    python -m common.course_lm.train --out /tmp/course_lm             under ten minutes on one H100
    python -m common.course_lm.train --out /tmp/tiny --smoke          a few steps on a CPU, same code path

The text comes from corpus.py while the model trains: worker processes write and tokenize it, so nothing is
read twice. `--minutes` is the model's own time; the draft takes a ninth of it and the two adapters a fifth.
"""

import argparse
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from common.course_lm import adapters, corpus
from common.course_lm.checkpoint import load_model, save_model
from common.course_lm.network import DRAFT, MODEL, CausalLM, document_mask
from common.course_lm.optimizer import optimizers, schedule
from common.course_lm.stream import Stream, Workers, make_adapter_batch, make_chunk, make_texts
from common.course_lm.tokenizer import load_tokenizer, train_tokenizer

TOKENIZER_DOCUMENTS = 40_000
# The part of the tokens whose successors enter the loss: all answers (a quarter of the tokens), and some of prompts.
LOSS_SHARE = 3 / 8
# The draft's training time, as a share of the model's.
DRAFT_SHARE = 1 / 9


class Batch:
    """A chunk on the training device, its attention mask, and the tokens whose successors enter the loss.

    `picked` are indices in the flattened rows, and `targets` and `weights` belong to these. Three tokens in four are of
    prompts and hardly weigh anything, so of them a random few stand for all, with as much more weight: the loss is the
    same on average, and the widest matrix of the model has far fewer rows to compute. `share` is the part of the
    tokens that is picked; 1 takes them all.
    """

    def __init__(self, chunk: corpus.Chunk, device: str, share: float):
        def move(array: np.ndarray, dtype: torch.dtype) -> Tensor:
            tensor = torch.from_numpy(array)
            if device == "cuda":
                tensor = tensor.pin_memory()
            return tensor.to(device, non_blocking=True).to(dtype)

        self.tokens = move(chunk.tokens, torch.long)
        self.positions = move(chunk.positions, torch.long)
        self.documents = move(chunk.documents, torch.int32)
        weights = F.pad(move(chunk.weights, torch.float32)[:, 1:], (0, 1)).flatten()
        targets = F.pad(self.tokens[:, 1:], (0, 1)).flatten()
        if share < 1:
            self.picked, self.weights = pick(weights, share)
            self.targets = targets[self.picked]
        else:
            self.picked, self.weights, self.targets = None, weights, targets
        rows, length = self.tokens.shape
        self.mask = blocks(self.documents, rows, length) if device == "cuda" else document_mask(self.documents)


def pick(weights: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Indices of a share of the tokens, [count], and their loss weights: all answers, and prompt tokens for the rest.

    The picked prompt tokens take over the weight of those that were left out. Nothing here waits for the device.
    """
    answers = weights > corpus.ANSWERS_FROM
    prompts = (weights > 0) & ~answers
    order = torch.rand_like(weights) + prompts + 2 * answers
    picked = order.topk(max(1, int(share * weights.numel()))).indices
    chosen, of_prompt = weights[picked], prompts[picked]
    total, kept = (weights * prompts).sum(), (chosen * of_prompt).sum()
    return picked, torch.where(of_prompt, chosen * (total / kept.clamp(min=1e-6)), chosen)


def blocks(documents: Tensor, rows: int, length: int):
    """FlexAttention's mask of packed rows."""

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (documents[row, query] == documents[row, key])

    return compiled_block_mask(visible, rows, None, length, length, device=documents.device)


compiled_block_mask = torch.compile(create_block_mask, disable=not torch.cuda.is_available())


def weighted_loss(
    model: nn.Module,
    tokens: Tensor,
    positions: Tensor,
    mask: BlockMask | Tensor,
    picked: Tensor | None,
    targets: Tensor,
    weights: Tensor,
) -> Tensor:
    """Mean cross-entropy of the next token of the picked ones, weighted."""
    logits = model(tokens, positions, mask, picked).flatten(0, -2).float()
    losses = F.cross_entropy(logits, targets, reduction="none")
    return (losses * weights).sum() / weights.sum()


def distillation_loss(
    student: nn.Module,
    teacher: nn.Module,
    tokens: Tensor,
    positions: Tensor,
    mask: BlockMask | Tensor,
    picked: Tensor | None,
    targets: Tensor,
    weights: Tensor,
) -> Tensor:
    """Cross-entropy of the student's next token to the teacher's distribution, weighted; targets are not looked at."""
    with torch.no_grad():
        target = teacher(tokens, positions, mask, picked).flatten(0, -2).float().softmax(-1)
    logits = student(tokens, positions, mask, picked).flatten(0, -2).float()
    losses = -(target * logits.log_softmax(-1)).sum(-1)
    return (losses * weights).sum() / weights.sum()


def compiled(loss: Callable, models: list[nn.Module]) -> Callable[[Batch], Tensor]:
    """The loss of a batch under models, compiled as a whole.

    So the cross-entropy is fused with them: the 10,240 logits of a token are read and written once or twice in bf16
    instead of many times in float32.
    """
    loss = torch.compile(loss, disable=not torch.cuda.is_available())
    return lambda batch: loss(
        *models, batch.tokens, batch.positions, batch.mask, batch.picked, batch.targets, batch.weights
    )


def fit(
    model: nn.Module,
    loss_of: Callable[[Batch], Tensor],
    stream: Stream,
    device: str,
    minutes: float,
    steps: int | None,
    matrix_lr: float = 0.02,
    other_lr: float = 0.003,
) -> dict:
    """Train for some minutes of wall time (or some steps) and return what it came to."""
    made = optimizers(model, matrix_lr, other_lr)
    limit, start, step, tokens, tokens_at_start, waited, skipped = minutes * 60, None, 0, 0, 0, 0.0, 0
    while True:
        begin = time.perf_counter()
        chunk = next(stream)
        waited += time.perf_counter() - begin if start else 0
        skipped += chunk.skipped
        batch = Batch(chunk, device, LOSS_SHARE)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        elapsed = time.perf_counter() - start if start else 0.0
        progress = step / steps if steps else min(1.0, elapsed / limit)
        for optimizer in made:
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["peak_lr"] * schedule(progress)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        tokens += chunk.tokens.size
        if step % 50 == 0 or steps:
            value = loss.item()  # also keeps the clock honest: the device has caught up
            if step % 500 == 0 or steps:
                rate = (tokens - tokens_at_start) / max(elapsed, 1e-9) if start else 0
                print(
                    f"step {step}  loss {value:.4f}  {elapsed:.0f} s  {rate / 1e6:.2f} M tokens/s  "
                    f"waited {waited:.0f} s",
                    flush=True,
                )
        if start is None and step >= 10:  # compilation is over: the clock starts
            if device == "cuda":
                torch.cuda.synchronize()
            start, tokens_at_start = time.perf_counter(), tokens
        if (steps and step >= steps) or (not steps and progress >= 1.0):
            return {
                "steps": step,
                "tokens": tokens,
                "loss": round(loss.item(), 4),
                "seconds": round(elapsed, 1),
                "documents left out": skipped,
            }


def train_model(stream: Stream, device: str, minutes: float, steps: int | None, seed: int) -> CausalLM:
    """The main model."""
    model = CausalLM(MODEL, seed).to(device)
    loss = compiled(weighted_loss, [model])
    print("model", fit(model, loss, stream, device, minutes, steps))
    return model


def train_draft(model: CausalLM, stream: Stream, device: str, minutes: float, steps: int | None, seed: int) -> CausalLM:
    """The draft, which learns the main model's distributions and starts from the main model's embedding."""
    draft = CausalLM(DRAFT, seed).to(device)
    draft.model.embed_tokens.weight.data.copy_(model.model.embed_tokens.weight.data)
    model.eval().requires_grad_(False)
    loss = compiled(distillation_loss, [draft, model])
    print("draft", fit(draft, loss, stream, device, minutes, steps))
    return draft


def train_course_tokenizer(folder: Path, documents: int, processes: int) -> None:
    """Train the tokenizer on the first documents of the corpus."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        texts = [text for part in pool.map(make_texts, range(max(1, documents // 1000))) for text in part]
    train_tokenizer(texts).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for model/, draft/ and adapters/")
    parser.add_argument("--minutes", type=float, default=5.5, help="training time of the main model")
    parser.add_argument("--seed", type=int, default=corpus.SEED)
    parser.add_argument("--stage", choices=["all", "model", "draft", "adapters"], default="all")
    parser.add_argument("--smoke", action="store_true", help="three steps of each stage on two rows, any machine")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() and not options.smoke else "cpu"
    if device == "cpu" and not options.smoke:
        parser.error("training needs a GPU; --smoke runs a few steps without one")
    torch.set_float32_matmul_precision("high")
    cores = len(os.sched_getaffinity(0))
    processes, steps, rows = (
        max(1, cores - 1),
        3 if options.smoke else None,
        1 if options.smoke else corpus.ROWS_PER_CHUNK,
    )
    begin = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    base, draft_folder = options.out / "model", options.out / "draft"

    def report(what: str) -> None:
        print(f"[{time.perf_counter() - begin:6.1f} s] {what}", flush=True)

    if options.stage in ("all", "model"):
        train_course_tokenizer(base, 4_000 if options.smoke else TOKENIZER_DOCUMENTS, processes)
        report("tokenizer")
    tokenizer = load_tokenizer(base)
    with Workers(base, options.seed, rows, processes) as workers:
        if options.stage in ("all", "model", "draft"):
            # A draft that is trained on its own reads on where its model's training cannot have come.
            chunks = workers.stream(make_chunk, itertools.count(1_000_000 if options.stage == "draft" else 0))
            if options.stage == "draft":
                model = load_model(base, MODEL).to(device)
            else:
                model = train_model(chunks, device, options.minutes, steps, options.seed)
                save_model(model, tokenizer, base, shards=2)
                report("model")
            if options.stage in ("all", "draft"):
                minutes = options.minutes * DRAFT_SHARE
                draft = train_draft(model, chunks, device, minutes, steps, options.seed)
                save_model(draft, tokenizer, draft_folder, shards=1)
                report("draft")
            chunks.close()
        if options.stage in ("all", "adapters"):
            size = adapters.SMOKE_BATCH if options.smoke else adapters.BATCH
            for task, share in adapters.SHARES.items():
                batches = workers.stream(make_adapter_batch, ((task, i, size) for i in itertools.count()), ahead=60)
                folder, seconds = options.out / "adapters" / task, options.minutes * 60 * share
                score = adapters.train_adapter(task, base, folder, device, seconds, steps, batches)
                batches.close()
                report(f"adapter {task}: {score}")


if __name__ == "__main__":
    main()
