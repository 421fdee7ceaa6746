"""What all tests share: skips for hardware that is not there, and machines that one can only imagine here."""

import signal
from pathlib import Path

import pytest

from common import hardware, results
from common.chapters import load

# A shell that starts the tests in the background ignores SIGINT, and children inherit that: without this line no
# test could interrupt a demo.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    count = len(hardware.gpus())
    for item in items:
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
