"""A trace read back: what each step of an engine scheduled, and what became of each request.

All times are seconds of `time.monotonic()`, a clock that the processes of one machine share.
"""

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(slots=True)
class Request:
    """A request as the scheduler saw it. Each of n samples of a prompt is a request of its own."""

    id: str
    arrival_s: float  # at the API, before its text became tokens
    queued_s: float  # handed to the scheduler
    num_prompt_tokens: int
    priority: int
    end_s: float | None = None  # its last token was processed, or it was aborted
    finish_reason: str | None = None  # stop, length, abort, …; a stop string is found outside: abort


@dataclass(slots=True)
class Step:
    """One step: what was scheduled, and when. Its dicts may be shared with other steps: read them only."""

    number: int
    start_s: float  # schedule() began
    scheduled_s: float  # schedule() returned
    began_s: float  # start_s, or the end of the step before if that came later: the device does one after the other
    num_running: int
    num_waiting: int
    blocks_used: int
    num_scheduled_tokens: dict[str, int]
    computed: array = field(repr=False)  # num_computed_tokens, in the order of num_scheduled_tokens
    prefill: tuple[str, ...] = ()  # computing a prompt, or after a preemption again all that was known
    num_cached_tokens: dict[str, int] = field(default_factory=dict)  # of those that start or resume: prefix-cache hit
    resumed: tuple[str, ...] = ()
    preempted: tuple[str, ...] = ()
    new_block_ids: dict[str, list[int]] = field(default_factory=dict)  # all blocks of those that start or resume
    num_draft_tokens: dict[str, int] = field(default_factory=dict)  # of num_scheduled_tokens, by speculation
    end_s: float | None = None  # its output had been processed; None if the engine died before
    num_output_tokens: dict[str, int] = field(default_factory=dict)  # 0 for all but the last chunk of a prompt
    finished: tuple[str, ...] = ()  # this step made their last token

    @property
    def num_computed_tokens(self) -> dict[str, int]:
        """Tokens of each scheduled request that were computed, or on their way, before this step."""
        return dict(zip(self.num_scheduled_tokens, self.computed, strict=True))

    @property
    def duration_ms(self) -> float | None:
        """From `began_s` to `end_s`. With asynchronous scheduling steps overlap; these durations don't."""
        return None if self.end_s is None else (self.end_s - self.began_s) * 1e3


@dataclass(slots=True)
class Trace:
    """The steps of one engine. `requests` are by id, in the order in which the scheduler got them."""

    model: str
    block_size: int
    num_blocks: int  # that requests can use
    max_num_batched_tokens: int
    max_num_seqs: int
    async_scheduling: bool
    requests: dict[str, Request] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def between(self, start_s: float, end_s: float) -> "Trace":
        """The steps that began to be scheduled in this time, and the requests that ran, arrived or lost their turn."""
        steps = [step for step in self.steps if start_s <= step.start_s <= end_s]
        ran = set().union(*(step.num_scheduled_tokens for step in steps), *(step.preempted for step in steps))
        requests = {
            name: request
            for name, request in self.requests.items()
            if name in ran or start_s <= request.arrival_s <= end_s
        }
        return replace(self, requests=requests, steps=steps)

    def frame(self) -> "pd.DataFrame":
        """A row for each request of each step; its `duration_ms` is that of the whole step."""
        import pandas as pd

        def column(values: Callable[[Step], Iterable]) -> list:
            return [value for step in self.steps for value in values(step)]

        def of_step(name: str) -> list:
            return column(lambda step: [getattr(step, name)] * len(step.num_scheduled_tokens))

        return pd.DataFrame(
            {
                "step": of_step("number"),
                "start_s": of_step("start_s"),
                "duration_ms": of_step("duration_ms"),
                "request": column(lambda step: step.num_scheduled_tokens),
                "phase": column(
                    lambda step: ("prefill" if name in step.prefill else "decode" for name in step.num_scheduled_tokens)
                ),
                "num_scheduled_tokens": column(lambda step: step.num_scheduled_tokens.values()),
                "num_computed_tokens": column(lambda step: step.computed),
                "num_output_tokens": column(
                    lambda step: (step.num_output_tokens.get(name, 0) for name in step.num_scheduled_tokens)
                ),
            }
        )
