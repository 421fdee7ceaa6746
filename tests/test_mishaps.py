"""What goes wrong on a real evening: each mishap ends with a sentence, a non-zero exit, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import psutil
import pytest

from common.chapters import ROOT

INTRO, BASICS, QUICKSTART = (ROOT / name / "demo.py" for name in ("0.intro", "1.inference_basics", "3.quickstart"))


def start(demo, tmp_path, *options: str, **environment: str) -> subprocess.Popen:
    """A demo as a child process, with its logs in `tmp_path`."""
    return subprocess.Popen(
        [sys.executable, demo, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)} | environment,
        start_new_session=True,
    )


def family(demo: subprocess.Popen) -> list[psutil.Process]:
    """The demo's descendants."""
    return psutil.Process(demo.pid).children(recursive=True)


def wait_for(condition: Callable[[], object], seconds: float):
    """The first true value of `condition` within that time, or None."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.2)
    return None


def is_listening(process: psutil.Process) -> bool:
    return any(connection.status == psutil.CONN_LISTEN for connection in process.net_connections("tcp"))


def server_of(demo: subprocess.Popen) -> psutil.Process | None:
    """The `vllm serve` process of a demo once it listens."""
    with suppress(psutil.NoSuchProcess):
        return next((p for p in family(demo) if "serve" in p.cmdline() and is_listening(p)), None)


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive, f"left behind: {[process.cmdline() for process in alive]}"


@pytest.mark.parametrize(
    "options,message,fix",
    [
        (["--model", "course-ml"], "There is no model course-ml", "Did you mean course-lm?"),
        (["--model", "shape:qwen2.5-8b"], "There is no shape:qwen2.5-8b", "shape:qwen2.5-7b"),
        (["--model", "shape:qwen2.5-72b"], "needs 13", "--model"),
        (["--model", "/nowhere/at-all"], "/nowhere/at-all", "course-lm"),
        (["--model", "nobody/nothing"], "nobody/nothing", "course-lm"),
        (["--only", "fisrt"], "There is no experiment fisrt", "first"),
        (["--replay", "abacus"], "No run is recorded for abacus", "Recorded hardware"),
    ],
)
def test_a_wrong_command_is_refused_before_anything_is_loaded(tmp_path, options, message, fix):
    # A hub that refuses connections stands for a machine without a network.
    begin = time.monotonic()
    demo = start(QUICKSTART, tmp_path, *options, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_ETAG_TIMEOUT="2")
    screen, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert message in screen and fix in screen and "Traceback" not in screen
    assert time.monotonic() - begin < 30


def test_lengths_that_no_model_holds_are_refused(tmp_path):
    options = ("--smoke", "--only", "agreement", "--model", "course-lm", "--input-tokens", "5000")
    demo = start(INTRO, tmp_path, *options)
    screen, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1
    assert "5000 tokens in" in screen and "Lower --input-tokens" in screen


@pytest.fixture
def serving_demo(tmp_path) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """A demo whose server has come up, and all processes below it. Its report goes to report.json."""
    options = ("--only", "latency", "--smoke", "--model", "course-lm", "--json", str(tmp_path / "report.json"))
    demo = start(BASICS, tmp_path, *options)
    assert wait_for(lambda: server_of(demo), 120), "no server came up"
    return demo, family(demo)


@pytest.mark.engine
def test_ctrl_c_while_a_server_runs(serving_demo, tmp_path):
    demo, children = serving_demo
    demo.send_signal(signal.SIGINT)
    screen, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "Interrupted" in screen and "Traceback" not in screen
    assert json.loads((tmp_path / "report.json").read_text())["chapter"] == BASICS.parent.name
    assert_gone(children)


@pytest.mark.engine
def test_the_engine_is_killed_under_load(serving_demo):
    demo, children = serving_demo
    next(process for process in children if process.name().startswith("VLLM::Engine")).kill()
    screen, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1
    assert "fix" in screen and "failed: latency" in screen and "Traceback" not in screen
    assert_gone(children)


@pytest.mark.engine
def test_the_demo_itself_is_killed(serving_demo):
    demo, children = serving_demo
    demo.kill()
    demo.wait()
    assert_gone(children)
