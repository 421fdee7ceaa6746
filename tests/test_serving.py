"""Child servers: started, watched, stopped with all their children, and their errors found in real-looking logs."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from common import serving
from common.models import Model
from common.problems import Problem, explain

ROOT = Path(serving.__file__).parent.parent

# A server with a child of its own, as vLLM's API server has its engine.
SERVER = """
import http.server, os, signal, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ.get("COLOUR", "").encode())
child = subprocess.Popen(["sleep", "600"])
print("child", child.pid, flush=True)
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def is_gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def child_of(log):
    return int(log.read_text().split("child ")[1].split()[0])


@pytest.fixture
def server_command():
    port = serving.free_port()
    return [sys.executable, "-c", SERVER, str(port)], f"http://127.0.0.1:{port}"


# ------------------------------------------------------------------------------------------------ start and stop


def test_a_child_server_becomes_healthy_and_is_stopped_with_its_children(server_command, tmp_path):
    command, url = server_command
    log = tmp_path / "logs" / "server.log"
    with serving.child_server(command, url, log, {"COLOUR": "blue"}, timeout_s=30) as server:
        assert httpx.get(f"{url}/health", trust_env=False).text == "blue"
        assert 0 < server.ready_s < 30
        server.check()
        pids = [server.process.pid, child_of(log)]
        assert not any(is_gone(pid) for pid in pids)
    assert wait_until(lambda: all(is_gone(pid) for pid in pids))
    assert "GET /health" in log.read_text()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_in_the_block_stops_the_server(server_command, tmp_path, error):
    command, url = server_command
    with pytest.raises(error), serving.child_server(command, url, tmp_path / "log", timeout_s=30) as server:
        raise error()
    assert server.process.returncode is not None
    assert wait_until(lambda: is_gone(child_of(tmp_path / "log")))


def test_a_server_that_will_not_stop_is_killed(server_command, tmp_path):
    command, url = server_command
    with serving.child_server([*command, "stubborn"], url, tmp_path / "log", timeout_s=30) as server:
        start = time.monotonic()
        serving.stop(server.process, patience_s=0.3)
        assert time.monotonic() - start < 3
        assert server.process.returncode == -signal.SIGKILL
        assert wait_until(lambda: is_gone(child_of(tmp_path / "log")))


def test_an_interrupt_while_stopping_still_kills_the_server(server_command, tmp_path, monkeypatch):
    command, url = server_command
    with pytest.raises(KeyboardInterrupt), serving.child_server(command, url, tmp_path / "log") as server:
        wait = server.process.wait

        def interrupted(timeout=None):
            if timeout:  # Ctrl-C again, by somebody who does not want to wait
                raise KeyboardInterrupt
            return wait()

        monkeypatch.setattr(server.process, "wait", interrupted)
    assert server.process.returncode is not None
    assert wait_until(lambda: is_gone(child_of(tmp_path / "log")))


def test_a_server_that_dies_early_gives_its_error(tmp_path):
    script = "raise OSError(98, 'Address already in use')"
    with (
        pytest.raises(Problem, match=r"exit status 1: OSError: \[Errno 98\] Address already in use") as problem,
        serving.child_server([sys.executable, "-c", script], "http://127.0.0.1:1", tmp_path / "log", timeout_s=30),
    ):
        pytest.fail("it never became healthy")
    assert "listens on that port" in problem.value.meaning
    assert str(tmp_path / "log") in problem.value.fix


def test_a_server_that_never_answers_is_given_up(tmp_path):
    with (
        pytest.raises(Problem, match="did not become healthy in time") as problem,
        serving.child_server(["sleep", "600"], "http://127.0.0.1:1", tmp_path / "log", timeout_s=0.5) as server,
    ):
        pytest.fail(f"{server} never became healthy")
    assert str(tmp_path / "log") in problem.value.fix
    assert not [p for p in psutil.Process().children() if p.name() == "sleep"]


def test_a_server_that_dies_later_is_noticed(server_command, tmp_path):
    command, url = server_command
    with serving.child_server(command, url, tmp_path / "log", timeout_s=30) as server:
        server.process.kill()
        server.process.wait()
        with pytest.raises(Problem, match="exit status -9"):
            server.check()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killing_the_parent_kills_the_server(server_command, tmp_path, how):
    command, url = server_command
    log = tmp_path / "log"
    parent = (
        "import sys, time; from pathlib import Path; from common import serving\n"
        f"with serving.child_server({command!r}, {url!r}, Path({str(log)!r}), timeout_s=30) as server:\n"
        "    print(server.process.pid, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE)
    server = int(process.stdout.readline())
    process.send_signal(how)
    process.wait()
    try:
        assert wait_until(lambda: is_gone(server))
    finally:
        os.kill(child_of(log), signal.SIGKILL)  # this server does not look after its child; vLLM's does


# --------------------------------------------------------------------------------------------------------- ports


def test_check_port_tells_whether_somebody_listens():
    port = serving.free_port()
    serving.check_port(port)
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen()
            with pytest.raises(Problem, match=f"Port {port} is in use") as problem:
                serving.check_port(port)
            assert str(port) in problem.value.fix
    serving.check_port(port)


# ---------------------------------------------------------------------------------------------------------- logs

ENGINE_LOG = """\
(EngineCore pid=13821) INFO 11-21 05:19:39 [core.py:120] Initializing a V1 LLM engine (v0.32.0)
(EngineCore pid=13821) WARNING 11-21 05:19:39 [config.py:12] This is no error: nothing to see
(EngineCore pid=13821) ERROR 11-21 05:19:40 [core.py:1100] EngineCore failed to start.
(EngineCore pid=13821) ERROR 11-21 05:19:40 [core.py:1100] Traceback (most recent call last):
(EngineCore pid=13821) ERROR 11-21 05:19:40 [core.py:1100]   File "core.py", line 1, in run_engine_core
(EngineCore pid=13821) ERROR 11-21 05:19:40 [core.py:1100] ValueError: No available memory for the cache blocks.
Traceback (most recent call last):
(APIServer pid=13650) RuntimeError: Engine core initialization failed. See root cause above.
"""
PYDANTIC_LOG = """\
(APIServer pid=71) Traceback (most recent call last):
(APIServer pid=71) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
(APIServer pid=71)   Value error, User-specified max_model_len (9999) is greater than the derived max_model_len (2048).
(APIServer pid=71)     For further information visit https://errors.pydantic.dev/2.13/v/value_error
"""


@pytest.mark.parametrize(
    ("log", "error"),
    [
        (ENGINE_LOG, "ValueError: No available memory for the cache blocks."),
        ("[rank0]: Traceback (most recent call last):\n[rank0]: ValueError: bad shape\n", "ValueError: bad shape"),
        (
            "(Worker_TP1 pid=9) ERROR 11-21 05:19:40 [multiproc_executor.py:9] torch.OutOfMemoryError: CUDA is full.",
            "torch.OutOfMemoryError: CUDA is full.",
        ),
        ("Traceback\nOSError: [Errno 98] Address already in use\n", "OSError: [Errno 98] Address already in use"),
        ("usage: vllm\nvllm serve: error: no such option: --fast\n", "vllm serve: error: no such option: --fast"),
        ("starting\nKilled\n\n", "Killed"),
        ("", "its log is empty"),
    ],
)
def test_first_error_names_the_cause(tmp_path, log, error):
    (tmp_path / "log").write_text(log)
    assert serving.first_error(tmp_path / "log") == error


def test_first_error_of_a_validation_says_what_was_wrong(tmp_path):
    (tmp_path / "log").write_text(PYDANTIC_LOG)
    error = serving.first_error(tmp_path / "log")
    assert "ValidationError: 1 validation error for ModelConfig" in error
    assert "not trained for positions" in explain(error)[0]


def test_first_error_reads_a_log_with_broken_bytes(tmp_path):
    (tmp_path / "log").write_bytes(b"\xff\xfe\nRuntimeError: x\xff\n")
    assert serving.first_error(tmp_path / "log").startswith("RuntimeError: x")


# ------------------------------------------------------------------------------------------------- command lines


def test_flags_are_words_of_the_command_line():
    assert serving.flags(
        {
            "dtype": "bfloat16",
            "enforce_eager": True,
            "enable_prefix_caching": False,
            "max_model_len": 2048,
            "compilation_config": {"level": 3},
            "cudagraph_capture_sizes": [1, 2],
        }
    ) == [
        "--dtype", "bfloat16",
        "--enforce-eager",
        "--no-enable-prefix-caching",
        "--max-model-len", "2048",
        "--compilation-config", '{"level": 3}',
        "--cudagraph-capture-sizes", "1", "2",
    ]  # fmt: skip


def test_the_command_holds_model_name_address_and_options(machine_with):
    model = Model("course-lm", "/models/course-lm", "trained")
    command = serving.vllm_command(model, machine_with("NVIDIA H200"), 8123, "--api-key", "x", max_model_len=512)
    assert command == [
        sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", "/models/course-lm",
        "--served-model-name", "course-lm",
        "--dtype", "bfloat16",
        "--max-model-len", "512",
        "--host", "127.0.0.1", "--port", "8123",
        "--api-key", "x",
    ]  # fmt: skip


@pytest.mark.engine
def test_serve_answers_and_refuses_a_port_in_use(machine_with, tmp_path):
    from common import hardware, models

    model, machine = models.resolve("course-lm"), hardware.machine()
    with serving.serve(model, machine, tmp_path / "log", gpu_memory_utilization=0.3) as server:
        answer = httpx.post(
            f"{server.url}/v1/completions",
            json={"model": "course-lm", "prompt": "What is", "max_tokens": 4, "ignore_eos": True},
            timeout=60,
            trust_env=False,
        ).json()
        assert answer["usage"]["completion_tokens"] == 4
        with (
            pytest.raises(Problem, match="in use"),
            serving.serve(model, machine, tmp_path / "second", port=httpx.URL(server.url).port),
        ):
            pytest.fail("the port was taken")
