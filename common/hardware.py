"""What this machine is: processor, memory, GPUs, and the peak rates that their makers publish."""

import os
import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

GIB = 1024**3


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU as its driver describes it. Sizes in bytes, power in watts."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    driver: str
    compute_capability: tuple[int, int]
    power_limit_w: float | None


@dataclass(frozen=True)
class Machine:
    """Processor, usable cores, memory in bytes, and the GPUs that CUDA_VISIBLE_DEVICES leaves visible."""

    cpu: str
    cores: int
    memory_bytes: int
    gpus: tuple[Gpu, ...]

    @property
    def slug(self) -> str:
        """The name of this hardware's results file: cpu, h100, h200x2, rtx4090 …"""
        if not self.gpus:
            return "cpu"
        name = re.sub(r"NVIDIA|GeForce|Tesla|\d+\s*GB.*|HBM\d\w*|PCI[eE]|SXM\d?|NVL", " ", self.gpus[0].name)
        words = re.sub(r"[^a-z0-9]+", "", name.lower())
        return words + (f"x{len(self.gpus)}" if len(self.gpus) > 1 else "")

    def describe(self) -> str:
        """One line for a person: '1 × NVIDIA H100 80GB HBM3 (79 GiB)' or 'AMD EPYC, 2 cores, 24 GiB'."""
        if self.gpus:
            gpu = self.gpus[0]
            return f"{len(self.gpus)} × {gpu.name} ({gpu.total_bytes / GIB:.0f} GiB), {self.cores} CPU cores"
        return f"{self.cpu}, {self.cores} cores, {self.memory_bytes / GIB:.0f} GiB, no GPU"


@dataclass(frozen=True)
class Peak:
    """Published peak of one GPU: device memory bandwidth in bytes/s, dense bf16 (fp16 before Ampere) FLOP/s."""

    bandwidth_bytes_s: float
    bf16_flop_s: float
    source: str


# Dense figures, without sparsity, by the driver's name of the GPU without "NVIDIA" and its like.
PEAKS: dict[str, Peak] = {
    "B200": Peak(8.0e12, 2250e12, "NVIDIA HGX B200 data sheet"),
    "H200": Peak(4.8e12, 989e12, "NVIDIA H200 data sheet"),
    "H200 NVL": Peak(4.8e12, 835e12, "NVIDIA H200 data sheet, NVL"),
    "H100 80GB HBM3": Peak(3.35e12, 989e12, "NVIDIA H100 data sheet, SXM"),
    "H100 PCIe": Peak(2.0e12, 756e12, "NVIDIA H100 data sheet, PCIe"),
    "H100 NVL": Peak(3.9e12, 835e12, "NVIDIA H100 data sheet, NVL"),
    "A100-SXM4-80GB": Peak(2.039e12, 312e12, "NVIDIA A100 data sheet, SXM 80 GB"),
    "A100 80GB PCIe": Peak(1.935e12, 312e12, "NVIDIA A100 data sheet, PCIe 80 GB"),
    "A100-SXM4-40GB": Peak(1.555e12, 312e12, "NVIDIA A100 data sheet, 40 GB"),
    "A100-PCIE-40GB": Peak(1.555e12, 312e12, "NVIDIA A100 data sheet, 40 GB"),
    "L40S": Peak(0.864e12, 362e12, "NVIDIA L40S data sheet"),
    "L4": Peak(0.300e12, 121e12, "NVIDIA L4 data sheet"),
    "A10G": Peak(0.600e12, 70e12, "AWS G5 instance page, NVIDIA A10G"),
    "A10": Peak(0.600e12, 125e12, "NVIDIA A10 data sheet"),
    "RTX 5090": Peak(1.792e12, 209e12, "NVIDIA RTX Blackwell white paper, RTX 5090"),
    "RTX 4090": Peak(1.008e12, 165e12, "NVIDIA Ada architecture white paper, RTX 4090"),
    "RTX 3090": Peak(0.936e12, 71e12, "NVIDIA Ampere GA102 white paper, RTX 3090"),
    "T4": Peak(0.320e12, 65e12, "NVIDIA T4 data sheet, fp16"),
}


def peak(gpu_name: str) -> Peak | None:
    """The published peak of a GPU, or None where we have no source: never a guess.

    The whole name must agree: a laptop's RTX 4090, an H800 or a MIG slice of an H100 is another GPU.
    """
    return PEAKS.get(re.sub(r"NVIDIA|GeForce|Tesla", "", gpu_name).strip())


def nvml_module():
    """The pynvml module, initialised, or None where there is no NVIDIA driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return None
    except pynvml.NVMLError:
        return None
    return pynvml


def visible_handles(nvml) -> list:
    """NVML handles of the GPUs that CUDA sees, in CUDA's order."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    if visible is None:
        return handles
    wanted = [name.strip() for name in visible.split(",") if name.strip()]
    uuids = [nvml.nvmlDeviceGetUUID(handle) for handle in handles]
    chosen = []
    for name in wanted:
        if name.isdigit() and int(name) < len(handles):
            chosen.append(handles[int(name)])
        elif any(uuid.startswith(name) for uuid in uuids):
            chosen += [h for h, uuid in zip(handles, uuids, strict=True) if uuid.startswith(name)]
        else:
            break  # CUDA ignores what follows an entry that does not exist
    return chosen


def reading(ask: Callable, *arguments: object):
    """What NVML answers, or None where this GPU does not report it, as laptops and virtual GPUs often do."""
    import pynvml

    try:
        return ask(*arguments)
    except pynvml.NVMLError:
        return None


def power_w(nvml, handle) -> float | None:
    """Power that a GPU draws now, in watts."""
    milliwatts = reading(nvml.nvmlDeviceGetPowerUsage, handle)
    return None if milliwatts is None else milliwatts / 1000


def gpus() -> tuple[Gpu, ...]:
    """The visible NVIDIA GPUs with their memory as it is now; empty without a driver."""
    nvml = nvml_module()
    if nvml is None:
        return ()
    found = []
    for index, handle in enumerate(visible_handles(nvml)):
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        limit = reading(nvml.nvmlDeviceGetPowerManagementLimit, handle)
        found.append(
            Gpu(
                index=index,
                name=nvml.nvmlDeviceGetName(handle),
                total_bytes=memory.total,
                free_bytes=memory.free,
                driver=nvml.nvmlSystemGetDriverVersion(),
                compute_capability=tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)),
                power_limit_w=limit / 1000 if limit else None,
            )
        )
    return tuple(found)


@lru_cache(maxsize=1)
def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown CPU"


def _memory_bytes() -> int:
    """Total memory, or this container's limit where that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and limit.read_text().strip().isdigit():
        total = min(total, int(limit.read_text()))
    return total


def available_bytes() -> int:
    """Main memory that a new process can take now without swapping."""
    text = Path("/proc/meminfo").read_text()
    return int(re.search(r"MemAvailable:\s+(\d+) kB", text)[1]) * 1024


def machine() -> Machine:
    """This machine, read afresh: free GPU memory changes."""
    return Machine(_cpu_name(), len(os.sched_getaffinity(0)), _memory_bytes(), gpus())


def clocks() -> list[dict]:
    """For each GPU: SM and memory clock in MHz, temperature in °C, power in W, and why it throttles, if it does.

    None stands for what a GPU does not report.
    """
    nvml = nvml_module()
    if nvml is None:
        return []
    readings = []
    for handle in visible_handles(nvml):
        reasons = reading(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
        slowed_by = {
            "power cap": nvml.nvmlClocksEventReasonSwPowerCap,
            "heat": nvml.nvmlClocksThrottleReasonHwThermalSlowdown | nvml.nvmlClocksEventReasonSwThermalSlowdown,
            "hardware": nvml.nvmlClocksThrottleReasonHwSlowdown,
        }
        readings.append(
            {
                "sm_mhz": reading(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
                "memory_mhz": reading(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
                "temperature_c": reading(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
                "power_w": power_w(nvml, handle),
                "throttled_by": None if reasons is None else [why for why, bit in slowed_by.items() if reasons & bit],
            }
        )
    return readings


def python_ms() -> float:
    """Milliseconds of a fixed piece of Python on this machine now, the best of five.

    Engines are driven from Python, so two hosts with the same GPU differ in what they make of it.
    """

    def seconds() -> float:
        start = time.perf_counter()
        sum(i * i for i in range(200_000))
        return time.perf_counter() - start

    return round(min(seconds() for _ in range(5)) * 1e3, 2)


def described(machine: Machine, clocks_before: list[dict]) -> dict[str, object]:
    """What a record says of the machine, after a measurement that began with these clocks."""
    return {
        "name": machine.gpus[0].name if machine.gpus else machine.cpu,
        "count": len(machine.gpus) or 1,
        "memory_bytes": machine.gpus[0].total_bytes if machine.gpus else machine.memory_bytes,
        "driver": machine.gpus[0].driver if machine.gpus else None,
        "cpu": machine.cpu,
        "cores": machine.cores,
        "python_ms": python_ms(),
        "clocks_before": clocks_before,
        "clocks_after": clocks(),
    }
