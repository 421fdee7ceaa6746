"""What doctor's checks read: files, commands, nvidia-smi, and what importing torch and vLLM shows.

Standard library alone, so that it works before anything is installed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Runs in a process of its own: torch would hold a CUDA context here, and a broken build may end the process.
PROBE = """
import json, warnings
warnings.simplefilter("ignore")
found = {}
try:
    import torch
    found["torch"], found["torch_cuda"] = torch.__version__, torch.version.cuda
    found["cuda_devices"] = torch.cuda.device_count() if torch.version.cuda else 0
    from vllm.platforms import current_platform
    found["platform"] = current_platform.device_type or type(current_platform).__name__
except Exception as error:  # a broken build raises anything; the report wants its text
    found["error"] = f"{type(error).__name__}: {error}"
print("PROBE" + json.dumps(found))
"""


@dataclass(frozen=True)
class GpuSeen:
    """A GPU as nvidia-smi describes it, sizes in bytes."""

    name: str
    compute_capability: tuple[int, int]
    free_bytes: int
    total_bytes: int


def read(path: str) -> str:
    """A file's text, empty where there is none."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def output_of(*command: str) -> str:
    """What a command prints, empty where it is missing, fails or takes over 30 s."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def installed_version(package: str) -> str | None:
    """The version that a package's metadata states, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def imported() -> dict:
    """What importing torch and vLLM in a process of its own shows; {"error": …} where that fails."""
    if importlib.util.find_spec("torch") is None:
        return {"error": "not installed"}
    environ = dict(os.environ, VLLM_LOGGING_LEVEL="ERROR", TORCH_CPP_LOG_LEVEL="ERROR")
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE],
            capture_output=True,
            text=True,
            timeout=120,
            env=environ,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": "importing took over 120 s"}
    answer = re.search(r"^PROBE(.*)$", done.stdout, re.M)
    if answer:
        return json.loads(answer.group(1))
    return {"error": f"the process ended with {done.returncode}: {done.stderr.strip()[-120:]}"}


def visible_gpus() -> list[GpuSeen]:
    """The NVIDIA GPUs of this machine, empty without nvidia-smi."""
    smi = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib") or "nvidia-smi"
    query = "--query-gpu=name,compute_cap,memory.free,memory.total"
    gpus = []
    for line in output_of(smi, query, "--format=csv,noheader,nounits").splitlines():
        name, capability, free, total = (part.strip() for part in line.split(","))
        major, minor = capability.split(".")
        gpus.append(GpuSeen(name, (int(major), int(minor)), int(free) * 1024**2, int(total) * 1024**2))
    return gpus
