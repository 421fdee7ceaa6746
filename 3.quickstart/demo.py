"""3.quickstart: install it, run it, break it, fix it

The question: what does a working vLLM look like, and what does a broken one say?

Background. One Python object, `vllm.LLM`, holds a whole engine: it reads a model's folder, claims memory for the
weights and for the KV cache, and answers lists of prompts. `vllm serve` puts the same engine behind an HTTP server.
Between the command and the first token lie seconds that a service feels at every restart: importing, loading the
weights, measuring memory, compiling, capturing CUDA graphs. And most failures on the first day are seven, each with
a message that names its cause once you know where to look. This demo runs all of that for real.

The default model is course-lm, which is small, was trained by this course and answers questions on it. To copy:

  make demo CH=3 ARGS='--only first'          the first answers
  make demo CH=3                              all experiments
  make demo CH=3 ARGS='--present'             step by step, for a room
"""

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pandas as pd

from common import doctor as machine_doctor
from common import models, serving, timing
from common import startup as startup_of_server
from common.chapter import Chapter
from common.problems import Problem, explain, first_line

chapter = Chapter(__file__)


@chapter.experiment
def doctor(run):
    """What can this machine run, and what not?"""
    checks = machine_doctor.examine()
    failing = [check.check for check in checks if check.verdict == "fail"]
    run.reading(
        f"{len(checks)} checks, {sum(c.verdict == 'warn' for c in checks)} warnings, "
        + (f"these fail: {', '.join(failing)}." if failing else "none fails: this machine runs the course.")
    )
    return pd.DataFrame([{"check": c.check, "found": c.found, "verdict": c.verdict, "fix": c.fix} for c in checks])


# ----------------------------------------------------------------------------------------------------- first


@chapter.experiment(compact=True)
def first(run):
    """How does one ask vLLM, and what does each sampling parameter change?"""
    from vllm import SamplingParams

    llm = run.engine()
    rows = []

    def ask(step: str, request: str, work: Callable[[], list], show: bool = True) -> None:
        start = time.perf_counter()
        outputs = work()
        seconds = time.perf_counter() - start
        completions = [completion for output in outputs for completion in output.outputs]
        answer = " | ".join(completion.text.strip() for completion in completions)
        tokens = run.count(sum(len(completion.token_ids) for completion in completions))
        if show:
            run.show(f"{step}: {request}", answer)
        rows.append(
            {
                "step": step,
                "request": request,
                "answer": first_line(answer, 90),
                "output_tokens": tokens,
                "seconds": seconds,
            }
        )

    def chat(*questions: str, **sampling: object) -> Callable[[], list]:
        conversations = [[{"role": "user", "content": question}] for question in questions]
        parameters = SamplingParams(**({"temperature": 0.0, "max_tokens": 60} | sampling))
        return lambda: llm.chat(conversations, parameters, use_tqdm=False)

    question = "What is the KV cache?"
    greedy = SamplingParams(temperature=0.0, max_tokens=40)
    ask("one prompt", "Once upon a time", lambda: llm.generate(["Once upon a time"], greedy, use_tqdm=False))
    ask("a chat", question, chat(question))
    ask(
        "three at once",
        "TTFT? 123 + 456? 什么是 KV 缓存？",
        chat("What is TTFT?", "What is 123 + 456?", "什么是 KV 缓存？"),
    )
    conversation = [
        {"role": "user", "content": "What is 20 + 30?"},
        {"role": "assistant", "content": "50"},
        {"role": "user", "content": "And what is 100 + 250?"},
    ]
    ask("several turns", "20 + 30? 50. And 100 + 250?", lambda: llm.chat([conversation], greedy, use_tqdm=False))
    ask("streaming", question, lambda: [streamed(run, llm, question)], show=False)
    story = "Write a short story about a fox."
    for name, sampling in (
        ("temperature=0", {}),
        ("temperature=1, seed=1", {"temperature": 1.0, "seed": 1}),
        ("temperature=1, seed=2", {"temperature": 1.0, "seed": 2}),
        ("temperature=1, seed=1 again", {"temperature": 1.0, "seed": 1}),
        ("top_k=3", {"temperature": 1.0, "top_k": 3, "seed": 1}),
        ("top_p=0.5", {"temperature": 1.0, "top_p": 0.5, "seed": 1}),
        ("max_tokens=8", {"max_tokens": 8}),
        ("stop='.'", {"stop": ["."]}),
        ("n=3", {"n": 3, "temperature": 1.0, "seed": 1, "max_tokens": 16}),
        ("repetition_penalty=1.5", {"repetition_penalty": 1.5}),
    ):
        ask(name, story, chat(story, **({"max_tokens": 32} | sampling)))
    answers = {row["step"]: row["answer"] for row in rows}
    repeatable = answers["temperature=1, seed=1"] == answers["temperature=1, seed=1 again"]
    run.reading(
        "Temperature 0 always takes the likeliest token; with a temperature the seed decides, and the same seed gave "
        + ("the same story again." if repeatable else "a different story: something else differed between the calls.")
    )
    return pd.DataFrame(rows)


def streamed(run, llm, question: str):
    """One answer as it grows, by stepping the engine by hand; returns the finished RequestOutput."""
    from vllm import SamplingParams

    prompt = llm.get_tokenizer().apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    llm.llm_engine.add_request("streamed", prompt, SamplingParams(temperature=0.0, max_tokens=60))
    finished = []

    def pieces():
        shown = 0
        while llm.llm_engine.has_unfinished_requests():
            for output in llm.llm_engine.step():
                text = output.outputs[0].text
                yield text[shown:]
                shown = len(text)
                finished[:] = [output]

    run.stream(f"streaming: {question}", pieces())
    return finished[0]


# --------------------------------------------------------------------------------------------------- startup


@chapter.experiment(compare="total_s")
def startup(run):
    """Where do the seconds between the command and the first token go?"""
    if not run.options.model:
        run.model, why = models.speed_model(run.machine)
        run.show("model", f"{run.model.name} ({why})")
    run.step("importing vLLM in a fresh Python")
    imports = timing.repeat(startup_of_server.import_seconds, run.repeats).median
    # Compiling is vLLM's default. The course's default on a CPU is eager, so there it is asked for.
    starts = {"cold": {"enforce_eager": False}, "warm": {"enforce_eager": False}, "eager": {"enforce_eager": True}}
    repeats = {"cold": 1, "warm": run.repeats, "eager": run.repeats} if run.machine.gpus else dict.fromkeys(starts, 1)
    rows = []
    with tempfile.TemporaryDirectory(prefix="compile-cache-") as cache:
        for name in run.size(full=starts, smoke=starts if run.machine.gpus else ["eager"]):
            times = []
            for number in range(repeats[name]):
                run.step(f"starting vllm serve, {name}, {number + 1} of {repeats[name]}")
                log = run.logs / f"start-{name}-{number}.log"
                times.append(
                    startup_of_server.first_token_seconds(run.model, run.machine, log, Path(cache), **starts[name])
                )
                run.count(1)
            totals = timing.Repeats(tuple(each["total_s"] for each in times))
            median = sorted(times, key=lambda each: each["total_s"])[len(times) // 2]
            named = [median[part] or 0.0 for part in ("load_s", "profile_s", "compile_s", "graphs_s")]
            median |= {"import_s": imports, "other_s": median["total_s"] - imports - sum(named)}
            spread = totals.spread_pct if len(times) > 1 else None
            rows.append({"configuration": f"server_{name}", **median, "spread_pct": spread})
    run.setting(starts=", ".join(f"{count} {name}" for name, count in repeats.items()), shown="the median start")
    parts = ["import_s", "load_s", "profile_s", "compile_s", "graphs_s", "other_s"]
    table = pd.DataFrame(rows)[["configuration", *parts, "total_s", "spread_pct"]]
    slowest = table.loc[table.total_s.idxmax()]
    largest = slowest[parts].astype(float).idxmax().removesuffix("_s")
    run.reading(f"{slowest.configuration} takes longest, {slowest.total_s:.0f} s; its largest part is {largest}.")
    return table


# -------------------------------------------------------------------------------------------------- failures

TOY = "from vllm import LLM; LLM({arguments})"  # what a learner would type


def provoke(run, name: str, memory_limit: int = 0, **options: object) -> str:
    """Start an engine in a Python of its own with options that must fail; returns the error that it printed."""
    arguments = models.engine_options(run.model, run.machine, gpu_memory_utilization=0.3, enforce_eager=True) | options
    if not run.machine.gpus:
        arguments.pop("gpu_memory_utilization")
    written = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    log = run.logs / f"{name}.log"

    def limit() -> None:
        if memory_limit:
            resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, memory_limit))

    with log.open("wb") as output:
        ended = subprocess.run(
            [sys.executable, "-c", TOY.format(arguments=written)],
            check=False,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=limit,
            timeout=300,
            env=os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
        )
    if ended.returncode == 0:
        raise Problem(f"{name} did not fail.", "The failure that it shows is gone from this version: mend the demo.")
    return serving.first_error(log)


def answers(run, **options: object) -> bool:
    """Whether an engine with these options answers a question: the proof that a fix works."""
    from vllm import SamplingParams

    llm = run.engine(**options)
    output = llm.generate(
        [{"prompt_token_ids": [1, 2, 3]}], SamplingParams(max_tokens=4, ignore_eos=True), use_tqdm=False
    )
    return run.count(len(output[0].outputs[0].token_ids)) == 4


@chapter.experiment
def failures(run):
    """What do the usual failures say, what do they mean, and does the fix work?"""
    rows = []
    models.close_engine()

    def show(failure: str, error: str, fixed: bool) -> None:
        meaning, fix = explain(error)
        run.show(failure, f"{first_line(error, 200)}\nmeaning: {meaning}\nfix: {fix}")
        rows.append(
            {"failure": failure, "error": first_line(error, 100), "meaning": meaning, "fix": fix, "fixed_works": fixed}
        )

    # Nothing here is about speed: without compiling, each start is over sooner.
    small = {"enforce_eager": True} | ({"gpu_memory_utilization": 0.3} if run.machine.gpus else {})
    run.step("a model that is larger than the memory")
    large = models.resolve("shape:qwen2.5-72b")
    error = provoke(
        run,
        "model_too_large",
        memory_limit=0 if run.machine.gpus else 8 * 2**30,
        model=large.path,
        load_format="dummy",
        gpu_memory_utilization=0.9,
    )
    show("model_too_large", error, answers(run, **small))

    run.step("a context that is longer than the KV cache")
    tight = {"kv_cache_memory_bytes": 4 * 2**20, **small}
    error = provoke(run, "context_too_long", **tight)
    show("context_too_long_for_kv_cache", error, answers(run, **tight, max_model_len=256))

    models.close_engine()
    show("wrong_tokenizer", wrong_tokenizer(run, small), right_tokenizer(run, small))

    run.step("a model that does not exist")
    show("missing_model", provoke(run, "missing_model", model="course-lmm"), answers(run, **small))

    run.step("an attention backend that does not run here")
    # FLASHMLA is for models with latent attention. A CPU has one backend and takes it whatever is asked for, so
    # only a name that does not exist is refused there.
    backend = "FLASHMLA" if run.machine.gpus else "FLASH_ATTENTION"
    error = provoke(run, "attention_backend", attention_config={"backend": backend})
    show("unsupported_attention_backend", error, answers(run, **small))

    models.close_engine()
    for failure, error, fixed in server_failures(run, small):
        show(failure, error, fixed)
    working = sum(row["fixed_works"] for row in rows)
    run.reading(
        f"{len(rows)} failures provoked; after its fix each was run again, and {working} of {len(rows)} then worked."
    )
    return pd.DataFrame(rows)


def ask_with(run, question: str, **options: object) -> str:
    """One greedy answer of an engine with these options."""
    from vllm import SamplingParams

    llm = run.engine(**options)
    output = llm.chat(
        [{"role": "user", "content": question}], SamplingParams(temperature=0.0, max_tokens=32), use_tqdm=False
    )
    run.count(len(output[0].outputs[0].token_ids))
    return output[0].outputs[0].text.strip()


def foreign_tokenizer(folder: Path, source: Path) -> None:
    """Write a tokenizer of the same size as the model's, in which the ordinary tokens have other numbers."""
    for file in (*source.glob("tokenizer*"), *source.glob("*.jinja"), source / "config.json"):
        shutil.copy(file, folder)
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    special = {token["content"] for token in tokenizer["added_tokens"]}
    vocab = {token: number for token, number in tokenizer["model"]["vocab"].items() if token not in special}
    tokens, numbers = list(vocab), list(vocab.values())
    moved = dict(zip(tokens, numbers[1000:] + numbers[:1000], strict=True))
    tokenizer["model"]["vocab"].update(moved)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def wrong_tokenizer(run, small: dict) -> str:
    """The failure without an error: the text that comes back when the tokenizer belongs to another model."""
    run.step("the tokenizer of another model")
    with tempfile.TemporaryDirectory() as folder:
        foreign_tokenizer(Path(folder), Path(run.model.path))
        text = ask_with(run, "What is the KV cache?", tokenizer=folder, **small)
        models.close_engine()
    return f"no error, the wrong tokenizer makes nonsense: {text}"


def right_tokenizer(run, small: dict) -> bool:
    """Whether the model's own tokenizer gives an answer that speaks of what was asked."""
    text = ask_with(run, "What is the KV cache?", **small)
    run.show("with its own tokenizer", text)
    return "keys and values" in text if run.model.name == "course-lm" else bool(text)


def server_failures(run, small: dict) -> list[tuple[str, str, bool]]:
    """(failure, error, whether the fix works) for a port in use and for a request over the limit."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        run.step(f"a server on port {port}, which somebody has")
        log = run.logs / "port.log"
        command = serving.vllm_command(run.model, run.machine, port, **small)
        with log.open("wb") as output:
            subprocess.run(command, check=False, stdout=output, stderr=subprocess.STDOUT, timeout=300)
        taken = serving.first_error(log)
    with run.serve(**small) as server, httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        healthy = client.get("/health").status_code == 200
        body = {"model": run.model.name, "prompt": "What is the KV cache?", "max_tokens": 100_000}
        refused = client.post("/v1/completions", json=body)
        accepted = client.post("/v1/completions", json=body | {"max_tokens": 8})
        run.count(accepted.json()["usage"]["completion_tokens"])
    message = f"{refused.status_code}: {refused.json()['error']['message']}"
    return [("port_in_use", taken, healthy), ("request_over_limit", message, accepted.status_code == 200)]


chapter.figure(
    name="startup", experiment="startup", x="configuration", kind="bar",
    y=("import_s", "load_s", "profile_s", "compile_s", "graphs_s", "other_s"),
    title="From the command to the first token, by part",
)  # fmt: skip

if __name__ == "__main__":
    chapter.main()
