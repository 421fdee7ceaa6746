"""A load generator for OpenAI completion servers: closed loop (users) and open loop (Poisson arrivals).

The clients run in processes of their own, so that the one who measures is not what is measured. Tokens are
counted from the server's `usage`. Times are of CLOCK_MONOTONIC, which all processes of a machine share.
"""

import asyncio
import json
import math
import multiprocessing
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace

import aiohttp

from common.timing import Repeats, Stream, percentile

# A streamed token costs its client some 40 microseconds: with 10,000 a second a process is busy for less than half.
USERS_PER_PROCESS = 128
REQUESTS_PER_SECOND_PER_PROCESS = 150


@dataclass(frozen=True)
class Outcome:
    """What became of one request. `error` is empty for a success; times in seconds of one clock.

    `start_s` is when the request was due: in an open loop the arrival that was drawn, which a client that falls behind
    meets late; in a closed loop the moment of sending. Latencies count from it.
    """

    start_s: float
    end_s: float
    output_tokens: int = 0
    token_s: tuple[float, ...] = ()  # arrival of each streamed chunk that carried text; empty without streaming
    error: str = ""
    sent_s: float | None = None  # when it was really sent; None where that was not noted

    @property
    def stream(self) -> Stream:
        return Stream(self.start_s, self.token_s)

    @property
    def tpot_ms(self) -> float | None:
        """Time per output token after the first, in ms; None for a single one. A chunk may carry several tokens."""
        if self.output_tokens < 2 or not self.token_s:
            return None
        return (self.token_s[-1] - self.token_s[0]) / (self.output_tokens - 1) * 1e3


@dataclass(frozen=True)
class Load:
    """All outcomes of one run, from its first request to its last answer."""

    outcomes: tuple[Outcome, ...]
    seconds: float

    @property
    def completed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.error]

    @property
    def failed(self) -> int:
        return len(self.outcomes) - len(self.completed)

    @property
    def output_tokens(self) -> int:
        """Tokens of answers that arrived whole: what a failed request had produced is worth nothing to its user."""
        return sum(outcome.output_tokens for outcome in self.completed)

    @property
    def output_tok_s(self) -> float:
        return self.output_tokens / self.seconds

    @property
    def late_ms(self) -> float:
        """How late the client itself was, at worst: from when a request was due until it was sent, in ms."""
        return max((o.sent_s - o.start_s) * 1e3 for o in self.outcomes if o.sent_s is not None)

    def good(self, ttft_ms: float, tpot_ms: float) -> int:
        """Requests whose first token came within `ttft_ms` and the others every `tpot_ms` in the mean.

        A failed request meets nothing. Over `seconds` this is the goodput (DistServe, https://arxiv.org/abs/2401.09670).
        """
        answered = [outcome for outcome in self.completed if outcome.token_s]
        return sum(o.stream.ttft_ms <= ttft_ms and (o.tpot_ms is None or o.tpot_ms <= tpot_ms) for o in answered)

    def latencies_ms(self) -> dict[str, float | None]:
        """ttft_p50_ms, ttft_p99_ms, and so for tpot and itl: percentiles over the answers that came; None without any.

        TTFT and TPOT have one value for each answer, ITL one for each gap between two chunks of any of them.
        """
        answered = [outcome for outcome in self.completed if outcome.token_s]
        values = {
            "ttft": [outcome.stream.ttft_ms for outcome in answered],
            "tpot": [outcome.tpot_ms for outcome in answered if outcome.tpot_ms is not None],
            "itl": [gap for outcome in answered for gap in outcome.stream.itl_ms],
        }
        return {
            f"{name}_p{q}_ms": percentile(each, q) if each else None for name, each in values.items() for q in (50, 99)
        }

    def latency_s(self, q: float) -> float:
        """q-th percentile of end-to-end latency in seconds. A failed request counts with the time it cost its user."""
        return percentile([outcome.end_s - outcome.start_s for outcome in self.outcomes], q)


def middle(rounds: Sequence[Mapping[str, float]], **others: Callable) -> dict[str, float]:
    """One row of several rounds': of each column the median, or what `others` makes of its values.

    And the spread of the P99 of TTFT, which is least alike from round to round.
    """
    columns = {name: tuple(each[name] for each in rounds) for name in rounds[0]}
    row = {name: others.get(name, statistics.median)(values) for name, values in columns.items()}
    return row | {"ttft_spread_pct": Repeats(columns["ttft_p99_ms"]).spread_pct}


@dataclass(frozen=True)
class Target:
    """Where requests go and how they look. `prompts` are token ids or texts, taken in turn; `max_tokens` may be too.

    Equal answers keep the users of a closed loop in step with each other, and that is easier on a server than life is.
    """

    url: str
    model: str
    prompts: Sequence[object]
    max_tokens: int | Sequence[int]
    deadline_s: float = 60.0
    stream: bool = True
    extra: dict = field(default_factory=dict)

    def body(self, index: int) -> dict:
        """The JSON of request number `index`: greedy, exactly `max_tokens` tokens."""
        lengths = [self.max_tokens] if isinstance(self.max_tokens, int) else self.max_tokens
        body = {
            "model": self.model,
            "prompt": self.prompts[index % len(self.prompts)],
            "max_tokens": lengths[index % len(lengths)],
            "temperature": 0.0,
            "ignore_eos": True,
            **self.extra,
        }
        if self.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body


async def _send(client: aiohttp.ClientSession, target: Target, index: int, due: float | None = None) -> Outcome:
    body, sent = target.body(index), time.monotonic()
    outcome = await _outcome(client, target, body, start=sent if due is None else due)
    return replace(outcome, sent_s=sent)


async def _outcome(client: aiohttp.ClientSession, target: Target, body: dict, start: float) -> Outcome:
    tokens, times = 0, []
    try:
        async with asyncio.timeout(start + target.deadline_s - time.monotonic()):
            async with client.post("/v1/completions", json=body) as response:
                if response.status != 200:
                    text = await response.text(errors="replace")
                    return Outcome(start, time.monotonic(), error=f"{response.status}: {text[:200]}")
                if not target.stream:
                    tokens = json.loads(await response.read())["usage"]["completion_tokens"]
                else:
                    async for line in response.content:
                        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                            continue
                        arrival = time.monotonic()
                        chunk = json.loads(line[6:])
                        if "error" in chunk:
                            return Outcome(start, arrival, error=str(chunk["error"])[:200])
                        if chunk["choices"]:
                            times.append(arrival)
                        if chunk.get("usage"):
                            tokens = chunk["usage"]["completion_tokens"]
                    if not tokens:
                        return Outcome(start, time.monotonic(), error="the stream ended before its usage")
    except TimeoutError:
        return Outcome(start, time.monotonic(), error=f"no answer within {target.deadline_s:g} s")
    except aiohttp.ClientError as error:
        return Outcome(start, time.monotonic(), error=f"{type(error).__name__}: {error}")
    except (ValueError, KeyError, TypeError) as error:  # cut in the middle of a line, or from another kind of server
        return Outcome(start, time.monotonic(), error=f"not a completion: {type(error).__name__}: {error}")
    return Outcome(start, time.monotonic(), tokens, tuple(times))


def _client(target: Target, connections: int) -> aiohttp.ClientSession:
    # An idle connection is given up before uvicorn does it, after 5 s: a request sent at that moment would fail.
    connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=4)
    return aiohttp.ClientSession(target.url, connector=connector, timeout=aiohttp.ClientTimeout(total=None))


async def _closed(
    target: Target, users: Sequence[int], stride: int, begin: float, stop: float, at_least: int
) -> list[Outcome]:
    async def user(number: int) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while time.monotonic() < stop or len(outcomes) < at_least:
            outcomes.append(await _send(client, target, number + stride * len(outcomes)))
            if outcomes[-1].error.startswith("ClientConnectorError"):
                break  # nobody listens any more: asking again at once would only spin
        return outcomes

    async with _client(target, len(users)) as client:
        await asyncio.sleep(max(0.0, begin - time.monotonic()))
        per_user = await asyncio.gather(*(user(number) for number in users))
        return [outcome for outcomes in per_user for outcome in outcomes]


async def _listed(target: Target, users: int, requests: int, begin: float) -> list[Outcome]:
    left = iter(range(requests))

    async def user() -> list[Outcome]:
        return [await _send(client, target, index) for index in left]

    async with _client(target, users) as client:
        await asyncio.sleep(max(0.0, begin - time.monotonic()))
        per_user = await asyncio.gather(*(user() for _ in range(users)))
        return [outcome for outcomes in per_user for outcome in outcomes]


async def _open(target: Target, arrivals: Sequence[tuple[int, float]], begin: float) -> list[Outcome]:
    async def request(index: int, offset: float) -> Outcome:
        await asyncio.sleep(max(0.0, begin + offset - time.monotonic()))
        return await _send(client, target, index, due=begin + offset)

    async with _client(target, len(arrivals)) as client:
        return list(await asyncio.gather(*(request(index, offset) for index, offset in arrivals)))


def _run_closed(*arguments: object) -> list[Outcome]:
    return asyncio.run(_closed(*arguments))


def _run_listed(*arguments: object) -> list[Outcome]:
    return asyncio.run(_listed(*arguments))


def _run_open(*arguments: object) -> list[Outcome]:
    return asyncio.run(_open(*arguments))


def _start_client(all_started) -> None:
    parent = multiprocessing.parent_process()
    # Without this a client would wait for work for ever when its parent is killed.
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    all_started.wait(timeout=120)


class Clients:
    """Client processes, started once and used for several runs. A context manager."""

    def __init__(self, processes: int):
        self.processes = processes
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, spawn, _start_client, (spawn.Barrier(processes),))
        list(self._pool.map(math.sqrt, range(processes)))  # returns when all have started: then one can time

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def closed_loop(self, target: Target, users: int, seconds: float, at_least: int = 1) -> Load:
        """`users` users, each sending its next request when the last is answered, for `seconds` seconds.

        A user who has begun a request waits for its answer, so the run lasts a little longer; each user sends
        at least `at_least` requests.
        """
        begin = time.monotonic() + 0.2
        stop = begin + seconds
        shares = [range(users)[i :: self.processes] for i in range(min(users, self.processes))]
        return self._gather(_run_closed, [(target, share, users, begin, stop, at_least) for share in shares])

    def open_loop(self, target: Target, requests: int, requests_per_s: float, seed: int = 0) -> Load:
        """`requests` requests at Poisson arrivals, sent whether or not earlier ones were answered.

        Latency and deadline count from the arrival that was drawn, so a client that sends late hides nothing
        ("coordinated omission"); `Load.late_ms` says how late it was.
        """
        arrivals = list(enumerate(poisson_arrivals(requests, requests_per_s, seed)))
        begin = time.monotonic() + 0.2
        shares = [arrivals[i :: self.processes] for i in range(min(requests, self.processes))]
        return self._gather(_run_open, [(target, share, begin) for share in shares])

    def _gather(self, run, shares: list[tuple]) -> Load:
        futures = [self._pool.submit(run, *share) for share in shares]
        outcomes = sorted((o for future in futures for o in future.result()), key=lambda outcome: outcome.start_s)
        seconds = max(o.end_s for o in outcomes) - min(o.start_s for o in outcomes)
        return Load(tuple(outcomes), seconds)


class ListClient(Clients):
    """One client process, whose users take the next request from one list as those of `vllm bench serve` do."""

    def __init__(self) -> None:
        super().__init__(processes=1)

    def closed_list(self, target: Target, users: int, requests: int) -> Load:
        """`requests` requests by `users` users, each sending the next one when its last one is answered.

        So nobody is idle while requests wait to be sent, however unequal the answers are.
        """
        return self._gather(_run_listed, [(target, users, requests, time.monotonic() + 0.2)])

    def cpu_s(self) -> float:
        """CPU seconds that the process has taken so far."""
        return self._pool.submit(time.process_time).result()


def poisson_arrivals(requests: int, requests_per_s: float, seed: int = 0) -> list[float]:
    """When each request of an open loop is due, in seconds.

    A Poisson process that brings just so many requests in requests / requests_per_s seconds: then each comes at any
    moment with equal chance (Ross, Introduction to Probability Models, section 5.3.5). Independent gaps would give
    another mean rate with each seed, 7 % off with 200 requests, and near its capacity a server feels less than that.
    """
    draw = random.Random(seed)
    return sorted(draw.uniform(0.0, requests / requests_per_s) for _ in range(requests))


def processes(users: int = 0, requests_per_s: float = 0.0) -> int:
    """How many client processes that many users, or that rate, need."""
    return max(1, math.ceil(max(users / USERS_PER_PROCESS, requests_per_s / REQUESTS_PER_SECOND_PER_PROCESS)))


def clients(users: int = 0, requests_per_s: float = 0.0) -> Clients:
    """As many client processes as that many users, or that rate, need."""
    return Clients(processes(users, requests_per_s))
