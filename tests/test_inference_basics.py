"""What chapter 1 measures with: cases of steps, static batches, narrow models and what vLLM allocates for them."""

import argparse
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from common import estimator, hardware, lengths, models, profiling
from common.chapters import ROOT, load
from common.load import Load, Outcome
from common.problems import Problem
from common.run import Run

FOLDER = ROOT / "1.inference_basics"


@pytest.fixture(scope="module")
def step_times():
    return load(FOLDER / "step_times.py")


@pytest.fixture(scope="module")
def static_batches():
    return load(FOLDER / "static_batches.py")


@pytest.fixture(scope="module")
def kv_allocation():
    return load(FOLDER / "kv_allocation.py")


class SilentScreen:
    def __getattr__(self, name):
        return lambda *_, **__: None


@pytest.fixture
def run(tmp_path):
    """A function: a Run of course-lm with these options, without a screen."""

    def build(machine=None, model="course-lm", smoke=False, **options) -> Run:
        none = dict.fromkeys(("prompts", "batches", "trace", "repeats"))
        given = argparse.Namespace(**none | {"smoke": smoke} | options)
        screen = SilentScreen()
        machine = machine or hardware.machine()
        return Run(given, machine, models.resolve(model), screen, screen, tmp_path, lambda name: [])

    return build


# ---------------------------------------------------------------------------------------------------------- steps


def test_where_a_step_takes_twice_as_long(step_times):
    points = [(1, 4.0), (8, 4.0), (32, 6.0), (128, 18.0)]
    assert step_times.doubling(points) == pytest.approx(32 + 96 * 2 / 12)
    assert step_times.doubling(points[:3]) is None
    assert step_times.doubling([(1, 4.0), (2, 8.0), (4, 16.0)]) == 2


class StepCounter:
    """As much of an engine as a case drives: its requests end after so many steps."""

    def __init__(self):
        self.steps = self.left = 0
        self.engine_core = None  # what vLLM's client has of a process of its own is not here

    def add_request(self, name, prompt, sampling):
        self.left = sampling.max_tokens

    def has_unfinished_requests(self):
        return self.left > 0

    def step(self):
        self.steps, self.left = self.steps + 1, self.left - 1


def test_a_profile_is_of_decode_steps_and_not_of_the_prompts_before_them(step_times, machine_with, monkeypatch):
    engine, profiled = StepCounter(), []

    def of_cpu(measure, steps):
        profiled.append(engine.steps)
        measure(steps)
        profiled.append(engine.steps)
        return 50.0, {"matmul": 100.0}

    monkeypatch.setattr(profiling, "of_cpu", of_cpu)
    silent = SimpleNamespace(step=lambda text: None, show=lambda title, text: None)
    run = SimpleNamespace(**vars(silent), machine=machine_with(), model=models.resolve("course-lm"))
    found = step_times.profile(run, SimpleNamespace(llm_engine=engine), 64)
    prompts = 64 * step_times.SHORT // 2048 + step_times.MARGIN  # steps of 2,048 tokens, and a margin
    assert profiled == [prompts, prompts + step_times.PROFILED]
    assert not engine.has_unfinished_requests(), "the next measurement must find the engine idle"
    assert found == {"busy_pct": 50.0, "top_groups": "matmul 100 %"}


def test_the_work_of_a_step_by_hand(step_times):
    config = models.resolve("course-lm").config
    prefill = step_times.Case("prefill", 1, 100, budget=2048)
    assert prefill.work(config, "bfloat16") == (
        estimator.step_bytes(config, 0),
        estimator.step_flop(config, 100, 5000, sampled_tokens=1),
    )
    decode = step_times.Case("decode", 4, 512, budget=1024, steps=32)
    assert decode.skipped == 2 + step_times.MARGIN
    assert decode.cached_tokens == 4 * (512 + (decode.skipped + 32) / 2)
    assert decode.work(config, "bfloat16") == (
        estimator.step_bytes(config, decode.cached_tokens),
        estimator.step_flop(config, 4, decode.cached_tokens, sampled_tokens=4),
    )


class FakeEngine:
    """Steps as vLLM's: as much of the prompts as the budget has room for, and a token for each other request.

    Its clock moves on by 1 s for each prompt, or part of one, and by 10 ms for each request that decodes.
    """

    def __init__(self, budget: int):
        self.llm_engine, self.engine_core = self, None
        self.budget, self.now, self.requests = budget, 0.0, []

    def add_request(self, name, prompt, sampling):
        self.requests.append([len(prompt["prompt_token_ids"]), sampling.max_tokens])

    def has_unfinished_requests(self):
        return any(left for _, left in self.requests)

    def step(self):
        room = self.budget
        for request in self.requests:
            prompt, left = request
            if prompt:
                chunk = min(prompt, room)
                room -= chunk
                request[:] = prompt - chunk, left - (chunk == prompt)
                self.now += chunk > 0
            elif left:
                room -= 1
                request[1] -= 1
                self.now += 0.01


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_a_decode_step_is_one_in_which_all_decode(step_times, monkeypatch, batch):
    engine = FakeEngine(budget=1024)
    monkeypatch.setattr(step_times.time, "perf_counter", lambda: engine.now)
    case = step_times.Case("decode", batch, 128, budget=1024, steps=16)
    assert case.seconds(engine) == pytest.approx(0.01 * batch)
    assert not engine.has_unfinished_requests()


def test_a_prefill_ends_with_its_first_token(step_times, monkeypatch):
    engine = FakeEngine(budget=512)
    monkeypatch.setattr(step_times.time, "perf_counter", lambda: engine.now)
    assert step_times.Case("prefill", 1, 512, budget=512).seconds(engine) == pytest.approx(1.0)


def test_cases_are_checked_before_anything_is_loaded(step_times, run, machine_with):
    standard = step_times.choose(run())
    assert {1, 64} <= {case.batch for case in standard if case.name == "decode"}
    assert max(case.input_tokens for case in standard) == 2047
    h100 = step_times.choose(run(machine_with("NVIDIA H100 80GB HBM3"), model="shape:qwen2.5-7b"))
    assert max(case.input_tokens for case in h100) == 8191
    assert max(case.batch for case in h100) == 512
    assert [case.batch for case in step_times.choose(run(batches=[8])) if case.name == "decode"] == [1, 8]
    with pytest.raises(Problem, match=r"5,000 tokens.*2,048"):
        step_times.choose(run(prompts=[64, 5000]))
    with pytest.raises(Problem, match="some would wait"):
        step_times.choose(run(batches=[1000]))


# ------------------------------------------------------------------------------------------------- static batches


def test_waste_of_static_batches_by_hand(static_batches):
    requests = [lengths.Lengths(*pair) for pair in ((10, 5), (30, 2), (20, 11), (20, 1))]
    work = static_batches.predicted(requests, 2)
    assert (work.prompt_slots, work.prompt_tokens) == (2 * 30 + 2 * 20, 80)
    assert (work.decode_slots, work.decode_tokens) == (2 * 4 + 2 * 10, 4 + 1 + 10 + 0)
    assert work.padding_pct == pytest.approx(20)
    assert work.idle_pct == pytest.approx((1 - 15 / 28) * 100)
    alone = static_batches.predicted(requests, 1)
    assert (alone.padding_pct, alone.idle_pct) == (0, 0)
    by_length = static_batches.predicted(requests, 2, static_batches.ORDERS["prompt length"], together=4)
    assert by_length.prompt_slots == 2 * 20 + 2 * 30


def test_a_run_computes_what_was_predicted(static_batches):
    requests = lengths.sample(7, seed=3, limit=60, scale=0.03)
    network, _ = models.transformers_model(models.resolve("course-lm"), hardware.machine())
    work = static_batches.measured(network, requests, 3)
    wanted = static_batches.predicted(requests, 3)
    assert (work.prompt_slots, work.decode_slots) == (wanted.prompt_slots, wanted.decode_slots)
    assert work.seconds > 0
    assert not network._forward_pre_hooks


# ------------------------------------------------------------------------------------------------------- KV bytes


def test_a_narrow_model_has_the_same_kv_cache(kv_allocation):
    assert len(kv_allocation.SHOWN) >= 8
    for name, config in kv_allocation.SHOWN.items():
        small = kv_allocation.narrow(config)
        assert estimator.kv_bytes_per_token(small) == estimator.kv_bytes_per_token(config), name
        assert small["num_hidden_layers"] == config["num_hidden_layers"]
    kinds = {kv_allocation.attention_of(config) for config in kv_allocation.SHOWN.values()}
    assert kinds == {"MHA", "GQA", "MQA", "MLA", "GQA, shared"}


def test_a_shape_whose_engine_does_not_start_is_a_row_with_its_reason(kv_allocation, run, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("no kernel for this head size")

    monkeypatch.setattr(models, "engine", refuse)
    allocated, how = kv_allocation.bytes_per_token(run(), "llama-3-8b", kv_allocation.SHOWN["llama-3-8b"])
    assert (allocated, how) == (None, "no kernel for this head size")


@pytest.mark.engine
@pytest.mark.parametrize("shape", ["llama-3-8b", "deepseek-v2-lite"])
def test_vllm_allocates_what_was_predicted(kv_allocation, run, shape):
    config = kv_allocation.SHOWN[shape]
    try:
        with kv_allocation.engines_in_this_process():
            allocated, how = kv_allocation.bytes_per_token(run(), shape, config)
    finally:
        models.close_engine()
    assert how == "engine"
    assert allocated == estimator.kv_bytes_per_token(config)


# -------------------------------------------------------------------------------------------------------- latency


@pytest.fixture
def latency_rounds():
    return load(FOLDER / "latency_rounds.py")


def test_a_simulated_server_makes_a_token_per_step_for_those_who_have_a_place(latency_rounds):
    simulate = latency_rounds.simulated_ttft_ms
    # One place, steps of a second: two tokens, then three, then one.
    assert simulate([0, 0, 0], [2, 3, 1], 1, lambda running: 1.0) == pytest.approx([1000, 3000, 6000])
    # Two places: the third joins when the first has left. Steps of two take two seconds, those of one take one.
    assert simulate([0, 0, 0], [2, 3, 1], 2, float) == pytest.approx([2000, 2000, 6000])
    # Who comes during a step waits for its end, and an empty server waits for the next one.
    assert simulate([0, 0.5, 10], [1, 1, 1], 2, float) == pytest.approx([1000, 1500, 1000])
    assert simulate([0, 0], [1], 1, float) == pytest.approx([1000, 2000])  # lengths are taken in turn


def test_the_predicted_wait_is_the_simulations_of_the_rounds(latency_rounds, monkeypatch):
    drawn = {0: [0.0] * 101, 1: [0.0] * 51, 2: [float(place) for place in range(60)]}
    monkeypatch.setattr(latency_rounds, "poisson_arrivals", lambda count, rate, seed: drawn[seed])

    def predicted(**changed):
        given = {"output_tokens": [1], "slots": 1, "capacity": 10.0, "alone_s": 0.1, "rounds": 1} | changed
        return latency_rounds.predicted_ttft_p99_ms(101, 1.0, **given)

    # One place, ten leave in a second: P99 of 101 is the one before the last.
    assert predicted() == pytest.approx(10_000)
    assert predicted(rounds=3) == pytest.approx(5_050)  # of 10 s, 5.05 s, and 0.1 s for those who find nobody
    # Five places that together answer ten a second: steps of half a second, five tokens in each.
    assert predicted(slots=5) == pytest.approx(10_000)


def test_a_round_without_answers_is_a_problem(latency_rounds):
    lost = Load((Outcome(0.0, 1.0, error="500: engine is dead"),), seconds=1.0)
    with pytest.raises(Problem, match="engine is dead"):
        latency_rounds.felt(lost, 300, 30)
    answered = Outcome(0.0, 1.0, output_tokens=3, token_s=(0.2, 0.3, 0.4), sent_s=0.001)
    found = latency_rounds.felt(Load((answered, *lost.outcomes), seconds=2.0), ttft_ms=300, tpot_ms=200)
    assert (found["good_pct"], found["goodput_req_s"], found["failed"]) == (50, 0.5, 1)
    assert (found["ttft_p50_ms"], found["tpot_p50_ms"]) == (pytest.approx(200), pytest.approx(100))
    assert found["late_ms"] == pytest.approx(1)


BUSY = """
import os, time
import setproctitle
if os.fork():
    time.sleep(60)
setproctitle.setproctitle("VLLM::EngineCore")
while time.process_time() < 0.5:
    pass
print("counted", flush=True)
time.sleep(60)
"""


def test_the_cpu_of_a_round_is_that_of_the_process_with_the_engine(latency_rounds):
    server = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline() == "counted\n"
        taken = latency_rounds.cpu_s(server.pid)
        assert 0.4 < taken["engine"] < 1 and 0 < taken["front"] < 0.4
    finally:
        for process in (*psutil.Process(server.pid).children(), server):
            process.kill()
        server.communicate()
    here = time.process_time()  # a server with the engine in it
    taken = latency_rounds.cpu_s(os.getpid())
    assert here - 0.1 <= taken["engine"] <= time.process_time() + 0.1 and taken["front"] == 0


def test_the_capacity_is_counted_while_all_users_ask(latency_rounds):
    starts, ends = (100.0, 100.5, 109.0, 109.5, 102.0), (101.0, 102.5, 109.9, 110.5, 105.0)
    answers = [Outcome(start, end, output_tokens=1) for start, end in zip(starts, ends, strict=True)]
    lost = Outcome(103.0, 104.0, error="reset")
    # Of ten seconds from 100 on, 102 to 110 count: one answer came before, one after, one was lost.
    assert latency_rounds.capacity(Load((*answers, lost), seconds=10.5), 10.0) == pytest.approx(3 / 8)
    with pytest.raises(Problem, match="last 8 s: reset"):
        latency_rounds.capacity(Load((answers[0], lost), seconds=10.0), 10.0)
    with pytest.raises(Problem, match="each takes longer"):
        latency_rounds.capacity(Load((answers[0],), seconds=10.0), 10.0)
