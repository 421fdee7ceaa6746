"""The lines of a trace file: JSON objects that say what is new since the line before.

So that a step of 256 requests takes microseconds to write, requests are numbered as they come, and a step's line
holds what is not as in the step before. All times are seconds of `time.monotonic()`.
"""

import msgspec


class Header(msgspec.Struct, tag="engine"):
    """First line: the engine's limits. `num_blocks` are those that requests can use."""

    version: int
    model: str
    block_size: int
    num_blocks: int
    max_num_batched_tokens: int
    max_num_seqs: int
    async_scheduling: bool


class Arrival(msgspec.Struct, tag="request"):
    """The scheduler got a request. Its number is its place among these lines, from 0."""

    id: str
    arrival_s: float
    queued_s: float
    num_prompt_tokens: int
    priority: int


class Schedule(msgspec.Struct, tag="step", omit_defaults=True):
    """schedule() returned. Keys and values of the dicts and lists are numbers of requests."""

    start_s: float
    scheduled_s: float
    num_running: int
    num_waiting: int
    blocks_used: int
    admitted: dict[int, tuple[int, int]] = {}  # new or resumed: tokens that need no computing, tokens known
    num_scheduled_tokens: dict[int, int] = {}  # where it differs from the step before
    not_scheduled: list[int] = []  # of the step before
    num_computed_tokens: dict[int, int] = {}  # where it is not the sum of the last step's two counts
    num_draft_tokens: dict[int, int] = {}
    new_block_ids: dict[int, list[int]] = {}  # for those admitted all of their blocks
    preempted: list[int] = []


class Output(msgspec.Struct, tag="output", omit_defaults=True):
    """The output of the step of that number was processed."""

    step: int
    end_s: float
    num_output_tokens: dict[int, int] = {}  # where it is not 1
    finished: dict[int, str] = {}


class Abort(msgspec.Struct, tag="abort"):
    """Requests were taken out between two steps."""

    end_s: float
    requests: list[int]
    reason: str


Line = Header | Arrival | Schedule | Output | Abort
VERSION = 1
