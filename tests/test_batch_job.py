"""Chapter 5: a batch job survives kills, bad lines and full disks, and answers every prompt once."""

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

import psutil
import pytest
from batch_files import BATCH_JOB, FOLDER, RUNNER, answer_all, lines, prompts, write

from common.chapters import ROOT
from common.problems import Problem

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
            time.sleep(draw.uniform(0, 0.03))
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
        time.sleep(4)  # until the process that watches has begun to look
        family = psutil.Process(parent.pid).children(recursive=True)
        assert grandchild in family and len(family) == 3  # and the process that watches
        parent.kill()
        parent.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive


def test_what_is_written_is_on_the_disk_soon_even_if_nothing_follows(tmp_path, monkeypatch):
    clock_s, synced = [0.0], []
    monkeypatch.setattr(BATCH_JOB, "time", SimpleNamespace(monotonic=lambda: clock_s[0]))
    with BATCH_JOB.BatchJob(prompts(tmp_path / "p.jsonl", 5), tmp_path / "a.jsonl", {}) as job:
        monkeypatch.setattr(BATCH_JOB.os, "fsync", synced.append)
        job.answer(1, {})
        assert not synced
        clock_s[0] = 6
        RUNNER.tell(RUNNER.Progress(5, 0), job, lambda _: None)
        assert synced == [job.answers.file.fileno()]
        clock_s[0] = 12
        job.fail(2, "too long")
        assert synced[1:] == [job.errors.file.fileno()]
        clock_s[0] = 18
        job.answer(3, {})
        assert synced[2:] == [job.answers.file.fileno()]


# --------------------------------------------------------------------------------------------- outputs that won't do


def test_jobs_whose_outputs_differ_behind_the_last_dot_share_nothing(tmp_path):
    file = prompts(tmp_path / "p.jsonl", 3)
    for output, settings in (("run.v1", {"t": 0}), ("run.v2", {"t": 1}), ("run.v1", {"t": 0}), ("run", {"t": 2})):
        with BATCH_JOB.BatchJob(file, tmp_path / output, settings) as job:
            answer_all(job)


def test_a_pipe_is_refused_since_prompts_are_read_twice(tmp_path):
    reader, writer = os.pipe()
    os.write(writer, b'{"prompt": "a"}\n')
    os.close(writer)
    with pytest.raises(Problem, match="no ordinary file"):
        BATCH_JOB.BatchJob(Path(f"/dev/fd/{reader}"), tmp_path / "a.jsonl", {})
    os.close(reader)


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
