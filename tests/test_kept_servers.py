"""Chapter 6: servers and load generators that are started once and kept."""

import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from common import models, serving
from common.chapters import ROOT, load

FOLDER = ROOT / "6.openai_server"
sys.path.insert(0, str(FOLDER))
try:
    import kept_servers
finally:
    sys.path.remove(str(FOLDER))


@pytest.fixture
def run(tmp_path):
    options = SimpleNamespace(trace=None, only=["tools"], resume=False)
    return SimpleNamespace(
        options=options, machine=SimpleNamespace(gpus=()), model=models.resolve("course-lm"), logs=tmp_path,
        step=lambda text: None, size=lambda full, smoke: full,
    )  # fmt: skip


@pytest.fixture
def started(monkeypatch):
    """Fake servers; the list of what was started, which a test may make fail."""
    calls = SimpleNamespace(names=[], running=0, error=None)

    @contextmanager
    def serve(model, machine, log, *options, **arguments):
        calls.names.append(log.stem)
        if calls.error:
            raise calls.error
        time.sleep(0.05)
        calls.running += 1
        try:
            yield SimpleNamespace(url="http://server", check=lambda: None)
        finally:
            calls.running -= 1

    monkeypatch.setattr(serving, "serve", serve)
    with kept_servers.closing():
        yield calls


def test_a_server_starts_once_and_is_closed(run, started):
    with kept_servers.closing():
        first = kept_servers.kept(run, "features")
        assert kept_servers.kept(run, "features") is first
        kept_servers.start(run, "pooling")
        kept_servers.kept(run, "pooling")
        assert started.names == ["server-features", "server-pooling"] and started.running == 2
        kept_servers.close("features", "plain")
        assert started.running == 1
    assert started.running == 0


def test_what_the_chosen_experiments_need_starts_at_once(run, started):
    chapter = load(FOLDER / "demo.py").chapter
    assert set().union(*kept_servers.ASKED_BY.values()) == chapter.experiments.keys() - {"multimodal"}
    run.options.only = None
    assert kept_servers.needed(run) == ["features", "pooling", "plain"]  # without a GPU
    run.options.only = ["bad_requests", "multimodal"]
    kept_servers.kept(run, "features")
    assert sorted(started.names) == ["server-features", "server-pooling"]


def test_the_first_call_waits_until_nothing_is_starting(run, started, monkeypatch):
    waited = []
    monkeypatch.setattr(kept_servers, "BenchClient", lambda: SimpleNamespace(
        ready=lambda: waited.append("bench"), __exit__=lambda *_: None))  # fmt: skip
    run.options.only = ["endpoints", "load"]
    kept_servers.kept(run, "features")
    assert started.running == 3 and waited == ["bench"]


def test_a_resumed_run_starts_what_it_is_asked_for(run, started):
    run.options.only, run.options.resume = None, True
    kept_servers.kept(run, "plain")
    assert started.names == ["server-plain"]


def test_client_processes_are_used_again(run, monkeypatch):
    monkeypatch.setattr(kept_servers.load, "Clients", lambda processes: SimpleNamespace(of=processes, __exit__=list))
    with kept_servers.closing():
        few = kept_servers.clients(users=3)
        assert kept_servers.clients(users=128) is few and few.of == 1
        assert kept_servers.clients(users=129).of == kept_servers.clients(users=4, requests_per_s=200).of == 2
    with kept_servers.closing():
        assert kept_servers.clients(users=3) is not few, "those were closed"


def test_a_failed_start_is_raised_and_tried_afresh(run, started):
    started.error = RuntimeError("no memory")
    with pytest.raises(RuntimeError, match="no memory"):
        kept_servers.kept(run, "plain")
    started.error = None
    assert kept_servers.kept(run, "plain").url == "http://server"


def test_every_server_of_the_demo_has_a_command_line(run):
    for name in kept_servers.SERVERS:
        model, words, arguments = kept_servers.SERVERS[name](run)
        command = serving.vllm_command(model, run.machine, 8000, *words, **arguments)
        assert command.count("--enforce-eager") == 1
        assert len([word for word in command if word.startswith("--")]) == len(
            {word for word in command if word.startswith("--")}
        ), f"an option twice: {command}"
