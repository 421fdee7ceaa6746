"""latency: what users feel at one rate of arrivals, over several rounds, and what a simulated queue makes of it."""

import bisect
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from common.load import Clients, Load, Target, poisson_arrivals
from common.problems import Problem
from common.serving import Server
from common.timing import percentile


def felt(result: Load, ttft_ms: float, tpot_ms: float) -> dict[str, float]:
    """The columns of one round; a good answer has its first token within `ttft_ms` and then one every `tpot_ms`.

    Raises Problem if no answer came.
    """
    if not result.completed:
        raise Problem(f"No request was answered: {result.outcomes[0].error}", "Read the server's log.")
    good, ms = result.good(ttft_ms, tpot_ms), result.latencies_ms()
    row = {name: ms[name] for name in ms if not name.startswith("itl")}
    row |= {"good_pct": good / len(result.outcomes) * 100, "goodput_req_s": good / result.seconds}
    row |= {"output_tok_s": result.output_tok_s, "p99_s": result.latency_s(99), "failed": result.failed}
    return row | ms | {"late_ms": result.late_ms}


def measured(server: Server, send: Callable[[], Load], ttft_ms: float, tpot_ms: float) -> tuple[Load, dict[str, float]]:
    """One round, which `send` runs against the server, and its columns. Raises Problem if no answer came."""
    begin_s = cpu_s(server.process.pid)
    result = send()
    server.check()
    taken = {name: now - begin_s[name] for name, now in cpu_s(server.process.pid).items()}
    busy = {f"{name}_cpu_pct": seconds / result.seconds * 100 for name, seconds in taken.items()}
    return result, felt(result, ttft_ms, tpot_ms) | busy


def cpu_s(server: int) -> dict[str, float]:
    """CPU seconds so far of the process with the engine core ("engine") and of all others of the server ("front").

    `server` is its process id. If it has no process for the engine, it is itself the engine, and the front is 0.
    """
    root = psutil.Process(server)
    family = [root, *root.children(recursive=True)]
    engine = next((process for process in family if process.name().startswith("VLLM::Engine")), None)
    seconds = {process: sum(process.cpu_times()[:2]) for process in family}
    return {
        "engine": seconds[engine or root],
        "front": sum(taken for process, taken in seconds.items() if engine not in (None, process)),
    }


def capacity(busy: Load, seconds: float) -> float:
    """Requests/s that left a closed loop of `seconds` in which all users asked, the first fifth of it left out.

    Raises Problem if none did.
    """
    begin, counted_s = min(outcome.start_s for outcome in busy.outcomes), seconds * 4 / 5
    answered = sum(seconds - counted_s < outcome.end_s - begin <= seconds for outcome in busy.completed)
    if not answered:
        errors = {outcome.error for outcome in busy.outcomes if outcome.error}
        raise Problem(
            f"No request was answered in the last {counted_s:g} s: {', '.join(sorted(errors)) or 'each takes longer'}.",
            "Read the server's log, or give it longer with --seconds.",
        )
    return answered / counted_s


@dataclass(frozen=True)
class Look:
    """What a closed loop got: its capacity, and the median time per output token after the first."""

    requests_per_s: float
    tpot_ms: float


def look(run, clients: Clients, target: Target, users: int, seconds: float) -> Look:
    """A closed loop in which all `users` ask for so many seconds. Raises Problem if no answer came."""
    run.step(f"a closed loop of {users} users")
    busy = clients.closed_loop(target, users, seconds)
    return Look(capacity(busy, seconds), busy.latencies_ms()["tpot_p50_ms"])


def simulated_ttft_ms(
    due: Sequence[float], output_tokens: Sequence[int], slots: int, step_s: Callable[[int], float]
) -> list[float]:
    """TTFT in ms of requests that are `due` at these seconds, in rising order, if each step gives each one a token.

    At most `slots` requests take part in a step, first come, first served; a step of n of them lasts `step_s(n)`
    seconds. A prompt costs no time of its own: it is in the mean of the steps, if they were measured with prompts.
    """
    now, ttft, left = 0.0, [], []
    while left or len(ttft) < len(due):
        if not left:
            now = max(now, due[len(ttft)])
        arrived = bisect.bisect_right(due, now) - len(ttft)
        joining = range(len(ttft), len(ttft) + min(arrived, slots - len(left)))
        left += [output_tokens[request % len(output_tokens)] for request in joining]
        now += step_s(len(left))
        ttft += [(now - due[request]) * 1e3 for request in joining]
        left = [tokens - 1 for tokens in left if tokens > 1]
    return ttft


def predicted_ttft_p99_ms(
    count: int,
    requests_per_s: float,
    output_tokens: Sequence[int],
    slots: int,
    capacity: float,
    alone_s: float,
    rounds: int,
) -> float:
    """P99 of the simulated TTFT of `count` requests, in ms; median of the rounds.

    A step lasts `alone_s` seconds with one request and, with all `slots` taken, as long as gives `capacity` requests/s;
    between them it grows evenly. In each round other arrivals are drawn, as `Clients.open_loop` draws them from the
    number of the round.
    """
    full_s = slots / (capacity * statistics.mean(output_tokens))

    def step_s(running: int) -> float:
        return alone_s + (full_s - alone_s) * (running - 1) / max(slots - 1, 1)

    drawn = (poisson_arrivals(count, requests_per_s, seed) for seed in range(rounds))
    return statistics.median(percentile(simulated_ttft_ms(due, output_tokens, slots, step_s), 99) for due in drawn)
