"""A job that is killed and started again until it is done, and what memory a job takes."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import batch_runner
from batch_job import BatchJob

from common import models, serving
from common.problems import Problem


@dataclass(frozen=True)
class Attempt:
    """One start of the runner: how it ended, how long it took, and how many lines were done before and after."""

    ended: str
    seconds: float
    found_done: int
    done: int


def lines_of(file: Path) -> int:
    """Whole lines in a file; 0 if there is none."""
    try:
        with file.open("rb") as reader:
            return sum(raw.endswith(b"\n") for raw in reader)
    except FileNotFoundError:
        return 0


def attempt(prompts: Path, answers: Path, log: Path, options: Sequence[str], kill_at: int) -> Attempt:
    """Start the runner; SIGKILL it, and it alone, as soon as `kill_at` lines are answered."""
    before, start = lines_of(answers), time.monotonic()
    with log.open("ab") as output:
        runner = subprocess.Popen(
            [sys.executable, batch_runner.__file__, str(prompts), str(answers), *options],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        try:
            while runner.poll() is None:
                if lines_of(answers) >= kill_at:
                    runner.kill()
                    runner.wait()
                else:
                    time.sleep(0.005)
        finally:
            serving.stop(runner)
    killed = runner.returncode == -signal.SIGKILL
    if not killed and runner.returncode not in (0, 3):
        raise Problem(f"The runner ended with status {runner.returncode}: {serving.first_error(log)}", f"Read {log}.")
    return Attempt("killed" if killed else "finished", time.monotonic() - start, before, lines_of(answers))


def finish(prompts: Path, answers: Path, options: Sequence[str]) -> Attempt:
    """The runner's command line to the end, in this process: nobody kills it."""
    before, start = lines_of(answers), time.monotonic()
    status = batch_runner.main([str(prompts), str(answers), *options])
    if status == 130:
        raise KeyboardInterrupt
    if status not in (0, 3):
        raise Problem(f"The runner ended with status {status}.", "Its message is in the log.")
    return Attempt("finished", time.monotonic() - start, before, lines_of(answers))


def kill_points(total: int, kills: int, seed: int = 0) -> list[int]:
    """How many lines are to be there at each kill: random places, each in its own part of the job."""
    draw = random.Random(seed)
    return [round(total * (number + draw.uniform(0.2, 0.8)) / (kills + 1)) for number in range(kills)]


def account(prompts: Path, answers: Path) -> dict[str, int]:
    """How often the lines of the input occur in the output and the error file: once, not at all, more than once."""
    seen = Counter()
    for file in (answers, answers.with_suffix(".errors.jsonl")):
        with file.open() as lines:
            seen.update(json.loads(line)["line"] for line in lines)
    total = lines_of(prompts)
    return {
        "once": sum(seen[line] == 1 for line in range(1, total + 1)),
        "lost": sum(seen[line] == 0 for line in range(1, total + 1)),
        "twice": sum(times > 1 for times in seen.values()),
    }


# ------------------------------------------------------------------------------------------------------------ memory


def peak_mb(work: Callable[[], object]) -> float:
    """Largest main memory of this process while `work` runs, less what it had before, in MB (10^6 bytes)."""
    Path("/proc/self/clear_refs").write_text("5")  # the system's own peak begins anew
    before = resident_kb("VmRSS")
    work()
    return (resident_kb("VmHWM") - before) * 1024 / 1e6


def resident_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def write_short(file: Path, count: int) -> None:
    """A file of `count` short prompts, as token ids: a number for the program to read, and little for the model."""
    with file.open("w") as output:
        for number in range(count):
            output.write(f'{{"prompt_token_ids": [{number % 10_000}]}}\n')


def with_runner(llm, prompts: Path, answers: Path, on_progress: Callable) -> None:
    """Answer a file with batch_runner.py's loop."""
    from vllm import SamplingParams

    with BatchJob(prompts, answers, {}) as job:
        batch_runner.run(llm, job, SamplingParams(temperature=0.0, max_tokens=1), on_progress=on_progress)


def all_at_once(llm, prompts: Path) -> None:
    """What one writes first: read all, give all to `generate`, keep all."""
    from vllm import SamplingParams

    asked = [json.loads(line) for line in prompts.read_text().splitlines()]
    llm.generate(asked, SamplingParams(temperature=0.0, max_tokens=1), use_tqdm=False)


def memory_rows(run) -> list[dict]:
    """The peak of the runner's memory for a short and a long file, and of giving all prompts to `generate` at once.

    In this process, on one engine whose KV cache is small and full before the first measurement. The model is the
    smallest there is, course-lm's draft: what is measured is the program around it.
    """
    from offline_engines import in_process_engine

    counts = {"runner": run.size((1000, 100_000), (100, 1000)), "all_at_once": run.size((1000, 10_000), (100, 1000))}
    draft = models.Model("course-lm's draft", str(models.DRAFT), "trained")
    small = {"max_num_seqs": 256, "block_size": 32, "kv_cache_memory_bytes": 2**23}
    llm = in_process_engine(run, model=draft, enforce_eager=True, **small)
    prompts, answers = run.logs / "short.jsonl", run.logs / "short.answers.jsonl"
    rows = []
    for name, sizes in {"warm-up": (run.size(2000, 200),), **counts}.items():
        for number, count in enumerate(sizes, 1):
            run.step(f"memory: {name}, {count:,} prompts")
            write_short(prompts, count)
            for file in (answers, answers.with_suffix(".errors.jsonl"), answers.with_suffix(".job.json")):
                file.unlink(missing_ok=True)
            began = time.monotonic()
            if name == "all_at_once":
                peak = peak_mb(lambda: all_at_once(llm, prompts))
            else:
                peak = peak_mb(lambda: with_runner(llm, prompts, answers, lambda progress: run.step(str(progress))))
            rows.append({"case": f"{name}_{number}", "ended": "finished", "requests": count, "peak_mb": peak})
            rows[-1] |= {"seconds": time.monotonic() - began, "done": count}
            run.count(count)
    return rows[1:]
