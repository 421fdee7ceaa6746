"""What each request of a trace did when, as stretches of time: what pictures of it are drawn from."""

from collections.abc import Iterable
from dataclasses import dataclass

from common.problems import Problem
from common.steps import Step, Trace

ROWS = 128  # requests with a row of their own; where there are more, requests that follow each other share one


@dataclass(slots=True)
class Segment:
    """A stretch of a request's time: waiting, a chunk of its prefill, a chunk of a recomputation, decodes in a row."""

    request: str
    kind: str  # waiting, prefill, recompute or decode
    began_s: float
    end_s: float
    first_step: int
    last_step: int
    num_tokens: int


def last_s(trace: Trace) -> float:
    """The last moment that a trace knows of. Raises Problem for a trace without steps."""
    if not trace.steps:
        raise Problem("The trace holds no steps: nothing was scheduled.", "Send the engine a request while it records.")
    ended = [step.end_s for step in trace.steps if step.end_s is not None]
    return max(trace.steps[-1].scheduled_s, trace.steps[-1].began_s, *ended[-1:])


def ends(trace: Trace) -> list[float]:
    """When each step ended; where its output never came, when the next one began or the trace ends."""
    following = [step.began_s for step in trace.steps[1:]] + [last_s(trace)]
    return [after if step.end_s is None else step.end_s for step, after in zip(trace.steps, following, strict=True)]


def split(step: Step) -> tuple[int, int]:
    """(tokens of prefills, tokens of decodes) in a step."""
    prefill = sum(step.num_scheduled_tokens[name] for name in step.prefill)
    return prefill, sum(step.num_scheduled_tokens.values()) - prefill


def segments(trace: Trace) -> list[Segment]:
    """What each request did. Segments of one request follow each other and don't overlap."""
    found: list[Segment] = []
    current: dict[str, Segment] = {}
    recomputing: set[str] = set()
    arrived_s = {name: request.arrival_s for name, request in trace.requests.items()}  # of those that have not run
    preempted_s: dict[str, float] = {}  # of those that have not run since
    for step, end_s in zip(trace.steps, ends(trace), strict=True):
        recomputing.update(step.resumed)
        preempted_s |= dict.fromkeys(step.preempted, step.began_s)
        for name in step.num_cached_tokens:
            if name in step.resumed:  # in a part of a trace perhaps preempted before it begins
                since = preempted_s.get(name, trace.steps[0].began_s)
            else:
                since = arrived_s.get(name, step.began_s)
            if since < step.began_s:
                found.append(Segment(name, "waiting", since, step.began_s, step.number, step.number, 0))
        prefill = set(step.prefill)
        for name, tokens in step.num_scheduled_tokens.items():
            arrived_s.pop(name, None)
            preempted_s.pop(name, None)
            kind, before = "decode", current.get(name)
            if name in prefill:
                kind = "recompute" if name in recomputing else "prefill"
            elif before and before.kind == "decode" and before.last_step == step.number - 1:
                before.end_s, before.last_step = end_s, step.number
                before.num_tokens += tokens
                continue
            current[name] = Segment(name, kind, step.began_s, end_s, step.number, step.number, tokens)
            found.append(current[name])
    final_s, last_step = last_s(trace), trace.steps[-1].number
    for name, since in (arrived_s | preempted_s).items():
        until = min(trace.requests[name].end_s or final_s, final_s)
        if since < until:
            found.append(Segment(name, "waiting", since, until, last_step, last_step, 0))
    return found


def rows(trace: Trace, found: Iterable[Segment]) -> dict[str, int]:
    """The row of each request: its own, or where there are more than ROWS the first that is free when it arrives."""
    spans: dict[str, tuple[float, float]] = {}
    for segment in found:
        began_s, end_s = spans.get(segment.request, (segment.began_s, segment.end_s))
        spans[segment.request] = min(began_s, segment.began_s), max(end_s, segment.end_s)
    shown = [name for name in trace.requests if name in spans]
    if len(shown) <= ROWS:
        return {name: row for row, name in enumerate(shown)}
    row_of: dict[str, int] = {}
    free_s: list[float] = []  # from when on each row is free
    for name in sorted(shown, key=lambda name: spans[name]):
        began_s, end_s = spans[name]
        row = next((row for row, free in enumerate(free_s) if free <= began_s), len(free_s))
        free_s[row : row + 1] = [end_s]
        row_of[name] = row
    return row_of
