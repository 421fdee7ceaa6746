"""The same job by the runner, on Ray Data with two workers, and by `vllm run-batch`."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import offline_prompts
import pandas as pd
from batch_job import BatchJob
from batch_runner import run as answer_job
from ray_batch import warm_up

from common import models, serving
from common.problems import Problem

HERE = Path(__file__).parent
MAX_TOKENS = 48


def child(command: Sequence[str], log: Path, limit_s: float = 300, **environment: str) -> tuple[str, float]:
    """(standard output, seconds) of a program. Raises Problem if it fails or takes too long."""
    start = time.monotonic()
    output = log.with_suffix(".out")
    name = Path(next(word for word in command[1:] if not word.startswith("-"))).name  # python FILE, or python -m MODULE
    with output.open("w") as written, log.open("w") as errors:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=written, stderr=errors, start_new_session=True,
            env=os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"} | environment,
        )  # fmt: skip
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise Problem(f"{name} was not finished after {limit_s:.0f} s.", f"Read {log}.") from None
        finally:
            serving.stop(process)
    if process.returncode:
        raise Problem(f"{name} failed: {serving.first_error(log)}", f"Read {log}.")
    return output.read_text(), time.monotonic() - start


def of_runner(run, llm, prompts: Path) -> dict[str, object]:
    """The loop of batch_runner.py on an engine that runs already."""
    from vllm import SamplingParams

    answers = run.logs / "scale.answers.jsonl"
    sampling = SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS)
    warm_up(llm, sampling)
    llm.reset_prefix_cache()
    with BatchJob(prompts, answers, {}, in_order=True) as job:
        progress = answer_job(llm, job, sampling)
    run.count(progress.output_tokens)
    return {
        "workers": 1,
        "answer_s": progress.seconds,
        "output_tok_s": progress.output_tokens / progress.seconds,
        "answers": [json.loads(line)["answer"] for line in answers.read_text().splitlines()],
    }


def of_ray(run, prompts: Path, workers: int) -> dict[str, object]:
    """ray_batch.py with so many workers."""
    answers = run.logs / "ray.answers.jsonl"
    block = max(4, len(prompts.read_text().splitlines()) // (4 * workers))
    printed, seconds = child(
        [
            *(sys.executable, str(HERE / "ray_batch.py"), str(prompts), str(answers), "--model", run.model.name),
            *("--workers", str(workers), "--max-tokens", str(MAX_TOKENS), "--block", str(block)),
        ],
        run.logs / "ray.log",
    )
    found = json.loads(printed.strip().splitlines()[-1])
    run.count(found["output_tokens"])
    return {
        "workers": found["workers"],
        "seconds": seconds,
        "ready_s": found["start_s"],
        "answer_s": found["answer_s"],
        "output_tok_s": found["output_tokens"] / found["answer_s"],
        "answers": [json.loads(line)["answer"] for line in answers.read_text().splitlines()],
    }


def of_run_batch(run, asked: Sequence[list[dict]]) -> dict[str, object]:
    """`vllm run-batch`: OpenAI's batch files, one engine."""
    prompts, answers = run.logs / "openai.jsonl", run.logs / "openai.answers.jsonl"
    offline_prompts.write_openai(prompts, asked, run.model.name, MAX_TOKENS)
    engine = models.engine_options(run.model, run.machine, enforce_eager=True)
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "run-batch", "-i", str(prompts), "-o", str(answers)]
    command += [*serving.flags(engine), "--served-model-name", run.model.name]
    _, seconds = child(command, run.logs / "run-batch.log")
    lines = {line["custom_id"]: line for line in map(json.loads, answers.read_text().splitlines())}
    ordered = [lines[f"q{number}"]["response"]["body"]["choices"][0] for number in range(len(asked))]
    return {"workers": 1, "seconds": seconds, "answers": [choice["message"]["content"] for choice in ordered]}


def compare(run, llm, count: int) -> pd.DataFrame:
    """A row for each way; the answers are compared with those of the runner."""
    asked = offline_prompts.questions(count)
    prompts = run.logs / "scale.jsonl"
    offline_prompts.write_questions(prompts, asked)
    run.setting(requests=count, max_tokens=MAX_TOKENS)
    more = len(run.machine.gpus) > 1
    because = "each has a GPU of its own" if more else "they share what the one engine has for itself"
    run.predict("tokens/s on Ray Data over one engine", 2.0 if more else 1.0, "x", because=because)
    run.step(f"{count} prompts: batch_runner")
    found = {"batch_runner": of_runner(run, llm, prompts)}
    models.close_engine()  # its memory and its cores are the workers'
    run.step(f"{count} prompts: Ray Data, two workers")
    found["ray_data"] = of_ray(run, prompts, workers=2)
    if not run.smoke:  # it starts three processes, which takes half a minute
        run.step(f"{count} prompts: vllm run-batch")
        found["run_batch"] = of_run_batch(run, asked)
    right = found["batch_runner"]["answers"]
    rows = []
    for name, cell in found.items():
        same = sum(a == b for a, b in zip(right, cell.pop("answers"), strict=True)) / count * 100
        columns = ("workers", "seconds", "ready_s", "answer_s", "output_tok_s")
        rows.append({"way": name} | {c: cell.get(c) for c in columns} | {"same_pct_runner": same})
    table = pd.DataFrame(rows)
    one, ray = (table.set_index("way").loc[name] for name in ("batch_runner", "ray_data"))
    run.measured("tokens/s on Ray Data over one engine", ray.output_tok_s / one.output_tok_s)
    run.reading(
        f"Ray Data answers after {ray.ready_s:.0f} s of starting, and makes {ray.output_tok_s / one.output_tok_s:.2f} "
        f"times the tokens per second of one engine. Each way gives the runner's answer to "
        f"at least {table.same_pct_runner.min():.1f} % of the prompts."
    )
    return table
