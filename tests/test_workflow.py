"""Chapter 4: what its demo measures with."""

import os
import re
import signal
import statistics
import threading
import time
from itertools import pairwise
from types import SimpleNamespace

import psutil
import pytest
import workflow_engine
from workflow_engine import (
    BLOCK,
    BUDGET,
    ENGINE,
    FOLDER,
    SLOTS,
    contests,
    driving,
    request_mixes,
    stages,
    transformers_batching,
)

from common import hardware, models, trace
from common.chapters import load
from common.in_process import small_cache
from common.lengths import Lengths
from common.problems import Problem

Request = request_mixes.Request


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    yield workflow_engine.start(tmp_path_factory.mktemp("workflow") / "engine.jsonl")
    models.close_engine()


@pytest.fixture
def run(tmp_path):
    """As much of a Run as the contestants ask for."""
    return SimpleNamespace(
        repeats=3, logs=tmp_path, steps=[], count=lambda tokens: tokens, step=lambda text: None,
        machine=hardware.machine(), model=models.resolve("course-lm"),
    )  # fmt: skip


def equal(count: int, prompt: int, answer: int, kind: str = "equal") -> list[Request]:
    return request_mixes.of_lengths([Lengths(prompt, answer)] * count, kind)


# -------------------------------------------------------------------------------------------- request mixes


def test_no_two_prompts_are_equal_and_fresh_ones_keep_all_else():
    requests = request_mixes.of_lengths(request_mixes.chat(50, 0.125), "chat")
    again = request_mixes.fresh(requests)
    assert len({request.prompt for request in requests + again}) == 100
    for one, other in zip(requests, again, strict=True):
        assert len(one.prompt) == len(other.prompt) and one.output_tokens == other.output_tokens


def test_mixes_have_the_lengths_that_they_say():
    size = Lengths(95, 30)
    drawn = request_mixes.exponential(4000, size)
    assert {draw.input_tokens for draw in drawn} == {95}
    answers = [draw.output_tokens for draw in drawn]
    assert min(answers) >= 1 and max(answers) == 120  # cut at four times the mean
    assert 28 < statistics.mean(answers) < 31 and 24 < statistics.stdev(answers) < 31
    assert request_mixes.mean(request_mixes.constant(7, size)) == size
    assert all(s.input_tokens + s.output_tokens <= 256 for s in request_mixes.chat(500, 0.125))


def test_poisson_arrivals():
    times = request_mixes.poisson(50, 100)
    assert times == sorted(times) and times[0] > 0 and times[-1] < 100
    assert 4700 < len(times) < 5300
    gaps = [after - before for before, after in pairwise(times)]
    assert abs(statistics.stdev(gaps) / statistics.mean(gaps) - 1) < 0.1  # as only an exponential distribution has it
    with pytest.raises(Problem, match="No request ever comes"):
        request_mixes.poisson(0, 10)


@pytest.mark.parametrize("count", [4, 8, 12, 64])
def test_the_mix_for_a_picture(count):
    requests = request_mixes.staggered(1000, count)
    assert len({request.name for request in requests}) == len(requests) == count
    first, rest = requests[: count // 2], requests[count // 2 :]
    assert [len(request.prompt) for request in rest[:2]] == [800, 600]
    assert {request.due_s for request in first} == {0.0} and all(request.due_s > 0 for request in rest)
    if count == 12:
        assert "".join(request.name for request in requests) == "abcdefghijkl", "as the lesson calls them"


@pytest.mark.parametrize("count", [3, 201])
def test_mixes_that_make_no_picture(count):
    with pytest.raises(Problem, match=f"A mix of {count} requests"):
        request_mixes.staggered(1000, count)


def test_the_longest_gap_counts_what_a_chunk_looks_back_over():
    def step_ms(start: int, tokens: int) -> float:
        """5 ms for each step, 0.06 for each token, 0.0001 for each token that one looks back over."""
        return 5 + 0.06 * tokens + 0.0001 * (start * tokens + tokens**2 / 2)

    alone = {tokens: step_ms(0, tokens) for tokens in (64, 256, 1984)}
    assert stages.look_back_ms(alone) == pytest.approx(0.0001)
    for budget in (64, 256):
        starts = range(0, 1984 - budget + 1, budget)
        assert stages.longest_gap_ms(budget, 0, 1984, alone) == pytest.approx(max(step_ms(s, budget) for s in starts))
    assert stages.longest_gap_ms(2048, 8, 1984, alone) == alone[1984]
    assert stages.look_back_ms({1: 1.0, 2: 2.0, 3: 2.5}) == 0, "times that bend the other way say nothing"


def test_steps_from_lengths_alone():
    assert stages.end_steps([3, 1, 2, 4], 2) == [3, 1, 3, 7]
    assert stages.batch_steps([3, 1, 2, 4, 5], 2) == 3 + 4 + 5
    solutions = load(FOLDER / "solutions.py")  # the same in a model that knows of prompts, of one token each
    answers = [size.output_tokens for size in request_mixes.chat(40, 0.125)]
    requests = [solutions.Request(0.0, 1, answer) for answer in answers]
    schedule = solutions.continuous(requests, solutions.Limits(8, 8), solutions.Cost(1.0))
    assert [schedule.token_s[place][-1] for place in range(40)] == stages.end_steps(answers, 8)


# ------------------------------------------------------------------------------- driving an engine, and its trace


@pytest.mark.parametrize(
    "requests,words",
    [
        ([], "no requests"),
        ([Request("a", (1,), 1), Request("a", (2,), 1)], "the same name"),
        ([Request("a", tuple(range(90)), 11)], "a has 90 tokens in and 11 out; the engine holds 100"),
        ([Request("a", (), 5)], "has no prompt"),
        ([Request("a", (1,), 0)], "asks for no token"),
    ],
)
def test_requests_that_can_not_be_served(requests, words):
    driving.check([Request("b", tuple(range(90)), 10)], 100)
    with pytest.raises(Problem, match=words):
        driving.check(requests, 100)


@pytest.mark.engine
def test_an_engine_that_is_killed_is_told_at_once(tmp_path, monkeypatch):
    """vLLM's own client would wait in its next step for ever."""
    from vllm import LLM, envs

    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    envs.disable_envs_cache()  # an engine in this process, as the other tests have, makes vLLM keep what was set
    file, before = tmp_path / "engine.jsonl", set(psutil.Process().children(recursive=True))
    options = models.engine_options(
        models.resolve("course-lm"), hardware.machine(), scheduler_cls=trace.SCHEDULER, **ENGINE
    )
    with trace.recording(file):
        llm = LLM(**options, disable_log_stats=False, use_tqdm_on_load=False)
    client = llm.llm_engine.engine_core
    started = [
        process
        for process in set(psutil.Process().children(recursive=True)) - before
        if "resource_tracker" not in " ".join(process.cmdline())  # Python's own, which stays
    ]
    engine = client.resources.engine_manager.processes[0].pid
    killed_s = []

    def kill() -> None:
        while file.read_bytes().count(b"\n") < 30:
            time.sleep(0.01)
        killed_s.append(time.monotonic())
        os.kill(engine, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    try:
        with pytest.raises(Problem, match="process ended when 0 of 8 requests") as raised:
            driving.drive(llm, equal(SLOTS, 20, 500))
        assert time.monotonic() - killed_s[0] < 5
        assert "killed" in raised.value.meaning and "start it again" in raised.value.fix
        assert 0 < len(trace.read(file).steps) < 500
        with pytest.raises(Problem, match="process ended when 0 of 1 requests"):
            driving.drive(llm, equal(1, 20, 5))
    finally:
        client.shutdown()
    assert not psutil.wait_procs(started, timeout=10)[1], "nothing of it is left"


@pytest.mark.engine
def test_a_picture_shows_chunks_and_decodes(traced):
    requests = request_mixes.staggered(1024, 8)
    served = driving.drive(traced.llm, requests)
    steps, ids = traced.steps_of(served).steps, {answer.request.name: answer.id for answer in served.answers}
    chunks = [step.num_scheduled_tokens[ids["e"]] for step in steps if ids["e"] in step.prefill]
    assert sum(chunks) == 819 and len(chunks) >= 4, "at most 256 tokens of it in one step"
    full = [step for step in steps if sum(step.num_scheduled_tokens.values()) == BUDGET]
    assert any(set(step.prefill) < set(step.num_scheduled_tokens) for step in full), "streams go on beside a chunk"


@pytest.mark.engine
def test_drive_answers_each_request_when_it_is_due(traced):
    requests = [Request(str(place), request_mixes.random_ids(30), 5 + place, due_s=0.1 * place) for place in range(4)]
    served = driving.drive(traced.llm, requests)
    assert [answer.request for answer in served.answers] == requests
    for answer in served.answers:
        stream = answer.stream
        assert len(stream.token_s) == answer.request.output_tokens
        assert list(stream.token_s) == sorted(stream.token_s)
        assert answer.due_s == pytest.approx(served.start_s + answer.request.due_s)
        assert answer.due_s <= answer.sent_s < stream.token_s[0] <= served.end_s
    assert served.output_tokens == 5 + 6 + 7 + 8
    arrivals = [traced.steps_of(served).requests[answer.id].arrival_s for answer in served.answers]
    assert arrivals == pytest.approx([answer.due_s for answer in served.answers], abs=2e-3)


@pytest.mark.engine
def test_equal_priorities_are_first_come_first_served(traced):
    """Also for those that are due at once, whose names would sort otherwise."""
    served = driving.drive(traced.llm, equal(20, 20, 3))
    trace_of = traced.steps_of(served)
    admitted = [name for step in trace_of.steps for name in step.num_cached_tokens]
    assert admitted == [answer.id for answer in served.answers]
    urgent = [Request(f"r{place}", request_mixes.random_ids(20), 3, priority=-place) for place in range(20)]
    served = driving.drive(traced.llm, urgent)
    admitted = [name for step in traced.steps_of(served).steps for name in step.num_cached_tokens]
    assert admitted == [answer.id for answer in reversed(served.answers)]


@pytest.mark.engine
def test_static_batches_do_not_overlap_and_continuous_ones_leave_no_slot_idle(traced):
    requests = request_mixes.of_lengths([Lengths(10, answer) for answer in (2, 9) * 12], "mix")
    static = driving.in_batches(traced.llm, requests, SLOTS)
    together = [set(step.num_scheduled_tokens) for step in traced.steps_of(static).steps]
    ids = [answer.id for answer in static.answers]
    for batch in (set(ids[first : first + SLOTS]) for first in range(0, 24, SLOTS)):
        assert all(not step & batch or step <= batch for step in together)
    assert len(together) == stages.batch_steps([2, 9] * 12, SLOTS)
    assert stages.idle_slots_pct(traced.steps_of(static), SLOTS) == pytest.approx((1 - 132 / (27 * SLOTS)) * 100)
    assert {answer.due_s for answer in static.answers} == {static.start_s}
    continuous = driving.drive(traced.llm, request_mixes.fresh(requests))
    steps = traced.steps_of(continuous).steps
    assert len(steps) == max(stages.end_steps([2, 9] * 12, SLOTS)) < len(together)


@pytest.mark.engine
def test_the_stages_of_a_request_add_up(traced):
    others = request_mixes.of_lengths([Lengths(200, 20)] * 6, "other")
    served = driving.drive(traced.llm, [*others, Request("one", "Where does the time go? " * 40, 12)])
    rows = {row["stage"]: row for row in stages.stages(traced.steps_of(served), served.answers[-1])}
    assert rows["sum"]["ms"] == pytest.approx(rows["end_to_end"]["ms"], rel=0.01)
    assert rows["sum"]["share_pct"] == pytest.approx(100, abs=1)
    for stage in ("queue", "prefill", "decode"):  # against vLLM's own clock
        assert rows[stage]["ms"] == pytest.approx(rows[stage]["vllm_ms"], abs=5)
    assert rows["queue"]["ms"] > 5, "five prompts of 200 tokens go before it"
    prompt = len(traced.llm.get_tokenizer().encode("Where does the time go? " * 40))
    assert rows["prefill"]["tokens"] == prompt and rows["prefill"]["steps"] >= 1
    assert rows["decode"]["steps"] == rows["decode"]["tokens"] == 11
    assert rows["decode"]["blocks"] == -(-(prompt + 11) // BLOCK)


@pytest.mark.engine
def test_limits_can_be_changed_while_the_engine_runs(traced, run):
    requests = [*equal(3, 10, 20, "short"), *equal(1, 240, 2, "long")]
    small = contests.budgets(run, traced, requests, 64, chunked=True)
    large = contests.budgets(run, traced, requests, BUDGET, chunked=True)
    whole = contests.budgets(run, traced, requests, BUDGET, chunked=False)
    assert small["most_tokens"] == 64
    assert large["most_tokens"] == BUDGET  # 30 of the short prompts and the first 226 of the long one
    assert whole["most_tokens"] == 243, "unchunked, the long prompt waits for the short ones' first step"
    assert traced.scheduler.max_num_scheduled_tokens == BUDGET, "and back"
    assert traced.scheduler.scheduler_config.enable_chunked_prefill


@pytest.mark.engine
def test_a_cache_that_is_too_small(traced, run):
    requests = equal(SLOTS, 40, 60)  # two blocks each at first, four in the end
    enough = contests.caches(run, traced, requests, 4 * SLOTS, SLOTS)
    half = contests.caches(run, traced, requests, 2 * SLOTS, SLOTS)
    fewer = contests.caches(run, traced, requests, 2 * SLOTS, SLOTS // 2)
    assert enough["preempted"] == enough["recomputed_tokens"] == fewer["preempted"] == 0
    assert fewer["most_running"] == SLOTS // 2
    assert half["preempted"] >= SLOTS // 2
    # Each of them had at least its prompt, of which whole blocks may still be in the prefix cache.
    assert half["recomputed_tokens"] >= half["preempted"] * (40 - BLOCK)
    pool = traced.scheduler.kv_cache_manager.block_pool
    assert pool.get_num_free_blocks() == pool.num_gpu_blocks - 1, "all blocks are back"
    for blocks in (3, 10**6):
        with pytest.raises(Problem, match=f"{blocks} blocks"):
            contests.caches(run, traced, requests, blocks, SLOTS)
    assert pool.get_num_free_blocks() == pool.num_gpu_blocks - 1


@pytest.mark.engine
def test_recomputed_tokens_are_those_that_were_scheduled_twice(traced):
    """Without a prefix cache each token is scheduled once more for each time it is recomputed."""
    requests = [Request(str(place), request_mixes.random_ids(40), 60, use_prefix_cache=False) for place in range(SLOTS)]
    with small_cache(traced.scheduler, 2 * SLOTS, 99):
        served = driving.drive(traced.llm, requests)
    steps = traced.steps_of(served)
    scheduled = sum(sum(step.num_scheduled_tokens.values()) for step in steps.steps)
    assert stages.recomputed_tokens(steps) == scheduled - SLOTS * 99 > 0


@pytest.mark.engine
def test_hit_rate_is_whole_blocks_of_the_shared_part(traced, run):
    found = contests.prefixes(run, traced, 3 * BLOCK + 7, Lengths(20, 2), count=4, cached=True)
    assert found["hit_rate_pct"] == pytest.approx(3 / 4 * 3 * BLOCK / (3 * BLOCK + 27) * 100)
    assert contests.prefixes(run, traced, 3 * BLOCK + 7, Lengths(20, 2), 4, cached=False)["hit_rate_pct"] == 0
    table = contests.prefix_table({(103, True): found | {"spread_pct": 0.0}, (103, False): found}, 20)
    assert list(table.x_ttft) == [1.0] and list(table.prompt_tokens) == [123]


@pytest.mark.engine
def test_orders_and_classes(traced, run):
    requests = [*equal(16, 10, 20, "batch"), *equal(8, 10, 2, "interactive")]
    found = {name: contests.orders(run, traced, requests, order) for name, order in contests.ORDERS.items()}
    table = contests.policy_table(
        {name: figures | {"spread_pct": 0.0} for name, figures in found.items()}, "first_come"
    )
    x_first = table.set_index(["policy", "kind"]).x_first
    assert (x_first["first_come"] == 1).all()
    assert x_first["interactive_first", "interactive"] < 0.5, "it waited for two batches of eight, and now for none"
    assert x_first["shortest_answer_first", "all"] < 0.95
    loads = {"batch": equal(4, 10, 12, "batch"), "chat": equal(2, 10, 4, "chat")}
    figures = contests.classes(run, traced, loads, {"batch": 1}, budget=64)
    assert {"output_tok_s batch", "ttft_p99_ms chat", "itl_max_ms chat", "seconds"} <= figures.keys()
    assert figures["most_waiting"] == 0
    loads["batch"] = equal(12, 10, 12, "batch")
    contestants = {
        "together": lambda: contests.classes(run, traced, loads),
        "together_chat_first": lambda: contests.classes(run, traced, loads, {"batch": 1}),
    }
    table = contests.class_table(contests.in_turn(run, contestants), loads).set_index(["load", "kind"])
    assert (table.most_waiting == 6).all(), "14 requests, 8 slots"
    ttft = table.ttft_p99_ms
    assert ttft["together_chat_first", "chat"] < 0.5 * ttft["together", "chat"], (
        "it starts at once, and not behind batch"
    )
    assert (table[["spread_pct", "ttft_spread_pct", "itl_spread_pct"]] > 0).all(axis=None)
    assert traced.scheduler.max_num_scheduled_tokens == BUDGET


# ----------------------------------------------------------------------------------- tables, pictures, children


def test_in_turn_takes_turns_and_medians(run):
    calls = []

    def contestant(name, values):
        def turn():
            calls.append(name)
            return {"rate": values[calls.count(name) - 1], "missing": None}

        return turn

    found = contests.in_turn(run, {"a": contestant("a", [1, 2, 9]), ("b", 1): contestant("b", [4, 4, 5])})
    assert calls == ["a", "b"] * 3
    assert found["a"] == {"rate": 2, "missing": None, "spread_pct": 400.0}
    assert found["b", 1]["rate"] == 4 and found["b", 1]["spread_pct"] == 25.0


def test_the_batching_table_keeps_a_cell_that_failed():
    cells = {
        ("chat", "transformers_static"): {"output_tok_s": 100.0},
        ("chat", "transformers_continuous"): {"error": "not finished after 5 s"},
        ("chat", "vllm_static"): {"output_tok_s": 300.0, "idle_slots_pct": 60.0},
        ("chat", "vllm_continuous"): {"output_tok_s": 600.0},
        ("constant", "vllm_static"): {"output_tok_s": 500.0},
    }
    table = contests.batching_table(cells, ["constant", "chat"]).set_index(["mix", "batching"])
    assert next(iter(table.index)) == ("constant", "vllm_static")
    chat = table.loc["chat"]
    assert chat.error["transformers_continuous"] == "not finished after 5 s"
    assert chat.output_tok_s.isna()["transformers_continuous"]
    assert chat.x_static["vllm_continuous"] == 2.0 and chat.x_theirs["vllm_continuous"] == 6.0
    assert table.x_theirs.isna()["constant", "vllm_static"]


@pytest.mark.engine
def test_transformers_is_measured_apart_and_what_hangs_is_ended(run):
    mixes = {"small": [Lengths(12, 6), Lengths(5, 3), Lengths(8, 4)]}
    run.repeats = 1
    cells = transformers_batching.apart(run, mixes, batch=2, limit_s=100)
    assert cells.keys() == {("small", "transformers_static"), ("small", "transformers_continuous")}
    for cell in cells.values():
        assert "error" not in cell and cell["output_tok_s"] > 0, cell
        assert 0 < cell["mean_s"] <= cell["p99_s"]
    cells = transformers_batching.apart(run, mixes, batch=2, limit_s=0.5)
    assert {cell["error"] for cell in cells.values()} == {"not finished after 0 s"}
    run.model = SimpleNamespace(name="no-such-model")
    cells = transformers_batching.apart(run, mixes, batch=2, limit_s=60)
    assert all(re.search(r"ended with status 1; see .*transformers.log", cell["error"]) for cell in cells.values())
    left = [p for p in psutil.Process().children(recursive=True) if "transformers_batching.py" in str(p.cmdline())]
    assert not left
