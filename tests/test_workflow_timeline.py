"""Chapter 4: its timeline, from the rows of a table back to steps, and as a picture."""

import json

import pytest
import workflow_engine
from PIL import Image
from workflow_engine import BLOCK, BUDGET, SLOTS, driving, request_mixes, stages

from common import models, segments, timeline_table
from common.figures import Figure
from common.in_process import small_cache
from common.lengths import Lengths

Request = request_mixes.Request


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    yield workflow_engine.start(tmp_path_factory.mktemp("workflow") / "engine.jsonl")
    models.close_engine()


@pytest.fixture(scope="module")
def mixed(traced):
    """(trace, names, settings) of a load with waiting, chunks and preemptions."""
    requests = request_mixes.of_lengths([Lengths(100, 30), Lengths(300, 8)] * 5, "r")
    requests = [
        Request(f"r{place}", request.prompt, request.output_tokens, due_s=0.01 * place, use_prefix_cache=False)
        for place, request in enumerate(requests)
    ]
    with small_cache(traced.scheduler, 26, 320):
        served = driving.drive(traced.llm, requests)
    found = traced.steps_of(served)
    assert stages.preemptions(found) > 0
    settings = {"block_size": BLOCK, "num_blocks": 26, "max_num_batched_tokens": BUDGET, "max_num_seqs": SLOTS}
    return found, {answer.id: answer.request.name for answer in served.answers}, settings


@pytest.mark.engine
def test_a_timeline_from_its_table_is_that_of_the_trace(mixed):
    found, names, settings = mixed
    rows = timeline_table.table(found, names)
    assert sum(row["steps"] for row in rows) == len(found.steps) > len(rows)
    again = timeline_table.trace_of(json.loads(json.dumps(rows)), settings)
    for step, drawn in zip(found.steps, again.steps, strict=True):
        assert drawn.num_scheduled_tokens == {names[name]: n for name, n in step.num_scheduled_tokens.items()}
        assert set(drawn.prefill) == {names[name] for name in step.prefill}
        assert set(drawn.preempted) == {names[name] for name in step.preempted}
        assert set(drawn.resumed) == {names[name] for name in step.resumed}

    def computing(of, called) -> list[tuple]:
        return sorted(
            (called(s.request), s.kind, s.first_step, s.last_step, s.num_tokens)
            for s in segments.segments(of)
            if s.kind != "waiting"
        )

    first = found.steps[0].number
    wanted = [(r, k, a - first, b - first, n) for r, k, a, b, n in computing(found, names.get)]
    assert computing(again, str) == wanted
    assert {"prefill", "recompute", "decode"} == {kind for _, kind, *_ in wanted}
    length_s = found.steps[-1].end_s - found.steps[0].began_s
    assert again.steps[-1].end_s == pytest.approx(length_s, rel=0.02)


@pytest.mark.engine
def test_the_timeline_figure_is_drawn_from_rows(mixed, tmp_path):
    found, names, settings = mixed
    figure = Figure(name="timeline", experiment="timeline", kind="timeline", title="A mix")
    record = {
        "rows": timeline_table.table(found, names), "settings": settings, "hardware": {"name": "A CPU"},
        "model": {"weights": "0123456789abcdef"}, "date": "2026-11-21 05:00 UTC",
    }  # fmt: skip
    figure.draw(tmp_path, "cpu", record)
    file = figure.file(tmp_path, "cpu")
    assert figure.is_current(tmp_path, "cpu", record) and file.stat().st_size < 80_000
    with Image.open(file) as picture:
        assert picture.width > 600 and len(picture.convert("RGB").getcolors(1 << 20)) > 5
    before = file.read_bytes()
    figure.draw(tmp_path, "cpu", record)
    assert file.read_bytes() == before
    record["rows"][0]["prefill"] = record["rows"][0]["prefill"].replace(" 1", " 2")
    assert not figure.is_current(tmp_path, "cpu", record)
