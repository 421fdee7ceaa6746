"""Loads for one server: prompts as text, closed and open loops, and the same by `vllm bench serve`."""

import operator
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import bench_client
import httpx
from bench_client import BenchClient

from common import serving, timing
from common.load import Clients, ListClient, Load, Target
from common.serving import Server
from common.timing import Repeats

APART = "median TTFT of one user, ours less the benchmark's"
ABOVE = 1.3  # the last open loop's rate over the highest that a closed one reached


def prompt_tokens(run) -> int:
    """Tokens of a prompt; few on a CPU."""
    return 100 if run.machine.gpus else 32


@dataclass(frozen=True)
class MixedTarget(Target):
    """Requests that go to several models of one server in turn: a base model and its adapters."""

    models: tuple[str, ...] = ()

    def body(self, index: int) -> dict:
        return super().body(index) | {"model": self.models[index % len(self.models)]}


def texts(server: Server, model: str, count: int, tokens: int) -> list[str]:
    """`count` texts of about `tokens` random tokens: the server itself makes texts of token ids."""
    draw, found = random.Random(0), []
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        for _ in range(count):
            ids = [draw.randrange(1000, 10_000) for _ in range(tokens)]
            found.append(client.post("/detokenize", json={"model": model, "tokens": ids}).json()["prompt"])
    return found


def predict_apart(run, clients: ListClient, bench: BenchClient, target: Target, requests: int) -> str:
    """Predict how far apart the tools are with one user, and return the prediction's name.

    Each is given a server that answers at once. What it reports then is mostly its own time: it is in all its figures.
    """
    url, log = f"http://127.0.0.1:{serving.free_port()}", run.logs / "instant_server.log"
    command = [sys.executable, str(Path(__file__).with_name("instant_server.py")), url.rpartition(":")[2]]
    with serving.child_server(command, url, log):
        there = replace(target, url=url)

        def ours() -> float:
            return clients.closed_list(there, 1, requests).latencies_ms()["ttft_p50_ms"]

        def theirs() -> float:
            return bench_client.closed_list(bench, there, run.model.path, run.logs, 1, requests)["median_ttft_ms"]

        run.step("both tools with a server that answers at once")
        found = timing.alternate({"course": ours, "bench": theirs}, run.repeats)
    ours_ms, theirs_ms = found["course"].median, found["bench"].median
    because = f"of a server that answers at once they report {ours_ms:.2f} and {theirs_ms:.2f} ms: their own time"
    run.predict(APART, ours_ms - theirs_ms, "ms", because=because)
    return APART


def paired_pct(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the rounds of one value over the other, less 100 %: the two of a round were measured side by side."""
    return (statistics.median(a / b for a, b in zip(ours, theirs, strict=True)) - 1) * 100


def agreement(
    run, clients: ListClient, bench: BenchClient, target: Target, users: int, requests: int, rounds: int
) -> dict[str, object]:
    """One number of users by both tools, in turns; a row of medians."""
    seen: dict[str, list] = {"course": [], "bench": []}

    def ours() -> float:
        run.step(f"{users} users: this course's load generator, {requests} requests")
        begin_s = clients.cpu_s()
        found = clients.closed_list(target, users, requests)
        cpu_pct = (clients.cpu_s() - begin_s) / found.seconds * 100
        run.count(found.output_tokens)
        seen["course"].append(found.latencies_ms() | {"failed": found.failed, "cpu_pct": cpu_pct})
        return found.output_tok_s

    def theirs() -> float:
        run.step(f"{users} users: vllm bench serve, {requests} requests")
        found = bench_client.closed_list(bench, target, run.model.path, run.logs, users, requests)
        run.count(found["total_output_tokens"])
        cpu_pct, failed = found["client_cpu_s"] / found["duration"] * 100, requests - found["completed"]
        seen["bench"].append({"ttft_p50_ms": found["median_ttft_ms"], "failed": failed, "cpu_pct": cpu_pct})
        return found["output_throughput"]

    tools, figures = {"course": ours, "bench": theirs}, {"course": [], "bench": []}
    for number in range(rounds):  # who begins changes: a host that slows down for a while slows no tool more often
        for name in sorted(tools, reverse=number % 2 == 0):
            figures[name].append(tools[name]())
    rates = {name: Repeats(tuple(values)) for name, values in figures.items()}
    of = {
        name: Repeats(tuple(each[name] for each in seen["course"]))
        for name in ("ttft_p50_ms", "ttft_p99_ms", "tpot_p50_ms")
    }
    bench_ttft = Repeats(tuple(each["ttft_p50_ms"] for each in seen["bench"]))
    return {
        "users": users,
        "output_tok_s": rates["course"].median,
        "tok_s_difference_pct": paired_pct(rates["course"].values, rates["bench"].values),
        "spread_pct": rates["course"].spread_pct,
        "ttft_p50_ms": of["ttft_p50_ms"].median,
        "ttft_difference_pct": paired_pct(of["ttft_p50_ms"].values, bench_ttft.values),
        "ttft_p50_spread_pct": of["ttft_p50_ms"].spread_pct,
        "bench_tok_s": rates["bench"].median,
        "bench_spread_pct": rates["bench"].spread_pct,
        "bench_ttft_p50_ms": bench_ttft.median,
        "bench_ttft_spread_pct": bench_ttft.spread_pct,
        "ttft_p99_ms": of["ttft_p99_ms"].median,
        "ttft_difference_ms": statistics.median(map(operator.sub, of["ttft_p50_ms"].values, bench_ttft.values)),
        "tpot_p50_ms": of["tpot_p50_ms"].median,
        "requests": requests,
        "failed": sum(each["failed"] for both in seen.values() for each in both),
        "client_cpu_pct": statistics.median(each["cpu_pct"] for each in seen["course"]),
        "bench_cpu_pct": statistics.median(each["cpu_pct"] for each in seen["bench"]),
    }


def steady(found: Load, window_s: float) -> tuple[Load, float]:
    """(the requests of a run's last three quarters, answers per second in that time).

    In the first quarter all users of a closed loop begin at once, and after the window they only finish: neither is
    what they see in the long run.
    """
    first = min(outcome.start_s for outcome in found.outcomes)
    begin, end = first + window_s / 4, first + window_s
    within = tuple(outcome for outcome in found.outcomes if begin <= outcome.start_s <= end)
    answered = max(1, sum(begin <= outcome.end_s <= end for outcome in found.completed))
    return Load(within or found.outcomes, end - begin), answered / (end - begin)


def loop_row(run, found: Load, window_s: float, loop: str, users: int | None, rate: float | None = None) -> dict:
    """A row of one closed or open loop, in its steady part; the rate of a closed one is what it reached."""
    run.count(found.output_tokens)
    kept, reached = steady(found, window_s)
    end = min(o.start_s for o in found.outcomes) + window_s
    waits = [outcome.end_s - outcome.start_s for outcome in kept.outcomes]
    overlaps = (min(o.end_s, end) - max(o.start_s, end - kept.seconds) for o in found.outcomes)
    seen = kept.latencies_ms()
    return {
        "loop": loop, "users": users, "requests_per_s": rate or reached,
        "in_flight": sum(max(0.0, overlap) for overlap in overlaps) / kept.seconds,
        "ttft_p50_ms": seen["ttft_p50_ms"], "ttft_p99_ms": seen["ttft_p99_ms"],
        "mean_s": sum(waits) / len(waits), "p99_s": kept.latency_s(99),
        "requests": len(kept.outcomes), "failed": kept.failed, "late_ms": kept.late_ms,
    }  # fmt: skip


def loops(run, clients: Clients, target: Target, levels: list[int], window_s: float) -> list[dict]:
    """For each number of users a closed loop, then an open one at the rate it reached; last, one at 1.3 times that."""
    rows: list[dict] = []

    def opened(rate: float, name: str) -> None:
        run.step(f"open loop: {rate:.1f} requests a second")
        found = clients.open_loop(target, max(4, round(rate * window_s)), rate)
        rows.append(loop_row(run, found, window_s, name, None, rate))

    for users in levels:
        run.step(f"closed loop: {users} users")
        rows.append(loop_row(run, clients.closed_loop(target, users, window_s), window_s, "closed", users))
        opened(rows[-1]["requests_per_s"], "open")
    opened(ABOVE * max(row["requests_per_s"] for row in rows), f"open, {ABOVE:g} times")
    return rows


def rates(run, clients: Clients, targets: dict[str, Target], users: int, name: str, over_first: str) -> list[dict]:
    """Tokens per second of each target with as many users, in turns: rows of medians, with the ratio to the first."""

    def rate(target: Target) -> float:
        found = clients.closed_loop(target, users, seconds=0.0, at_least=run.size(full=2, smoke=1))
        if found.failed:
            raise RuntimeError(next(outcome.error for outcome in found.outcomes if outcome.error))
        run.count(found.output_tokens)
        return found.output_tok_s

    contestants = {case: partial(rate, target) for case, target in targets.items()}
    measured = timing.alternate(contestants, run.repeats, warmups=run.size(full=1, smoke=0))
    first = next(iter(measured.values())).median
    return [
        {name: case, "users": users, "output_tok_s": found.median, "spread_pct": found.spread_pct,
         over_first: found.median / first}
        for case, found in measured.items()
    ]  # fmt: skip
