"""Chapter 5: the loop that answers a file of prompts, with a fake engine and a real one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from batch_files import BATCH_JOB, FOLDER, RUNNER, answer_all, lines, prompts, write

from common.chapters import load
from common.problems import Problem

# --------------------------------------------------------------------------------------------------------- the loop


class FakeEngine:
    """As much of vLLM's engine as the loop asks for: answers the latest two in each step, and notes what it held."""

    def __init__(self, max_num_seqs: int = 4):
        self.llm_engine = self
        self.renderer = self
        self.engine_core = None  # no process of its own
        self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=max_num_seqs))
        self.running, self.held, self.aborted, self.limits = {}, [], [], []

    def render_cmpl(self, asked):
        if asked[0].get("prompt") == "number 5":
            raise ValueError("this prompt is too long")
        if asked[0].get("prompt") == "number 7":  # as of a text with half an emoji in it
            raise TypeError("TextEncodeInput must be Union[TextInputSequence, Tuple[InputSequence, InputSequence]]")
        return asked

    def add_request(self, name, asked, sampling):
        self.running[name] = asked
        self.limits.append(sampling.max_tokens)

    def step(self):
        self.held.append(len(self.running))
        done = list(self.running)[-2:]  # the latest first: nothing may depend on the order
        for name in done:
            asked = self.running.pop(name)
            if asked.get("prompt") == "number 13":
                raise KeyboardInterrupt
            answer = SimpleNamespace(text=f"<{asked.get('prompt')}>", finish_reason="stop", token_ids=[1, 2, 3])
            yield SimpleNamespace(request_id=name, outputs=[answer], prompt_token_ids=[1])

    def abort_request(self, names, internal):
        self.aborted += names


def sampling():
    from vllm import SamplingParams

    return SamplingParams(max_tokens=9)


def test_the_loop_keeps_the_window_full_and_no_fuller(tmp_path):
    file = write(tmp_path / "p.jsonl", *({"prompt": f"number {n}", "max_tokens": n} for n in range(14, 64)))
    engine, told = FakeEngine(), []
    with BATCH_JOB.BatchJob(file, tmp_path / "a.jsonl", {}) as job:
        progress = RUNNER.run(engine, job, sampling(), on_progress=lambda p: told.append(str(p)), every_s=0)
    assert engine.held == [8] * 22 + [6, 4, 2] and not engine.aborted
    assert (progress.done, progress.failed, progress.output_tokens) == (50, 0, 150)
    assert sorted(engine.limits) == list(range(14, 64)), "a prompt's own max_tokens goes first"
    assert told[-1].startswith("50 of 50 (100.0 %)") and " left" in told[3]
    assert {line["answer"] for line in lines(tmp_path / "a.jsonl")} == {f"<number {n}>" for n in range(14, 64)}


def test_a_prompt_the_engine_refuses_is_an_error_line_and_ctrl_c_loses_nothing(tmp_path):
    file, engine = prompts(tmp_path / "p.jsonl", 30), FakeEngine()
    with pytest.raises(KeyboardInterrupt), BATCH_JOB.BatchJob(file, tmp_path / "a.jsonl", {}) as job:
        RUNNER.run(engine, job, sampling())
    assert engine.running and set(engine.aborted) >= engine.running.keys(), "requests were left in the engine"
    refused = {line["line"]: line["error"] for line in lines(tmp_path / "a.errors.jsonl")}
    assert refused.keys() == {5, 7} and refused[5] == "this prompt is too long" and "TextEncodeInput" in refused[7]
    before = {line["line"] for line in lines(tmp_path / "a.jsonl")}
    with BATCH_JOB.BatchJob(file, tmp_path / "a.jsonl", {}) as job:
        answer_all(job)
    seen = Counter(line["line"] for line in lines(tmp_path / "a.jsonl"))
    assert before and seen == Counter(n for n in range(1, 31) if n not in refused)


def test_prompts_that_went_away_meanwhile_are_not_called_answered(tmp_path, monkeypatch):
    file = prompts(tmp_path / "p.jsonl", 4)
    monkeypatch.setattr(RUNNER.models, "engine", lambda *_, **__: FakeEngine())
    options = SimpleNamespace(engine={}, window=None)
    with BATCH_JOB.BatchJob(file, tmp_path / "a.jsonl", {}) as job:
        prompts(file, 3)
        with pytest.raises(Problem, match="had 4 lines at first"):
            RUNNER.answer_all(job, None, options, {})
    assert len(lines(tmp_path / "a.jsonl")) == 3


def test_memory_does_not_grow_with_the_file(tmp_path):
    killed = load(FOLDER / "killed_jobs.py")

    def peak_mb(count: int) -> float:
        killed.write_short(tmp_path / "p.jsonl", count)

        def work() -> None:
            with BATCH_JOB.BatchJob(tmp_path / "p.jsonl", tmp_path / f"{count}.jsonl", {}) as job:
                assert RUNNER.run(FakeEngine(256), job, sampling()).done == count

        return killed.peak_mb(work)

    peak_mb(1000)  # what is loaded and allocated once
    assert peak_mb(50_000) < peak_mb(1000) + 8


def test_the_command_line_says_what_is_wrong(tmp_path, capsys):
    assert RUNNER.main([str(tmp_path / "none.jsonl"), str(tmp_path / "a.jsonl")]) == 1
    assert "can't be read" in capsys.readouterr().err
    file = prompts(tmp_path / "p.jsonl", 2)
    assert RUNNER.main([str(file), str(tmp_path / "a.jsonl"), "--model", "course-ml"]) == 1
    assert "Did you mean course-lm?" in capsys.readouterr().err
    assert RUNNER.main([str(file), str(tmp_path / "a.jsonl"), "--temperature", "-1"]) == 1
    assert "These sampling options can't be" in capsys.readouterr().err
    assert RUNNER.main([str(file), str(tmp_path / "a.jsonl"), "--window", "0"]) == 1
    assert "lets no request in" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        RUNNER.main([str(file), str(tmp_path / "a.jsonl"), "--engine", "max=3"])
    assert "is not a JSON object" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "said"),
    [("max_modle_len", "Did you mean max_model_len?"), ("zzz", "has no option zzz"), ("model", "Take --model")],
)
def test_an_engine_option_that_can_not_be_leaves_no_file(tmp_path, capsys, option, said):
    file = prompts(tmp_path / "p.jsonl", 2)
    command = [str(file), str(tmp_path / "a.jsonl"), "--engine", json.dumps({"max_model_len": 512, option: 1})]
    assert RUNNER.main(command) == 1
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [file]


def test_engine_options_that_exist_are_let_through():
    RUNNER.check_engine_options({"max_model_len": 512, "max_num_seqs": 8, "kv_cache_memory_bytes": 2**30, "seed": 1})


def test_duration():
    assert [RUNNER.duration(s) for s in (0.4, 59.4, 185, 7800)] == ["0 s", "59 s", "3 min 05 s", "2 h 10 min"]


SWALLOWS_CTRL_C = """
import runpy, sys, time
from contextlib import suppress
from pathlib import Path
from common import models

def engine(*_, **__):
    print("starting", flush=True)
    with suppress(KeyboardInterrupt):  # as vLLM does while it waits for its engine's process
        time.sleep(60)

models.engine = engine
sys.argv = sys.argv[1:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_runner_ends_while_an_engine_starts(tmp_path):
    file = prompts(tmp_path / "p.jsonl", 3)
    command = [sys.executable, "-c", SWALLOWS_CTRL_C, FOLDER / "batch_runner.py", file, tmp_path / "a.jsonl"]
    runner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert runner.stdout.readline() == "starting\n"
    runner.send_signal(signal.SIGINT)
    _, said = runner.communicate(timeout=20)
    assert runner.returncode == 130
    assert "the same command goes on" in said and "Traceback" not in said


@pytest.mark.engine
def test_the_runner_answers_with_a_real_engine(tmp_path):
    question = {"messages": [{"role": "user", "content": "What is TTFT?"}]}
    bad = [{"prompt": "long " * 4000}, {"prompt_token_ids": [10**8]}, b"{"]
    file = write(tmp_path / "p.jsonl", question, *bad, question)
    ended = subprocess.run(
        [sys.executable, FOLDER / "batch_runner.py", file, tmp_path / "a.jsonl", "--max-tokens", "8", "--in-order"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 3, ended.stderr
    answers, errors = lines(tmp_path / "a.jsonl"), lines(tmp_path / "a.errors.jsonl")
    assert [line["line"] for line in answers] == [1, 5] and answers[0]["answer"] == answers[1]["answer"] != ""
    assert all(1 <= line["output_tokens"] <= 8 for line in answers)
    assert [line["line"] for line in errors] == [2, 3, 4]
    assert "2048" in errors[0]["error"] and "vocabulary" in errors[1]["error"] and "not JSON" in errors[2]["error"]


@pytest.mark.long
@pytest.mark.engine
def test_ten_kills_with_a_real_engine(tmp_path):
    killed = load(FOLDER / "killed_jobs.py")
    killed_prompts = load(FOLDER / "offline_prompts.py")
    file, answers, draw = tmp_path / "p.jsonl", tmp_path / "a.jsonl", random.Random(0)
    killed_prompts.write_questions(file, killed_prompts.questions(4000))
    for _ in range(10):
        with (tmp_path / "log").open("ab") as log:
            runner = subprocess.Popen(
                [sys.executable, FOLDER / "batch_runner.py", file, answers, "--max-tokens", "24"],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        time.sleep(draw.uniform(5, 20))  # while it imports, loads, reads what is done, or answers
        os.killpg(runner.pid, signal.SIGKILL)
        runner.wait()
    ended = killed.finish(file, answers, ["--max-tokens", "24"])
    assert ended.ended == "finished" and ended.found_done > 0
    assert killed.account(file, answers) == {"once": 4000, "lost": 0, "twice": 0}


def test_a_prompts_own_limit_is_its_alone(tmp_path):
    engine, params = FakeEngine(), sampling()
    file = write(tmp_path / "p.jsonl", {"prompt": "a", "max_tokens": 3}, {"prompt": "b"})
    with BATCH_JOB.BatchJob(file, tmp_path / "a.jsonl", {}) as job:
        RUNNER.run(engine, job, params)
    assert engine.limits == [3, 9] and params.max_tokens == 9
