"""A chapter for the tests: its demo as a file, and as a command."""

import json
import os
import subprocess
import sys
from pathlib import Path

from common import results

ROOT = Path(results.__file__).parent.parent

DEMO = '''"""9.fake: a chapter for the tests

To copy: make demo CH=9
"""

import os
import subprocess
import time
from contextlib import suppress

import pandas as pd

from common import models
from common.chapter import Chapter

chapter = Chapter(__file__)
chapter.option("--colour", default="red", help="colour of the answer")


@chapter.experiment(compare="output_tok_s")
def works(run):
    """Does it work?"""
    run.predict("rate", 2.0, "tokens/s", because="two by two")
    print("printed by the experiment")
    subprocess.run(["echo", "printed by a child"], check=True)
    os.write(2, b"written by C code")
    run.setting(seed=0, repeats=run.repeats)
    run.measured("rate", 3.0)
    run.count(7)
    run.show("answer", f"a [{run.options.colour}] answer [/b]")
    run.reading("It works.")
    row = {"engine": "vllm", "batch": run.size(full=8, smoke=2), "output_tok_s": 3.0, "p50_s": float("nan")}
    return pd.DataFrame([row])


@chapter.experiment
def fails(run):
    """Does it fail?"""
    raise RuntimeError("CUDA out of memory. Tried to allocate 462.00 MiB")


@chapter.experiment(gpu=True)
def needs_a_gpu(run):
    """Is it fast on a GPU?"""
    return pd.DataFrame([{"batch": 1, "output_tok_s": 1000.0}])


@chapter.experiment
def waits(run):
    """How long does it take?"""
    run.step("waiting now")
    with suppress(KeyboardInterrupt):  # as vLLM does while it waits for its engine's process
        time.sleep(float(os.environ.get("WAIT_S", "0")))
    run.reading(f"It read {len(run.rows_of('works'))} row.")
    return pd.DataFrame([{"seconds": 1.5}])


@chapter.experiment
def lacks_rows(run):
    """Does it ask for what is not there?"""
    return pd.DataFrame(run.rows_of("needs_a_gpu"))


if __name__ == "__main__":
    if "CLOSE_S" in os.environ:
        models.close_engine = lambda: time.sleep(float(os.environ["CLOSE_S"]))
    chapter.main()
'''


class Course:
    """A folder with one chapter in it, and its demo as a command."""

    def __init__(self, folder):
        self.folder = folder / "9.fake"
        self.folder.mkdir()
        self.demo = self.folder / "demo.py"
        self.demo.write_text(DEMO)
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.report = folder / "report.json"

    def start(self, *words, **options):
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), "TMPDIR": str(self.logs)}
        environment |= options.pop("env", {})
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | options
        return subprocess.Popen([sys.executable, self.demo, *map(str, words)], env=environment, **pipes)

    def run(self, *words):
        """(exit status, what the terminal showed with its lines joined, the report if one was written)."""
        self.report.unlink(missing_ok=True)
        process = self.start(*words)
        shown, _ = process.communicate(timeout=60)
        report = json.loads(self.report.read_text()) if self.report.exists() else None
        return process.returncode, shown, report

    def log(self):
        (log,) = self.logs.glob("9.fake-*/vllm.log")
        return log.read_text()

    def record(self, name, slug="h100", **changes):
        """Put a record of `name` into the results of another machine."""
        row = {"engine": "vllm", "batch": 2, "output_tok_s": 4321.0}
        hardware = {"name": "NVIDIA H100 80GB HBM3", "count": 1, "cores": 16, "driver": "580.1"}
        record = {
            "question": "?", "command": "c", "date": "2026-01-02 03:04 UTC", "commit": "c0ffee", "dirty": False,
            "hardware": hardware, "environment": {}, "versions": {}, "settings": {}, "source_hash": "", "seconds": 1.0,
            "model": {"name": "shape:qwen2.5-7b", "weights": "random", "dtype": "bfloat16"},
            "predictions": [{"name": "rate", "value": 5.0, "unit": "tokens/s", "because": "it was so", "measured": 6}],
            "columns": {}, "reading": "It was fast.", "rows": [row],
        }  # fmt: skip
        results.save(self.folder, slug, name, record | changes)
