"""The ceilings: rates that make sense, sizes for each machine, and the rule that names what limits a step."""

import pytest

from common import ceilings, models, prices
from common.ceilings import Ceilings
from common.problems import Problem

BEST = Ceilings(copy_bytes_s=1e12, matmul_flop_s=1e14)  # 1 TB/s, 100 TFLOP/s


def test_the_slower_of_memory_and_arithmetic_counts():
    assert BEST.seconds(1e12, 1e13) == pytest.approx(1.0)
    assert BEST.seconds(1e11, 2e14) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("seconds", "limit"), [(1.0, "memory"), (2.0, "memory"), (2.01, "overhead"), (100.0, "overhead")]
)
def test_half_of_the_time_names_the_limit(seconds, limit):
    assert BEST.limit(1e12, 1e13, seconds) == limit
    assert BEST.limit(1e11, 1e14, seconds) == limit.replace("memory", "compute")


@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_rates_are_of_this_world(where):
    """Between a slow laptop and ten of the fastest accelerators; a copy counts what it reads and what it writes."""
    copy = ceilings.copy_bytes_s(where, 2**22, repeats=3)
    assert len(copy.values) == 3
    assert 1e8 < copy.median < 1e14
    for precision in ("float32", "bfloat16"):
        assert 1e8 < ceilings.matmul_flop_s(where, 256, precision, repeats=1).median < 1e16


def test_a_rate_is_amount_over_time(monkeypatch):
    """A clock that a call moves on by 10 ms: 4 bytes a call are 400 a second, however many calls fill a repeat."""
    now, calls = [0.0], []
    monkeypatch.setattr(ceilings.timing, "synchronise", lambda: None)
    monkeypatch.setattr(ceilings.timing.time, "perf_counter", lambda: now[0])

    def work():
        calls.append(None)
        now[0] += 0.01

    rate = ceilings._rate(work, 4, repeats=2)
    assert rate.values == pytest.approx((400, 400))
    # One to warm up, one to find how many fill a repeat (three), a repeat that does not count, and two that do.
    assert len(calls) == 2 + 3 * 3


def test_the_sweep_of_a_cpu_has_both_types_and_nothing_to_send(machine_with):
    found = ceilings.sweep(machine_with())
    assert {each.name for each in found} == {"copy", "matmul_bfloat16", "matmul_float32"}
    assert all(each.published is None for each in found)
    assert [each.size for each in found if each.name == "copy"][-1] == "1024 MiB"


def test_the_sweep_of_a_gpu_stands_beside_its_data_sheet(machine_with, nvml, monkeypatch):
    monkeypatch.setattr(ceilings, "nvml_module", lambda: nvml)
    nvml.nvmlDeviceGetMaxPcieLinkGeneration, nvml.nvmlDeviceGetMaxPcieLinkWidth = lambda handle: 5, lambda handle: 16
    found = ceilings.sweep(machine_with("NVIDIA H100 80GB HBM3"))
    published = {each.name: each.published for each in found}
    assert published == {
        "copy": 3.35e12,
        "matmul_bfloat16": 989e12,
        "host_to_device_pageable": pytest.approx(63e9, rel=0.001),  # PCIe 5.0, 16 lanes
        "host_to_device_pinned": pytest.approx(63e9, rel=0.001),
    }
    turing = ceilings.sweep(machine_with("Tesla T4", capability=(7, 5)))
    assert "matmul_float16" in {each.name for each in turing}


def test_a_link_that_is_not_known_has_no_published_rate(nvml, monkeypatch):
    monkeypatch.setattr(ceilings, "nvml_module", lambda: nvml)
    nvml.nvmlDeviceGetMaxPcieLinkGeneration = lambda handle: nvml._read("link", 5)
    nvml.nvmlDeviceGetMaxPcieLinkWidth = lambda handle: 16
    nvml.silent.add("link")
    assert ceilings.pcie_bytes_s() is None
    monkeypatch.setattr(ceilings, "nvml_module", lambda: None)
    assert ceilings.pcie_bytes_s() is None


def test_a_model_whose_work_is_not_counted_is_a_problem(tmp_path, machine_with):
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(Problem, match="can't be counted"):
        ceilings.measure(models.resolve(str(tmp_path)), machine_with())


def test_prices(machine_with):
    assert prices.per_hour(machine_with("NVIDIA H100 80GB HBM3"), None)[0] == 2.99
    assert prices.per_hour(machine_with(), 7.5) == (7.5, "given with --gpu-price")
    price, why = prices.per_hour(machine_with("NVIDIA GeForce RTX 4090"), None)
    assert price is None and "--gpu-price" in why
