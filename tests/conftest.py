"""What all tests share: skips for hardware that is not there, and machines that one can only imagine here."""

import os
import signal
import tempfile
from pathlib import Path

import psutil
import pytest

from common import hardware, models, results
from common.chapters import load

# A shell that starts the tests in the background ignores SIGINT, and children inherit that: without this line no
# test could interrupt a demo.
signal.signal(signal.SIGINT, signal.default_int_handler)


# An engine of the tests and the clients beside it take up to this much memory.
WORKER_BYTES = 5 * hardware.GIB


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """How many tests run at once: one for each core, if the memory suffices; one alone where they share a GPU."""
    if hardware.gpus() or not hasattr(os, "sched_setaffinity"):
        return 0
    return min(len(os.sched_getaffinity(0)), max(1, psutil.virtual_memory().available // WORKER_BYTES))


def pytest_configure(config):
    """Give each worker cores of its own, and what all use.

    The threads of a vLLM engine wait for each other by spinning: two engines that share two cores take four times as
    long as one after the other.
    """
    worker = getattr(config, "workerinput", None)
    if worker is None:
        if config.getoption("numprocesses", None):
            for shape in models.SHAPES:  # a folder is made at its first use, which must not be that of two workers
                models.resolve(f"shape:{shape}")
    else:
        # A worker's folder has a longer name, and vLLM's sockets in it would have longer paths than a socket may.
        os.environ.setdefault("VLLM_RPC_BASE_PATH", tempfile.gettempdir())
        cores = sorted(os.sched_getaffinity(0))
        number = int(worker["workerid"].removeprefix("gw"))
        os.sched_setaffinity(0, cores[number % len(cores) :: worker["workercount"]])


def pytest_collection_modifyitems(items):
    """Skip what this machine can't run, and say what may run at the same time.

    Every demo may, and those take longest and come first. The tests of any other file share servers and models.
    """
    items.sort(key=lambda item: item.path.name != "test_demos.py")
    count = len(hardware.gpus())
    for item in items:
        if item.path.name != "test_demos.py":
            item.add_marker(pytest.mark.xdist_group(item.path.name))
        if item.get_closest_marker("gpu") and count < 1:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
        if item.get_closest_marker("multigpu") and count < 2:
            item.add_marker(pytest.mark.skip(reason="needs two NVIDIA GPUs"))


@pytest.fixture
def waiting_for_a_gpu():
    """A function: the experiments of a chapter that need a GPU, and that no GPU has recorded yet."""

    def waiting(folder: Path) -> set[str]:
        recorded = {name for stored in results.read_all(folder).values() for name in stored["experiments"]}
        experiments = load(folder / "demo.py").chapter.experiments
        return {name for name, experiment in experiments.items() if experiment.gpu} - recorded

    return waiting


@pytest.fixture
def machine_with():
    """A function: a Machine with `count` GPUs of that name, free memory in GB (10^9 bytes) and compute capability."""

    def build(name: str = "", free_gb: float = 80, count: int = 1, capability: tuple[int, int] = (9, 0)):
        gpus = [
            hardware.Gpu(index, name, 80 * 10**9, int(free_gb * 1e9), "580.1", capability, 700.0)
            for index in range(count if name else 0)
        ]
        return hardware.Machine("Some CPU", 16, 128 * hardware.GIB, tuple(gpus))

    return build


class FakeNvml:
    """As much of pynvml as `hardware` and `memory` ask for: two GPUs, of which `silent` readings are not supported."""

    def __init__(self):
        import pynvml

        self.NVMLError = pynvml.NVMLError
        self.unsupported = pynvml.NVMLError_NotSupported
        for name in dir(pynvml):
            if name.startswith(("NVML_", "nvmlClocks")):
                setattr(self, name, getattr(pynvml, name))
        self.silent: set[str] = set()
        self.used = [10**9, 2 * 10**9]

    def _read(self, name, value):
        if name in self.silent:
            raise self.unsupported()
        return value

    def nvmlDeviceGetCount(self):
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetUUID(self, handle):
        return ("GPU-aaaa-1", "GPU-bbbb-2")[handle]

    def nvmlDeviceGetName(self, handle):
        return "NVIDIA L4"

    def nvmlSystemGetDriverVersion(self):
        return "580.1"

    def nvmlDeviceGetCudaComputeCapability(self, handle):
        return (8, 9)

    def nvmlDeviceGetMemoryInfo(self, handle):
        class Memory:
            total, used = 24 * 10**9, self.used[handle]
            free = total - used

        return Memory

    def nvmlDeviceGetPowerManagementLimit(self, handle):
        return self._read("limit", 72_000)

    def nvmlDeviceGetPowerUsage(self, handle):
        return self._read("power", 50_000 + 10_000 * handle)

    def nvmlDeviceGetUtilizationRates(self, handle):
        class Rates:
            gpu = self._read("utilisation", 40)

        return Rates

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        return self._read("reasons", self.nvmlClocksEventReasonSwPowerCap)

    def nvmlDeviceGetClockInfo(self, handle, clock):
        return self._read("clock", 1500 + clock)

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return self._read("temperature", 55)


@pytest.fixture
def nvml(monkeypatch):
    """A driver that reports two GPUs, whatever this machine has."""
    fake = FakeNvml()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(hardware, "nvml_module", lambda: fake)
    return fake
