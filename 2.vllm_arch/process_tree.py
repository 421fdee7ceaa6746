"""The processes of a running server as the kernel sees them: who started whom, what each has open, what it takes."""

import subprocess
import sys
from pathlib import Path

import psutil

from common import hardware

# What a process calls itself, its role here, and what it holds (vllm/v1: engine/core_client.py, engine/core.py,
# executor/, worker/).
ROLES = (
    ("VLLM::EngineCore", "engine_core", "scheduler, block tables, prefix cache; on one GPU also model and KV cache"),
    ("VLLM::Worker", "worker", "model weights, KV cache, model runner, attention backend, sampler"),
    ("resource_tracker", "resource_tracker", "names of shared memory, to remove it if the others crash"),
    ("serve", "api_server", "HTTP, chat template, tokenizer, detokenizer, metrics"),
)

PATH = """\
client -> api_server       HTTP on a TCP port; chat template and tokenizer make token ids
api_server -> engine_core  ZMQ over a Unix socket: token ids and sampling parameters
engine_core                scheduler and block manager decide who computes how many tokens, in which blocks
engine_core -> worker      shared memory, or a function call where both are one process
worker                     slots, forward pass, attention over the block tables, sampling
worker -> ... -> client    token ids the same way back; the api_server makes text of them"""


def role(process: psutil.Process) -> tuple[str, str]:
    """(role, what it holds) of a process, by the name that vLLM gave it or its command line."""
    words = " ".join([process.name(), *process.cmdline()])
    return next(((name, holds) for mark, name, holds in ROLES if mark in words), (process.name(), "not known here"))


def import_bytes() -> int:
    """Main memory (proportional set size) of a fresh Python that has imported the server and does nothing more."""
    pss = "print(psutil.Process().memory_full_info().pss)"
    command = [sys.executable, "-c", f"import psutil, vllm.entrypoints.openai.api_server; {pss}"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def gpu_bytes_by_pid() -> dict[int, int]:
    """GPU memory of each process that NVML names, over all visible GPUs; in a container it may name none."""
    nvml = hardware.nvml_module()
    found: dict[int, int] = {}
    for handle in hardware.visible_handles(nvml) if nvml else ():
        for process in hardware.reading(nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ():
            if process.usedGpuMemory is not None:
                found[process.pid] = found.get(process.pid, 0) + process.usedGpuMemory
    return found


def gpu_used_bytes() -> int | None:
    """GPU memory in use, of all processes on all visible GPUs; None without a GPU."""
    gpus = hardware.gpus()
    return sum(gpu.total_bytes - gpu.free_bytes for gpu in gpus) if gpus else None


def shared_segments(process: psutil.Process) -> set[str]:
    """Names of the shared-memory segments that a process has mapped."""
    lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if "/dev/shm/" in line}


def examine(pid: int) -> list[dict]:
    """A row for the process `pid` and each of its descendants, in the order in which they were started.

    memory_mb is the proportional set size: a page that n processes share counts as an n-th of a page in each.
    """
    root = psutil.Process(pid)
    gpu_bytes = gpu_bytes_by_pid()
    rows = []
    for process in sorted([root, *root.children(recursive=True)], key=psutil.Process.create_time):
        name, holds = role(process)
        memory, sockets = process.memory_full_info(), process.net_connections(kind="all")
        listening = [socket for socket in sockets if socket.status == psutil.CONN_LISTEN]
        named = {socket.laddr for socket in sockets if isinstance(socket.laddr, str) and socket.laddr}
        rows.append(
            {
                "process": name,
                "parent": "" if process == root else role(process.parent())[0],
                "started_s": process.create_time() - root.create_time(),
                "threads": process.num_threads(),
                "tcp_ports": len(listening),
                "memory_mb": memory.pss / 1e6,
                "process_gpu_gb": gpu_bytes[process.pid] / 1e9 if process.pid in gpu_bytes else None,
                "holds": holds,
                "private_mb": memory.uss / 1e6,
                "unix_sockets": len(named),
                "shared_segments": len(shared_segments(process)),
            }
        )
    return rows
