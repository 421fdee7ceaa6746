"""--trace FOLDER: the picture of a learner's own run, from the command line to the files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from common import trace

ROOT = Path(trace.__file__).parent.parent

# A line for each thing that an engine would write.
TRACE = """{"type":"engine","version":1,"model":"m","block_size":16,"num_blocks":9,"max_num_batched_tokens":32,\
"max_num_seqs":4,"async_scheduling":false}
{"type":"request","id":"a","arrival_s":1.0,"queued_s":1.0,"num_prompt_tokens":4,"priority":0}
{"type":"step","start_s":1.1,"scheduled_s":1.2,"num_running":1,"num_waiting":0,"blocks_used":1,"admitted":{"0":[0,4]},\
"num_scheduled_tokens":{"0":4},"new_block_ids":{"0":[1]}}
"""

# Its engines are make-believe: they write what an engine does that is killed in its first step.
PRETENDING = f'''"""9.fake: a chapter for the tests"""

import os
from pathlib import Path

import pandas as pd

from common.chapter import Chapter

chapter = Chapter(__file__)
TRACE = {TRACE!r}


@chapter.experiment
def works(run):
    """Does it work?"""
    for name in os.environ.get("COURSE_TRACE_FILE", "").split():
        Path(name).write_text(TRACE)
        Path(name).with_stem(Path(name).stem + "-2").write_text(TRACE)
    return pd.DataFrame([{{"seconds": 1.5}}])


@chapter.experiment
def dies(run):
    """Is what it did kept?"""
    Path(os.environ["COURSE_TRACE_FILE"]).write_text(TRACE + TRACE[:20])
    raise RuntimeError("Engine core proc died")


@chapter.experiment
def idle(run):
    """Does an engine that did nothing harm?"""
    Path(os.environ["COURSE_TRACE_FILE"]).write_text(TRACE.splitlines(keepends=True)[0])
    return pd.DataFrame([{{"seconds": 1.5}}])


if __name__ == "__main__":
    chapter.main()
'''

WORKING = '''"""9.fake: a chapter for the tests"""

import os
from pathlib import Path

import pandas as pd

from common import throughput, trace
from common.chapter import Chapter

chapter = Chapter(__file__)
TIGHT = {"max_model_len": 256, "block_size": 32, "num_gpu_blocks_override": 9, "max_num_batched_tokens": 64}


@chapter.experiment
def tight(run):
    """What does the scheduler do with a KV cache that is too small?"""
    from vllm import SamplingParams

    sampling = SamplingParams(max_tokens=60, ignore_eos=True, temperature=0.0)
    with trace.recording(os.environ["OWN_TRACE"]):
        llm = run.engine(**TIGHT)
    prompts = [{"prompt_token_ids": ids} for ids in throughput.random_prompts(3, 100)]
    outputs = llm.generate(prompts, sampling, use_tqdm=False) + llm.generate(prompts[2], sampling, use_tqdm=False)
    run.count(sum(len(output.outputs[0].token_ids) for output in outputs))
    return pd.DataFrame([{"request": output.request_id, "output_tokens": len(output.outputs[0].token_ids)}
                         for output in outputs])


@chapter.experiment
def pair(run):
    """What does recording cost?"""
    with trace.engine_pair(run.model, run.machine, run.logs / "pair.jsonl", **TIGHT) as engines:
        rates = {name: throughput.of_vllm(llm, 2, 10, 20)() for name, llm in engines.items()}
    tokens = trace.read(run.logs / "pair.jsonl").frame().num_output_tokens.sum()
    rows = [{"engine": name, "output_tok_s": rate, "output_tokens": tokens} for name, rate in rates.items()]
    return pd.DataFrame(rows)


if __name__ == "__main__":
    chapter.main()
'''


class Demo:
    """A chapter in a folder of its own, and its demo as a command."""

    def __init__(self, folder: Path, source: str):
        self.folder, self.traces = folder, folder / "new" / "traces"
        (folder / "9.fake").mkdir()
        self.demo = folder / "9.fake" / "demo.py"
        self.demo.write_text(source)
        self.report = folder / "report.json"

    def run(self, *words) -> tuple[int, str]:
        """(exit status, what the terminal showed, on one line)."""
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(self.folder), "COLUMNS": "500"}
        environment |= {"OWN_TRACE": str(self.folder / "own.jsonl")}
        command = [sys.executable, self.demo, "--json", self.report, *map(str, words)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        return ended.returncode, " ".join((ended.stdout + ended.stderr).split())


@pytest.fixture
def pretending(tmp_path):
    return Demo(tmp_path, PRETENDING)


@pytest.mark.parametrize("other", ["--save", "--replay"])
def test_a_traced_run_is_neither_saved_nor_replayed(pretending, other):
    code, shown = pretending.run("--trace", pretending.traces, other)
    assert code == 2
    assert "--trace watches the engines of this run: it goes neither with --save nor with --replay" in shown
    assert not pretending.traces.exists()


def test_each_engine_is_drawn_and_named_and_nothing_overwritten(pretending):
    pretending.traces.mkdir(parents=True)
    (pretending.traces / "8.other-works.jsonl").write_text("another chapter's")
    code, shown = pretending.run("--trace", pretending.traces)
    statuses = {entry["name"]: entry["status"] for entry in json.loads(pretending.report.read_text())["experiments"]}
    assert (code, statuses) == (1, {"works": "ran", "dies": "failed", "idle": "ran"})
    for name in ("9.fake-works", "9.fake-works-2", "9.fake-dies"):
        file = pretending.traces / f"{name}.jsonl"
        for made in (file, file.with_suffix(".png"), file.with_suffix(".json")):
            assert str(made) in shown.replace(" ", "")
        assert len(trace.read(file).steps) == 1
        assert Image.open(file.with_suffix(".png")).format == "PNG"
        assert json.loads(file.with_suffix(".json").read_text())["traceEvents"]
    assert "9.fake-idle.jsonl: The trace holds no steps" in shown
    before = {path: path.read_bytes() for path in pretending.traces.iterdir()}
    assert len(before) == 1 + 3 * 3 + 1

    code, shown = pretending.run("--trace", pretending.traces)
    assert code == 1
    assert "holds 9.fake-dies.json already" in shown
    assert "fix" in shown
    assert "Does it work?" not in shown
    assert json.loads(pretending.report.read_text())["experiments"] == []
    assert {path: path.read_bytes() for path in pretending.traces.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(pretending):
    code, shown = pretending.run("--trace", pretending.demo)
    assert code == 1
    assert "can't be written" in shown
    assert "Does it work?" not in shown
    assert "Traceback" not in shown


@pytest.mark.engine
def test_a_real_engine_under_the_option(tmp_path):
    """Chunked prefills, a preemption and a prefix-cache hit, held against the answers; an experiment that measures."""
    demo = Demo(tmp_path, WORKING)
    code, shown = demo.run("--trace", demo.traces)
    assert code == 0, shown
    rows = json.loads(demo.report.read_text())["rows"]

    found = trace.read(demo.traces / "9.fake-tight.jsonl")
    assert (tmp_path / "own.jsonl").read_bytes() == (demo.traces / "9.fake-tight.jsonl").read_bytes()
    by_id = {name.rsplit("-", 1)[0]: name for name in found.requests}
    assert list(by_id) == [row["request"] for row in rows["tight"]] == ["0", "1", "2", "3"]
    preempted = {name for step in found.steps for name in step.preempted}
    assert 1 <= len(preempted) < 3
    table = found.frame().set_index("request")
    for row in rows["tight"]:
        name = by_id[row["request"]]
        steps, to_compute = table.loc[name], 100 + row["output_tokens"] - 1
        last = steps.iloc[-1]
        assert last.num_computed_tokens + last.num_scheduled_tokens == to_compute
        assert steps.num_output_tokens.sum() == row["output_tokens"] == 60
        held: list[int] = []
        for step in found.steps:
            if name in step.num_cached_tokens:  # it starts, or starts again
                held = []
            held += step.new_block_ids.get(name, [])
        assert len(held) == len(set(held)) == -(-to_compute // 32)
        cached = next(step.num_cached_tokens[name] for step in found.steps if name in step.num_cached_tokens)
        assert cached == (96 if row["request"] == "3" else 0)
        if name not in preempted:
            assert steps.num_scheduled_tokens.sum() == to_compute - cached
    assert {name for step in found.steps for name in step.resumed} == preempted
    assert max(len(step.prefill) and sum(step.num_scheduled_tokens.values()) for step in found.steps) == 64
    assert found.requests[by_id["0"]].finish_reason == "length"

    # The side that is measured without recording is not traced, whatever the option says.
    assert [row["output_tokens"] for row in rows["pair"]] == [40, 40]
    assert sorted(path.name for path in demo.traces.glob("*.jsonl")) == ["9.fake-pair.jsonl", "9.fake-tight.jsonl"]
