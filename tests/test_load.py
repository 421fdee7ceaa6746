"""The load generator against a small server whose delays and failures are known."""

import asyncio
import itertools
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from common import load, serving
from common.load import Load, Outcome, Target

ROOT = Path(load.__file__).parent.parent


class CompletionServer:
    """Speaks /v1/completions over HTTP/1.1. What a request asks for in `mode` and `delay_s` is what it gets.

    `bodies` holds every request, `arrivals` (time, how many are in flight with this one).
    """

    def __init__(self):
        self.forget()
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024))
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def forget(self):
        """Begin a new record; requests that an earlier test gave up are not counted in it."""
        self.bodies, self.arrivals, self.in_flight = [], [], [0]

    async def _serve(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length:")[1].split()[0])
                body = json.loads(await reader.readexactly(length))
                in_flight = self.in_flight
                in_flight[0] += 1
                self.arrivals.append((time.monotonic(), in_flight[0]))
                self.bodies.append(body)
                try:
                    await self._answer(body, writer)
                finally:
                    in_flight[0] -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, body, writer):
        mode, delay = body.get("mode", ""), body.get("delay_s", 0.0)
        if mode == "slow first":
            delay = 0.6 if body["prompt"] == "prompt 0" else 0.05
        await asyncio.sleep(random.uniform(*delay) if isinstance(delay, list) else delay)
        if mode == "500":
            return self._whole(writer, 500, {"error": "engine is dead"})
        if mode == "html":
            return self._whole(writer, 200, "<html>")
        tokens = body["max_tokens"]
        usage = {"completion_tokens": tokens}
        if not body.get("stream"):
            if mode == "no usage":
                usage = None
            return self._whole(writer, 200, {"choices": [{"text": "x"}], "usage": usage})
        chunks = [{"choices": [{"text": "x"}]} for _ in range(tokens)]
        # Two tokens in one chunk, as happens when the client is slower than the engine: usage still counts all.
        chunks = chunks[: tokens - body.get("merged", 0)]
        if body["stream_options"]["include_usage"] and mode != "no usage":
            chunks.append({"choices": [], "usage": usage})
        whole = mode != "cut without length"
        coding = "Transfer-Encoding: chunked" if whole else "Connection: close"
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{coding}\r\n\r\n".encode())
        for number, chunk in enumerate(chunks):
            line = f"data: {json.dumps(chunk)}\n\n".encode()
            if mode.startswith("cut") and number == 2:
                writer.write(f"{len(line):x}\r\n".encode() + line[:10] if whole else line[:10])
                await writer.drain()
                raise ConnectionError
            if mode == "error in stream" and number == 2:
                line = b'data: {"error": {"message": "engine is dead"}}\n\n'
            writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n" if whole else line)
            await writer.drain()
            await asyncio.sleep(body.get("token_s", 0.0))
        line = b"data: [DONE]\n\n"
        writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n0\r\n\r\n")
        await writer.drain()

    def _whole(self, writer, status, answer):
        text = json.dumps(answer).encode() if not isinstance(answer, str) else answer.encode()
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)


@pytest.fixture(scope="module")
def server():
    server = CompletionServer()
    yield server
    server.loop.call_soon_threadsafe(server.loop.stop)
    server.thread.join()
    server.loop.close()


@pytest.fixture(scope="module")
def clients():
    with load.Clients(2) as clients:
        yield clients


@pytest.fixture
def target(server):
    """A function: a Target whose requests carry the given settings for the server."""
    server.forget()

    def build(prompts=("one", "two", "three"), max_tokens=4, deadline_s=10.0, stream=True, **extra):
        return Target(server.url, "course-lm", list(prompts), max_tokens, deadline_s, stream, extra)

    return build


# ----------------------------------------------------------------------------------------------------- one answer


@pytest.mark.parametrize("stream", [True, False])
def test_tokens_are_counted_from_usage(clients, target, stream):
    result = clients.closed_loop(target(max_tokens=7, merged=2, stream=stream), users=2, seconds=0.0, at_least=3)
    assert [outcome.output_tokens for outcome in result.completed] == [7] * 6
    assert [len(outcome.token_s) for outcome in result.outcomes] == ([5] * 6 if stream else [0] * 6)
    assert (result.failed, result.output_tokens) == (0, 42)
    assert result.output_tok_s == pytest.approx(42 / result.seconds)


def test_latencies_of_a_stream_are_those_of_the_server(clients, target):
    result = clients.closed_loop(target(max_tokens=4, delay_s=0.2, token_s=0.05), users=1, seconds=0.0)
    stream = result.outcomes[0].stream
    assert stream.ttft_ms == pytest.approx(200, abs=60)
    assert stream.tpot_ms == pytest.approx(50, abs=20)
    assert stream.end_to_end_ms == pytest.approx(350, abs=90)


def test_a_request_asks_for_exactly_its_tokens_greedily(server, clients, target):
    clients.closed_loop(target(max_tokens=5, seed=7), users=1, seconds=0.0)
    body = server.bodies[0]
    assert body["model"] == "course-lm"
    assert (body["max_tokens"], body["temperature"], body["ignore_eos"], body["seed"]) == (5, 0.0, True, 7)
    assert body["stream_options"] == {"include_usage": True}


# ------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"mode": "500"}, "500: .*engine is dead"),
        ({"mode": "500", "stream": False}, "500: .*engine is dead"),
        ({"mode": "cut"}, "ClientPayloadError"),
        ({"mode": "cut without length"}, "not a completion"),
        ({"mode": "error in stream"}, "engine is dead"),
        ({"mode": "html", "stream": False}, "not a completion"),
        ({"mode": "no usage", "stream": False}, "not a completion"),
        ({"mode": "no usage"}, "usage"),
        ({"delay_s": 5, "deadline_s": 0.3}, "no answer within 0.3 s"),
        ({"token_s": 0.2, "max_tokens": 50, "deadline_s": 0.5}, "no answer within 0.5 s"),
    ],
)
def test_a_failure_is_an_outcome_with_its_error(clients, target, settings, error):
    result = clients.closed_loop(target(**settings), users=2, seconds=0.0)
    assert result.failed == 2
    assert result.output_tokens == 0
    assert all(re.search(error, outcome.error) for outcome in result.outcomes), result.outcomes
    if "deadline_s" in settings:
        assert all(0 <= o.end_s - o.start_s - settings["deadline_s"] < 2 for o in result.outcomes)


def test_a_refused_connection_ends_its_user(clients):
    target = Target(f"http://127.0.0.1:{serving.free_port()}", "course-lm", ["x"], 4)
    start = time.monotonic()
    result = clients.closed_loop(target, users=4, seconds=30.0)
    assert time.monotonic() - start < 5
    assert result.failed == len(result.outcomes) == 4
    assert all(outcome.error.startswith("ClientConnectorError") for outcome in result.outcomes)


def test_failed_requests_count_in_the_percentiles_and_not_in_the_tokens():
    outcomes = [Outcome(0.0, 1.0, output_tokens=10), Outcome(0.0, 2.0, output_tokens=10)]
    failed = [Outcome(0.0, 60.0, output_tokens=9, error="no answer within 60 s")] * 2
    result = Load((*outcomes, *failed), seconds=60.0)
    assert result.latency_s(50) == pytest.approx(31.0)
    assert result.latency_s(99) == pytest.approx(60.0)
    assert (result.failed, len(result.completed), result.output_tokens) == (2, 2, 20)
    assert result.output_tok_s == pytest.approx(20 / 60)


# ---------------------------------------------------------------------------------------------------- closed loop


def test_a_closed_loop_keeps_as_many_in_flight_as_there_are_users(server, clients, target):
    result = clients.closed_loop(target(delay_s=[0.05, 0.15], max_tokens=1), users=6, seconds=1.0)
    assert result.failed == 0
    assert max(count for _, count in server.arrivals) == 6
    # After the first round each request arrives while the others are in flight.
    assert statistics.median(count for _, count in server.arrivals[6:]) == 6
    in_flight = sum(outcome.end_s - outcome.start_s for outcome in result.outcomes) / result.seconds
    assert in_flight == pytest.approx(6, rel=0.1)
    assert 30 < len(result.outcomes) <= 75  # 60 on an idle machine; a busy one can only send fewer
    assert 0.9 < result.seconds < 2


def test_all_users_begin_together_from_the_first_run_on(target):
    with load.Clients(4) as clients:
        result = clients.closed_loop(target(delay_s=0.1), users=4, seconds=0.0)
    starts = [outcome.start_s for outcome in result.outcomes]
    assert max(starts) - min(starts) < 0.4  # one client process after the other takes longer to start


def test_a_closed_loop_takes_the_prompts_in_turn(server, clients, target):
    prompts = [f"prompt {number}" for number in range(8)]
    clients.closed_loop(target(prompts), users=2, seconds=0.0, at_least=4)
    assert sorted(body["prompt"] for body in server.bodies) == prompts


def test_users_of_one_list_send_each_request_once_and_wait_for_none(server, target):
    prompts = [f"prompt {number}" for number in range(7)]
    with load.ListClient() as clients:
        # The first answer takes twice as long as the six others together: the other user sends all of these meanwhile.
        result = clients.closed_list(target(prompts, max_tokens=(1,), mode="slow first"), users=2, requests=7)
    assert [body["prompt"] for body in server.bodies] == prompts
    assert result.failed == 0 and len(result.outcomes) == 7
    assert max(count for _, count in server.arrivals) == 2
    slow = next(o for o in result.outcomes if o.end_s - o.start_s > 0.5)
    assert sum(o is not slow and o.start_s < slow.end_s for o in result.outcomes) == 6


def test_the_cpu_time_of_a_client_is_that_of_its_process(server, target):
    with load.ListClient() as clients:
        begin_s = clients.cpu_s()
        clients.closed_list(target(delay_s=0.5, max_tokens=1), users=1, requests=2)
        waited_s = clients.cpu_s() - begin_s
        clients.closed_list(target(max_tokens=2000), users=2, requests=10)
        worked_s = clients.cpu_s() - begin_s - waited_s
    assert 0 < waited_s < 0.5 < 10 * worked_s, "waiting takes no CPU time, reading 20,000 events does"


# ------------------------------------------------------------------------------------------------------ open loop


def test_lengths_are_taken_in_turn(server, clients, target):
    result = clients.closed_loop(target(max_tokens=(2, 5, 3)), users=1, seconds=0.0, at_least=4)
    assert [outcome.output_tokens for outcome in result.outcomes] == [2, 5, 3, 2]
    assert [body["max_tokens"] for body in server.bodies] == [2, 5, 3, 2]


def test_an_open_loop_is_poisson_and_waits_for_no_answer(server, clients, target):
    result = clients.open_loop(target(delay_s=0.7, max_tokens=1), requests=200, requests_per_s=200, seed=1)
    starts = [outcome.start_s for outcome in result.outcomes]
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert result.failed == 0
    # The arrivals that were drawn: a mean gap of 5 ms, and a deviation as large as the mean.
    assert (len(starts) - 1) / (starts[-1] - starts[0]) == pytest.approx(200, rel=0.2)
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(1, abs=0.3)
    assert all(outcome.sent_s >= outcome.start_s for outcome in result.outcomes), "none before it is due"
    drawn = load.poisson_arrivals(200, 200, seed=1)
    assert gaps == pytest.approx([b - a for a, b in itertools.pairwise(drawn)])
    # Answers take 0.7 s: most requests were sent before the first answer.
    assert max(count for _, count in server.arrivals) > 100


def test_arrivals_are_poisson_at_just_that_rate():
    for seed in range(20):
        arrivals = load.poisson_arrivals(400, 50, seed)
        assert len(arrivals) == 400 and arrivals == sorted(arrivals)
        assert arrivals[0] >= 0 and arrivals[-1] < 400 / 50
        gaps = [b - a for a, b in itertools.pairwise(arrivals)]
        assert statistics.mean(gaps) == pytest.approx(1 / 50, rel=0.03)
        assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(1, abs=0.2)
        # In a Poisson process the number of arrivals in a second varies as much as its mean; a steady one would not.
        counts = [sum(second <= due < second + 1 for due in arrivals) for second in range(8)]
        assert max(counts) > 52
    assert load.poisson_arrivals(9, 3, seed=1) == load.poisson_arrivals(9, 3, seed=1) != load.poisson_arrivals(9, 3, 2)


def test_an_open_loop_is_the_same_for_the_same_seed(server, clients, target):
    def offsets(seed):
        result = clients.open_loop(target(), requests=20, requests_per_s=200, seed=seed)
        return [outcome.start_s - result.outcomes[0].start_s for outcome in result.outcomes]

    first, again, other = offsets(1), offsets(1), offsets(2)
    assert first == pytest.approx(again, abs=0.05)
    assert max(abs(a - b) for a, b in zip(first, other, strict=True)) > 0.005
    assert [body["prompt"] for body in server.bodies].count("one") == 21


class SlowToSend(Target):
    """A target whose requests take the client 0.1 s each to write: a client that falls behind its arrivals."""

    def body(self, index):
        time.sleep(0.1)
        return super().body(index)


def test_latency_counts_from_when_a_request_was_due(target):
    """A client that is late must not hide it: that would leave out just the moments in which the server is slow."""
    given = target(max_tokens=2, stream=True)
    slow = SlowToSend(given.url, given.model, given.prompts, given.max_tokens)
    with load.Clients(1) as one_process:
        result = one_process.open_loop(slow, requests=6, requests_per_s=1e6)
    assert result.failed == 0
    waits = sorted(outcome.sent_s - outcome.start_s for outcome in result.outcomes)
    # All are due at once, and each is written after those before it. A busy machine can only make them wait longer.
    assert all(wait >= 0.099 * number for number, wait in enumerate(waits, start=1))
    assert result.late_ms == pytest.approx(1000 * waits[-1])
    assert max(outcome.start_s for outcome in result.outcomes) - min(o.start_s for o in result.outcomes) < 0.001
    assert max(outcome.stream.ttft_ms for outcome in result.outcomes) >= 590
    assert result.latency_s(100) >= 0.59


def test_the_deadline_counts_from_when_a_request_was_due(target):
    given = target(max_tokens=2, delay_s=0.2)
    slow = SlowToSend(given.url, given.model, given.prompts, given.max_tokens, deadline_s=0.4, extra=given.extra)
    with load.Clients(1) as one_process:
        result = one_process.open_loop(slow, requests=6, requests_per_s=1e6)
    # Each is answered 0.2 s after it was sent, but its user has waited since it was due.
    assert result.failed == 6
    assert all("within 0.4 s" in outcome.error for outcome in result.outcomes)


# ------------------------------------------------------------------------------------------------ what users feel


def answer(ttft_s: float, gap_s: float, tokens: int = 5, error: str = "", merged: int = 0) -> Outcome:
    """An answer of `tokens` tokens to a request that was due at 10; `merged` of them share a chunk with another."""
    times = tuple(10 + ttft_s + gap_s * number for number in range(tokens))
    chunks = times[: tokens - 1 - merged] + times[-1:] if tokens > 1 else times
    return Outcome(10.0, times[-1], tokens, chunks, error)


def test_a_good_request_meets_both_limits():
    outcomes = (
        answer(0.2, 0.05),
        answer(0.3, 0.05),  # too late
        answer(0.2, 0.06),  # too slow
        answer(0.2, 9.0, tokens=1),  # one token has no time per token after the first
        answer(0.1, 0.01, error="no answer within 1 s"),
    )
    assert Load(outcomes, 10.0).good(ttft_ms=250, tpot_ms=55) == 2
    assert Load(outcomes, 10.0).good(ttft_ms=1000, tpot_ms=100) == 4
    assert Load((), 10.0).good(1, 1) == 0


def test_tokens_that_share_a_chunk_count_in_the_time_per_token():
    assert answer(0.2, 0.05, tokens=9, merged=4).tpot_ms == pytest.approx(50)
    assert answer(0.2, 0.05, tokens=1).tpot_ms is None
    assert Outcome(0.0, 1.0, 7).tpot_ms is None  # not streamed


def test_rounds_are_told_by_their_medians():
    rounds = [{"ttft_p99_ms": ttft, "good_pct": good} for ttft, good in ((40, 100), (400, 20), (50, 90))]
    assert load.middle(rounds) == {"ttft_p99_ms": 50, "good_pct": 90, "ttft_spread_pct": pytest.approx(720)}


def test_a_row_of_several_runs_has_medians_sums_and_the_worst():
    rounds = [
        {"ttft_p99_ms": p99, "requests": 10, "failed": failed, "late_ms": late}
        for p99, failed, late in ((100.0, 0, 1.0), (900.0, 1, 70.0), (120.0, 0, 2.0))
    ]
    expected = {"ttft_p99_ms": 120.0, "requests": 30, "failed": 1, "late_ms": 70.0}
    row = load.middle(rounds, requests=sum, failed=sum, late_ms=max)
    assert row == expected | {"ttft_spread_pct": pytest.approx(800 / 120 * 100)}


def test_latencies_are_those_of_the_answers_that_came():
    answered = [answer(0.1 * number, 0.01 * number) for number in (1, 2, 3)]
    found = Load((*answered, answer(9.0, 9.0, error="500")), 10.0).latencies_ms()
    assert found["ttft_p50_ms"] == pytest.approx(200)
    assert found["tpot_p50_ms"] == pytest.approx(20)
    assert found["itl_p50_ms"] == pytest.approx(20)
    assert found["ttft_p99_ms"] == pytest.approx(298)
    assert list(found) == [f"{name}_p{q}_ms" for name in ("ttft", "tpot", "itl") for q in (50, 99)]
    assert set(Load((), 1.0).latencies_ms().values()) == {None}


# ------------------------------------------------------------------------------------------------------ processes


@pytest.mark.parametrize(
    ("users", "requests_per_s", "processes"), [(0, 0, 1), (1, 0, 1), (128, 0, 1), (129, 0, 2), (0, 150, 1), (0, 400, 3)]
)
def test_as_many_processes_as_the_load_needs(users, requests_per_s, processes, monkeypatch):
    monkeypatch.setattr(load, "Clients", lambda count: count)
    assert load.clients(users, requests_per_s) == processes


def test_client_processes_end_with_their_parent():
    script = "from common import load\nclients = load.Clients(2)\nprint('up', flush=True)\ninput()"
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
    )
    assert parent.stdout.readline() == b"up\n"
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=5)
    for process in alive:
        process.kill()
    parent.communicate()
    assert not alive
