"""A job that is killed and started again until it is done, and what memory a job takes."""

import ctypes
import gc
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import batch_runner
from batch_job import BatchJob

from common import hardware, models, serving
from common.problems import Problem, first_line


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
    """Start the runner; SIGKILL it as soon as `kill_at` lines are answered, and then whatever it had started."""
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


def with_runner(llm, prompts: Path) -> None:
    """Answer a file with batch_runner.py's loop."""
    from vllm import SamplingParams

    with BatchJob(prompts, prompts.with_suffix(".answers.jsonl"), {}) as job:
        batch_runner.run(llm, job, SamplingParams(temperature=0.0, max_tokens=1))


def all_at_once(llm, prompts: Path) -> None:
    """What one writes first: read all, give all to `generate`, keep all."""
    from vllm import SamplingParams

    asked = [json.loads(line) for line in prompts.read_text().splitlines()]
    llm.generate(asked, SamplingParams(temperature=0.0, max_tokens=1), use_tqdm=False)


WAYS = {"runner": with_runner, "all_at_once": all_at_once}
# The smallest model there is, on an engine whose KV cache is small and full before the measurement: what is measured is
# the program around it. The share of a GPU is what has to be free; the cache is given.
SMALL = {"max_num_seqs": 64, "block_size": 32, "kv_cache_memory_bytes": 2**23, "gpu_memory_utilization": 0.05}


@dataclass
class MemoryCase:
    """One way on one file, measured in a process of its own: no other case has left it memory to use again."""

    name: str
    count: int
    process: multiprocessing.Process
    report: Connection

    def row(self) -> dict:
        """What it found, when it is done. Raises Problem if it failed."""
        try:
            found = self.report.recv()
        except EOFError:
            found = None
        self.process.join()
        if not isinstance(found, dict):
            raise Problem(f"{self.name} was not measured: {found or 'its process is gone'}.", "Read the log.")
        return {"case": self.name, "ended": "finished", "requests": self.count, "done": self.count} | found


def memory_cases(run, cases: list[MemoryCase]) -> None:
    """The runner on a short and a long file, and all prompts given to `generate` at once: four processes, into `cases`.

    They are forks of this one, which has imported vLLM and started no engine yet: a program begun anew would import it
    for seconds. As many run side by side as there are cores; this returns when all are done.
    """
    import vllm.entrypoints.llm  # noqa: F401

    gc.freeze()  # what is imported stays; a start of vLLM would look through all of it several times
    context, cores = multiprocessing.get_context("fork"), run.machine.cores
    counts = {"runner": run.size((1000, 100_000), (100, 1000)), "all_at_once": run.size((1000, 10_000), (100, 1000))}
    for way, sizes in counts.items():
        for number, count in enumerate(sizes, 1):
            if len(cases) >= cores:
                cases[-cores].process.join()
            name, (receiver, sender) = f"{way}_{number}", context.Pipe(duplex=False)
            arguments = sender, way, run.logs / f"{name}.jsonl", count
            process = context.Process(target=measure_case, args=arguments, daemon=True)
            process.start()
            sender.close()  # the process has the other copy: if it dies, `recv` ends
            cases.append(MemoryCase(name, count, process, receiver))
            run.count(count)
    for case in cases:
        case.process.join()


def measure_case(sender: Connection, way: str, prompts: Path, count: int) -> None:
    """Send the seconds and the peak of one way on `count` prompts, or a sentence that says why there are none."""
    ctypes.CDLL(None).prctl(serving.PR_SET_PDEATHSIG, signal.SIGKILL)  # never outlive the demo
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    try:
        draft = models.Model("course-lm's draft", str(models.DRAFT), "trained")
        llm = models.engine(draft, hardware.machine(), enforce_eager=True, **SMALL)
        warm_up = prompts.with_suffix(".warm-up.jsonl")
        write_short(warm_up, 2 * SMALL["max_num_seqs"])  # as many as the runner holds at once
        with_runner(llm, warm_up)
        write_short(prompts, count)
        gc.collect()
        began = time.monotonic()
        peak = peak_mb(lambda: WAYS[way](llm, prompts))
        sender.send({"seconds": time.monotonic() - began, "peak_mb": peak})
    except BaseException as error:
        sender.send(f"{type(error).__name__}: {first_line(error)}")
        raise
