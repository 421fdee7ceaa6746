"""The exercises of 4.workflow. Write what raises NotImplementedError, then: make check CH=4

The check says in words what is still wrong; it never asks for more than the docstring says. Print what you like:
it is shown. `solutions.py` in this folder passes the same checks. Try first.

  1  Your own schedulers    continuous, static, shortest_job_first                   60 minutes
  2  Tune for an SLO        latencies, tune                                          30 minutes
"""

from collections.abc import Sequence
from dataclasses import dataclass

# ---------------------------------------------------------------------- 1. your own schedulers
#
# A model of events is enough: no engine, no tokens, only their numbers, and a clock that jumps from step to step.


@dataclass(frozen=True)
class Request:
    """When it arrives, how long its prompt is, and how many tokens it is answered with. All lengths are 1 or more."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Limits:
    """vLLM's options of the same name: how many requests run at once, how many tokens a step may hold."""

    max_num_seqs: int
    max_num_batched_tokens: int


@dataclass(frozen=True)
class Cost:
    """How long a step takes: `step_s` whatever it holds, for reading the weights, and `token_s` for each token."""

    step_s: float
    token_s: float = 0.0

    def seconds(self, tokens: int) -> float:
        """Duration of a step of so many tokens."""
        return self.step_s + self.token_s * tokens


@dataclass(frozen=True)
class Step:
    """One step: from when to when, and how many tokens of which requests (their places in the list, from 0)."""

    start_s: float
    end_s: float
    num_scheduled_tokens: dict[int, int]


@dataclass(frozen=True)
class Schedule:
    """All steps, and for each request (by its place) the times at which its tokens came; the last one ends it."""

    steps: list[Step]
    token_s: dict[int, list[float]]


def continuous(requests: Sequence[Request], limits: Limits, cost: Cost) -> Schedule:
    """vLLM's way: who runs is decided anew before each step.

    1. The clock starts at 0. Those who have arrived (arrival_s is not after the start of the step) and do not run wait,
       in the order of arrival; of those that arrive together the first in the list is first.
    2. A step has max_num_batched_tokens tokens to give. The running requests come first, in the order in which they
       were admitted. One whose prompt is not finished takes as much of it as is left to give, one whose prompt is
       finished takes one token, and when nothing is left the others take nothing in this step.
    3. Then the waiting ones: as long as fewer than max_num_seqs run and there is something left to give, the first is
       admitted, and takes as much of its prompt as is left to give.
    4. The step ends cost.seconds(its tokens) after its start. At that time each request of this step whose prompt is
       finished, with this step or before, gets one token. One that has all its output_tokens leaves, and its place is
       free in the next step.
    5. The next step starts when this one ends. If then nobody runs or waits, it starts when the next request arrives.

    A step without tokens is none: every step of the result holds at least one.
    """
    raise NotImplementedError("continuous")


def static(requests: Sequence[Request], limits: Limits, cost: Cost) -> Schedule:
    """As `continuous`, but nobody joins: new requests are admitted only in a step before which nobody runs.

    In that step rule 3 admits up to max_num_seqs of them, also where the tokens to give are used up: those take
    nothing yet, and their turn comes by rule 2 in the next steps. Tokens still come as they are made, and a request
    ends with its last one, even if its place stays empty until the longest of the batch has ended.
    """
    raise NotImplementedError("static")


def shortest_job_first(requests: Sequence[Request], limits: Limits, cost: Cost) -> Schedule:
    """As `continuous`, but of those who wait the one with the fewest output_tokens is first.

    Of equals it is the one that arrived first. Those who run are not interrupted.
    """
    raise NotImplementedError("shortest_job_first")


# ---------------------------------------------------------------------- 2. tune for an SLO


@dataclass(frozen=True)
class Latencies:
    """99th percentiles: of the time to first token, and of all gaps between tokens (0 if there is no gap)."""

    ttft_p99_s: float
    itl_p99_s: float


def latencies(requests: Sequence[Request], schedule: Schedule) -> Latencies:
    """What the users see of a schedule.

    The time to first token counts from the arrival, a gap between tokens that follow each other in one answer; the gaps
    of all answers are one list. `common.timing.percentile(values, 99)` gives the percentile.
    """
    raise NotImplementedError("latencies")


def tune(requests: Sequence[Request], cost: Cost, slo: Latencies, choices: Sequence[Limits]) -> Limits | None:
    """The choice with which `continuous` ends soonest, of those that meet the SLO; None if none meets it.

    It is met where neither latency is above that of `slo`. A schedule ends with its last step; of choices that end at
    the same time the first is taken.
    """
    raise NotImplementedError("tune")


if __name__ == "__main__":
    mix = [Request(0.0, 100, 50), Request(0.0, 100, 10), Request(0.0, 900, 20), Request(0.05, 100, 10)]
    for scheduler in (static, continuous, shortest_job_first):
        schedule = scheduler(mix, Limits(max_num_seqs=2, max_num_batched_tokens=512), Cost(0.005, 0.0001))
        ends = ", ".join(f"{schedule.token_s[place][-1]:.2f} s" for place in range(len(mix)))
        print(f"{scheduler.__name__:20} {len(schedule.steps)} steps; the requests end at {ends}")
