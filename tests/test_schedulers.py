"""Chapter 4: the schedulers of its exercises against the engine, step by step.

`python tests/test_schedulers.py` records once more what the engine does, for the checks of the exercises.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import workflow_engine
from workflow_engine import BUDGET, FOLDER, SLOTS, request_mixes

from common import models, trace
from common.chapters import ROOT, load

RUNS = ROOT / "tests" / "checks_4_workflow" / "engine_runs.json"


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    yield workflow_engine.start(tmp_path_factory.mktemp("workflow") / "engine.jsonl")
    models.close_engine()


def asked_of_the_engine() -> dict[str, tuple[str, list[tuple[int, int, int]]]]:
    """name: (scheduler, [(arrival in steps, prompt tokens, output tokens)])."""
    burst = [(0, size.input_tokens, size.output_tokens) for size in request_mixes.chat(20, 0.08, seed=1)]
    long = [(0, size.input_tokens, size.output_tokens) for size in request_mixes.chat(9, 0.3, seed=2)]
    spread = [(5 * place, 20 + 90 * (place % 4), 5 + 7 * (place % 5)) for place in range(16)]
    late = [*spread[:6], *((150 + arrival, prompt, answer) for arrival, prompt, answer in spread[6:12])]
    return {
        "short requests at once": ("continuous", burst),
        "prompts longer than the budget": ("continuous", long),
        "one after the other": ("continuous", spread),
        "with a pause": ("continuous", late),
        "static batches": ("static", burst),
        "static batches of long prompts": ("static", long),
        "shortest job first": ("shortest_job_first", burst),
        "shortest job first, one after the other": ("shortest_job_first", spread),
    }


def engine_steps(llm, file: Path, scheduler: str, requests: list[tuple[int, int, int]]) -> list[int]:
    """Drive the engine with arrivals counted in steps; the tokens of each of its steps, by its own trace."""
    from vllm import SamplingParams

    engine, start_s, now = llm.llm_engine, time.monotonic(), 0
    coming = sorted(enumerate(requests), key=lambda request: request[1][0])
    while coming or engine.has_unfinished_requests():
        arrived = [request for request in coming if request[1][0] <= now]
        if scheduler == "static":
            arrived = [] if engine.has_unfinished_requests() else arrived[:SLOTS]
        for place, (_, prompt, answer) in arrived:
            tokens = {"prompt_token_ids": list(request_mixes.random_ids(prompt))}
            sampling = SamplingParams(temperature=0.0, max_tokens=answer, ignore_eos=True)
            priority = answer if scheduler == "shortest_job_first" else 0
            engine.add_request(str(place), tokens, sampling, time.time(), priority=priority)
        coming = [request for request in coming if request not in arrived]
        if engine.has_unfinished_requests():
            engine.step()
            now += 1
        else:
            now = coming[0][1][0]
    steps = trace.read(file).between(start_s, time.monotonic()).steps
    assert not any(sum(step.num_cached_tokens.values()) for step in steps)
    return [sum(step.num_scheduled_tokens.values()) for step in steps]


@pytest.mark.engine
@pytest.mark.parametrize("name", asked_of_the_engine())
def test_our_schedulers_do_what_the_engine_does(traced, name):
    scheduler, requests = asked_of_the_engine()[name]
    did = engine_steps(traced.llm, traced.file, scheduler, requests)
    solutions = load(FOLDER / "solutions.py")
    limits, in_steps = solutions.Limits(SLOTS, BUDGET), solutions.Cost(step_s=1.0)
    schedule = getattr(solutions, scheduler)([solutions.Request(*r) for r in requests], limits, in_steps)
    modelled = [sum(step.num_scheduled_tokens.values()) for step in schedule.steps]
    assert modelled == did
    assert json.loads(RUNS.read_text())["runs"][name]["tokens"] == did, "what the checks hold is out of date"


def test_the_recorded_runs_are_those_asked_for():
    runs = json.loads(RUNS.read_text())
    assert (runs["max_num_seqs"], runs["max_num_batched_tokens"]) == (SLOTS, BUDGET)
    recorded = {name: (run["scheduler"], [tuple(r) for r in run["requests"]]) for name, run in runs["runs"].items()}
    assert recorded == asked_of_the_engine()


# (what our solution says, what a wrong one says, words of the message)
MISTAKES = (
    ("token_s[place].append(now)", "token_s[place].append(start)", "tokens come when their step starts"),
    ("cost.seconds(sum(scheduled.values()))", "cost.seconds(0)", "the time for each token is missing"),
    ("cost.seconds(sum(scheduled.values()))", "cost.seconds(len(scheduled))", "as its requests are many"),
    ("min(left, max(1,", "min(10**9, max(1,", "prompts are computed whole"),
    ("if computed[place] >= requests[place].prompt_tokens:", "if True:", "is not the last of its prompt gives a token"),
    ("len(running) < limits.max_num_seqs and", "", "max_num_seqs is no limit"),
    ("while coming and requests[coming[0]].arrival_s <= now", "while coming and (requests[coming[0]].arrival_s < now "
     "or requests[coming[0]].arrival_s == now and not running)", "has to wait for the step after"),
    ("requests[coming[0]].arrival_s <= now", "coming", "the order of the list is taken|runs before it has arrived"),
    ("            now = requests[coming[0]].arrival_s\n", "            now += 1\n", "time passes in whole steps"),
    (", joins=False)", ")", "the third joins"),
    ("(requests[place].output_tokens, requests[place].arrival_s, place)", "(0,)", "first come first served"),
    ("(requests[place].output_tokens,", "(-requests[place].output_tokens,", "the longest goes first"),
    ("- requests[place].arrival_s for", "for", "the time counts from 0"),
    ("percentile(gaps or [0.0], 99)", "max(gaps or [0.0])", "the largest is taken"),
    ("percentile(gaps or [0.0], 99)", "percentile(gaps or [0.0], 0.99)", "percentile gets 0.99"),
    ("gaps or [0.0]", "gaps", "ValueError in latencies"),
    ("seen.itl_p99_s <= slo.itl_p99_s", "True", "the gaps are not looked at"),
    ("seen.ttft_p99_s <= slo.ttft_p99_s and", "", "the time to first token is not looked at"),
    ("seen.itl_p99_s <= slo", "seen.itl_p99_s < slo", "equal to its limit is too long"),
    ("end_s < soonest", "best is None", "the first that meets the SLO is taken"),
    ("end_s < soonest", "end_s <= soonest", "the last of them is taken"),
)  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What `make check` says to each mistake. One process checks them all: starting takes longer than checking."""
    text, folder = (FOLDER / "solutions.py").read_text(), tmp_path_factory.mktemp("mistakes")
    for place, (right, wrong, _) in enumerate(MISTAKES):
        assert right in text
        (folder / f"mine_{place}.py").write_text(text.replace(right, wrong))
    code = (
        "from common import check\n"
        f"for place in range({len(MISTAKES)}):\n"
        f"    print('status', check.main(['4', '--file', f'{folder}/mine_{{place}}.py']), 'NEXT', flush=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert not ended.stderr, ended.stderr
    return [" ".join(printed.split()) for printed in ended.stdout.split("NEXT")]


@pytest.mark.parametrize("place", range(len(MISTAKES)), ids=lambda place: MISTAKES[place][2][:40])
def test_a_mistake_is_told_in_words(told, place):
    printed = told[place]
    assert printed.endswith("status 1") and "Traceback" not in printed, printed
    assert re.search(MISTAKES[place][2], printed), printed


if __name__ == "__main__":
    import tempfile

    file = Path(tempfile.mkdtemp()) / "engine.jsonl"
    recording = workflow_engine.start(file).llm
    runs = {
        name: {"scheduler": how, "requests": requests, "tokens": engine_steps(recording, file, how, requests)}
        for name, (how, requests) in asked_of_the_engine().items()
    }
    text = json.dumps({"max_num_seqs": SLOTS, "max_num_batched_tokens": BUDGET, "runs": runs})
    RUNS.write_text(text.replace('}, "', '},\n"') + "\n")
    models.close_engine()
