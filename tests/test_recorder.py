"""Recording: what is read back is what vLLM's scheduler did, at a small cost, whatever happens to the file."""

import errno
import os
import random
import signal
import statistics
import time
from collections import deque
from itertools import pairwise

import httpx
import psutil
import pytest

from common import hardware, models, recorder, serving, timeline, trace
from common.problems import Problem

# ---------------------------------------------------------------------------- vLLM's scheduler without a model


class Stepper:
    """vLLM's scheduler and KV cache on this machine's CPU. In place of a model, whoever is due a token gets a 7.

    A step is scheduled before the output of the last one is processed if `asynchronous`, as on a GPU. `seen` holds
    what was seen of each step from outside.
    """

    def __init__(self, asynchronous: bool, num_blocks: int = 30, v2: bool = False, **options):
        import torch
        from vllm.engine.arg_utils import EngineArgs
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
        from vllm.v1.structured_output import StructuredOutputManager

        arguments = {"model": str(models.COURSE_LM), "max_model_len": 2048, "block_size": 32, "enforce_eager": True}
        config = EngineArgs(**arguments | options).create_engine_config()
        config.scheduler_config.async_scheduling = asynchronous  # vLLM switches it off where there is no GPU
        config.scheduler_config.scheduler_cls = trace.SCHEDULER
        config.cache_config.num_gpu_blocks = num_blocks
        layer = FullAttentionSpec(block_size=32, num_kv_heads=1, head_size=1, dtype=torch.float32)
        self.scheduler = config.scheduler_config.get_scheduler_cls()(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(num_blocks, [], [KVCacheGroupSpec(["layer"], layer)]),
            structured_output_manager=StructuredOutputManager(config),
            block_size=32,
            log_stats=True,
        )
        self.scheduler.use_v2_model_runner = v2
        init_none_hash(sha256)
        self.hasher = get_request_block_hasher(32, sha256)
        self.in_flight: deque = deque()
        self.depth = 2 if asynchronous else 1
        self.seen: list[dict] = []
        self.in_prefill: set[str] = set()
        self.draw = random.Random(0)

    def add(self, name: str, prompt: list[int], output_tokens: int, **options) -> None:
        from vllm import SamplingParams
        from vllm.v1.request import Request

        sampling = SamplingParams(max_tokens=output_tokens, ignore_eos=True)
        self.scheduler.add_request(Request(name, prompt, sampling, None, block_hasher=self.hasher, **options))

    def abort(self, name: str) -> None:
        from vllm.v1.request import RequestStatus

        self.scheduler.finish_requests(name, RequestStatus.FINISHED_ABORTED)

    def step(self) -> None:
        """As EngineCore.step_with_batch_queue does: schedule if the queue has room, else process the oldest."""
        if self.scheduler.has_requests():
            output = self.scheduler.schedule()
            self.in_flight.append((output, self.look(output)))
            if len(self.in_flight) < self.depth and output.num_scheduled_tokens:
                return
        if self.in_flight:
            self.process(*self.in_flight.popleft())

    def look(self, output) -> dict:
        scheduled, cached = dict(output.num_scheduled_tokens), output.scheduled_cached_reqs
        computed = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        blocks = {n: list(b[0]) for n, b in zip(cached.req_ids, cached.new_block_ids, strict=True) if b}
        computed |= {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
        blocks |= {new.req_id: list(new.block_ids[0]) for new in output.scheduled_new_reqs}
        admitted = {new.req_id for new in output.scheduled_new_reqs} | set(cached.resumed_req_ids)
        self.in_prefill = (self.in_prefill | admitted) & self.scheduler.requests.keys()
        seen = {
            "num_scheduled_tokens": scheduled,
            "num_computed_tokens": computed,
            "num_draft_tokens": {n: len(ids) for n, ids in output.scheduled_spec_decode_tokens.items()},
            "new_block_ids": blocks,
            "num_cached_tokens": {name: computed[name] for name in admitted},
            "preempted": set(output.preempted_req_ids or ()),
            "prefill": self.in_prefill & scheduled.keys(),
            "num_running": len(self.scheduler.running),
            "num_waiting": len(self.scheduler.waiting),
            "blocks_used": round(self.scheduler.kv_cache_manager.usage * (self.blocks - 1)),
        }
        whole = {n for n in scheduled if computed[n] + scheduled[n] >= self.scheduler.requests[n].num_tokens}
        seen["due"] = whole
        self.in_prefill -= whole
        if scheduled or seen["preempted"]:
            self.seen.append(seen)
        return seen

    @property
    def blocks(self) -> int:
        return self.scheduler.kv_cache_manager.block_pool.num_gpu_blocks

    def process(self, output, seen: dict) -> None:
        from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput

        names = list(output.num_scheduled_tokens)
        accepted = {name: self.draw.randint(0, count) for name, count in seen["num_draft_tokens"].items()}
        tokens = [[7] * (1 + accepted.get(name, 0)) if name in seen["due"] else [] for name in names]
        places = {name: place for place, name in enumerate(names)}
        clients = self.scheduler.update_from_output(output, ModelRunnerOutput(names, places, tokens))
        results = [result for client in clients.values() for result in client.outputs]
        seen["num_output_tokens"] = {result.request_id: len(result.new_token_ids) for result in results}
        seen["finished"] = {result.request_id for result in results if result.finish_reason is not None}
        if self.scheduler.num_spec_tokens and self.depth == 1:
            drafts = [[7] * self.scheduler.num_spec_tokens for _ in names]
            self.scheduler.update_draft_token_ids(DraftTokenIds(names, drafts))

    def run(self) -> None:
        while self.scheduler.has_unfinished_requests() or self.in_flight:
            self.step()


DRAFTS = {
    "none": {},
    "ngram": {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}},
    "draft": {"speculative_config": {"method": "draft_model", "model": str(models.DRAFT), "num_speculative_tokens": 3}},
}


@pytest.mark.parametrize(
    ("asynchronous", "v2", "drafts", "policy"),
    [
        (False, False, "none", "fcfs"),
        (True, False, "none", "priority"),
        (True, True, "none", "fcfs"),
        (False, False, "ngram", "fcfs"),
        (True, True, "draft", "priority"),
    ],
)
def test_what_is_read_is_what_was_scheduled(tmp_path, asynchronous, v2, drafts, policy):
    """A random mix of lengths, shared beginnings, priorities and aborts in a KV cache that is too small for it."""
    with trace.recording(tmp_path / "trace.jsonl") as file:
        stepper = Stepper(
            asynchronous, 20, v2, max_num_seqs=8, max_num_batched_tokens=96, scheduling_policy=policy, **DRAFTS[drafts]
        )
    draw = random.Random(1)
    shared = [draw.randrange(1000) for _ in range(64)]
    prompts = {}
    for number in range(60):
        name = f"r{number}"
        prompts[name] = shared[: draw.choice((0, 32, 64))] + [draw.randrange(1000) for _ in range(draw.randint(1, 150))]
        stepper.add(name, prompts[name], draw.randint(1, 80), priority=draw.randint(0, 2))
        for _ in range(draw.randint(0, 8)):
            stepper.step()
        if draw.random() < 0.15:
            stepper.abort(f"r{draw.randint(0, number)}")
    stepper.run()
    found = trace.read(file)

    assert (found.async_scheduling, found.num_blocks, found.block_size) == (asynchronous, 19, 32)
    assert len(found.steps) == len(stepper.seen)
    for step, seen in zip(found.steps, stepper.seen, strict=True):
        for what in ("num_scheduled_tokens", "num_computed_tokens", "num_draft_tokens", "new_block_ids"):
            assert getattr(step, what) == seen[what], (step.number, what)
        for what in ("num_running", "num_waiting", "blocks_used", "num_cached_tokens"):
            assert getattr(step, what) == seen[what], (step.number, what)
        for what in ("prefill", "preempted", "finished"):
            assert set(getattr(step, what)) == seen[what], (step.number, what)
        assert {name: count for name, count in step.num_output_tokens.items() if count} == seen["num_output_tokens"]
        assert step.start_s <= step.scheduled_s <= step.end_s
    for before, step in pairwise(found.steps):
        assert step.began_s >= before.end_s
    assert {name: request.num_prompt_tokens for name, request in found.requests.items()} == {
        name: len(prompt) for name, prompt in prompts.items()
    }
    # The mix was what the test needs: else it would show nothing.
    assert sum(len(step.preempted) for step in found.steps) >= 3
    assert sum(len(step.resumed) for step in found.steps) >= 3
    assert any(hit for step in found.steps for hit in step.num_cached_tokens.values())
    assert any(len(step.prefill) and set(step.prefill) < step.num_scheduled_tokens.keys() for step in found.steps)
    assert {request.finish_reason for request in found.requests.values()} == {"length", "abort"}
    assert all(request.end_s for request in found.requests.values())
    assert any(step.num_draft_tokens for step in found.steps) == (drafts != "none")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_scheduler_is_the_one_that_vllm_would_take(tmp_path, asynchronous):
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    with trace.recording(tmp_path / "trace.jsonl"):
        taken = type(Stepper(asynchronous).scheduler)
    assert taken.__mro__[2] is (AsyncScheduler if asynchronous else Scheduler)


def test_with_async_scheduling_steps_overlap_and_their_durations_do_not(tmp_path):
    with trace.recording(tmp_path / "trace.jsonl") as file:
        stepper = Stepper(asynchronous=True)
    stepper.add("a", [1] * 10, 20)
    stepper.run()
    steps = trace.read(file).steps
    assert all(after.start_s < before.end_s == after.began_s for before, after in pairwise(steps))
    assert sum(step.duration_ms for step in steps) == pytest.approx((steps[-1].end_s - steps[0].start_s) * 1e3)


def test_an_id_that_comes_again_is_another_request(tmp_path):
    with trace.recording(tmp_path / "trace.jsonl") as file:
        stepper = Stepper(asynchronous=True)
    for output_tokens in (3, 5):
        stepper.add("a", [1] * 10, output_tokens)
        stepper.run()
    found = trace.read(file)
    assert list(found.requests) == ["a", "a#2"]
    assert found.frame().groupby("request").num_output_tokens.sum().to_dict() == {"a": 3, "a#2": 5}


def test_a_prompt_that_is_streamed_in_parts_is_one_request(tmp_path):
    with trace.recording(tmp_path / "trace.jsonl") as file:
        stepper = Stepper(asynchronous=False)
    for prompt in ([1] * 10, [2] * 20):
        stepper.add("a", prompt, 3, resumable=True)
        for _ in range(3):
            stepper.step()
    found = trace.read(file)
    (request,) = found.requests.values()
    assert request.end_s is None
    assert [list(step.num_scheduled_tokens.values()) for step in found.steps] == [[10], [1], [1], [20], [1], [1]]
    assert [bool(step.prefill) for step in found.steps] == [True, False, False] * 2
    stepper.abort("a")
    assert trace.read(file).requests["a"].finish_reason == "abort"


def test_preempted_from_outside_and_resumed_in_the_same_step(tmp_path):
    with trace.recording(tmp_path / "trace.jsonl") as file:
        stepper = Stepper(asynchronous=False)
    stepper.add("a", [1] * 40, 20)
    for _ in range(5):
        stepper.step()
    stepper.scheduler.reset_prefix_cache(reset_running_requests=True)
    stepper.run()
    found = trace.read(file)
    assert [step.number for step in found.steps if step.preempted] == [5]
    again = found.steps[5]
    assert (again.resumed, again.prefill, again.num_scheduled_tokens) == (("a",), ("a",), {"a": 45})


def test_a_full_disk_ends_the_trace_and_not_the_engine(tmp_path, monkeypatch):
    with trace.recording(tmp_path / "trace.jsonl") as file:
        stepper = Stepper(asynchronous=False)
    stepper.add("a", [1] * 10, 20)
    for _ in range(5):
        stepper.step()
    write = os.write
    monkeypatch.setattr(recorder.os, "write", lambda descriptor, line: write(descriptor, line[: len(line) // 2]))
    stepper.step()
    monkeypatch.undo()
    stepper.run()
    assert len(stepper.seen) == 20
    assert len(trace.read(file).steps) == 5
    assert not file.read_bytes().endswith(b"\n")
    with trace.recording(tmp_path / "other.jsonl") as file:
        stepper = Stepper(asynchronous=False)
    stepper.add("a", [1] * 10, 5)

    def no_space(descriptor, line):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(recorder.os, "write", no_space)
    stepper.run()
    assert len(stepper.seen) == 5
    assert list(trace.read(file).requests) == ["a"]


@pytest.mark.parametrize("requests", [8, 64, 256])
def test_recording_a_step_costs_little(tmp_path, requests):
    """On two slow cores 16, 40 and 100 µs, where a 7B step takes 8 ms; the bounds leave room for a busy machine."""
    with trace.recording(tmp_path / "trace.jsonl"):
        stepper = Stepper(True, num_blocks=4000, max_num_seqs=256, max_num_batched_tokens=8192)
    for number in range(requests):
        stepper.add(f"cmpl-{number:032x}-0-deadbeef", [number] * 20, 200)
    spent = []
    for name in ("schedule", "processed"):
        method = getattr(stepper.scheduler.recorder, name)

        def timed(*arguments, method=method):
            start = time.perf_counter()
            method(*arguments)
            spent.append(time.perf_counter() - start)

        setattr(stepper.scheduler.recorder, name, timed)
    for _ in range(100):
        stepper.step()
    assert 2 * statistics.median(spent) * 1e6 < 100 + 3 * requests


def test_engines_that_share_a_name_get_files_of_their_own(tmp_path):
    with trace.recording(tmp_path / "trace.jsonl") as file:
        steppers = [Stepper(asynchronous=False) for _ in range(3)]
    for number, stepper in enumerate(steppers):
        stepper.add(f"r{number}", [1], 1)
        stepper.run()
    assert [path.name for path in trace.files(file)] == ["trace.jsonl", "trace-2.jsonl", "trace-3.jsonl"]
    assert [list(trace.read(path).requests) for path in trace.files(file)] == [["r0"], ["r1"], ["r2"]]


def test_a_recording_within_another_goes_to_both(tmp_path):
    with trace.recording(tmp_path / "outer.jsonl") as outer:
        with trace.recording(tmp_path / "inner.jsonl") as inner:
            stepper = Stepper(asynchronous=False)
        Stepper(asynchronous=False)
    stepper.add("a", [1], 1)
    stepper.run()
    assert inner.read_bytes() == outer.read_bytes()
    assert len(trace.files(inner)) == 1
    assert len(trace.files(outer)) == 2


def test_an_engine_without_a_file_to_write_to_says_so(monkeypatch):
    monkeypatch.delenv(recorder.VARIABLE, raising=False)
    with pytest.raises(Problem, match="COURSE_TRACE_FILE is not set") as problem:
        Stepper(asynchronous=False)
    assert "COURSE_TRACE_FILE=trace.jsonl vllm serve" in problem.value.fix


# ------------------------------------------------------------------------------------------------------- a server


@pytest.mark.engine
def test_a_server_records_also_when_its_engine_is_killed(tmp_path):
    """The engine core is a process of its own, as vLLM starts it by default; it dies in the middle of an answer."""
    model, prompt = models.resolve("course-lm"), list(range(100, 150))
    body = {"model": model.name, "prompt": prompt, "max_tokens": 20, "ignore_eos": True}
    processes = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    with (
        trace.recording(tmp_path / "trace.jsonl") as file,
        serving.serve(
            model, hardware.machine(), tmp_path / "log", environment=processes, scheduler_cls=trace.SCHEDULER
        ) as server,
        httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client,
    ):
        start_s = time.monotonic()
        client.post("/v1/completions", json=body).raise_for_status()
        answered_s = time.monotonic()
        part = trace.read(file).between(start_s, answered_s)
        (request,) = part.requests.values()
        assert start_s < request.arrival_s < request.queued_s < part.steps[0].start_s
        assert part.steps[-1].end_s == request.end_s < answered_s
        assert part.frame().num_scheduled_tokens.sum() == len(prompt) + 20 - 1
        assert part.async_scheduling == bool(hardware.gpus())  # vLLM's default; a CPU has none

        (engine,) = [
            process for process in psutil.Process(server.process.pid).children(recursive=True)
            if "EngineCore" in " ".join(process.cmdline())
        ]  # fmt: skip
        received = 0
        with client.stream("POST", "/v1/completions", json=body | {"max_tokens": 1900, "stream": True}) as answer:
            for line in answer.iter_lines():
                received += line.startswith("data: {")
                if received == 30:
                    break
            os.kill(engine.pid, signal.SIGKILL)
            engine.wait(10)
    found = trace.read(file)
    *_, killed = found.requests.values()
    assert (killed.end_s, killed.finish_reason) == (None, None)
    table = found.frame()
    assert table[table.request == killed.id].num_output_tokens.sum() >= received
    timeline.draw_beside(file)
