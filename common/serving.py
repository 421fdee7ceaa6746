"""Start a server as a child process, wait until it is healthy, keep its log, stop it whatever happens."""

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from common import models
from common.hardware import Machine
from common.problems import Problem, explain

PR_SET_PDEATHSIG = 1


@dataclass
class Server:
    """A running server: where it listens, its process, its log, and the seconds it took to become healthy."""

    url: str
    process: subprocess.Popen
    log: Path
    ready_s: float = 0.0

    def check(self) -> None:
        """Raise Problem if the process has ended, with the first error of its log."""
        if self.process.poll() is not None:
            error = first_error(self.log)
            meaning, fix = explain(error)
            raise Problem(
                f"The server ended with exit status {self.process.returncode}: {error}",
                f"{fix} Log: {self.log}",
                meaning,
            )


def free_port() -> int:
    """A TCP port that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def check_port(port: int) -> None:
    """Raise Problem if somebody listens on `port` of this machine."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            raise Problem(
                f"Port {port} is in use.", f"Take another with --port, or see who has it: ss -ltnp 'sport = :{port}'"
            ) from None


# An exception's line in a log, behind vLLM's "(EngineCore pid=7) ERROR 11-21 05:19:26 [core.py:9] " or "[rank0]: ".
EXCEPTION = re.compile(
    r"^(?:\(\w+ pid=\d+\) )?(?:[A-Z]+ \S+ \S+ \[\S+\] )?(?:\[rank\d+\]: )?((?:[\w.]+)?(?:Error|Exception): .+)"
)


def first_error(log: Path) -> str:
    """The line of a log that names the cause: the first exception, else a line that says error, else the last."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if match := EXCEPTION.match(line):
            # pydantic says what is wrong on the lines after the one that it raises with
            rest = lines[number + 1 : number + 3] if "validation error" in line else []
            return " ".join([match[1], *rest])
    errors = [line for line in lines if "error:" in line.lower()]
    return next(iter(errors + lines[-1:]), "its log is empty")


def _die_with_parent() -> None:
    # If the demo is killed, the kernel sends the server SIGTERM, so it does not outlive it.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def child_server(
    command: Sequence[str], url: str, log: Path, environment: dict[str, str] | None = None, timeout_s: float = 600
) -> Iterator[Server]:
    """Run `command` until the block ends; enter the block when `url`/health answers 200.

    Raises Problem if it ends or does not answer within `timeout_s`. The whole process group is stopped at
    the end: asked first, killed after 10 s.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with log.open("wb") as log_file:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            env=os.environ | (environment or {}),
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    server = Server(url, process, log)
    try:
        _wait_until_healthy(server, start + timeout_s)
        server.ready_s = time.perf_counter() - start
        yield server
    finally:
        stop(process)


def _wait_until_healthy(server: Server, deadline: float) -> None:
    with httpx.Client(trust_env=False) as client:
        while time.perf_counter() < deadline:
            server.check()
            try:
                if client.get(f"{server.url}/health", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.1)
    raise Problem(
        f"The server at {server.url} did not become healthy in time.",
        f"See what it was doing at the end of {server.log}.",
    )


def stop(process: subprocess.Popen, patience_s: float = 10) -> None:
    """End a process started in its own session, and all of its group."""
    try:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
    finally:  # also when Ctrl-C ends the waiting
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # children that outlived it, and itself if it would not stop
        process.wait()


def vllm_command(model: models.Model, machine: Machine, port: int, *options: str, **arguments: object) -> list[str]:
    """The `vllm serve` command line for a model, with the course's engine options."""
    values = models.engine_options(model, machine, **arguments)
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(values.pop("model"))]
    command += ["--served-model-name", model.name, *flags(values)]
    return [*command, "--host", "127.0.0.1", "--port", str(port), *options]


def flags(engine_options: dict[str, object]) -> list[str]:
    """Engine options of `vllm.LLM` as words of a vllm command line: `enforce_eager=True` is `--enforce-eager`."""
    words = []
    for name, value in engine_options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, dict):
            words += [f"--{flag}", json.dumps(value)]
        elif isinstance(value, (list, tuple)):
            words += [f"--{flag}", *map(str, value)]
        else:
            words += [f"--{flag}", str(value)]
    return words


@contextmanager
def serve(
    model: models.Model,
    machine: Machine,
    log: Path,
    *options: str,
    port: int | None = None,
    environment: dict[str, str] | None = None,
    **arguments: object,
) -> Iterator[Server]:
    """`vllm serve` for the length of a block, on a free port of the loopback address.

    `arguments` are engine options as `vllm.LLM` names them, `options` further words of the command line.
    """
    if port is None:
        port = free_port()
    else:
        check_port(port)
    models.close_engine()
    models.preflight(model, machine)
    variables = {"VLLM_LOGGING_LEVEL": "INFO"} | (environment or {})
    if not machine.gpus:
        variables.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    command = vllm_command(model, machine, port, *options, **arguments)
    with child_server(command, f"http://127.0.0.1:{port}", log, variables) as server:
        yield server
