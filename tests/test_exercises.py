"""Exercises: ours pass, the unfilled ones fail, mistakes are caught and told in words, and vLLM agrees with ours."""

import ast
import math
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from common import check, hardware, models, serving
from common.chapters import ROOT, chapters, load

CHAPTERS = [folder for folder in chapters() if (folder / "exercises.py").exists()]
QUICKSTART = ROOT / "3.quickstart" / "solutions.py"
by_chapter = pytest.mark.parametrize("folder", CHAPTERS, ids=lambda folder: folder.name)


def run_check(folder: Path, file: Path | str) -> tuple[int, str]:
    """Exit status and everything printed by `python -m common.check`, as a learner runs it."""
    command = [sys.executable, "-m", "common.check", folder.name.split(".")[0], "--file", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    printed = ended.stdout + ended.stderr
    assert "Traceback" not in printed and "=====" not in printed, printed
    return ended.returncode, printed


def summary(printed: str) -> tuple[int, ...]:
    """(exercises passed, exercises, checks passed, checks) from the last line."""
    return tuple(map(int, re.fullmatch(
        r"(\d+) of (\d+) exercises pass \((\d+) of (\d+) checks\)\.", printed.strip().splitlines()[-1]
    ).groups()))  # fmt: skip


@by_chapter
def test_our_solutions_pass(folder):
    status, printed = run_check(folder, "solutions.py")
    passed, exercises, checks_passed, checks = summary(printed)
    assert status == 0, printed
    assert passed == exercises >= 1 and checks_passed == checks >= 5 * exercises


@by_chapter
def test_unfilled_exercises_fail_every_check_and_name_every_function(folder):
    status, printed = run_check(folder, "exercises.py")
    passed, exercises, checks_passed, _ = summary(printed)
    assert (status, passed, checks_passed) == (1, 0, 0), printed
    assert printed.count("  open  ") == exercises and "FAIL" not in printed
    to_write = re.findall(r'raise NotImplementedError\("(.+)"\)', (folder / "exercises.py").read_text())
    unwrapped = re.sub(r"\n {10}(?=\S)", " ", printed)  # a long list goes over several lines
    named = ", ".join(re.findall(r"not yet written: (.+)", unwrapped)).split(", ")
    assert sorted(named) == sorted(to_write)


def functions(file: Path) -> dict[str, ast.FunctionDef]:
    """Functions and methods of a file, by qualified name."""
    found = {}
    for node in ast.parse(file.read_text()).body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        found |= {prefix + member.name: member for member in members if isinstance(member, ast.FunctionDef)}
    return found


@by_chapter
def test_exercises_and_solutions_have_the_same_functions(folder):
    asked, solved = functions(folder / "exercises.py"), functions(folder / "solutions.py")
    assert asked.keys() <= solved.keys()
    for name, function in asked.items():
        assert ast.dump(function.args) == ast.dump(solved[name].args), name
        unwritten = ast.unparse(function.body[-1]) == f"raise NotImplementedError('{name}')"
        assert not unwritten or len(ast.get_docstring(function)) > 80, f"{name} says too little"
        assert len(ast.unparse(solved[name]).splitlines()) <= 40, f"{name} is too long for an exercise"


# (chapter, what our solution says, what a wrong one says, words of the message)
MISTAKES = (
    ("0", "row.batch * row.output_tokens", "row.output_tokens", "you count the tokens of one request of the batch"),
    ("0", "max(memory_s, compute_s)", "(memory_s + compute_s)", "memory and arithmetic are added"),
    ("0", "(length - 1) * decode_s", "length * decode_s", "computed again in a decode step"),
    ("0", "if static else mean(case.output_lengths)", "if True else 0", "you take the longest answer"),
    ("0", "length / 2)", "0)", "none of the answer"),
    ("0", "min(cases, key=advantage)", "max(cases, key=advantage)", "closest should choose the long prompt"),
    ("0", "free_s <= gives_up_s", "free_s < gives_up_s", "5 users of a server that needs 2 s"),
    ("0", "end_s < window_s", "end_s <= window_s", "at the very end of the window"),
    ("0", "free_s = start_s + answer_s", "free_s = sent_s + answer_s", "answered side by side"),
    ("0", "if notices and", "if", "that is for notices=True"),
    ("0", "start_s >= gives_up_s", "start_s > gives_up_s", "at the moment of its turn is not dropped"),
    ("0", "while sends:", "while True:", "IndexError in closed_loop, line"),
    ("0", "heapq.heappush(sends, end_s)", "heapq.heappush(sends, sent_s)", "closed_loop\\(users=1"),
    ("0", "while sends:", "while True:\n        continue", "is there a loop that never ends"),
    ("0", "percentile(latencies, 99)", "percentile(latencies, 0.99)", "where percentile takes 99"),
    ("0", "for request in requests]", "for request in requests if request.in_time]", "leaves the failed request out"),
    ("0", "tok_s * utilisation * 3600", "tok_s * 3600 / utilisation", "multiply by the utilisation"),
    ("0", "share if share <= 1 else None", "share", "should be None"),
    ("0", "math.ceil(tokens / per_gpu_hour)", "math.floor(tokens / per_gpu_hour)", "you round down"),
    ("1", "return self.keys[number][:, :end]", "return keys", "those of the 3 tokens before belong to them"),
    ("1", "if end > self.capacity:", "if False:", "should raise ValueError. Yours stops with RuntimeError"),
    ("1", "project(layer, x, positions)", "project(layer, x, positions - cache.length)", "stand at positions 0, 1"),
    ("1", "> positions[:, None]", "> torch.arange(len(x))[:, None]", "the mask counts the new tokens from 0"),
    ("1", "    return answer\n", "    logits(model, new, cache)\n    return answer\n", "though nothing follows it"),
    ("1", " - seconds(length, 1) for", " for", "the prompt is in it"),
    ("1", "            break\n", "            continue\n", "any length at which it holds"),
    ("1", ' - config.get("num_kv_shared_layers", 0)', "", "shared layers are counted too"),
    ("1", "s.steps * machine", "s.new_tokens * machine", "for each token instead of each step"),
    ("1", "sample.waiting > 0 and ", "", "should return 'memory': nobody waits"),
    ("3", 'removeprefix(" ")', "lstrip()", "of which the second is its own"),
    ("3", 'removesuffix(b"\\r")', 'removesuffix(b"x")', "CR LF"),
    ("3", ".decode()", '.decode("ascii")', "UnicodeDecodeError"),
    ("3", "events = []\n", "events = []\n        chunk.decode()\n", "between the bytes of one character"),
    ("3", "elif not text and self.payload:", "if self.payload:", "an event"),
    ("3", 'event["usage"]["completion_tokens"]', "3", "you count pieces"),
    ("3", "self.ttft_s or time", "time", "set again by later pieces"),
    ("3", "for chunk in response.iter_bytes()", "for chunk in [response.read()]", "waits for the whole answer"),
    ("3", 'if "error" in event:', "if False:", "should raise StreamError. It raises KeyError"),
    ("3", 'raise StreamError("the stream ended before [DONE]")', "return", "as if all were well"),
    ("3", "embedding + config", "config", "weight_bytes in bfloat16 of"),
    ("3", 'config["num_key_value_heads"] * width', 'config["num_attention_heads"] * width', "they have fewer heads"),
    ("3", "return 2 * config", "return config", "only the keys, or only the values"),
    ("3", "- weights - overhead_bytes", "- weights", "overhead_bytes is not taken off"),
    ("3", "min(blocks * BLOCK_TOKENS, trained)", "blocks * BLOCK_TOKENS", "max_position_embeddings is no limit"),
    ("3", "max_model_len <= longest", "max_model_len < longest", "fits should return True"),
    ("3", "weight / sum(weights)", "weight", "should sum to 1. Yours sum to 2"),
    ("3", "math.exp(logit - largest)", "math.exp(logit)", "subtract the largest logit"),
    ("3", "[logit / temperature for logit in logits]", "list(logits)", "the temperature is not applied"),
    ("3", "and total >= top_p", "and total + shares[token] > top_p", "carries the sum over top_p is left out"),
    ("3", "x if x >= smallest", "x if x > smallest", "with top_k=2"),
)  # fmt: skip


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory):
    """What each mistake leads to, as futures: a run is mostly waiting, so they go on side by side."""
    folders = {folder.name.split(".")[0]: folder for folder in CHAPTERS}

    def outcome(chapter: str, right: str, wrong: str) -> tuple[int, str]:
        text = (folders[chapter] / "solutions.py").read_text()
        assert right in text
        file = tmp_path_factory.mktemp("mistake") / "mine.py"
        file.write_text(text.replace(right, wrong))
        return run_check(folders[chapter], file)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {mistake: pool.submit(outcome, *mistake[:3]) for mistake in MISTAKES}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake[0]}: {mistake[3][:40]}")
def test_a_mistake_is_told_in_words(mistaken, mistake):
    status, printed = mistaken[mistake].result()
    assert status == 1
    assert re.search(mistake[3], " ".join(printed.split())), printed


@pytest.mark.parametrize(
    "code,words",
    [
        ("def f(:", "is no Python yet, line 1"),
        ("import nothing_of_that_name", "stops while it is imported. ModuleNotFoundError in <module>, line 1"),
        ("", "has no"),
    ],
)
def test_a_broken_file_is_told_in_words(code, words, tmp_path):
    (tmp_path / "mine.py").write_text(code)
    status, printed = run_check(CHAPTERS[0], tmp_path / "mine.py")
    assert status == 1
    assert words in " ".join(printed.split())


def test_a_chapter_without_exercises_and_a_missing_file(capsys):
    assert check.main(["77"]) == 2
    assert "Chapter 77 has no exercises to check. These have: 0" in capsys.readouterr().out
    assert check.main(["0", "--file", "nowhere.py"]) == 1
    assert "There is no" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ against vLLM itself


@pytest.mark.engine
def test_our_streaming_client_reads_a_real_server(tmp_path):
    solutions = load(QUICKSTART)
    model, machine = models.resolve("course-lm"), hardware.machine()
    with serving.serve(model, machine, tmp_path / "server.log") as server:
        # Greedy text in Chinese, whose characters take several bytes and often several tokens; asked both ways.
        prompt = "<|im_start|>user\n什么是 KV 缓存？<|im_end|>\n<|im_start|>assistant\n"
        body = {"model": "course-lm", "prompt": prompt, "max_tokens": 24, "temperature": 0.0}
        whole = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60, trust_env=False).json()
        answer = solutions.StreamedCompletion(server.url, "course-lm", prompt, max_tokens=24)
        assert "".join(answer) == whole["choices"][0]["text"] != ""
        assert answer.output_tokens == whole["usage"]["completion_tokens"] > 1
        assert 0 < answer.ttft_s < 60
        too_long = solutions.StreamedCompletion(server.url, "course-lm", "What is TTFT?", max_tokens=100_000)
        with pytest.raises(solutions.StreamError, match=r"400.*max_tokens"):
            list(too_long)
        with pytest.raises(solutions.StreamError, match="404"):
            list(solutions.StreamedCompletion(server.url, "another-model", "What is TTFT?", max_tokens=8))


@pytest.mark.engine
def test_our_probabilities_are_those_of_vllms_sampler(monkeypatch):
    """The logits and the processed log-probabilities of one token, each over the whole vocabulary."""
    from vllm import SamplingParams

    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # else the first request with logprobs compiles for 11 s
    solutions = load(QUICKSTART)
    model, machine = models.resolve("course-lm"), hardware.machine()
    given = [
        {"temperature": 1.0},
        {"temperature": 0.5, "top_k": 7},
        {"temperature": 2.0, "top_p": 0.9},
        {"temperature": 1.5, "min_p": 0.02},
        {"temperature": 1.3, "top_k": 20, "top_p": 0.8, "min_p": 0.01},
    ]

    def first_token(mode: str, parameters: list[dict]) -> list[dict[int, float]]:
        llm = models.engine(model, machine, dtype="float32", logprobs_mode=mode, max_logprobs=-1)
        prompts = [{"prompt_token_ids": [11, 22, 33, 44]}] * len(parameters)
        sampling = [SamplingParams(max_tokens=1, logprobs=-1, seed=0, **each) for each in parameters]
        outputs = llm.generate(prompts, sampling, use_tqdm=False)
        return [{token: entry.logprob for token, entry in output.outputs[0].logprobs[0].items()} for output in outputs]

    try:
        raw = first_token("raw_logits", given[:1])[0]
        processed = first_token("processed_logprobs", given)
    finally:
        models.close_engine()
    tokens = sorted(raw)
    assert len(tokens) == model.config["vocab_size"]
    for parameters, logprobs in zip(given, processed, strict=True):
        ours = solutions.probabilities([raw[token] for token in tokens], **parameters)
        for token, probability in zip(tokens, ours, strict=True):
            theirs = math.exp(logprobs.get(token, -math.inf))
            assert abs(theirs - probability) < 1e-5, (parameters, token)
        assert sum(p > 0 for p in ours) == sum(logprob > -math.inf for logprob in logprobs.values()), parameters


@pytest.mark.engine
def test_our_preflight_says_what_vllm_says(tmp_path):
    """`longest` for a KV cache of 4 MiB is the max_model_len that vLLM's own error message recommends."""
    solutions = load(QUICKSTART)
    solutions.BLOCK_TOKENS = 32  # a size that CPUs and GPUs both take
    model, machine = models.resolve("course-lm"), hardware.machine()
    dtype = models.dtype(machine)
    available = solutions.weight_bytes(model.config, dtype) + 4 * 2**20
    longest = solutions.preflight(model.config, available, 2048, dtype, overhead_bytes=0).longest
    options = models.engine_options(model, machine, kv_cache_memory_bytes=4 * 2**20, block_size=32)
    code = f"from vllm import LLM; LLM(**{options!r})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    recommended = re.search(r"estimated maximum model length is (\d+)", ended.stdout + ended.stderr)
    assert recommended, (ended.stdout + ended.stderr)[-2000:]
    assert longest == int(recommended[1])
