"""Names, published peaks and readings of the hardware."""

import os

import psutil
import pytest

from common import hardware


@pytest.mark.parametrize(
    ("name", "count", "slug"),
    [
        ("NVIDIA H100 80GB HBM3", 1, "h100"),
        ("NVIDIA H100 80GB HBM3", 8, "h100x8"),
        ("NVIDIA H200", 1, "h200"),
        ("NVIDIA H200", 2, "h200x2"),
        ("NVIDIA GeForce RTX 4090", 1, "rtx4090"),
        ("NVIDIA GeForce RTX 3090 Ti", 1, "rtx3090ti"),
        ("NVIDIA A100-SXM4-80GB", 1, "a100"),
        ("NVIDIA A100 80GB PCIe", 1, "a100"),
        ("NVIDIA A100-PCIE-40GB", 1, "a100"),
        ("Tesla T4", 1, "t4"),
        ("Tesla V100-SXM2-16GB", 4, "v100x4"),
        ("NVIDIA L4", 1, "l4"),
        ("NVIDIA L40S", 1, "l40s"),
        ("NVIDIA A10G", 1, "a10g"),
        ("NVIDIA GH200 480GB", 1, "gh200"),
        ("NVIDIA RTX 6000 Ada Generation", 1, "rtx6000adageneration"),
    ],
)
def test_slug_is_the_model_and_the_count(machine_with, name, count, slug):
    assert machine_with(name, count=count).slug == slug


def test_slug_without_a_gpu_is_cpu(machine_with):
    assert machine_with().slug == "cpu"


@pytest.mark.parametrize(
    ("name", "terabytes_s", "teraflops"),
    [
        ("NVIDIA B200", 8.0, 2250),
        ("NVIDIA H200", 4.8, 989),
        ("NVIDIA H200 NVL", 4.8, 835),
        ("NVIDIA H100 80GB HBM3", 3.35, 989),
        ("NVIDIA H100 PCIe", 2.0, 756),
        ("NVIDIA H100 NVL", 3.9, 835),
        ("NVIDIA A100-SXM4-80GB", 2.039, 312),
        ("NVIDIA A100 80GB PCIe", 1.935, 312),
        ("NVIDIA A100-SXM4-40GB", 1.555, 312),
        ("A100-PCIE-40GB", 1.555, 312),
        ("NVIDIA L40S", 0.864, 362),
        ("NVIDIA L4", 0.3, 121),
        ("NVIDIA A10G", 0.6, 70),
        ("NVIDIA A10", 0.6, 125),
        ("NVIDIA GeForce RTX 5090", 1.792, 209),
        ("NVIDIA GeForce RTX 4090", 1.008, 165),
        ("NVIDIA GeForce RTX 3090", 0.936, 71),
        ("Tesla T4", 0.32, 65),
    ],
)
def test_peak_of_a_known_gpu(name, terabytes_s, teraflops):
    peak = hardware.peak(name)
    assert peak.bandwidth_bytes_s == pytest.approx(terabytes_s * 1e12)
    assert peak.bf16_flop_s == pytest.approx(teraflops * 1e12)
    assert peak.source


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H800",
        "NVIDIA H20",
        "NVIDIA GH200 480GB",
        "NVIDIA GB200",
        "NVIDIA A800-SXM4-80GB",
        "NVIDIA A100-SXM-64GB",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "GRID A100-10C",
        "NVIDIA L40",
        "NVIDIA L20",
        "NVIDIA A10M",
        "NVIDIA A10-4Q",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA T400 4GB",
        "NVIDIA T4G",
        "",
    ],
)
def test_peak_of_an_unknown_gpu_is_not_guessed(name):
    assert hardware.peak(name) is None


@pytest.mark.parametrize(
    ("visible", "handles"),
    [
        (None, [0, 1]),
        ("0,1", [0, 1]),
        ("1, 0", [1, 0]),
        ("1", [1]),
        ("", []),
        ("-1", []),
        ("GPU-bbbb", [1]),
        ("0,7,1", [0]),  # CUDA reads the list up to the first entry that does not exist
    ],
)
def test_visible_gpus_are_those_that_cuda_sees(nvml, monkeypatch, visible, handles):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert hardware.visible_handles(nvml) == handles


def test_gpus_read_from_the_driver(nvml):
    first, second = hardware.gpus()
    assert (first.name, first.total_bytes, first.free_bytes) == ("NVIDIA L4", 24 * 10**9, 23 * 10**9)
    assert (second.index, second.free_bytes, second.power_limit_w) == (1, 22 * 10**9, 72.0)
    nvml.silent = {"limit"}
    assert hardware.gpus()[0].power_limit_w is None


def test_clocks_name_what_throttles(nvml):
    first, second = hardware.clocks()
    assert first == {
        "sm_mhz": 1500 + nvml.NVML_CLOCK_SM,
        "memory_mhz": 1500 + nvml.NVML_CLOCK_MEM,
        "temperature_c": 55,
        "power_w": 50.0,
        "throttled_by": ["power cap"],
    }
    assert second["power_w"] == 60.0


@pytest.mark.parametrize("reading", ["power", "clock", "temperature", "reasons"])
def test_a_reading_that_a_gpu_does_not_give_is_left_empty(nvml, reading):
    nvml.silent = {reading}
    empty = [value for value in hardware.clocks()[0].values() if value is None]
    assert len(empty) == (2 if reading == "clock" else 1)


def test_this_machine(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine = hardware.machine()
    assert machine.gpus == ()
    assert hardware.clocks() == []
    assert machine.cores == len(os.sched_getaffinity(0))
    assert 0 < machine.memory_bytes <= psutil.virtual_memory().total
    assert machine.describe().endswith("GiB, no GPU")
    assert f"{machine.cores} cores" in machine.describe()


def test_describe_names_count_and_memory(machine_with):
    assert machine_with("NVIDIA H200", count=2).describe() == "2 × NVIDIA H200 (75 GiB), 16 CPU cores"


def test_available_memory_is_what_the_kernel_says():
    assert hardware.available_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


@pytest.mark.gpu
def test_a_real_gpu_is_read():
    gpu = hardware.gpus()[0]
    assert 0 < gpu.free_bytes <= gpu.total_bytes
    assert gpu.compute_capability >= (5, 0)
    assert hardware.machine().slug != "cpu"
    reading = hardware.clocks()[0]
    assert reading["sm_mhz"] > 0
    assert 0 < reading["temperature_c"] < 110


@pytest.mark.multigpu
def test_visible_devices_hide_real_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert len(hardware.gpus()) == 1
