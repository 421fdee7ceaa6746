"""The engine of chapter 4's tests: course-lm in this process, traced, with limits that small loads meet."""

import sys
from pathlib import Path

from common import hardware, models, trace
from common.chapters import ROOT, load
from common.in_process import core_in_this_process

FOLDER = ROOT / "4.workflow"
load(FOLDER / "demo.py")  # which imports its neighbours by their plain names
contests, driving, request_mixes, stages, traced_engines, transformers_batching = (
    sys.modules[name]
    for name in ("contests", "drive", "request_mixes", "stages", "traced_engines", "transformers_batching")
)
SLOTS, BUDGET, BLOCK = 8, 256, 32
ENGINE = {
    "max_num_seqs": SLOTS,
    "max_num_batched_tokens": BUDGET,
    "block_size": BLOCK,
    "scheduling_policy": "priority",
    "async_scheduling": False,  # with it a place is free one step later
}


def start(file: Path) -> object:
    """A `TracedEngine` that records into `file`; `models.close_engine` ends it."""
    with trace.recording(file), core_in_this_process(True):
        options = {"scheduler_cls": trace.SCHEDULER, **ENGINE}
        llm = models.engine(models.resolve("course-lm"), hardware.machine(), **options)
    return traced_engines.TracedEngine(llm, file, is_new=True)
