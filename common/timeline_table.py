"""A trace as a table, and back: a row for each run of steps that scheduled the same requests in the same way.

A results file holds this table instead of the trace, and a timeline can be drawn from it again. It keeps who computed
what in which step; steps of one row share their mean duration. Prefix-cache hits are not kept.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence

from common.segments import ends
from common.steps import Request, Step, Trace


def table(trace: Trace, names: Mapping[str, str]) -> list[dict]:
    """Rows in the order of time. `names` gives each request's id a short name without spaces.

    `prefill` and `decode` list who was scheduled, a prefill with its number of tokens; `waiting` who was not, and had
    arrived before the last of these steps ended. `blocks_used` is that of the last step.
    """
    rows: list[dict] = []
    start_s, preempted = trace.steps[0].began_s, set()
    came = {name: request.arrival_s for name, request in trace.requests.items()}
    for step, end_s in zip(trace.steps, ends(trace), strict=True):
        preempted = (preempted | set(step.preempted)) - step.num_scheduled_tokens.keys()
        for name in step.num_scheduled_tokens:
            came.pop(name, None)
        waiting = [name for name in trace.requests if name in preempted or came.get(name, end_s) < end_s]
        decoding = [name for name in step.num_scheduled_tokens if name not in step.prefill]
        row = {
            "first_step": step.number - trace.steps[0].number,
            "steps": 1,
            "start_ms": (step.began_s - start_s) * 1e3,
            "ms_per_step": (end_s - step.began_s) * 1e3,
            "prefill": ", ".join(f"{names[name]} {step.num_scheduled_tokens[name]}" for name in step.prefill),
            "decode": " ".join(names[name] for name in decoding),
            "waiting": " ".join(names[name] for name in waiting),
            "blocks_used": step.blocks_used,
        }
        same = rows and not step.prefill and all(rows[-1][c] == row[c] for c in ("prefill", "decode", "waiting"))
        if same:
            last = rows[-1]
            last["steps"] += 1
            last["ms_per_step"] = ((end_s - start_s) * 1e3 - last["start_ms"]) / last["steps"]
            last["blocks_used"] = step.blocks_used
        else:
            rows.append(row)
    return rows


def _steps(rows: Sequence[Mapping]) -> Iterator[tuple[Mapping, float, float]]:
    """(row, begin, end) of each step, in seconds after the first."""
    for row in rows:
        for place in range(row["steps"]):
            begin_ms = row["start_ms"] + place * row["ms_per_step"]
            yield row, begin_ms / 1e3, (begin_ms + row["ms_per_step"]) / 1e3


def trace_of(rows: Sequence[Mapping], settings: Mapping[str, object]) -> Trace:
    """The trace that a table came from, as far as it was kept. `settings` are those of the record: the engine's limits.

    Raises KeyError if a limit is missing.
    """
    trace = Trace("", settings["block_size"], settings["num_blocks"], settings["max_num_batched_tokens"],
                  settings["max_num_seqs"], False)  # fmt: skip
    computed: dict[str, int] = {}
    before: set[str] = set()  # scheduled in the step before
    for number, (row, begin_s, end_s) in enumerate(_steps(rows)):
        prefill = {name: int(count) for name, count in map(str.split, filter(None, row["prefill"].split(", ")))}
        scheduled = dict.fromkeys(row["decode"].split(), 1) | prefill
        waiting = set(row["waiting"].split())
        for name in [*scheduled, *row["waiting"].split()]:
            trace.requests.setdefault(name, Request(name, begin_s, begin_s, 0, 0))
        preempted = tuple(sorted(waiting & computed.keys() & before))
        for step in trace.steps[-1:]:
            step.finished = tuple(before - scheduled.keys() - waiting)
        trace.steps.append(
            Step(
                number=number,
                start_s=begin_s,
                scheduled_s=begin_s,
                began_s=begin_s,
                end_s=end_s,
                num_running=len(scheduled),
                num_waiting=len(waiting),
                blocks_used=row["blocks_used"],
                num_scheduled_tokens=scheduled,
                computed=array("q", [computed.get(name, 0) for name in scheduled]),
                prefill=tuple(prefill),
                num_cached_tokens=dict.fromkeys(scheduled.keys() - before, 0),
                resumed=tuple(name for name in scheduled if name in computed and name not in before),
                preempted=preempted,
            )
        )
        for name, count in scheduled.items():
            computed[name] = computed.get(name, 0) + count
            trace.requests[name].end_s = end_s
        before = set(scheduled)
    for step in trace.steps[-1:]:
        step.finished = tuple(before)
    return trace
