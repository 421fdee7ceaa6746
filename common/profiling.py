"""Where the time of a decode step goes: GPU kernels, or a CPU's operators, by PyTorch's profiler."""

import gzip
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from common.problems import Problem

# What a kernel or operator is for, by its name; the first that matches counts. Names of kernels that torch.compile
# fuses tell the operators in them.
GROUPS = {
    "KV cache write": r"reshape_and_cache|kv_cache_update",
    "attention": r"attn|attention|flash|fmha",
    "matmul": r"gemm|gemv|nvjet|cublas|cutlass|matmul|_mm\b|::(add|b)?mm\b|splitk",
    "activation": r"silu|act_and_mul|gelu",
    "norm": r"norm|rms|rsqrt|::pow|::mean",
    "rotary": r"rotary|rope",
    "sampling": r"argmax|softmax|topk|sort|sampl",
    "copy": r"copy|memcpy|memset|cat",
}


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


def groups(durations: Mapping[str, float]) -> dict[str, float]:
    """Share of each group in the time of all kernels or operators, in percent, the largest first."""
    total = sum(durations.values())
    shares: Counter[str] = Counter()
    for name, duration in durations.items():
        group = next((group for group, names in GROUPS.items() if re.search(names, name, re.IGNORECASE)), "other")
        shares[group] += duration / total * 100
    return dict(shares.most_common())


def kernel_durations(trace: dict) -> dict[str, float]:
    """Microseconds of each kernel in a Chrome trace, by name."""
    durations: Counter[str] = Counter()
    for event in trace["traceEvents"]:
        if event.get("cat") == "kernel":
            durations[event["name"]] += event["dur"]
    return dict(durations)


def of_cpu(measure: Callable[[int], float], steps: int) -> tuple[float, dict[str, float]]:
    """(share of the time in which an operator ran, in percent; `groups` of the operators) of work in this process.

    The rest is Python: scheduling, sampling parameters, detokenisation. The profiler itself slows operators a little.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        measure(steps)
        elapsed_us = (time.perf_counter() - start) * 1e6
    durations = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    return sum(durations.values()) / elapsed_us * 100, groups(durations)


def of_this_process(network, measure: Callable[[int], float], steps: int) -> dict[str, float]:
    """`kernels` of `steps` decode steps of `measure`; the first forward pass of `network`, a prefill, is left out."""
    from torch.profiler import ProfilerActivity, profile, schedule

    with profile(activities=[ProfilerActivity.CUDA], schedule=schedule(wait=1, warmup=1, active=steps)) as profiler:
        hook = network.register_forward_hook(lambda *ignored: profiler.step())
        try:
            measure(2 + steps)
        finally:
            hook.remove()
    with tempfile.TemporaryDirectory() as folder:
        profiler.export_chrome_trace(f"{folder}/trace.json")
        return kernels(json.loads(Path(f"{folder}/trace.json").read_text()), steps)


def decode_steps(folder: Path, skip: int, steps: int) -> dict[str, object]:
    """A `profiler_config`: the kernels of `steps` engine steps, after `skip` in which the prompts are computed."""
    return {
        "profiler": "torch",
        "torch_profiler_dir": str(folder),
        # Kernels alone: to record what Python does would slow it down, and open gaps between them.
        "torch_profiler_activities": ["CUDA"],
        "torch_profiler_with_stack": False,
        "delay_iterations": skip,
        "max_iterations": steps,
    }


def trace_of_vllm(llm, folder: Path, measure: Callable[[int], float], steps: int) -> dict:
    """The Chrome trace of one vLLM call, which the engine's worker writes into `folder`, its torch_profiler_dir."""
    before = set(folder.rglob("*.json*"))
    llm.start_profile()
    measure(steps)
    llm.stop_profile()
    traces = []
    for file in set(folder.rglob("*.json*")) - before:
        text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        traces.append(json.loads(text))
    if not traces:
        raise Problem(f"vLLM's profiler wrote no trace into {folder}.", "Look into the log for what it said.")
    return max(traces, key=lambda trace: len(trace["traceEvents"]))
