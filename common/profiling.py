"""Where GPU time goes: kernels of a decode step, from the traces of PyTorch's profiler."""

import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from common.problems import Problem


def kernels(trace: dict, steps: int) -> dict[str, float]:
    """From a Chrome trace of `steps` decode steps: share of time in which a kernel ran, and kernels per step.

    The time is that from the first kernel's start to the last one's end; kernels that overlap count once.
    """
    spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in trace["traceEvents"] if e.get("cat") == "kernel")
    if not spans:
        raise Problem("The profile holds no GPU kernels.", "Profile on a machine with a GPU.")
    busy, covered_to = 0.0, spans[0][0]
    for begin, end in spans:
        busy += max(0.0, end - max(begin, covered_to))
        covered_to = max(covered_to, end)
    return {"gpu_busy_pct": busy / (covered_to - spans[0][0]) * 100, "kernels_per_step": len(spans) / steps}


def of_this_process(measure: Callable[[int], float], steps: int) -> dict[str, float]:
    """`kernels` of one generate call of `steps` tokens."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        measure(steps)
    with tempfile.TemporaryDirectory() as folder:
        profiler.export_chrome_trace(f"{folder}/trace.json")
        return kernels(json.loads(Path(f"{folder}/trace.json").read_text()), steps)


def of_vllm(llm, folder: Path, measure: Callable[[int], float], steps: int) -> dict[str, float]:
    """`kernels` of one vLLM call, from the trace that the engine's worker writes."""
    before = set(folder.rglob("*.json*"))
    llm.start_profile()
    measure(steps)
    llm.stop_profile()
    traces = []
    for file in set(folder.rglob("*.json*")) - before:
        text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        traces.append(json.loads(text))
    return kernels(max(traces, key=lambda trace: len(trace["traceEvents"])), steps)
