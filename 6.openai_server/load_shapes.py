"""Loads for one server: prompts as text, closed and open loops, and the same by `vllm bench serve`."""

import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import bench_client
import httpx
from bench_client import BenchClient

from common import serving, timing
from common.load import Clients, ListClient, Load, Target, middle
from common.serving import Server
from common.timing import Repeats

APART = "median TTFT of one user, ours less the benchmark's"
DRAWS = 1000  # how often a bootstrap draws the rounds anew
ABOVE = 1.3  # the last open loop's rate over the highest that a closed one reached


def prompt_tokens(run) -> int:
    """Random tokens that a prompt is made of; few on a CPU."""
    return 100 if run.machine.gpus else 32


@dataclass(frozen=True)
class MixedTarget(Target):
    """Requests that go to several models of one server in turn: a base model and its adapters."""

    models: tuple[str, ...] = ()

    def body(self, index: int) -> dict:
        return super().body(index) | {"model": self.models[index % len(self.models)]}


def texts(server: Server, model: str, count: int, tokens: int) -> tuple[list[str], int]:
    """(`count` texts of `tokens` random tokens, the mean number of tokens that the server reads them as).

    The server itself makes texts of token ids. It reads more tokens than were drawn: random ones don't follow each
    other as its tokenizer would have cut the text.
    """
    draw, found, read = random.Random(0), [], []
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        for _ in range(count):
            ids = [draw.randrange(1000, 10_000) for _ in range(tokens)]
            found.append(client.post("/detokenize", json={"model": model, "tokens": ids}).json()["prompt"])
            read.append(client.post("/tokenize", json={"model": model, "prompt": found[-1]}).json()["count"])
    return found, round(statistics.mean(read))


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


def difference_pct(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """By how many percent the median of our rounds is above that of theirs, and the margin of error of that.

    The margin is half the width of the 95 % interval of a bootstrap over the rounds, both tools' of a round together
    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13): what else the same rounds could have
    shown, had chance drawn some of them twice and others not at all. Of few rounds it comes out somewhat too narrow.
    """
    draw, rounds = random.Random(0), list(zip(ours, theirs, strict=True))

    def difference(chosen: Sequence[tuple[float, float]]) -> float:
        our_median, their_median = map(statistics.median, zip(*chosen, strict=True))
        return (our_median / their_median - 1) * 100

    drawn = [difference(draw.choices(rounds, k=len(rounds))) for _ in range(DRAWS)]
    return difference(rounds), (timing.percentile(drawn, 97.5) - timing.percentile(drawn, 2.5)) / 2


def agreement(
    run, clients: ListClient, bench: BenchClient, target: Target, users: int, requests: int, rounds: int
) -> dict[str, object]:
    """One number of users by both tools, in turns; a row of medians over the rounds."""
    who = "one user" if users == 1 else f"{users} users"

    def ours() -> dict[str, float]:
        run.step(f"{who}: this course's load generator, {requests} requests")
        begin_s = clients.cpu_s()
        found = clients.closed_list(target, users, requests)
        cpu_pct = (clients.cpu_s() - begin_s) / found.seconds * 100
        run.count(found.output_tokens)
        return found.latencies_ms() | {"tok_s": found.output_tok_s, "failed": found.failed, "cpu_pct": cpu_pct}

    def theirs() -> dict[str, float]:
        run.step(f"{who}: vllm bench serve, {requests} requests")
        found = bench_client.closed_list(bench, target, run.model.path, run.logs, users, requests)
        run.count(found["total_output_tokens"])
        cpu_pct, failed = found["client_cpu_s"] / found["duration"] * 100, requests - found["completed"]
        rate, ttft_ms = found["output_throughput"], found["median_ttft_ms"]
        return {"tok_s": rate, "ttft_p50_ms": ttft_ms, "failed": failed, "cpu_pct": cpu_pct}

    tools: dict[str, Callable[[], dict[str, float]]] = {"course": ours, "bench": theirs}
    seen: dict[str, list[dict[str, float]]] = {"course": [], "bench": []}
    for number in range(rounds):  # who begins changes: a host that slows down for a while slows no tool more often
        for name in sorted(tools, reverse=number % 2 == 0):
            seen[name].append(tools[name]())

    def of(tool: str, figure: str) -> Repeats:
        return Repeats(tuple(each[figure] for each in seen[tool]))

    rates, ttft = of("course", "tok_s"), of("course", "ttft_p50_ms")
    bench_rates, bench_ttft = of("bench", "tok_s"), of("bench", "ttft_p50_ms")
    tok_s_difference, tok_s_margin = difference_pct(rates.values, bench_rates.values)
    ttft_difference, ttft_margin = difference_pct(ttft.values, bench_ttft.values)
    return {
        "users": users,
        "output_tok_s": rates.median,
        "tok_s_difference_pct": tok_s_difference,
        "tok_s_margin_pct": tok_s_margin,
        "ttft_p50_ms": ttft.median,
        "ttft_difference_pct": ttft_difference,
        "ttft_margin_pct": ttft_margin,
        "bench_tok_s": bench_rates.median,
        "bench_ttft_p50_ms": bench_ttft.median,
        "ttft_p99_ms": of("course", "ttft_p99_ms").median,
        "tpot_p50_ms": of("course", "tpot_p50_ms").median,
        "spread_pct": rates.spread_pct,
        "ttft_p50_spread_pct": ttft.spread_pct,
        "requests": requests,
        "rounds": rounds,
        "failed": sum(each["failed"] for tool in seen.values() for each in tool),
        "client_cpu_pct": of("course", "cpu_pct").median,
        "bench_cpu_pct": of("bench", "cpu_pct").median,
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


def loop_figures(run, found: Load, window_s: float, rate: float | None = None) -> dict[str, float]:
    """The columns of one closed or open loop, in its steady part; the rate of a closed one is what it reached."""
    run.count(found.output_tokens)
    kept, reached = steady(found, window_s)
    end = min(o.start_s for o in found.outcomes) + window_s
    waits = [outcome.end_s - outcome.start_s for outcome in kept.outcomes]
    overlaps = (min(o.end_s, end) - max(o.start_s, end - kept.seconds) for o in found.outcomes)
    seen = kept.latencies_ms()
    return {
        "requests_per_s": rate or reached,
        "in_flight": sum(max(0.0, overlap) for overlap in overlaps) / kept.seconds,
        "ttft_p50_ms": seen["ttft_p50_ms"], "ttft_p99_ms": seen["ttft_p99_ms"],
        "mean_s": sum(waits) / len(waits), "p99_s": kept.latency_s(99),
        "requests": len(kept.outcomes), "failed": kept.failed, "late_ms": kept.late_ms,
    }  # fmt: skip


def loops(run, clients: Clients, target: Target, levels: list[int], window_s: float) -> list[dict]:
    """For each number of users a closed loop, then an open one at the rate it reached; last, one at 1.3 times that.

    Each pair is run `run.repeats` times, with other arrivals in each: a row has the medians, but all requests and
    failures, and the worst lateness.
    """
    rows: list[dict] = []

    def add(loop: str, users: int | None, rounds: Sequence[dict[str, float]]) -> None:
        row = middle(rounds, requests=sum, failed=sum, late_ms=max)
        rows.append({"loop": loop, "users": users} | row)

    def opened(rate: float, seed: int) -> dict[str, float]:
        run.step(f"open loop: {rate:.1f} requests a second")
        found = clients.open_loop(target, max(4, round(rate * window_s)), rate, seed)
        return loop_figures(run, found, window_s, rate)

    for users in levels:
        pairs = []
        for seed in range(run.repeats):
            run.step(f"closed loop: {users} users")
            closed = loop_figures(run, clients.closed_loop(target, users, window_s), window_s)
            pairs.append((closed, opened(closed["requests_per_s"], seed)))
        add("closed", users, [closed for closed, _ in pairs])
        add("open", None, [at_its_rate for _, at_its_rate in pairs])
    rate = ABOVE * max(row["requests_per_s"] for row in rows)
    add(f"open, {ABOVE:g} times", None, [opened(rate, seed) for seed in range(run.repeats)])
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
