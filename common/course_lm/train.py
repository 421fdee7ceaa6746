"""Train course-lm from nothing: tokenizer, model, draft model and the two LoRA adapters.

    python -m common.course_lm.train --out /tmp/course_lm             under ten minutes on one H100
    python -m common.course_lm.train --out /tmp/tiny --smoke          a few steps on a CPU, same code path

The text comes from corpus.py while the model trains: worker processes write and tokenize it, so nothing is
read twice. `--minutes` is the model's own time; the draft takes an eighth of it and the adapters a twentieth
and an eighth.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Semaphore

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from common.course_lm import corpus
from common.course_lm.adapters import train_adapter
from common.course_lm.checkpoint import load_model, save_model
from common.course_lm.network import DRAFT, MODEL, CausalLM, document_mask
from common.course_lm.optimizer import optimizers, schedule
from common.course_lm.tokenizer import load_tokenizer, train_tokenizer

TOKENIZER_DOCUMENTS = 60_000
_worker: dict = {}


def start_worker(folder: str, seed: int, rows: int) -> None:
    """Give a worker process its tokenizer and the held-out n-grams."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = load_tokenizer(folder)
    forbidden = corpus.free_ngrams(corpus.all_held_out(), tokenizer)
    _worker.update(tokenizer=tokenizer, forbidden=forbidden, seed=seed, rows=rows)


def make_chunk(index: int) -> corpus.Chunk:
    """Write, tokenize and pack one chunk in a worker."""
    stream = corpus.documents(_worker["seed"], index)
    return corpus.pack(stream, _worker["tokenizer"], _worker["rows"], _worker["forbidden"])


def make_texts(index: int) -> list[str]:
    """A thousand documents as text, for the tokenizer."""
    stream = corpus.documents(corpus.SEED, index)
    return [corpus.text_of(next(stream)) for _ in range(1000)]


class ChunkStream:
    """Chunks in order, from worker processes that run at most `ahead` chunks before the trainer."""

    def __init__(self, folder: Path, seed: int, rows: int, processes: int, first: int = 0, ahead: int = 1000):
        self.room = Semaphore(ahead)
        self.first, self.skipped, self.taken, self.closed = first, 0, 0, False
        context = multiprocessing.get_context("spawn")
        self.pool = context.Pool(processes, start_worker, (str(folder), seed, rows))
        self.results = self.pool.imap(make_chunk, self.indices())

    def indices(self) -> Iterator[int]:
        """Chunk numbers, held back while the trainer is far behind."""
        index = self.first
        while True:
            self.room.acquire()
            if self.closed:
                return
            yield index
            index += 1

    def __next__(self) -> corpus.Chunk:
        chunk = next(self.results)
        self.room.release()
        self.skipped += chunk.skipped
        self.taken += 1
        return chunk

    def close(self) -> None:
        """Stop the workers. The pool's own thread may wait for room: let it go first, or it never ends."""
        self.closed = True
        self.room.release()
        self.pool.terminate()


class Batch:
    """A chunk on the training device, and its attention mask."""

    def __init__(self, chunk: corpus.Chunk, device: str):
        def move(array: np.ndarray, dtype: torch.dtype) -> Tensor:
            tensor = torch.from_numpy(array)
            if device == "cuda":
                tensor = tensor.pin_memory()
            return tensor.to(device, non_blocking=True).to(dtype)

        self.tokens = move(chunk.tokens, torch.long)
        self.positions = move(chunk.positions, torch.long)
        self.documents = move(chunk.documents, torch.int32)
        weights = move(chunk.weights, torch.float32)
        self.targets = F.pad(self.tokens[:, 1:], (0, 1))
        self.weights = F.pad(weights[:, 1:], (0, 1))
        rows, length = self.tokens.shape
        self.mask = (
            blocks(self.documents, rows, length) if device == "cuda" else document_mask(self.documents)
        )


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
    targets: Tensor,
    weights: Tensor,
) -> Tensor:
    """Mean cross-entropy of the next token, weighted."""
    logits = model(tokens, positions, mask)
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    weights = weights.flatten()
    return (losses * weights).sum() / weights.sum()


def distillation_loss(
    student: nn.Module,
    teacher: nn.Module,
    tokens: Tensor,
    positions: Tensor,
    mask: BlockMask | Tensor,
    weights: Tensor,
) -> Tensor:
    """Cross-entropy of the student's next token to the teacher's distribution, weighted."""
    with torch.no_grad():
        target = teacher(tokens, positions, mask).flatten(0, 1).float().softmax(-1)
    logits = student(tokens, positions, mask).flatten(0, 1).float()
    losses = -(target * logits.log_softmax(-1)).sum(-1)
    weights = weights.flatten()
    return (losses * weights).sum() / weights.sum()


def fit(
    model: nn.Module,
    loss_of: object,
    stream: ChunkStream,
    device: str,
    minutes: float,
    steps: int | None,
    matrix_lr: float,
    other_lr: float,
) -> dict:
    """Train for some minutes of wall time (or some steps) and return what it came to."""
    made = optimizers(model, matrix_lr, other_lr)
    limit, start, step, tokens, tokens_at_start, waited = minutes * 60, None, 0, 0, 0, 0.0
    while True:
        begin = time.perf_counter()
        chunk = next(stream)
        waited += time.perf_counter() - begin if start else 0
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = loss_of(Batch(chunk, device))
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
            }


def train_model(stream: ChunkStream, device: str, minutes: float, steps: int | None, seed: int) -> CausalLM:
    """The main model."""
    model = CausalLM(MODEL, seed).to(device)
    compiled = torch.compile(model, disable=device != "cuda")
    print(
        "model",
        fit(
            model,
            lambda batch: weighted_loss(
                compiled, batch.tokens, batch.positions, batch.mask, batch.targets, batch.weights
            ),
            stream,
            device,
            minutes,
            steps,
            0.02,
            0.003,
        ),
    )
    return model


def train_draft(
    model: CausalLM, stream: ChunkStream, device: str, minutes: float, steps: int | None, seed: int
) -> CausalLM:
    """The draft, which learns the main model's distributions and starts from the main model's embedding."""
    draft = CausalLM(DRAFT, seed).to(device)
    draft.model.embed_tokens.weight.data.copy_(model.model.embed_tokens.weight.data)
    model.eval().requires_grad_(False)
    teacher, student = (
        torch.compile(model, disable=device != "cuda"),
        torch.compile(draft, disable=device != "cuda"),
    )
    print(
        "draft",
        fit(
            draft,
            lambda batch: distillation_loss(
                student, teacher, batch.tokens, batch.positions, batch.mask, batch.weights
            ),
            stream,
            device,
            minutes,
            steps,
            0.02,
            0.003,
        ),
    )
    return draft


def train_course_tokenizer(folder: Path, documents: int, processes: int) -> None:
    """Train the tokenizer on the first documents of the corpus."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        texts = [text for part in pool.map(make_texts, range(max(1, documents // 1000))) for text in part]
    train_tokenizer(texts).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for model/, draft/ and adapters/")
    parser.add_argument("--minutes", type=float, default=5.5, help="training time of the main model")
    parser.add_argument("--seed", type=int, default=corpus.SEED)
    parser.add_argument("--stage", choices=["all", "model", "draft", "adapters"], default="all")
    parser.add_argument(
        "--smoke", action="store_true", help="three steps of each stage on two rows, any machine"
    )
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
        train_course_tokenizer(base, 2_000 if options.smoke else TOKENIZER_DOCUMENTS, processes)
        report("tokenizer")
    tokenizer = load_tokenizer(base)
    if options.stage in ("all", "model", "draft"):
        stream = ChunkStream(base, options.seed, rows, processes)
        if options.stage == "draft":
            model = load_model(base, MODEL).to(device)
        else:
            model = train_model(stream, device, options.minutes, steps, options.seed)
            save_model(model, tokenizer, base, shards=2)
            report(f"model; {stream.skipped} documents left out of {stream.taken} chunks")
        if options.stage in ("all", "draft"):
            draft = train_draft(model, stream, device, options.minutes / 8, steps, options.seed)
            save_model(draft, tokenizer, draft_folder, shards=1)
            report("draft")
        stream.close()
    if options.stage in ("all", "adapters"):
        for name, share in (("chinese", 0.05), ("sql", 0.12)):
            score = train_adapter(
                name, base, options.out / "adapters" / name, device, options.minutes * 60 * share, steps
            )
            report(f"adapter {name}: {score}")


if __name__ == "__main__":
    main()
