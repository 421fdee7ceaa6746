"""Chapter 5: a batch job survives kills, bad lines and full disks; its loop, its search and its orders are right."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from common.chapters import ROOT, load
from common.problems import Problem

FOLDER = ROOT / "5.offline_infer"
BATCH_JOB, RUNNER = load(FOLDER / "batch_job.py"), load(FOLDER / "batch_runner.py")
SEARCH = load(FOLDER / "lesson_search.py")


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


# ------------------------------------------------------------------------------------------------------- bad lines


@pytest.mark.parametrize(
    "raw,reason",
    [
        (b"", "the line is empty"),
        (b"   ", "the line is empty"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'"What is TTFT?"', "this is a str"),
        (b"null", "this is a NoneType"),
        (b"{}", "one of prompt, prompt_token_ids, messages is wanted; this has none"),
        (b'{"prompt": "a", "messages": []}', "this has prompt and messages"),
        (b'{"prompt": ""}', "not empty"),
        (b'{"prompt": 3}', "prompt has to be a text"),
        (b'{"promt": "a"}', "unknown field 'promt'"),
        (b'{"prompt_token_ids": []}', "list of token numbers"),
        (b'{"prompt_token_ids": [1, true]}', "list of token numbers"),
        (b'{"prompt_token_ids": [-1]}', "list of token numbers"),
        (b'{"messages": "hello"}', "messages has to be"),
        (b'{"messages": [{"role": "user"}]}', "messages has to be"),
        (b'{"prompt": "a", "max_tokens": 0}', "max_tokens has to be"),
        (b'{"prompt": "a", "max_tokens": true}', "max_tokens has to be"),
        (b'{"prompt": "\xff"}', "not UTF-8: byte 12 is 0xff"),
    ],
)
def test_a_bad_line_is_said_in_words(raw, reason):
    with pytest.raises(BATCH_JOB.BadLine, match=reason.replace("[", r"\[")):
        BATCH_JOB.parse(7, raw)


def test_good_lines():
    assert BATCH_JOB.parse(1, b'\xef\xbb\xbf{"prompt": "a", "id": [1], "max_tokens": 5}\r\n') == BATCH_JOB.Prompt(
        1, [1], text="a", max_tokens=5
    )
    assert BATCH_JOB.parse(2, b'{"prompt_token_ids": [0, 5]}').token_ids == [0, 5]
    chat = '{"messages": [{"role": "user", "content": "早"}]}'.encode()
    assert BATCH_JOB.parse(3, chat).messages == [{"role": "user", "content": "早"}]


def test_bad_lines_go_to_the_error_file_by_number_once(tmp_path):
    file = write(tmp_path / "p.jsonl", {"prompt": "a"}, b"{", {"prompt": "b"}, b"", {"prompt": "c"})
    for _ in range(2):
        with BATCH_JOB.BatchJob(file, tmp_path / "a.jsonl", {}) as job:
            assert job.total == 5
            answer_all(job)
    assert sorted(line["line"] for line in lines(tmp_path / "a.jsonl")) == [1, 3, 5]
    assert [line["line"] for line in lines(tmp_path / "a.errors.jsonl")] == [2, 4]


def test_a_last_line_without_its_end_counts(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_bytes(b'{"prompt": "a"}\n{"prompt": "b"}')
    with BATCH_JOB.BatchJob(file, tmp_path / "a.jsonl", {}) as job:
        answer_all(job)
    assert {line["line"] for line in lines(tmp_path / "a.jsonl")} == {1, 2}


@pytest.mark.parametrize("content", [None, b""])
def test_an_input_that_is_missing_or_empty(tmp_path, content):
    if content is not None:
        (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises(Problem, match=r"can't be read: No such file|is empty"):
        BATCH_JOB.BatchJob(tmp_path / "p.jsonl", tmp_path / "a.jsonl", {})
    assert not (tmp_path / "a.jsonl").exists(), "an output was begun for a job that can't be"


# ------------------------------------------------------------------------------------------------ order and memory


def test_answers_come_in_order_when_asked(tmp_path):
    file = write(tmp_path / "p.jsonl", *({"prompt": str(n)} if n % 7 else b"bad" for n in range(1, 301)))
    with BATCH_JOB.BatchJob(file, tmp_path / "a.jsonl", {}, in_order=True) as job:
        answer_all(job, window=32, stop_after=120)
    with BATCH_JOB.BatchJob(file, tmp_path / "a.jsonl", {}, in_order=True) as job:
        assert 0 < job.found_done < 300
        answer_all(job, window=32, seed=1)
    numbers = [line["line"] for line in lines(tmp_path / "a.jsonl")]
    assert numbers == [n for n in range(1, 301) if n % 7]
    with BATCH_JOB.BatchJob(prompts(tmp_path / "q.jsonl", 300), tmp_path / "b.jsonl", {}) as job:
        answer_all(job, window=32)
    unordered = [line["line"] for line in lines(tmp_path / "b.jsonl")]
    assert unordered != sorted(unordered) == list(range(1, 301))


@pytest.mark.parametrize("in_order", [False, True])
def test_nothing_runs_far_ahead_of_the_oldest_prompt(tmp_path, in_order):
    """With one prompt that is never answered, no more than `ahead` lines are read and kept."""
    file = prompts(tmp_path / "p.jsonl", 1000)
    with BATCH_JOB.BatchJob(file, tmp_path / "a.jsonl", {}, in_order, ahead=50) as job:
        source = job.pending()
        oldest = next(source)
        for prompt in source:
            if prompt is None:
                break
            job.answer(prompt.line, {})
        assert len(job.done.beyond) + len(job.held) == 49
        job.answer(oldest.line, {})
        assert job.done.whole == 50 and not job.done.beyond and not job.held


# ----------------------------------------------------------------------------------------------------------- kills

# A process of its own that answers in random order, window by window; only what it needs is imported.
CHILD = """
import random, sys
sys.path[:0] = [{root!r}, {folder!r}]
from pathlib import Path
from batch_job import BatchJob
prompts, output, in_order, seed = sys.argv[1:]
draw, waiting = random.Random(int(seed)), []
with BatchJob(Path(prompts), Path(output), {{}}, in_order=in_order == "True") as job:
    print("ready", flush=True)
    for prompt in job.pending():
        if prompt:
            waiting.append(prompt)
        while waiting and (len(waiting) >= 64 or prompt is None):
            prompt = waiting.pop(draw.randrange(len(waiting)))
            job.answer(prompt.line, {{"id": prompt.id, "answer": f"answer to {{prompt.text}}"}})
"""


@pytest.fixture
def child(tmp_path):
    """The start of such a process on a job; it is ready when it has read what is done."""
    script = tmp_path / "child.py"
    script.write_text(CHILD.format(root=str(ROOT), folder=str(FOLDER)))

    def start(file: Path, output: Path, in_order: bool = False, seed: int = 0) -> subprocess.Popen:
        command = [sys.executable, script, file, output, str(in_order), str(seed)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


@pytest.mark.parametrize("in_order", [False, True])
def test_a_job_killed_at_ten_random_moments_answers_every_prompt_once(tmp_path, child, in_order):
    count, draw = 40_000, random.Random(int(in_order))
    file, output = prompts(tmp_path / "p.jsonl", count), tmp_path / "a.jsonl"
    sizes = []
    for kill in range(10):
        with child(file, output, in_order, seed=kill) as process:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
            time.sleep(draw.uniform(0, 0.05))
            process.kill()
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed: give it more prompts"
        sizes.append(output.stat().st_size)
    assert len(set(sizes)) > 5 and sizes[-1] == max(sizes)
    with BATCH_JOB.BatchJob(file, output, {}, in_order=in_order) as job:
        assert 0 < job.found_done < count
        answer_all(job)
    seen = Counter(line["line"] for line in lines(output))
    assert len(seen) == count and set(seen.values()) == {1}
    assert all(line["answer"] == f"answer to number {line['line']}" for line in lines(output))


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_cut_anywhere_is_done_again(tmp_path, cut):
    file, output = prompts(tmp_path / "p.jsonl", 5), tmp_path / "a.jsonl"
    with BATCH_JOB.BatchJob(file, output, {}) as job:
        answer_all(job, window=1)
    whole = output.read_bytes()
    output.write_bytes(whole[:-cut])
    with BATCH_JOB.BatchJob(file, output, {}) as job:
        assert job.found_done == whole[:-cut].count(b"\n")
        answer_all(job, window=1)
    assert output.read_bytes() == whole


FAMILY = """
import subprocess, sys, time
sys.path.insert(0, {folder!r})
from no_orphans import no_orphans
with no_orphans():
    grandchild = "import subprocess; print(subprocess.Popen(['sleep', '1000'], start_new_session=True).pid, flush=True)"
    subprocess.Popen([sys.executable, "-c", grandchild + "; import time; time.sleep(1000)"])
    time.sleep(float(sys.argv[1]))
"""


def test_what_a_killed_runner_started_ends_with_it(tmp_path):
    script = tmp_path / "family.py"
    script.write_text(FAMILY.format(folder=str(FOLDER)))
    with subprocess.Popen([sys.executable, script, "1000"], stdout=subprocess.PIPE, text=True) as parent:
        grandchild = psutil.Process(int(parent.stdout.readline()))
        time.sleep(1.2)
        family = psutil.Process(parent.pid).children(recursive=True)
        assert grandchild in family and len(family) == 3  # and the process that watches
        parent.kill()
        parent.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive


# --------------------------------------------------------------------------------------------- outputs that won't do


def test_an_output_of_another_job_is_left_alone(tmp_path):
    file, output = prompts(tmp_path / "p.jsonl", 3), tmp_path / "a.jsonl"
    output.write_text("somebody's file\n")
    with pytest.raises(Problem, match="is not of a job of this runner"):
        BATCH_JOB.BatchJob(file, output, {})
    assert output.read_text() == "somebody's file\n"
    output.unlink()
    with BATCH_JOB.BatchJob(file, output, {"model": "a"}) as job:
        answer_all(job)
    before = output.read_bytes()
    with pytest.raises(Problem, match="answers of another job: model differ"):
        BATCH_JOB.BatchJob(file, output, {"model": "b"})
    prompts(file, 4)
    with pytest.raises(Problem, match="prompts_sha256 differ"):
        BATCH_JOB.BatchJob(file, output, {"model": "a"})
    assert output.read_bytes() == before


def test_two_runners_do_not_write_the_same_file(tmp_path, child):
    file = prompts(tmp_path / "p.jsonl", 3)
    with BATCH_JOB.BatchJob(file, tmp_path / "a.jsonl", {}) as job:
        list(job.answers.recover())  # reading the file must not give up its lock
        _, said = child(file, tmp_path / "a.jsonl").communicate()
        assert "Another process is writing" in said
    with child(file, tmp_path / "a.jsonl") as process:
        assert process.wait(30) == 0, process.stderr.read()


def test_a_damaged_line_in_the_middle_stops_the_job(tmp_path):
    file, output = prompts(tmp_path / "p.jsonl", 5), tmp_path / "a.jsonl"
    with BATCH_JOB.BatchJob(file, output, {}) as job:
        answer_all(job)
    written = output.read_bytes().splitlines(keepends=True)
    output.write_bytes(b"".join([written[0], b"\0\0\n", *written[2:]]))
    with pytest.raises(Problem, match=r"Line 2 of .* is damaged"):
        BATCH_JOB.BatchJob(file, output, {})
    output.write_bytes(b"".join([*written, written[0]]))
    with pytest.raises(Problem, match="has two answers"):
        BATCH_JOB.BatchJob(file, output, {})


def test_an_output_that_cannot_be_opened(tmp_path):
    file = prompts(tmp_path / "p.jsonl", 3)
    (tmp_path / "folder").mkdir()
    for output in (tmp_path / "folder", tmp_path / "nowhere" / "a.jsonl", file / "a.jsonl"):
        with pytest.raises(Problem, match="can't be written"):
            BATCH_JOB.BatchJob(file, output, {})


def test_a_full_disk_loses_nothing(tmp_path):
    """A limit on the size of files stands for the disk: the last write is taken in part, and fails."""
    file, output = prompts(tmp_path / "p.jsonl", 400), tmp_path / "a.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    job = BATCH_JOB.BatchJob(file, output, {})
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(Problem, match="File too large"):
            answer_all(job)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        job.close()
    assert 0 < len(lines(output)) < 400 and output.read_bytes().endswith(b"\n")
    with BATCH_JOB.BatchJob(file, output, {}) as job:
        answer_all(job)
    assert Counter(line["line"] for line in lines(output)) == Counter(range(1, 401))


def test_no_space_left_is_said_in_words():
    full = BATCH_JOB.LineFile(Path("/dev/full"))
    with pytest.raises(Problem, match="No space left") as problem:
        full.append({"line": 1})
    assert "The disk is full" in problem.value.meaning and "same command again" in problem.value.fix


# --------------------------------------------------------------------------------------------------------- the loop


class FakeEngine:
    """As much of vLLM's engine as the loop asks for: answers the latest two in each step, and counts those inside."""

    def __init__(self, max_num_seqs: int = 4):
        self.llm_engine = self
        self.renderer = self
        self.engine_core = None  # no process of its own
        self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=max_num_seqs))
        self.running, self.most, self.aborted, self.limits = {}, 0, [], []

    def render_cmpl(self, asked):
        if asked[0].get("prompt") == "number 5":
            raise ValueError("this prompt is too long")
        return asked

    def add_request(self, name, asked, sampling):
        self.running[name] = asked
        self.limits.append(sampling.max_tokens)
        self.most = max(self.most, len(self.running))

    def step(self):
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
    assert engine.most == 8 and not engine.aborted
    assert (progress.done, progress.failed, progress.output_tokens) == (50, 0, 150)
    assert sorted(engine.limits) == list(range(14, 64)), "a prompt's own max_tokens goes first"
    assert told[-1].startswith("50 of 50 (100.0 %)") and " left" in told[3]
    assert {line["answer"] for line in lines(tmp_path / "a.jsonl")} == {f"<number {n}>" for n in range(14, 64)}


def test_a_prompt_the_engine_refuses_is_an_error_line_and_ctrl_c_loses_nothing(tmp_path):
    file, engine = prompts(tmp_path / "p.jsonl", 30), FakeEngine()
    with pytest.raises(KeyboardInterrupt), BATCH_JOB.BatchJob(file, tmp_path / "a.jsonl", {}) as job:
        RUNNER.run(engine, job, sampling())
    assert engine.aborted, "requests were left in the engine"
    assert lines(tmp_path / "a.errors.jsonl") == [{"line": 5, "error": "this prompt is too long"}]
    before = {line["line"] for line in lines(tmp_path / "a.jsonl")}
    with BATCH_JOB.BatchJob(file, tmp_path / "a.jsonl", {}) as job:
        answer_all(job)
    seen = Counter(line["line"] for line in lines(tmp_path / "a.jsonl"))
    assert before and seen == Counter(n for n in range(1, 31) if n != 5)


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


def test_duration():
    assert [RUNNER.duration(s) for s in (0.4, 59.4, 185, 7800)] == ["0 s", "59 s", "3 min 05 s", "2 h 10 min"]


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


# ---------------------------------------------------------------------------------------------- search, and the rest


def test_pieces_keep_their_headings_and_all_of_the_text():
    folder = ROOT / "4.workflow"
    found = SEARCH.pieces([folder])
    assert {piece.chapter for piece in found} == {"4.workflow"}
    assert max(len(piece.text) for piece in found) <= SEARCH.PIECE
    keys = {piece.key for piece in found}
    assert {("4.workflow", f"4.{n}") for n in range(1, 12)} <= keys
    assert not any("<!-- value" in piece.text for piece in found)
    assert any("Iteration" in piece.text or "iteration" in piece.text for piece in found)


def test_every_question_names_sections_that_exist():
    asked = SEARCH.questions()
    assert Counter(question.language for question in asked) == {"en": 20, "zh": 20}
    assert len({question.text for question in asked}) == 40


def test_bm25_by_hand():
    bm25 = SEARCH.Bm25(["a cat sat", "a dog sat", "分块预填充"])
    scores = bm25.scores("cats")
    assert scores[0] > 0 and scores[1] == scores[2] == 0
    # One of three texts has the word: idf = ln(1 + 2.5 / 1.5); it occurs once in a text of 3 terms, the mean is 10 / 3.
    assert scores[0] == pytest.approx(np.log(1 + 2.5 / 1.5) * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 3 / (10 / 3))))
    assert bm25.scores("预填充")[2] > 0 and not bm25.scores("没有的词").any()


def test_rank_counts_sections_and_not_pieces():
    documents = [SEARCH.Piece("4.workflow", name, "") for name in ("4.1 a", "4.1 a", "4.2 b", "4.3 c")]
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    assert SEARCH.rank(scores, documents, frozenset({("4.workflow", "4.2")})) == 2
    assert SEARCH.summary([1, 2, 10, 4]) == {"first_pct": 25, "top5_pct": 75, "mrr": pytest.approx(1.85 / 4)}
    assert list(np.argsort(-SEARCH.fused([scores, scores]))) == [0, 1, 2, 3]


def test_the_head_learns_what_belongs_together():
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(600, 8))
    left, right = (np.hstack([shared, 2 * draw.normal(size=(600, 8))]).astype(np.float32) for _ in range(2))
    head = SEARCH.train_head(left[:500], right[:500], range(500), steps=200)

    def first(a: np.ndarray, b: np.ndarray) -> float:
        return (np.argmax(SEARCH.unit(a) @ SEARCH.unit(b).T, axis=1) == np.arange(len(a))).mean()

    before, after = first(left[500:], right[500:]), first(left[500:] @ head, right[500:] @ head)
    assert before < 0.3 and after > before + 0.3  # of pairs it never saw


class Words:
    """A tokenizer whose tokens are words."""

    def encode(self, text, **_):
        return text.split()

    def decode(self, words):
        return " ".join(words)


def test_orders_hold_the_same_requests_and_shared_texts_come_together_or_in_turn():
    contests = load(FOLDER / "offline_contests.py")
    row = [f"w{n}" for n in range(500)]
    grouped = contests.shared_prefixes(Words(), row, groups=3, each=4, prefix=50, own=5)
    assert [request.prompt.split()[0] for request in grouped] == list("000011112222")
    assert len({request.prompt.split("\n")[0] for request in grouped}) == 3
    assert all(request.prompt_tokens == len(request.prompt.split()) for request in grouped)
    in_turn = contests.interleaved(grouped, 4)
    assert [request.prompt.split()[0] for request in in_turn] == list("012012012012")
    orders = contests.orders(grouped[:3] + in_turn[:2])
    assert all(Counter(order) == Counter(orders["as_they_come"]) for order in orders.values())


def test_kills_are_spread_over_the_job():
    kill_points = load(FOLDER / "killed_jobs.py").kill_points
    for kills in (1, 3, 10):
        points = kill_points(1000, kills)
        assert len(points) == kills and points == sorted(points) and points[0] > 0 and points[-1] < 1000
    assert kill_points(1000, 3) != kill_points(1000, 3, seed=1)


def test_what_is_counted_at_the_end(tmp_path):
    killed = load(FOLDER / "killed_jobs.py")
    file, output = prompts(tmp_path / "p.jsonl", 4), write(tmp_path / "a.jsonl", {"line": 1}, {"line": 3}, {"line": 3})
    write(tmp_path / "a.errors.jsonl", {"line": 2})
    assert killed.account(file, output) == {"once": 2, "lost": 1, "twice": 1}
    output.write_bytes(output.read_bytes() + b'{"li')
    assert killed.lines_of(output) == 3 and killed.lines_of(tmp_path / "none") == 0


def test_peak_memory_is_that_of_the_work():
    peak_mb = load(FOLDER / "killed_jobs.py").peak_mb
    assert 190 < peak_mb(lambda: bytearray(b"x") * 200_000_000) < 230
    assert peak_mb(lambda: None) < 5  # the peak before is forgotten


def test_each_worker_takes_a_core_of_its_own(tmp_path):
    own_core = load(FOLDER / "ray_batch.py").own_core
    cores = sorted(os.sched_getaffinity(0))
    assert [own_core(tmp_path) for _ in cores] == cores
    assert own_core(tmp_path) in cores  # more workers than cores share one


def test_steps_of_an_order():
    steps_of = load(FOLDER / "offline_contests.py").steps_of
    assert steps_of([5, 5, 5, 5], 2) == 10
    assert steps_of([1, 1, 1, 9], 2) == 10 and steps_of([9, 1, 1, 1], 2) == 9


def test_the_time_outside_the_engines_steps_is_counted():
    class Engine:
        def step(self):
            time.sleep(0.03)
            return ["an output"]

    engine = Engine()
    llm = SimpleNamespace(llm_engine=engine, reset_prefix_cache=lambda: None)

    def serve() -> float:
        start = time.perf_counter()
        assert engine.step() + engine.step() == ["an output"] * 2
        time.sleep(0.03)
        return time.perf_counter() - start

    watched = load(FOLDER / "offline_contests.py").Watched(llm, 90, serve)
    assert 700 < watched() < 1010  # 90 tokens in 0.09 s
    assert watched.steps == 2 and 25 < watched.outside_steps_pct < 45
    assert "step" not in vars(engine)  # as it was


def test_a_prompts_own_limit_is_its_alone(tmp_path):
    engine, params = FakeEngine(), sampling()
    file = write(tmp_path / "p.jsonl", {"prompt": "a", "max_tokens": 3}, {"prompt": "b"})
    with BATCH_JOB.BatchJob(file, tmp_path / "a.jsonl", {}) as job:
        RUNNER.run(engine, job, params)
    assert engine.limits == [3, 9] and params.max_tokens == 9
