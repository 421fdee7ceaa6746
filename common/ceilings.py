"""What this machine reaches at best: copy bandwidth, matrix products, and the way from main memory to the GPU.

Every figure is the median of repeats, each long enough that starting a kernel does not count.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from common import estimator, hardware, timing
from common.hardware import Machine, nvml_module, reading, visible_handles
from common.models import Model, dtype, free_memory
from common.problems import Problem

MIB = 2**20
AT_LEAST_S = 0.03  # one repeat goes on for this long
LARGEST_COPY = 1024 * MIB  # beyond any cache, and small enough for every GPU of the course
# GB/s of one PCIe lane and direction after line coding, by generation (PCI-SIG base specifications 3.0 to 6.0).
PCIE_LANE_GB_S = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}


@dataclass(frozen=True)
class Ceilings:
    """The two rates that a forward pass is held against."""

    copy_bytes_s: float  # bytes read and bytes written together
    matmul_flop_s: float

    def seconds(self, step_bytes: float, step_flop: float) -> float:
        """The least time for that much work: memory and arithmetic go on side by side, so the slower one counts."""
        return max(step_bytes / self.copy_bytes_s, step_flop / self.matmul_flop_s)

    def limit(self, step_bytes: float, step_flop: float, seconds: float) -> str:
        """What bounds work that took `seconds`: "memory" or "compute", whichever it used more, if it used half of it.

        Else "overhead": neither the memory nor the arithmetic was busy for half of the time.
        """
        memory, compute = step_bytes / self.copy_bytes_s, step_flop / self.matmul_flop_s
        if max(memory, compute) < 0.5 * seconds:
            return "overhead"
        return "memory" if memory >= compute else "compute"


def device(machine: Machine) -> str:
    return "cuda" if machine.gpus else "cpu"


def _rate(work: Callable[[], object], amount: float, repeats: int) -> timing.Repeats:
    """`amount` per second of `work`, called as often in a repeat as fills AT_LEAST_S."""
    work()  # the first call allocates and chooses kernels
    calls = max(1, math.ceil(AT_LEAST_S / timing.seconds(work)))

    def measure() -> float:
        return amount * calls / timing.seconds(lambda: [work() for _ in range(calls)])

    return timing.repeat(measure, repeats)


def copy_bytes_s(where: str, size_bytes: int, repeats: int = 3) -> timing.Repeats:
    """Bytes per second of a copy within one memory (`where` is "cuda" or "cpu"), each byte read and written: two."""
    import torch

    source = torch.ones(size_bytes, dtype=torch.uint8, device=where)
    target = torch.empty_like(source)
    return _rate(lambda: target.copy_(source), 2 * size_bytes, repeats)


def matmul_flop_s(where: str, size: int, precision: str, repeats: int = 3) -> timing.Repeats:
    """FLOP/s of the product of two square matrices of random numbers.

    Zeros would not do: a GPU that multiplies zeros draws less power and keeps a higher clock.
    """
    import torch

    left, right = (torch.randn(size, size, device=where).to(getattr(torch, precision)) for _ in range(2))
    result = torch.empty_like(left)
    return _rate(lambda: torch.mm(left, right, out=result), 2 * size**3, repeats)


def host_to_device_bytes_s(size_bytes: int, pinned: bool, repeats: int = 3) -> timing.Repeats:
    """Bytes per second from main memory to the GPU; from pinned memory the GPU fetches them itself."""
    import torch

    source = torch.ones(size_bytes, dtype=torch.uint8, pin_memory=pinned)
    target = torch.empty(size_bytes, dtype=torch.uint8, device="cuda")
    return _rate(lambda: target.copy_(source, non_blocking=pinned), size_bytes, repeats)


def pcie_bytes_s() -> float | None:
    """What the first GPU's PCIe link can carry in one direction, by its generation and width; None if unknown."""
    nvml = nvml_module()
    if nvml is None:
        return None
    handle = visible_handles(nvml)[0]
    generation = reading(nvml.nvmlDeviceGetMaxPcieLinkGeneration, handle)
    lanes = reading(nvml.nvmlDeviceGetMaxPcieLinkWidth, handle)
    return PCIE_LANE_GB_S[generation] * lanes * 1e9 if generation in PCIE_LANE_GB_S and lanes else None


@dataclass(frozen=True)
class Measurement:
    """One line of the sweep: what is measured, how large, in bytes/s or FLOP/s, and what is published for it."""

    name: str
    size: str
    unit: str  # gb_s or tflop_s
    published: float | None  # bytes/s or FLOP/s
    run: Callable[[int], timing.Repeats]  # takes the number of repeats


def sweep(machine: Machine, small: bool = False) -> list[Measurement]:
    """Copies from within the caches to far beyond them, products from small to large, and the way to the GPU."""
    gpu, where = bool(machine.gpus), device(machine)
    peak, link = hardware.peak(machine.gpus[0].name) if gpu else None, pcie_bytes_s()
    copies = (4, 64) if small else (8, 64, 256, 1024, 2048) if gpu else (1, 4, 16, 64, 256, 1024)
    products = (512,) if small else (1024, 2048, 4096, 8192, 16384) if gpu else (256, 512, 1024, 2048)
    transfers = () if not gpu else (16,) if small else (1, 16, 256)
    found = [
        Measurement(
            "copy", f"{mib} MiB", "gb_s", peak and peak.bandwidth_bytes_s, partial(copy_bytes_s, where, mib * MIB)
        )
        for mib in copies
    ]
    for precision in (dtype(machine),) if gpu else ("bfloat16", "float32"):
        for size in products:
            work = partial(matmul_flop_s, where, size, precision)
            published = peak and peak.bf16_flop_s
            found.append(Measurement(f"matmul_{precision}", f"{size} × {size}", "tflop_s", published, work))
    for mib in transfers:
        for kind in ("pageable", "pinned"):
            work = partial(host_to_device_bytes_s, mib * MIB, kind == "pinned")
            found.append(Measurement(f"host_to_device_{kind}", f"{mib} MiB", "gb_s", link, work))
    return found


def measure(model: Model, machine: Machine, repeats: int = 3) -> Ceilings:
    """The ceilings for a model on this machine: a copy as large as its weights (1 GiB at most), the best product.

    The size matters on a CPU, where a small model stays in the caches, which are faster than the memory behind. Raises
    Problem for a model of which `estimator` can't count bytes and operations.
    """
    if model.config.get("model_type") not in estimator.COUNTED or "quantization_config" in model.config:
        raise Problem(
            f"The bytes and operations of {model.name} can't be counted here.",
            f"Take a dense model of type {', '.join(estimator.COUNTED)}, such as --model course-lm.",
        )
    where, precision = device(machine), dtype(machine)
    sizes = (4096, 8192) if machine.gpus else (512, 1024)
    best = max(matmul_flop_s(where, size, precision, repeats).median for size in sizes)
    copied = min(estimator.weight_bytes(model.config, precision), LARGEST_COPY)
    found = Ceilings(copy_bytes_s(where, copied, repeats).median, best)
    free_memory()
    return found
