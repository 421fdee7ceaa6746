"""Reading a trace file: the steps and requests that its lines tell of."""

from array import array
from pathlib import Path

import msgspec

from common import trace_lines as lines
from common.problems import Problem, explain, first_line
from common.steps import Request, Step, Trace


class _Reader:
    """Follows the lines of a trace, and undoes what `recorder.Recorder` leaves out."""

    def __init__(self, header: lines.Header):
        limits = msgspec.structs.asdict(header)
        del limits["version"]
        self.trace = Trace(**limits)
        self.requests: list[Request] = []
        self.running: dict[str, int] = {}  # num_scheduled_tokens of the last step
        self.outputs: dict[str, int] = {}  # num_output_tokens of the last step that ended
        self.outputs_of: dict[str, int] | None = None  # the num_scheduled_tokens that they belong to
        self.computed: dict[str, int] = {}
        self.known: dict[str, int] = {}  # tokens at the start, or when it was resumed: up to there it is prefill
        self.preempted: set[str] = set()

    def take(self, line: lines.Line) -> None:
        match line:
            case lines.Schedule():
                self.schedule(line)
            case lines.Output():
                self.output(line)
            case lines.Arrival():
                self.arrival(line)
            case lines.Abort():
                self.end(dict.fromkeys(line.requests, line.reason), line.end_s)
            case _:
                raise LookupError("a second header")

    def names(self, numbers: dict[int, object]) -> dict[str, object]:
        return {self.requests[number].id: value for number, value in numbers.items()}

    def arrival(self, line: lines.Arrival) -> None:
        name, uses = line.id, 1
        while name in self.trace.requests:
            uses += 1
            name = f"{line.id}#{uses}"
        request = Request(name, line.arrival_s, line.queued_s, line.num_prompt_tokens, line.priority)
        self.requests.append(request)
        self.trace.requests[name] = request

    def schedule(self, line: lines.Schedule) -> None:
        if line.num_scheduled_tokens or line.not_scheduled:
            self.running = self.running | self.names(line.num_scheduled_tokens)
            for name in self.names(dict.fromkeys(line.not_scheduled)):
                del self.running[name]
        admitted = self.names(line.admitted)
        preempted = tuple(self.names(dict.fromkeys(line.preempted)))
        self.preempted.update(preempted)  # first: what is preempted from outside can be admitted in the same step
        for name, (cached, known) in admitted.items():
            self.computed[name], self.known[name] = cached, known
        self.computed |= self.names(line.num_computed_tokens)
        step = Step(
            number=len(self.trace.steps),
            start_s=line.start_s,
            scheduled_s=line.scheduled_s,
            began_s=line.start_s,
            num_running=line.num_running,
            num_waiting=line.num_waiting,
            blocks_used=line.blocks_used,
            num_scheduled_tokens=self.running,
            computed=array("q", [self.computed[name] for name in self.running]),
            prefill=tuple(name for name in self.running if self.computed[name] < self.known[name]),
            num_cached_tokens={name: cached for name, (cached, _) in admitted.items()},
            resumed=tuple(name for name in admitted if name in self.preempted),
            preempted=preempted,
            new_block_ids=self.names(line.new_block_ids),
            num_draft_tokens=self.names(line.num_draft_tokens),
        )
        self.trace.steps.append(step)
        self.preempted.difference_update(admitted)
        for name, count in self.running.items():
            self.computed[name] += count

    def output(self, line: lines.Output) -> None:
        step = self.trace.steps[line.step]
        if line.num_output_tokens or self.outputs_of is not step.num_scheduled_tokens:
            alive = {name: 1 for name in step.num_scheduled_tokens if self.trace.requests[name].end_s is None}
            self.outputs = alive | self.names(line.num_output_tokens)
            self.outputs_of = None if line.num_output_tokens else step.num_scheduled_tokens
        step.num_output_tokens, step.end_s = self.outputs, line.end_s
        for later in self.trace.steps[line.step + 1 :]:
            later.began_s = max(later.began_s, line.end_s)
        step.finished = tuple(self.names(line.finished))
        self.end(line.finished, line.end_s)

    def end(self, reasons: dict[int, str], end_s: float) -> None:
        ended = self.names(reasons)
        for name, reason in ended.items():
            request = self.trace.requests[name]
            request.end_s, request.finish_reason = end_s, reason
            self.computed.pop(name, None)
        self.outputs_of = None
        if not self.running.keys().isdisjoint(ended):
            self.running = {name: count for name, count in self.running.items() if name not in ended}


def read(file: Path | str) -> Trace:
    """The trace in a file, also while its engine still runs; a last line that was cut off is dropped.

    Raises Problem if there is no such file, or it is empty, not a trace, or damaged.
    """
    path = Path(file)
    decode = msgspec.json.Decoder(lines.Line).decode
    reader = None
    try:
        with path.open("rb") as stored:
            for place, line in enumerate(stored, 1):
                if not line.endswith(b"\n"):
                    break
                if reader is None:
                    reader = _Reader(_header(path, line))
                    continue
                try:
                    reader.take(decode(line))
                except (msgspec.MsgspecError, LookupError) as error:
                    raise Problem(
                        f"{path} is damaged in line {place} ({first_line(error)}).",
                        f"Keep what is whole: head -n {place - 1} {path} > FILE; or record it again.",
                    ) from None
    except FileNotFoundError:
        raise Problem(
            f"There is no trace {path}.",
            "Start an engine with scheduler_cls=trace.SCHEDULER within trace.recording: one that ran before it, and "
            "that models.engine gives back for equal arguments, records where it began to.",
        ) from None
    except OSError as error:
        meaning, fix = explain(error)
        raise Problem(f"{path} can't be read: {error.strerror}.", fix, meaning) from None
    if reader is None and path.stat().st_size:
        raise _foreign(path)
    if reader is None:
        raise Problem(f"{path} is empty.", "Its engine died as it started: see the engine's log. Then record again.")
    return reader.trace


def _header(path: Path, line: bytes) -> lines.Header:
    try:
        header = msgspec.json.decode(line, type=lines.Header)
    except msgspec.MsgspecError:
        raise _foreign(path) from None
    if header.version != lines.VERSION:
        raise _foreign(path)
    return header


def _foreign(path: Path) -> Problem:
    return Problem(f"{path} is not a trace of this course.", "Name a .jsonl file that trace.recording wrote.")
