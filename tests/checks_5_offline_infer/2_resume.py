"""2. Make a killed job resume"""

import json
import random

import pytest

from common.check import expect


class Killed(BaseException):
    """Stands for SIGKILL: nothing of yours runs after it."""


def line(number, text):
    return (json.dumps({"line": number, "answer": text}, ensure_ascii=False) + "\n").encode()


def numbers(raw):
    return [json.loads(each)["line"] for each in raw.splitlines()]


def asked(tmp_path, count):
    file = tmp_path / "prompts.jsonl"
    texts = "".join(json.dumps({"prompt": f"问 {n}"}, ensure_ascii=n % 2 == 0) + "\n" for n in range(1, count + 1))
    file.write_bytes(texts.encode())
    return file, tmp_path / "answers.jsonl"


class Engine:
    """Answers "问 7" with "答 7", remembers its batches, and is killed in the call number `killed_in`."""

    def __init__(self, output, killed_in=None):
        self.output, self.killed_in, self.batches, self.seen = output, killed_in, [], []

    def __call__(self, texts):
        self.seen.append(self.output.read_bytes().count(b"\n") if self.output.exists() else 0)
        self.batches.append(list(texts))
        if len(self.batches) == self.killed_in:
            raise Killed
        return [text.replace("问", "答") for text in texts]


# -------------------------------------------------------------------------------------------------------- done_lines


def test_no_file(exercises, tmp_path):
    expect("done_lines of a file that does not exist", exercises.done_lines(tmp_path / "none"), set())
    assert not (tmp_path / "none").exists(), "done_lines creates the file; it should not."


def test_whole_lines(exercises, tmp_path):
    file = tmp_path / "a"
    file.write_bytes(line(2, "b") + line(1, "a\\n{") + line(9, "线"))
    before = file.read_bytes()
    expect("done_lines of a file with lines 2, 1 and 9", exercises.done_lines(file), {1, 2, 9})
    assert file.read_bytes() == before, "done_lines changes a file in which all lines are whole."


def test_a_line_cut_at_any_byte(exercises, tmp_path):
    file, first, last = tmp_path / "a", line(1, "一") + line(3, "三"), line(2, "二二")
    for kept in range(len(last)):
        file.write_bytes(first + last[:kept])
        call = f"done_lines of a file with lines 1 and 3 whole, and {kept} of {len(last)} bytes of line 2,"
        expect(call, exercises.done_lines(file), {1, 3}, "the line end is what makes a line whole", {
            "a line without its end counts as done": {1, 2, 3},
            "all are given up": set(),
        })  # fmt: skip
        expect(f"after {call} the size of the file", file.stat().st_size, len(first), "the rest is cut off", {
            "the file is left as it is": len(first) + kept,
        })  # fmt: skip


def test_nothing_but_a_piece(exercises, tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b'{"li')
    expect("done_lines of a file that holds only a piece", exercises.done_lines(file), set())
    expect("its size after that", file.stat().st_size, 0)


# ------------------------------------------------------------------------------------------------------------ resume


def test_all_in_full_batches(exercises, tmp_path):
    prompts, output = asked(tmp_path, 7)
    engine = Engine(output)
    expect("resume of 7 prompts in batches of 3", exercises.resume(prompts, output, engine, 3), 7)
    expect("its batches", engine.batches, [["问 1", "问 2", "问 3"], ["问 4", "问 5", "问 6"], ["问 7"]])
    raw = output.read_bytes()
    expect("the lines in the output", sorted(numbers(raw)), [1, 2, 3, 4, 5, 6, 7], "", {
        "lines are counted from 0": [0, 1, 2, 3, 4, 5, 6],
    })  # fmt: skip
    assert "答 7".encode() in raw, "The answers should be written with their characters as they are, in UTF-8."


def test_each_batch_is_written_before_the_next(exercises, tmp_path):
    prompts, output = asked(tmp_path, 9)
    engine = Engine(output)
    exercises.resume(prompts, output, engine, 2)
    expect("whole lines in the file at the start of each batch of 2", engine.seen, [0, 2, 4, 6, 8],
           "what is not written when a kill comes is lost", {
               "nothing is written before the end, or it stays in Python's buffer: flush, or close the file": [0] * 5,
           })  # fmt: skip


def test_again(exercises, tmp_path):
    prompts, output = asked(tmp_path, 5)
    exercises.resume(prompts, output, Engine(output), 2)
    before, engine = output.read_bytes(), Engine(output)
    expect("resume of a job that is done", exercises.resume(prompts, output, engine, 2), 0)
    expect("its batches", engine.batches, [], "there is nothing to ask", {"an empty batch is sent": [[]]})
    assert output.read_bytes() == before, "resume changes the output of a job that is done."


def test_what_is_missing_fills_batches(exercises, tmp_path):
    prompts, output = asked(tmp_path, 8)
    output.write_bytes(line(2, "答 2") + line(5, "答 5") + line(3, "答 3")[:9])
    engine = Engine(output)
    call = "resume of 8 prompts, lines 2 and 5 answered, line 3 cut short, in batches of 4,"
    expect(call, exercises.resume(prompts, output, engine, 4), 6)
    expect(f"the batches of {call}", engine.batches, [["问 1", "问 3", "问 4", "问 6"], ["问 7", "问 8"]], "", {
        "a batch is filled up with prompts that are done": [["问 1", "问 3", "问 4"], ["问 6", "问 7", "问 8"]],
        "prompts that are done are asked again": [["问 1", "问 2", "问 3", "问 4"], ["问 5", "问 6", "问 7", "问 8"]],
    })  # fmt: skip
    expect("the lines in the output", numbers(output.read_bytes()), [2, 5, 1, 3, 4, 6, 7, 8])


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again(exercises, tmp_path, seed):
    prompts, output = asked(tmp_path, 60)
    draw = random.Random(seed)
    for _ in range(12):
        engine = Engine(output, killed_in=draw.randint(1, 4))
        try:
            exercises.resume(prompts, output, engine, draw.randint(1, 4))
        except Killed:
            raw = output.read_bytes() if output.exists() else b""
            if raw and draw.random() < 0.6:  # the kill came while the last line was being written
                output.write_bytes(raw[: -draw.randint(1, 12)])
    exercises.resume(prompts, output, Engine(output), 4)
    raw = output.read_bytes()
    expect("the lines in the output after 12 kills", sorted(numbers(raw)), list(range(1, 61)), "each exactly once")
    wrong = [each for each in map(json.loads, raw.splitlines()) if each["answer"] != f"答 {each['line']}"]
    assert not wrong, f"After 12 kills an answer stands at the wrong line: {wrong[0]}"
