"""Shares of GPU time from a trace made by hand."""

import pytest

from common import profiling
from common.problems import Problem


def kernel(start, duration):
    return {"cat": "kernel", "ts": start, "dur": duration, "name": "gemm"}


def test_overlapping_kernels_count_once():
    trace = {
        "traceEvents": [
            kernel(300, 100),  # the last, out of order
            kernel(100, 50),
            kernel(120, 60),  # begins in the first and ends after it: 100 to 180 are busy
            kernel(130, 10),  # inside the second
            {"cat": "cpu_op", "ts": 0, "dur": 1000, "name": "aten::mm"},
            {"ph": "M", "name": "process_name"},
        ]
    }
    shares = profiling.kernels(trace, steps=2)
    # From 100 to 400, busy 100 to 180 and 300 to 400.
    assert shares["gpu_busy_pct"] == pytest.approx(180 / 300 * 100)
    assert shares["kernels_per_step"] == 2


def test_kernels_without_gaps_are_busy_all_the_time():
    trace = {"traceEvents": [kernel(10.5, 4.5), kernel(15.0, 5.0)]}
    assert profiling.kernels(trace, steps=1)["gpu_busy_pct"] == pytest.approx(100)


def test_a_trace_without_kernels_is_a_problem():
    with pytest.raises(Problem, match="no GPU kernels"):
        profiling.kernels({"traceEvents": [{"cat": "cpu_op", "ts": 0, "dur": 1}]}, steps=1)


@pytest.mark.gpu
def test_real_kernels_are_counted():
    import torch

    matrix = torch.ones(1024, 1024, device="cuda")

    def measure(steps):
        for _ in range(steps):
            matrix.sin()
        torch.cuda.synchronize()
        return 0.0

    measure(1)
    shares = profiling.of_this_process(measure, steps=20)
    assert shares["kernels_per_step"] == pytest.approx(1, abs=0.2)
    assert 0 < shares["gpu_busy_pct"] <= 100
