"""A trace in the Chrome trace format, in which Perfetto opens it.

The format: "Trace Event Format", https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

import json
from pathlib import Path

from common.problems import Problem, explain
from common.segments import ends, last_s, segments, split
from common.steps import Trace

ENGINE, REQUESTS = 1, 2  # the two groups of tracks; the format calls them processes


def chrome(trace: Trace, file: Path | str) -> None:
    """Write Chrome trace JSON, which https://ui.perfetto.dev opens; the file stays on this machine.

    Steps are on one track, each request on its own; counters show the KV cache and the queue. Raises Problem if
    `file` exists or can't be written, or the trace has no steps.
    """
    text = json.dumps({"displayTimeUnit": "ms", "traceEvents": events(trace)}, separators=(",", ":"))
    if Path(file).exists():
        raise Problem(f"{file} exists already.", "Name another file, or remove it.")
    try:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        with Path(file).open("x") as written:
            written.write(text)
    except OSError as error:
        meaning, fix = explain(error)
        raise Problem(f"{file} can't be written: {error.strerror}.", fix, meaning) from None


def events(trace: Trace) -> list[dict]:
    """The events of a trace: names of tracks first, then all else in the order of time, which starts at 0 µs."""
    found = segments(trace)
    begin, final_s = min(segment.began_s for segment in found), last_s(trace)
    track = {name: place for place, name in enumerate(trace.requests, 1)}

    def microseconds(seconds: float) -> int:
        return round((seconds - begin) * 1e6)

    def named(what: str, name: str, pid: int, tid: int = 0) -> dict:
        return {"name": what, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}

    def complete(name: str, pid: int, tid: int, began_s: float, end_s: float, **args: object) -> dict:
        ts, end = microseconds(began_s), microseconds(end_s)
        return {"name": name, "ph": "X", "ts": ts, "dur": end - ts, "pid": pid, "tid": tid, "args": args}

    def instant(name: str, request: str, at_s: float) -> dict:
        return {"name": name, "ph": "i", "s": "t", "ts": microseconds(at_s), "pid": REQUESTS, "tid": track[request]}

    def counter(name: str, at_s: float, **values: int) -> dict:
        return {"name": name, "ph": "C", "ts": microseconds(at_s), "pid": ENGINE, "tid": 0, "args": values}

    names = [
        named("process_name", f"engine: {trace.model}", ENGINE),
        named("thread_name", "steps", ENGINE),
        named("process_name", "requests", REQUESTS),
        *(named("thread_name", name, REQUESTS, tid) for name, tid in track.items()),
    ]
    timed = []
    for step, end_s in zip(trace.steps, ends(trace), strict=True):
        prefill, decode = split(step)
        counts = {"prefill_tokens": prefill, "decode_tokens": decode, "num_running": step.num_running}
        timed.append(complete(f"step {step.number}", ENGINE, 0, step.began_s, end_s, **counts))
        timed.append(counter("KV blocks", step.began_s, used=step.blocks_used))
        timed.append(counter("requests", step.began_s, running=step.num_running, waiting=step.num_waiting))
        timed.append(counter("tokens", step.began_s, prefill=prefill, decode=decode))
        timed += [instant("preempted", name, step.began_s) for name in step.preempted]
    for segment in found:
        steps = f"{segment.first_step} to {segment.last_step}"
        args = {} if segment.kind == "waiting" else {"num_tokens": segment.num_tokens, "steps": steps}
        place = REQUESTS, track[segment.request]
        timed.append(complete(segment.kind, *place, segment.began_s, segment.end_s, **args))
    for name, request in trace.requests.items():
        if request.end_s is not None and request.end_s <= final_s:
            timed.append(instant(f"ended: {request.finish_reason}", name, request.end_s))
    return names + sorted(timed, key=lambda event: event["ts"])
