"""Traces: reading files that are whole, cut, foreign or there already, and the pictures that are drawn of them."""

import json
import os
from itertools import pairwise

import numpy
import pytest
from PIL import Image

from common import perfetto, recorder, segments, timeline, trace
from common.problems import Problem

# ------------------------------------------------------------------------------------------- files, good and bad

HEADER = {
    "type": "engine", "version": 1, "model": "m", "block_size": 16, "num_blocks": 10, "max_num_batched_tokens": 32,
    "max_num_seqs": 4, "async_scheduling": False,
}  # fmt: skip


def arrival(name, at_s, prompt):
    return {
        "type": "request", "id": name, "arrival_s": at_s, "queued_s": at_s, "num_prompt_tokens": prompt, "priority": 0
    }  # fmt: skip


def step(start_s, running, waiting, used, **changes):
    return {
        "type": "step", "start_s": start_s, "scheduled_s": start_s + 0.01, "num_running": running,
        "num_waiting": waiting, "blocks_used": used, **changes,
    }  # fmt: skip


# a's prompt of 40 tokens takes two steps; b comes with 16 of its 20 tokens cached, is preempted, recomputed, finished.
# c never gets its turn, and the engine is killed in step 6.
LINES = [
    HEADER,
    arrival("a", 10.0, 40),
    step(10.1, 1, 0, 2, admitted={0: [0, 40]}, num_scheduled_tokens={0: 32}, new_block_ids={0: [1, 2]}),
    arrival("b", 10.15, 20),
    {"type": "output", "step": 0, "end_s": 10.5, "num_output_tokens": {0: 0}},
    step(10.6, 2, 0, 5, admitted={1: [16, 20]}, num_scheduled_tokens={0: 8, 1: 4}, new_block_ids={0: [3], 1: [1, 4]}),
    {"type": "output", "step": 1, "end_s": 10.8},
    step(10.8, 2, 0, 5, num_scheduled_tokens={0: 1, 1: 1}),
    {"type": "output", "step": 2, "end_s": 10.9},
    arrival("c", 10.9, 5),
    step(10.9, 1, 2, 3, not_scheduled=[1], preempted=[1]),
    {"type": "output", "step": 3, "end_s": 11.0, "finished": {0: "length"}},
    step(11.0, 1, 1, 2, admitted={1: [0, 22]}, num_scheduled_tokens={1: 22}, new_block_ids={1: [5, 6]}),
    {"type": "output", "step": 4, "end_s": 11.3},
    step(11.3, 1, 1, 2, num_scheduled_tokens={1: 1}),
    {"type": "output", "step": 5, "end_s": 11.4},
    step(11.4, 1, 1, 2),
]


def write_trace(file, lines=LINES):
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture
def by_hand(tmp_path):
    return write_trace(tmp_path / "trace.jsonl")


def test_a_trace_that_was_written_by_hand(by_hand):
    found = trace.read(by_hand)
    assert (found.max_num_batched_tokens, found.max_num_seqs, len(found.steps)) == (32, 4, 7)
    first, second, third, fourth, fifth, sixth, seventh = found.steps
    assert (first.prefill, second.prefill, third.prefill, fifth.prefill, sixth.prefill) == (
        ("a",), ("a", "b"), (), ("b",), (),
    )  # fmt: skip
    assert second.num_computed_tokens == {"a": 32, "b": 16}
    assert third.num_computed_tokens == {"a": 40, "b": 20}
    assert (second.num_cached_tokens, fifth.num_cached_tokens) == ({"b": 16}, {"b": 0})
    assert (first.num_output_tokens, second.num_output_tokens) == ({"a": 0}, {"a": 1, "b": 1})
    assert (fourth.preempted, fifth.resumed, fourth.finished) == (("b",), ("b",), ("a",))
    assert fourth.num_scheduled_tokens == {"a": 1}
    assert first.duration_ms == pytest.approx(400)
    assert (seventh.end_s, seventh.duration_ms, seventh.num_scheduled_tokens) == (None, None, {"b": 1})
    a, b, c = found.requests.values()
    assert (a.end_s, a.finish_reason, b.end_s, c.end_s) == (11.0, "length", None, None)


def test_a_part_of_a_trace(by_hand):
    part = trace.read(by_hand).between(10.95, 11.3)
    assert [found.number for found in part.steps] == [4, 5]
    assert list(part.requests) == ["b"]
    told = [(s.kind, s.began_s, s.end_s) for s in segments.segments(part)]
    assert told == [("recompute", 11.0, 11.3), ("decode", 11.3, 11.4)]  # when it was preempted is not in this part
    short = trace.read(by_hand).between(10.85, 10.95)
    told = [(s.request, s.kind, s.began_s) for s in segments.segments(short)]
    assert sorted(told) == [("a", "decode", 10.9), ("b", "waiting", 10.9), ("c", "waiting", 10.9)]
    assert trace.read(by_hand).between(0, 1).steps == []


def test_a_frame_has_a_row_for_each_request_of_each_step(by_hand):
    table = trace.read(by_hand).frame()
    assert len(table) == 9
    tokens = table.groupby(["request", "phase"]).num_scheduled_tokens.sum().to_dict()
    assert tokens == {("a", "prefill"): 40, ("a", "decode"): 2, ("b", "prefill"): 26, ("b", "decode"): 3}
    assert table.duration_ms.isna().sum() == 1


def test_a_last_line_that_was_cut_off_is_dropped(by_hand):
    whole = by_hand.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for length in range(start, len(whole)):
        by_hand.write_bytes(whole[:length])
        assert len(trace.read(by_hand).steps) == 6
    by_hand.write_bytes(whole)
    assert len(trace.read(by_hand).steps) == 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"%PDF-1.7\n%\xe2\xe3", "is not a trace of this course"),
        (b'{"a": 1}', "is not a trace of this course"),
        (b'{"type": "step"}\n', "is not a trace of this course"),
        (json.dumps(HEADER | {"version": 2}).encode() + b"\n", "is not a trace of this course"),
        (json.dumps(HEADER).encode() + b'\n{"type": "request"}\n', "is damaged in line 2 .*missing required field"),
        (json.dumps(HEADER).encode() + b"\n\x00\x00\n", "is damaged in line 2"),
        (json.dumps(HEADER).encode() + b'\n{"type":"output","step":3,"end_s":1.0}\n', "is damaged in line 2"),
        (json.dumps(HEADER).encode() + b'\n{"type":"abort","end_s":1.0,"requests":[0],"reason":""}\n', "damaged in"),
        (json.dumps(HEADER).encode() + b"\n" + json.dumps(HEADER).encode() + b"\n", "is damaged in line 2"),
    ],
)
def test_files_that_are_no_traces(tmp_path, content, message):
    (tmp_path / "trace.jsonl").write_bytes(content)
    with pytest.raises(Problem, match=message) as problem:
        trace.read(tmp_path / "trace.jsonl")
    assert problem.value.fix


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(Problem, match="There is no trace") as problem:
        trace.read(tmp_path / "trace.jsonl")
    assert "scheduler_cls=trace.SCHEDULER" in problem.value.fix
    with pytest.raises(Problem, match="can't be read"):
        trace.read(tmp_path)


def test_a_recording_overwrites_nothing(tmp_path, by_hand):
    before = by_hand.read_bytes()
    with pytest.raises(Problem, match=r"trace\.jsonl exists already"), trace.recording(by_hand):
        pass
    assert by_hand.read_bytes() == before
    by_hand.rename(tmp_path / "other-2.jsonl")
    with pytest.raises(Problem, match=r"other-2\.jsonl exists already"), trace.recording(tmp_path / "other.jsonl"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(Problem, match="can't be written"), trace.recording(tmp_path / "file" / "trace.jsonl"):
        pass
    assert recorder.VARIABLE not in os.environ


# ------------------------------------------------------------------------------------------------------ pictures


def test_what_each_request_did_when(by_hand):
    found = segments.segments(trace.read(by_hand))
    told = [(s.request, s.kind, s.began_s, s.end_s, s.first_step, s.last_step, s.num_tokens) for s in found]
    assert sorted(told) == [
        ("a", "decode", 10.8, 11.0, 2, 3, 2),
        ("a", "prefill", 10.1, 10.5, 0, 0, 32),
        ("a", "prefill", 10.6, 10.8, 1, 1, 8),
        ("a", "waiting", 10.0, 10.1, 0, 0, 0),
        ("b", "decode", 10.8, 10.9, 2, 2, 1),
        ("b", "decode", 11.3, 11.41, 5, 6, 2),
        ("b", "prefill", 10.6, 10.8, 1, 1, 4),
        ("b", "recompute", 11.0, 11.3, 4, 4, 22),
        ("b", "waiting", 10.15, 10.6, 1, 1, 0),
        ("b", "waiting", 10.9, 11.0, 4, 4, 0),
        ("c", "waiting", 10.9, 11.41, 6, 6, 0),
    ]


def test_decodes_with_a_gap_between_them_are_two_stretches(tmp_path):
    lines = [
        HEADER,
        arrival("a", 1.0, 1),
        arrival("b", 1.0, 1),
        step(1.0, 2, 0, 2, admitted={0: [0, 1], 1: [0, 1]}, num_scheduled_tokens={0: 1, 1: 1}),
        step(2.0, 2, 0, 2),
        step(3.0, 2, 0, 2, not_scheduled=[1]),
        step(4.0, 2, 0, 2, num_scheduled_tokens={1: 1}),
    ]
    found = segments.segments(trace.read(write_trace(tmp_path / "gap.jsonl", lines)))
    decodes = [(s.request, s.began_s, s.end_s) for s in found if s.kind == "decode"]
    assert decodes == [("a", 2.0, 4.01), ("b", 2.0, 3.0), ("b", 4.0, 4.01)]


def busy_trace(folder, requests: int, at_once: int = 16):
    """A trace of a make-believe engine: first come, first served, one prefill a step, ten decodes each."""
    written, waiting, left, last = [HEADER | {"num_blocks": 4 * at_once}], list(range(requests)), {}, {}
    written += [arrival(f"cmpl-{number:032x}-0-0123abcd", 10 + 0.002 * number, 20) for number in range(requests)]
    now, number = 10.0, 0
    while waiting or left:
        scheduled, new = dict.fromkeys(left, 1), {}
        if waiting and len(left) < at_once:
            new = {waiting[0]: [0, 20]}
            scheduled[waiting.pop(0)] = 20
        changed = {request: count for request, count in scheduled.items() if last.get(request) != count}
        gone = [request for request in last if request not in scheduled]
        counts = len(scheduled), len(waiting), 2 * len(scheduled)
        written.append(step(now, *counts, admitted=new, num_scheduled_tokens=changed, not_scheduled=gone))
        left = {request: left.get(request, 11) - 1 for request in scheduled}
        ended = {request: "length" for request, more in left.items() if not more}
        now += 0.02
        written.append({"type": "output", "step": number, "end_s": now, "finished": ended})
        number += 1
        left = {request: more for request, more in left.items() if more}
        last = {request: count for request, count in scheduled.items() if request in left}
    return trace.read(write_trace(folder / "busy.jsonl", written))


@pytest.mark.parametrize("requests", [8, 64, 1000])
def test_a_picture_is_small_and_shows_each_kind(tmp_path, requests):
    file = tmp_path / "new" / "timeline.png"
    timeline.draw(busy_trace(tmp_path, requests), file, "a model on some hardware")
    assert file.stat().st_size < 80_000
    with Image.open(file) as picture:
        assert picture.width <= 1000
        pixels = numpy.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    for kind in {"waiting", "prefill", "decode"}:
        wanted = [int(timeline.KINDS[kind][place : place + 2], 16) for place in (1, 3, 5)]
        assert (abs(pixels - wanted).max(axis=1) < 24).sum() > 200, kind


def test_a_picture_marks_preemption_and_recomputation(tmp_path, by_hand):
    timeline.draw(trace.read(by_hand), tmp_path / "with.png")
    without = [line | {"preempted": []} if "preempted" in line else line for line in LINES]
    timeline.draw(trace.read(write_trace(tmp_path / "other.jsonl", without)), tmp_path / "without.png")
    pixels = [
        numpy.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int) for name in ("with.png", "without.png")
    ]
    red = [(abs(picture - [0xD5, 0x5E, 0]).max(axis=2) < 24).sum() for picture in pixels]
    assert red[0] > 200
    assert red[1] == 0


def test_requests_share_rows_only_where_there_are_many(tmp_path):
    few, many = busy_trace(tmp_path, 100), busy_trace(tmp_path, 1000, at_once=100)
    assert sorted(segments.rows(few, segments.segments(few)).values()) == list(range(100))
    found = segments.segments(many)
    row_of = segments.rows(many, found)
    assert row_of.keys() == many.requests.keys()
    assert max(row_of.values()) < 999
    in_row: dict[int, list] = {}
    for segment in found:
        in_row.setdefault(row_of[segment.request], []).append(segment)
    for shared in in_row.values():
        shared.sort(key=lambda segment: segment.began_s)
        assert all(before.end_s <= after.began_s for before, after in pairwise(shared))


def test_pictures_that_cannot_be_made(tmp_path, by_hand):
    empty = trace.read(write_trace(tmp_path / "empty.jsonl", [HEADER, arrival("a", 1.0, 3)]))
    for make in (timeline.draw, timeline.chrome):
        with pytest.raises(Problem, match="holds no steps"):
            make(empty, tmp_path / "nothing")
        with pytest.raises(Problem, match="can't be written"):
            make(trace.read(by_hand), by_hand / "under a file")
    assert not (tmp_path / "nothing").exists()


# -------------------------------------------------------------------------------------------------- Chrome traces

KEYS = {  # by phase, as the format has them
    "X": {"name", "ph", "ts", "dur", "pid", "tid"},
    "i": {"name", "ph", "ts", "pid", "tid", "s"},
    "C": {"name", "ph", "ts", "pid", "args"},
    "M": {"name", "ph", "pid", "args"},
}


def check_chrome(events: list[dict]) -> None:
    """The rules of the Trace Event Format, for the phases that occur here."""
    open_until: dict[tuple, list[int]] = {}
    named, used, last_ts = set(), set(), 0
    for event in events:
        assert event["ph"] in KEYS, event
        assert KEYS[event["ph"]] <= event.keys(), event
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            named.add((event["name"], event["pid"], event["tid"] if event["name"] == "thread_name" else None))
            continue
        assert isinstance(event["ts"], (int, float))
        assert event["ts"] >= last_ts, "not in the order of time"
        last_ts = event["ts"]
        used |= {("process_name", event["pid"], None), ("thread_name", event["pid"], event["tid"])}
        if event["ph"] == "i":
            assert event["s"] in "tpg"
        if event["ph"] == "C":
            assert event["args"]
            assert all(isinstance(value, (int, float)) for value in event["args"].values()), event
        if event["ph"] == "X":
            assert event["dur"] >= 0
            end = event["ts"] + event["dur"]
            enclosing = open_until.setdefault((event["pid"], event["tid"]), [])
            while enclosing and enclosing[-1] <= event["ts"]:
                enclosing.pop()
            assert not enclosing or end <= enclosing[-1], f"overlaps in part: {event}"
            enclosing.append(end)
    assert used <= named, "a track without a name"


def test_a_chrome_trace_keeps_to_the_format(tmp_path, by_hand):
    for found in (trace.read(by_hand), trace.read(by_hand).between(10.95, 12), busy_trace(tmp_path, 100)):
        file = tmp_path / "new" / f"{len(found.requests)}.json"
        timeline.chrome(found, file)
        check_chrome(json.loads(file.read_text())["traceEvents"])


def test_a_chrome_trace_tells_what_happened(by_hand):
    events = perfetto.events(trace.read(by_hand))
    track = {e["args"]["name"]: (e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    spans = [e for e in events if e["ph"] == "X" and (e["pid"], e["tid"]) == track["b"]]
    assert [(e["name"], e["ts"], e["dur"]) for e in spans] == [
        ("waiting", 150_000, 450_000),
        ("prefill", 600_000, 200_000),
        ("decode", 800_000, 100_000),
        ("waiting", 900_000, 100_000),
        ("recompute", 1_000_000, 300_000),
        ("decode", 1_300_000, 110_000),
    ]
    steps = [e["name"] for e in events if e["ph"] == "X" and (e["pid"], e["tid"]) == track["steps"]]
    assert steps == [f"step {number}" for number in range(7)]
    marks = [(e["name"], e["ts"], e["tid"]) for e in events if e["ph"] == "i"]
    assert marks == [("preempted", 900_000, track["b"][1]), ("ended: length", 1_000_000, track["a"][1])]
    assert [e["args"]["used"] for e in events if e["name"] == "KV blocks"] == [2, 5, 5, 3, 2, 2, 2]


@pytest.mark.parametrize(
    "change",
    [{"dur": -1}, {"ts": 10**9}, {"ph": "Q"}, {"tid": 99}, {"dur": 600_000}, {"ts": None}],
)
def test_the_check_of_chrome_traces_notices(by_hand, change):
    events = perfetto.events(trace.read(by_hand))
    place = next(place for place, e in enumerate(events) if e["name"] == "prefill")
    check_chrome(events)
    with pytest.raises(AssertionError):
        check_chrome([*events[:place], events[place] | change, *events[place + 1 :]])


def test_a_chrome_trace_overwrites_nothing(tmp_path, by_hand):
    (tmp_path / "there.json").write_text("mine")
    with pytest.raises(Problem, match=r"there\.json exists already"):
        timeline.chrome(trace.read(by_hand), tmp_path / "there.json")
    assert (tmp_path / "there.json").read_text() == "mine"


def test_the_command_draws_what_it_is_asked_for(tmp_path, by_hand, capsys):
    picture, zoomable = tmp_path / "a.png", tmp_path / "a.json"
    assert trace.main([str(by_hand), "--png", str(picture), "--perfetto", str(zoomable)]) == 0
    assert capsys.readouterr().out == "7 steps, 3 requests, 1 preemptions, m\n"
    assert Image.open(picture).format == "PNG"
    assert json.loads(zoomable.read_text())["traceEvents"]
    assert trace.main([str(by_hand), "--perfetto", str(zoomable)]) == 1
    assert "fix: " in capsys.readouterr().err
    assert trace.main([str(tmp_path / "none.jsonl")]) == 1
    assert "There is no trace" in capsys.readouterr().err
