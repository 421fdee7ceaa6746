"""The files of a batch job: prompts are read from one, answers appended to another, and nothing is done twice.

Beside the answers, in `OUT.jsonl`, lie two files: `OUT.errors.jsonl` for lines that can't be answered, each with its
number and the reason, and `OUT.job.json`, which says what the answers belong to. An answer is one line, written by one
call, and carries the number of its prompt's line. So the answers are themselves the record of what is done: a job that
was killed reads them, cuts off the half line that a kill may have left, and goes on with the lines that are missing.

No engine is needed here. `batch_runner.py` brings one.
"""

import fcntl
import hashlib
import io
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from common import results
from common.problems import Problem, explain

SYNC_S = 5.0  # a killed process loses nothing that it wrote; a power cut loses what came since the last sync
KNOWN = {"prompt", "prompt_token_ids", "messages", "id", "max_tokens"}


class BadLine(ValueError):
    """A line of the input that can't be answered; `str()` is the reason."""


@dataclass(frozen=True)
class Prompt:
    """One line of the input. Exactly one of `text`, `token_ids` and `messages` is given."""

    line: int  # its number in the file, from 1
    id: object = None
    text: str | None = None
    token_ids: list[int] | None = None
    messages: list[dict[str, str]] | None = None
    max_tokens: int | None = None


def parse(line: int, raw: bytes) -> Prompt:
    """The prompt in a line of JSON. Raises BadLine with a sentence that says what is wrong with it."""
    try:
        text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip()
    except UnicodeDecodeError as error:
        raise BadLine(f"not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}") from None
    if not text:
        raise BadLine("the line is empty")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadLine(f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise BadLine(f"a JSON object is wanted, this is a {type(fields).__name__}")
    if unknown := sorted(fields.keys() - KNOWN):
        raise BadLine(f"unknown field {unknown[0]!r}; a line may have {', '.join(sorted(KNOWN))}")
    asked = [name for name in ("prompt", "prompt_token_ids", "messages") if name in fields]
    if len(asked) != 1:
        raise BadLine(f"one of prompt, prompt_token_ids, messages is wanted; this has {' and '.join(asked) or 'none'}")
    value, limit = fields[asked[0]], fields.get("max_tokens")
    if asked[0] == "prompt" and not (isinstance(value, str) and value):
        raise BadLine("prompt has to be a text that is not empty")
    if asked[0] == "prompt_token_ids" and not (
        isinstance(value, list) and value and all(type(token) is int and token >= 0 for token in value)
    ):
        raise BadLine("prompt_token_ids has to be a list of token numbers that is not empty")
    if asked[0] == "messages" and not (
        isinstance(value, list)
        and value
        and all(isinstance(m, dict) and all(isinstance(m.get(k), str) for k in ("role", "content")) for m in value)
    ):
        raise BadLine("messages has to be a list of objects with a role and a content, both texts")
    if limit is not None and not (type(limit) is int and limit >= 1):
        raise BadLine("max_tokens has to be a whole number of at least 1")
    place = {"prompt": "text", "prompt_token_ids": "token_ids", "messages": "messages"}[asked[0]]
    return Prompt(line, fields.get("id"), max_tokens=limit, **{place: value})


@dataclass
class Done:
    """Which lines are done: all up to `whole`, and those in `beyond`, which are few if nothing runs far ahead."""

    whole: int = 0
    beyond: set[int] = field(default_factory=set)

    def __contains__(self, line: int) -> bool:
        return line <= self.whole or line in self.beyond

    def add(self, line: int) -> None:
        """Raises Problem for a line that is done already."""
        if line in self:
            raise Problem(f"Line {line} has two answers.", "Move the output away and begin again; it was edited.")
        self.beyond.add(line)
        while self.whole + 1 in self.beyond:
            self.whole += 1
            self.beyond.remove(self.whole)

    def __len__(self) -> int:
        return self.whole + len(self.beyond)


class LineFile:
    """A file to which whole lines of JSON are appended, by one process at a time.

    Raises Problem if it can't be written or another process has it. The lock is one that a killed process loses, and
    that its children don't inherit.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644), "r+b", buffering=0)
        except OSError as error:
            meaning, fix = explain(error)
            raise Problem(f"{path} can't be written: {error.strerror}.", fix, meaning) from None
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.file.close()
            raise Problem(
                f"Another process is writing {path}.", "Wait for it, or stop it: `fuser` of that file names it."
            ) from None
        self.end = self.synced = os.fstat(self.file.fileno()).st_size  # of the last whole line

    def recover(self) -> Iterator[int]:
        """The `line` of each line that is there, in the order of the file; a half line at the end is cut off."""
        self.file.seek(0)
        place = 0
        reader = io.BufferedReader(self.file)
        try:
            for number, raw in enumerate(reader, 1):
                try:
                    if not raw.endswith(b"\n"):
                        raise ValueError("cut short")
                    line = json.loads(raw)["line"]
                except (ValueError, KeyError, TypeError):
                    if place + len(raw) < self.end:
                        raise Problem(
                            f"Line {number} of {self.path} is damaged, and it is not the last one.",
                            "Remove that line, and its prompt will be answered again; or move the file away.",
                        ) from None
                    self.file.truncate(place)
                    break
                place += len(raw)
                yield line
        finally:
            reader.detach()  # closing it would close the file, and give up the lock
        self.end = self.synced = place

    def append(self, content: dict) -> None:
        """Write one line. If the disk takes only a part, that is cut off again, and Problem is raised."""
        raw = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        written = 0
        try:
            while written < len(raw):  # the system may take less than it was given
                written += self.file.write(raw[written:])
        except OSError as error:
            with suppress(OSError):
                self.file.truncate(self.end)
            meaning, fix = explain(error)
            raise Problem(
                f"{self.path} can't be written any further: {error.strerror}. What is in it is whole.",
                f"{fix} Then give the same command again: it goes on from there.",
                meaning,
            ) from None
        self.end += len(raw)

    def sync(self) -> None:
        """Bring what was appended to the disk itself."""
        if self.synced < self.end:
            with suppress(OSError):  # a pipe, a device
                os.fsync(self.file.fileno())
            self.synced = self.end

    def close(self) -> None:
        self.sync()
        self.file.close()


class BatchJob:
    """A job: which lines are to be done, and where their answers go. Use it in a `with` block.

    `settings` is whatever changes the answers (model, sampling): a job is resumed only with the same. `in_order` writes
    answers in the order of the prompts, and holds those that come too early. Nothing runs more than `ahead` lines ahead
    of the oldest prompt without an answer, so that memory does not grow with the input.
    """

    def __init__(self, prompts: Path, output: Path, settings: dict, in_order: bool = False, ahead: int = 16_384):
        self.prompts, self.output, self.in_order, self.ahead = prompts, output, in_order, ahead
        self.done, self.failed, self.held = Done(), 0, {}
        digest, self.total = read_through(prompts)
        self.answers = LineFile(output)
        try:
            self.errors = LineFile(beside(output, ".errors.jsonl"))
            self._claim(settings | {"prompts_sha256": digest, "in_order": in_order})
            for line in self.answers.recover():
                self.done.add(line)
            for line in self.errors.recover():
                self.done.add(line)
                self.failed += 1
        except BaseException:
            self.close()
            raise
        self.found_done = len(self.done)
        self.synced_s = time.monotonic()

    def __enter__(self) -> "BatchJob":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for file in (self.answers, getattr(self, "errors", None)):
            if file:
                file.close()

    def _claim(self, settings: dict) -> None:
        """Write down what the answers belong to. Raises Problem if they belong to something else."""
        note = beside(self.output, ".job.json")
        theirs = None
        with suppress(OSError, ValueError):
            theirs = json.loads(note.read_text())
        if theirs == settings:
            return
        if self.answers.end or self.errors.end:
            there = self.output if self.answers.end else self.errors.path
            if theirs is None:
                raise Problem(f"{there} exists, and is not of a job of this runner.", "Name another output.")
            names = sorted({name for name in settings.keys() | theirs.keys() if settings.get(name) != theirs.get(name)})
            raise Problem(
                f"{there} holds the answers of another job: {', '.join(names)} differ.",
                f"Name another output, or go on with what {note} says.",
            )
        results.write(note, json.dumps(settings, indent=1, ensure_ascii=False) + "\n")

    def pending(self) -> Iterator[Prompt | None]:
        """The prompts that are still to be answered, in order; bad lines go to the error file on the way.

        Yields None where the oldest prompt without an answer is too far behind: answers have to come first.
        """
        with self.prompts.open("rb") as lines:
            for number, raw in enumerate(lines, 1):
                if number in self.done:
                    continue
                while number > self.done.whole + self.ahead:
                    yield None
                try:
                    yield parse(number, raw)
                except BadLine as reason:
                    self.fail(number, str(reason))

    def answer(self, line: int, content: dict) -> None:
        """Take the answer to a line: written now, or in order as soon as those before it are done."""
        if not self.in_order:
            self._write(line, content)
            return
        self.held[line] = content
        self._write_held()

    def fail(self, line: int, reason: str) -> None:
        """Take a line that can't be answered to the error file, with the reason."""
        self.errors.append({"line": line, "error": reason})
        self.done.add(line)
        self.failed += 1
        self.sync_if_due()
        self._write_held()

    def _write_held(self) -> None:
        while (line := self.done.whole + 1) in self.held:
            self._write(line, self.held.pop(line))

    def _write(self, line: int, content: dict) -> None:
        self.answers.append({"line": line} | content)
        self.done.add(line)
        self.sync_if_due()

    def sync_if_due(self) -> None:
        """Bring all to the disk itself, if that was done more than SYNC_S ago."""
        if time.monotonic() - self.synced_s > SYNC_S:
            self.answers.sync()
            self.errors.sync()
            self.synced_s = time.monotonic()


def beside(output: Path, ending: str) -> Path:
    """Another file of the job with this output: its name, without .jsonl, and `ending`."""
    return output.with_name(output.name.removesuffix(".jsonl") + ending)


def read_through(prompts: Path) -> tuple[str, int]:
    """(SHA-256, number of lines) of a file. Raises Problem if it is missing, unreadable, a pipe, or empty."""
    digest, lines, last = hashlib.sha256(), 0, b"\n"
    try:
        with prompts.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Problem(f"{prompts} is no ordinary file.", "A job reads its prompts twice: write them to a file.")
            while piece := file.read(1 << 20):
                digest.update(piece)
                lines += piece.count(b"\n")
                last = piece[-1:]
    except OSError as error:
        raise Problem(f"{prompts} can't be read: {error.strerror}.", "Name a file of JSON lines that exists.") from None
    lines += last != b"\n"  # the last line may lack its end
    if not lines:
        raise Problem(f"{prompts} is empty.", 'A line is a prompt, such as {"prompt": "Once upon a time"}.')
    return digest.hexdigest(), lines
