"""Writing a trace: vLLM's own scheduler, which also writes to a file what it does. `trace_reader` reads it back.

A step takes two lines, when it is scheduled and when its output is there. Each goes to the file with one write, so a
killed engine loses at most the line that it was at.
"""

import copy
import itertools
import logging
import os
import time
from pathlib import Path

import msgspec

from common import trace_lines as lines
from common.problems import Problem

logger = logging.getLogger("vllm.course.trace")  # vLLM configures all below "vllm"

VARIABLE = "COURSE_TRACE_FILE"  # where engines record that start now; each of several files on a line of its own


def numbered(file: Path, count: int) -> Path:
    """The name for the engine that is the `count`-th to record under one name: trace.jsonl, trace-2.jsonl, …"""
    return file if count == 1 else file.with_stem(f"{file.stem}-{count}")


def create(file: Path) -> int:
    """A descriptor of a new file of that name, or of the next number if another engine has it."""
    for count in itertools.count(1):
        name = numbered(file, count)
        try:
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        except FileExistsError:
            continue
        logger.info("Recording the scheduler's steps into %s", name)
        return descriptor


class Recorder:
    """Turns a scheduler's calls into lines. It keeps what the last step scheduled, to write what has changed."""

    def __init__(self, scheduler):
        names = os.environ.get(VARIABLE)
        if not names:
            raise Problem(
                f"The tracing scheduler has no file to write to: {VARIABLE} is not set.",
                f"Start the engine within trace.recording(FILE), or as {VARIABLE}=trace.jsonl vllm serve …",
            )
        self.encode = msgspec.json.Encoder().encode
        self.descriptors = [create(Path(name)) for name in names.split("\n")]
        self.wall_clock_lead = time.time() - time.monotonic()
        self.requests = 0
        self.steps = 0
        self.number: dict[str, int] = {}  # of requests that have not finished
        self.scheduled: dict[str, int] = {}  # num_scheduled_tokens of the last step
        self.computed: dict[str, int] = {}  # tokens computed once all steps scheduled so far have run
        self.in_flight: dict[int, tuple[object, int]] = {}  # id of a step's SchedulerOutput → it, number of the step
        config = scheduler.scheduler_config
        self.write(
            lines.Header(
                version=lines.VERSION,
                model=str(scheduler.vllm_config.model_config.model),
                block_size=scheduler.block_size,
                num_blocks=scheduler.kv_cache_manager.block_pool.num_gpu_blocks - 1,  # one stands for "no block"
                max_num_batched_tokens=config.max_num_batched_tokens,
                max_num_seqs=config.max_num_seqs,
                async_scheduling=bool(config.async_scheduling),
            )
        )

    def write(self, line: lines.Line) -> None:
        encoded = self.encode(line) + b"\n"
        for descriptor in self.descriptors:
            try:
                written, reason = os.write(descriptor, encoded), "no space left"
            except OSError as error:
                written, reason = 0, error.strerror
            if written < len(encoded):  # serving goes on; after half a line nothing more could be read
                logger.error("The trace ends here: %s", reason)
                self.descriptors = [other for other in self.descriptors if other != descriptor]
                os.close(descriptor)

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []

    def arrived(self, request) -> None:
        self.number[request.request_id] = self.requests
        self.requests += 1
        self.write(
            lines.Arrival(
                id=request.request_id,
                arrival_s=request.arrival_time - self.wall_clock_lead,
                queued_s=time.monotonic(),
                num_prompt_tokens=request.num_prompt_tokens,
                priority=request.priority,
            )
        )

    def schedule(self, scheduler, output, start_s: float, scheduled_s: float) -> None:
        """A line for the step that `output`, a SchedulerOutput, asks for."""
        number, computed, last, now = self.number, self.computed, self.scheduled, output.num_scheduled_tokens
        preempted = output.preempted_req_ids or ()
        if not now and not preempted:
            return  # nothing to run: vLLM asked whether there was
        admitted, moved, new_blocks = {}, {}, {}
        cached = output.scheduled_cached_reqs
        for name, count, blocks in zip(cached.req_ids, cached.num_computed_tokens, cached.new_block_ids, strict=True):
            if name in cached.resumed_req_ids:
                admitted[number[name]] = (count, scheduler.requests[name].num_tokens)
            elif count != computed[name]:
                moved[number[name]] = count
            if blocks:
                new_blocks[number[name]] = blocks[0]
            computed[name] = count + now[name]
        # vLLM's model runner V2 gets resumed requests among the new ones.
        for request in output.scheduled_new_reqs:
            name, count = request.req_id, request.num_computed_tokens
            admitted[number[name]] = (count, scheduler.requests[name].num_tokens)
            new_blocks[number[name]] = request.block_ids[0] if request.block_ids else []
            computed[name] = count + now[name]
        changed, gone = {}, ()
        if now != last:
            changed = {number[name]: count for name, count in now.items() if last.get(name) != count}
            gone = last.keys() - now.keys()
        pool = scheduler.kv_cache_manager.block_pool
        num_running, num_waiting = scheduler.get_request_counts()
        self.write(
            lines.Schedule(
                start_s=start_s,
                scheduled_s=scheduled_s,
                num_running=num_running,
                num_waiting=num_waiting,
                blocks_used=pool.num_gpu_blocks - 1 - pool.get_num_free_blocks(),
                admitted=admitted,
                num_scheduled_tokens=changed,
                not_scheduled=[number[name] for name in gone],
                num_computed_tokens=moved,
                num_draft_tokens={number[n]: len(ids) for n, ids in output.scheduled_spec_decode_tokens.items()},
                new_block_ids=new_blocks,
                preempted=[number[name] for name in preempted if name in number],
            )
        )
        self.scheduled = now
        self.in_flight[id(output)] = (output, self.steps)
        self.steps += 1

    def processed(self, scheduler, output, engine_outputs) -> None:
        """A line for the end of the step that `output` asked for."""
        _, step = self.in_flight.pop(id(output), (None, None))
        if step is None:
            return
        number = self.number
        tokens, reasons = {}, {}
        for client in engine_outputs.values():
            for request in client.outputs:
                tokens[request.request_id] = len(request.new_token_ids)
                if request.finish_reason is not None:
                    reasons[request.request_id] = str(request.finish_reason)
        # A streamed prompt whose part is answered has a reason and goes on: it is not among the finished.
        ended = [name for name in reasons if name in scheduler.finished_req_ids and name in number]
        self.write(
            lines.Output(
                step=step,
                end_s=time.monotonic(),
                num_output_tokens={
                    number[name]: count
                    for name in output.num_scheduled_tokens
                    if (count := tokens.get(name, 0)) != 1 and name in number
                },
                finished={number[name]: reasons[name] for name in ended},
            )
        )
        self.forget(ended)

    def aborted(self, requests) -> None:
        known = [request for request in requests if request.request_id in self.number]
        if known:
            numbers = [self.number[request.request_id] for request in known]
            self.write(lines.Abort(time.monotonic(), numbers, str(known[0].get_finished_reason())))
            self.forget([request.request_id for request in known])

    def forget(self, ended: list[str]) -> None:
        """Requests that ended leave all that is kept; their ids may come again for new requests."""
        for name in ended:
            del self.number[name]
            self.computed.pop(name, None)
        if not self.scheduled.keys().isdisjoint(ended):
            self.scheduled = {name: count for name, count in self.scheduled.items() if name not in ended}


class Recording:
    """What goes before vLLM's scheduler class: each call does what vLLM does, and is recorded."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.recorder = Recorder(self)

    def add_request(self, request):
        if request.request_id not in self.requests:  # else it is the next part of a streamed prompt
            self.recorder.arrived(request)
        super().add_request(request)

    def schedule(self, *arguments, **options):
        start_s = time.monotonic()
        output = super().schedule(*arguments, **options)
        self.recorder.schedule(self, output, start_s, time.monotonic())
        return output

    def update_from_output(self, scheduler_output, model_runner_output):
        engine_outputs = super().update_from_output(scheduler_output, model_runner_output)
        self.recorder.processed(self, scheduler_output, engine_outputs)
        return engine_outputs

    def finish_requests(self, request_ids, finished_status):
        requests = super().finish_requests(request_ids, finished_status)
        self.recorder.aborted(requests)
        return requests

    def shutdown(self):
        super().shutdown()
        self.recorder.close()


def scheduler(vllm_config, **arguments):
    """The scheduler that vLLM would take for this configuration, made to record."""
    asked = copy.copy(vllm_config.scheduler_config)
    asked.scheduler_cls = None
    vllms_own = asked.get_scheduler_cls()
    return type("TracingScheduler", (Recording, vllms_own), {})(vllm_config=vllm_config, **arguments)
