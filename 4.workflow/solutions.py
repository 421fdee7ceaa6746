"""Our solutions of the exercises of 4.workflow. Others are as good: what counts is that the checks pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from common.timing import percentile


@dataclass(frozen=True)
class Request:
    arrival_s: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Limits:
    max_num_seqs: int
    max_num_batched_tokens: int


@dataclass(frozen=True)
class Cost:
    step_s: float
    token_s: float = 0.0

    def seconds(self, tokens: int) -> float:
        return self.step_s + self.token_s * tokens


@dataclass(frozen=True)
class Step:
    start_s: float
    end_s: float
    num_scheduled_tokens: dict[int, int]


@dataclass(frozen=True)
class Schedule:
    steps: list[Step]
    token_s: dict[int, list[float]]


# ---------------------------------------------------------------------- 1. your own schedulers


def fill(
    requests: Sequence[Request],
    computed: dict[int, int],
    running: list[int],
    waiting: list[int],
    limits: Limits,
    joins: bool,
) -> dict[int, int]:
    """The tokens of one step; moves those that are admitted from `waiting`, which is in order, to `running`."""
    left, scheduled = limits.max_num_batched_tokens, {}

    def give(place: int) -> None:
        nonlocal left
        tokens = min(left, max(1, requests[place].prompt_tokens - computed[place]))
        if tokens:
            scheduled[place] = tokens
            left -= tokens

    batch_joins = not joins and not running
    for place in running:
        give(place)
    while waiting and len(running) < limits.max_num_seqs and (batch_joins or (joins and left)):
        running.append(waiting.pop(0))
        give(running[-1])
    return scheduled


def simulate(
    requests: Sequence[Request], limits: Limits, cost: Cost, order: Callable[[int], tuple], joins: bool = True
) -> Schedule:
    """The clock, from step to step. `order` sorts those who wait; `joins` lets them join others who run."""
    coming = sorted(range(len(requests)), key=lambda place: requests[place].arrival_s)
    computed, token_s = dict.fromkeys(coming, 0), {place: [] for place in coming}
    waiting, running, steps, now = [], [], [], 0.0
    while coming or waiting or running:
        while coming and requests[coming[0]].arrival_s <= now:
            waiting.append(coming.pop(0))
        if not waiting and not running:
            now = requests[coming[0]].arrival_s
            continue
        waiting.sort(key=order)
        scheduled = fill(requests, computed, running, waiting, limits, joins)
        start, now = now, now + cost.seconds(sum(scheduled.values()))
        steps.append(Step(start, now, scheduled))
        for place, tokens in scheduled.items():
            computed[place] += tokens
            if computed[place] >= requests[place].prompt_tokens:
                token_s[place].append(now)
        running = [place for place in running if len(token_s[place]) < requests[place].output_tokens]
    return Schedule(steps, token_s)


def continuous(requests: Sequence[Request], limits: Limits, cost: Cost) -> Schedule:
    return simulate(requests, limits, cost, lambda place: (requests[place].arrival_s, place))


def static(requests: Sequence[Request], limits: Limits, cost: Cost) -> Schedule:
    return simulate(requests, limits, cost, lambda place: (requests[place].arrival_s, place), joins=False)


def shortest_job_first(requests: Sequence[Request], limits: Limits, cost: Cost) -> Schedule:
    return simulate(
        requests, limits, cost, lambda place: (requests[place].output_tokens, requests[place].arrival_s, place)
    )


# ---------------------------------------------------------------------- 2. tune for an SLO


@dataclass(frozen=True)
class Latencies:
    ttft_p99_s: float
    itl_p99_s: float


def latencies(requests: Sequence[Request], schedule: Schedule) -> Latencies:
    ttft = [times[0] - requests[place].arrival_s for place, times in schedule.token_s.items()]
    gaps = [b - a for times in schedule.token_s.values() for a, b in pairwise(times)]
    return Latencies(percentile(ttft, 99), percentile(gaps or [0.0], 99))


def tune(requests: Sequence[Request], cost: Cost, slo: Latencies, choices: Sequence[Limits]) -> Limits | None:
    best, soonest = None, float("inf")
    for limits in choices:
        schedule = continuous(requests, limits, cost)
        seen, end_s = latencies(requests, schedule), schedule.steps[-1].end_s
        met = seen.ttft_p99_s <= slo.ttft_p99_s and seen.itl_p99_s <= slo.itl_p99_s
        if met and end_s < soonest:
            best, soonest = limits, end_s
    return best


if __name__ == "__main__":
    mix = [Request(0.0, 100, 50), Request(0.0, 100, 10), Request(0.0, 900, 20), Request(0.05, 100, 10)]
    for scheduler in (static, continuous, shortest_job_first):
        schedule = scheduler(mix, Limits(max_num_seqs=2, max_num_batched_tokens=512), Cost(0.005, 0.0001))
        ends = ", ".join(f"{schedule.token_s[place][-1]:.2f} s" for place in range(len(mix)))
        print(f"{scheduler.__name__:20} {len(schedule.steps)} steps; the requests end at {ends}")
