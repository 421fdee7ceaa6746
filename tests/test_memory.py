"""Sampling of GPU memory and power, and the main memory of processes."""

import subprocess
import sys
import threading
import time

import pytest

from common import memory


def test_without_a_gpu_there_are_no_figures(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with memory.sample() as samples:
        time.sleep(0.05)
    assert samples.seconds >= 0.05
    assert (samples.peak_gb, samples.mean_utilisation_pct, samples.mean_power_w, samples.joules) == (None,) * 4


def test_samples_follow_the_driver_and_end_with_the_block(nvml):
    with memory.sample(interval_s=0.01) as samples:
        time.sleep(0.1)
        nvml.used[0] = 7 * 10**9
        time.sleep(0.1)
        nvml.used[0] = 10**9
        time.sleep(0.1)
    count = len(samples.used_bytes)
    assert count >= 5
    assert samples.peak_gb == 7.0
    assert samples.mean_utilisation_pct == 40
    assert samples.mean_power_w == pytest.approx(110)  # both GPUs: 50 W and 60 W
    assert samples.joules == pytest.approx(110 * samples.seconds)
    time.sleep(0.05)
    assert len(samples.used_bytes) == count


@pytest.mark.parametrize("reading", ["power", "utilisation"])
def test_a_gpu_that_does_not_report_power_still_reports_memory(nvml, reading):
    nvml.silent = {reading}
    with memory.sample(interval_s=0.01) as samples:
        time.sleep(0.05)
        nvml.used[0] = 9 * 10**9
        time.sleep(0.1)
    assert samples.peak_gb == 9.0
    assert (samples.mean_power_w is None) == (reading == "power")
    assert (samples.joules is None) == (reading == "power")
    assert (samples.mean_utilisation_pct is None) == (reading == "utilisation")


def test_the_sampler_stops_when_the_block_fails(nvml):
    before = threading.active_count()
    with pytest.raises(KeyError), memory.sample(interval_s=0.01) as samples:
        raise KeyError("broken")
    assert threading.active_count() == before
    assert samples.seconds > 0


def test_resident_bytes_count_a_process_and_its_children():
    hold = "import sys; block = b'x' * {size}; print('ready', flush=True); sys.stdin.read()"
    child = hold.format(size=40 << 20)
    parent = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', " + repr(child) + "]); "
    process = subprocess.Popen(
        [sys.executable, "-c", parent + hold.format(size=20 << 20)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout.readline() == process.stdout.readline() == b"ready\n"
        resident = memory.resident_bytes(process.pid)
    finally:
        process.communicate()
    assert 60 << 20 < resident < 110 << 20


@pytest.mark.gpu
def test_a_real_gpu_is_sampled():
    import torch

    with memory.sample(interval_s=0.02) as samples:
        block = torch.ones(1 << 30, dtype=torch.uint8, device="cuda")
        torch.cuda.synchronize()
        time.sleep(0.3)
        del block
    assert samples.peak_gb > 1.07
    assert samples.mean_power_w > 0
