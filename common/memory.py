"""GPU memory, utilisation and power, sampled in the background while a block runs."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from common import hardware


@dataclass
class Samples:
    """What the sampler saw. A figure is None without a GPU, and where the GPU does not report it."""

    seconds: float = 0.0
    used_bytes: list[int] = field(default_factory=list)
    utilisation_pct: list[float] = field(default_factory=list)
    power_w: list[float] = field(default_factory=list)

    @property
    def peak_gb(self) -> float | None:
        """Highest memory in use on the first GPU, all processes together, in GB (10^9 bytes)."""
        return max(self.used_bytes) / 1e9 if self.used_bytes else None

    @property
    def mean_utilisation_pct(self) -> float | None:
        """Mean of NVML's utilisation: share of time in which any kernel ran, not how full the GPU was."""
        return sum(self.utilisation_pct) / len(self.utilisation_pct) if self.utilisation_pct else None

    @property
    def mean_power_w(self) -> float | None:
        """Mean power of all visible GPUs together."""
        return sum(self.power_w) / len(self.power_w) if self.power_w else None

    @property
    def joules(self) -> float | None:
        """Energy of all visible GPUs over the block: mean power times time."""
        return self.mean_power_w * self.seconds if self.power_w else None


@contextmanager
def sample(interval_s: float = 0.1) -> Iterator[Samples]:
    """Sample NVML every `interval_s` seconds during the block; the samples are complete when it ends."""
    samples = Samples()
    nvml = hardware.nvml_module()
    handles = hardware.visible_handles(nvml) if nvml else []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            samples.used_bytes.append(nvml.nvmlDeviceGetMemoryInfo(handles[0]).used)
            rates = hardware.reading(nvml.nvmlDeviceGetUtilizationRates, handles[0])
            if rates is not None:
                samples.utilisation_pct.append(rates.gpu)
            powers = [hardware.power_w(nvml, handle) for handle in handles]
            if None not in powers:
                samples.power_w.append(sum(powers))
            stop.wait(interval_s)

    thread = threading.Thread(target=watch, daemon=True) if handles else None
    start = time.perf_counter()
    if thread:
        thread.start()
    try:
        yield samples
    finally:
        samples.seconds = time.perf_counter() - start
        stop.set()
        if thread:
            thread.join()


def resident_bytes(pid: int) -> int:
    """Main memory of a process and all its descendants: proportional set size, so shared pages count once."""
    import psutil

    process = psutil.Process(pid)
    return sum(p.memory_full_info().pss for p in [process, *process.children(recursive=True)])
