"""What the tests of chapter 5's batch job and runner share: files of prompts, and an engine that answers them."""

import json
import random
from pathlib import Path

from common.chapters import ROOT, load

FOLDER = ROOT / "5.offline_infer"
BATCH_JOB, RUNNER = load(FOLDER / "batch_job.py"), load(FOLDER / "batch_runner.py")


def write(path: Path, *lines: object) -> Path:
    """A file of lines; what is no bytes is written as JSON."""
    path.write_bytes(b"".join((x if isinstance(x, bytes) else json.dumps(x).encode()) + b"\n" for x in lines))
    return path


def prompts(path: Path, count: int) -> Path:
    return write(path, *({"prompt": f"number {n}", "id": n} for n in range(1, count + 1)))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def answer_all(job, window: int = 8, seed: int = 0, stop_after: int | None = None) -> None:
    """An engine that finishes the requests in its window in random order."""
    draw, waiting, given, source = random.Random(seed), [], 0, job.pending()
    exhausted = False
    while True:
        while not exhausted and len(waiting) < window:
            try:
                prompt = next(source)
            except StopIteration:
                exhausted = True
                break
            if prompt is None:
                break
            waiting.append(prompt)
        if not waiting:
            return
        if given == stop_after:
            return
        prompt = waiting.pop(draw.randrange(len(waiting)))
        job.answer(prompt.line, {"id": prompt.id, "answer": f"answer to {prompt.text}"})
        given += 1
