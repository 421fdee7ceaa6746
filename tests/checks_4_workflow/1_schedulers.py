"""1. Your own schedulers"""

import json
import random
from pathlib import Path

import pytest

from common.check import expect, shown

ENGINE = json.loads(Path(__file__).with_name("engine_runs.json").read_text())  # made by tests/test_workflow.py


def schedule_of(exercises, scheduler: str, requests, limits: tuple[int, int], cost: tuple[float, float] = (1.0, 0.0)):
    """What the learner's scheduler makes of [(arrival, prompt, output)]. Says so if it is no Schedule."""
    asked = [exercises.Request(*request) for request in requests]
    got = getattr(exercises, scheduler)(asked, exercises.Limits(*limits), exercises.Cost(*cost))
    assert isinstance(got, exercises.Schedule), f"{scheduler} should return a Schedule; yours returns {got!r:.80}."
    assert got.steps, f"{scheduler} should return all of its steps; yours returns none."
    places = set(range(len(requests)))
    assert set(got.token_s) == places, (
        f"token_s of {scheduler} should have a list for each of the {len(requests)} requests, by its place from 0. "
        f"Yours has {sorted(got.token_s)[:8]}."
    )
    return got


def told(scheduler: str, requests, limits, cost=(1.0, 0.0)) -> str:
    """The call, as a sentence begins with it."""
    listed = ", ".join(f"({a:g}, {p}, {o})" for a, p, o in requests)
    return (
        f"{scheduler} for requests (arrival, prompt, output) {listed}, max_num_seqs {limits[0]}, "
        f"max_num_batched_tokens {limits[1]}, steps of {cost[0]:g} s"
        + (f" and {cost[1]:g} s a token" if cost[1] else "")
    )


def same_steps(exercises, scheduler: str, requests, limits, wanted, why: str, mistakes=None) -> None:
    """Who got how many tokens in each step."""
    got = schedule_of(exercises, scheduler, requests, limits)
    scheduled = [dict(step.num_scheduled_tokens) for step in got.steps]
    expect(f"The steps of {told(scheduler, requests, limits)}", scheduled, wanted, why, mistakes)


def test_one_request_alone(exercises):
    same_steps(
        exercises, "continuous", [(0, 5, 3)], (4, 8), [{0: 5}, {0: 1}, {0: 1}],
        "the step that finishes the prompt gives the first of the three tokens",
        {
            "the step of the prompt gives no token": [{0: 5}, {0: 1}, {0: 1}, {0: 1}],
            "the prompt is forgotten": [{0: 1}, {0: 1}, {0: 1}],
        },
    )  # fmt: skip
    got = schedule_of(exercises, "continuous", [(0, 5, 3)], (4, 8), (0.5, 0.1))
    call = told("continuous", [(0, 5, 3)], (4, 8), (0.5, 0.1))
    wanted = [1.0, 1.6, 2.2]
    expect(f"token_s[0] of {call}", got.token_s[0], wanted, "steps of 5, 1 and 1 tokens last 1.0, 0.6 and 0.6 s", {
        "tokens come when their step starts": [0.0, 1.0, 1.6],
        "the time for each token is missing": [0.5, 1.0, 1.5],
        "a step lasts as long as its requests are many": [0.6, 1.2, 1.8],
    })  # fmt: skip
    expect(
        f"The bounds of the steps of {call}", [(s.start_s, s.end_s) for s in got.steps], [(0, 1), (1, 1.6), (1.6, 2.2)]
    )


def test_a_prompt_longer_than_the_budget(exercises):
    same_steps(
        exercises, "continuous", [(0, 20, 2), (0, 3, 2)], (4, 8), [{0: 8}, {0: 8}, {0: 4, 1: 3}, {0: 1, 1: 1}],
        "the long prompt takes all of the first two steps; the third has 4 tokens left for the other",
        {
            "a prompt that does not fit a step is computed at once": [{0: 20}, {0: 1, 1: 3}, {1: 1}],
            "prompts are computed whole, whatever the budget is": [{0: 20, 1: 3}, {0: 1, 1: 1}],
            "each request has the whole budget": [{0: 8, 1: 3}, {0: 8, 1: 1}, {0: 4}, {0: 1}],
            "a chunk that is not the last of its prompt gives a token": [{0: 8}, {0: 8}, {1: 3}, {1: 1}],
        },
    )  # fmt: skip


def test_decodes_come_before_new_prompts(exercises):
    same_steps(
        exercises, "continuous", [(0, 4, 4), (1, 10, 2)], (4, 8), [{0: 4}, {0: 1, 1: 7}, {0: 1, 1: 3}, {0: 1, 1: 1}],
        "in the second step the running request takes one token, and 7 of 8 are left for the prompt",
        {
            "the prompt of a newcomer goes before the token of those who run": [{0: 4}, {1: 8}, {0: 1, 1: 2}],
            "tokens of decodes do not count": [{0: 4}, {0: 1, 1: 8}, {0: 1, 1: 2}, {0: 1, 1: 1}],
            "a step holds either prompts or decodes": [{0: 4}, {0: 1}, {0: 1}, {0: 1}, {1: 8}, {1: 2}, {1: 1}],
        },
    )  # fmt: skip


def test_slots(exercises):
    same_steps(
        exercises, "continuous", [(0, 2, 3), (0, 2, 1), (0, 2, 2)], (2, 100),
        [{0: 2, 1: 2}, {0: 1, 2: 2}, {0: 1, 2: 1}],
        "with two slots the third request takes the place of the second, which ended in the first step",
        {
            "max_num_seqs is no limit": [{0: 2, 1: 2, 2: 2}, {0: 1, 2: 1}, {0: 1}],
            "the third waits for both": [{0: 2, 1: 2}, {0: 1}, {0: 1}, {2: 2}, {2: 1}],
            "a place is free one step too late": [{0: 2, 1: 2}, {0: 1}, {0: 1, 2: 2}, {2: 1}],
        },
    )  # fmt: skip


def test_arrivals_and_pauses(exercises):
    requests, limits = [(7.5, 3, 1), (0, 3, 2), (0.5, 3, 1)], (4, 100)
    same_steps(
        exercises, "continuous", requests, limits, [{1: 3}, {1: 1, 2: 3}, {0: 3}],
        "the last in the list came first, and the one that came at 0.5 s joins the step that starts at 1 s",
        {"the order of the list is taken, not that of arrival": [{0: 3, 1: 3, 2: 3}, {1: 1}]},
    )  # fmt: skip
    got = schedule_of(exercises, "continuous", requests, limits)
    call = told("continuous", requests, limits)
    expect(f"token_s[0] of {call}", got.token_s[0], [8.5], "nobody is there from 2 s on, so the step starts at 7.5 s", {
        "the clock does not jump to the next arrival": [3.0],
        "time passes in whole steps": [9.0],
    })  # fmt: skip
    got = schedule_of(exercises, "continuous", [(0, 1, 2), (1, 1, 1)], (4, 100))
    expect(
        f"token_s[1] of {told('continuous', [(0, 1, 2), (1, 1, 1)], (4, 100))}", got.token_s[1], [2.0],
        "who arrives at the very start of a step is in it", {"it has to wait for the step after": [3.0]},
    )  # fmt: skip


def test_static_batches(exercises):
    requests = [(0, 2, 3), (0, 2, 1), (0, 2, 2)]
    same_steps(
        exercises, "static", requests, (2, 100), [{0: 2, 1: 2}, {0: 1}, {0: 1}, {2: 2}, {2: 1}],
        "the third request waits until both of the first batch have ended",
        {
            "the third joins": [{0: 2, 1: 2}, {0: 1, 2: 2}, {0: 1, 2: 1}],
            "whoever has ended goes on computing": [{0: 2, 1: 2}, {0: 1, 1: 1}, {0: 1, 1: 1}, {2: 2}, {2: 1}],
        },
    )  # fmt: skip
    same_steps(
        exercises, "static", [(0, 6, 2), (0, 6, 1), (0, 6, 1), (0, 1, 1)], (3, 8),
        [{0: 6, 1: 2}, {0: 1, 1: 4, 2: 3}, {2: 3}, {3: 1}],
        "the three of the first batch are admitted together, though their prompts take three steps",
        {"those whose prompt does not fit the first step miss the batch": [{0: 6, 1: 2}, {0: 1, 1: 4}, {2: 6, 3: 1}]},
    )  # fmt: skip
    same_steps(
        exercises, "static", [(0, 2, 2), (1, 2, 1)], (4, 100), [{0: 2}, {0: 1}, {1: 2}],
        "the second comes while a batch runs, and there would be room for it",
    )  # fmt: skip


def test_shortest_job_first(exercises):
    requests = [(0, 2, 3), (0, 2, 3), (0, 2, 4), (0, 2, 1)]

    def in_order(*places: int) -> list[dict[int, int]]:
        """The steps with one slot, where each takes as many as it has output_tokens."""
        return [step for place in places for step in ({place: 2}, *[{place: 1}] * (requests[place][2] - 1))]

    same_steps(
        exercises, "shortest_job_first", requests, (1, 100), in_order(3, 0, 1, 2),
        "with one slot they go by output_tokens, and of equals the first",
        {
            "it is first come first served": in_order(0, 1, 2, 3),
            "the longest goes first": in_order(2, 0, 1, 3),
            "of equals the last in the list goes first": in_order(3, 1, 0, 2),
        },
    )  # fmt: skip
    same_steps(
        exercises, "shortest_job_first", [(0, 2, 3), (1, 2, 2), (1, 2, 1)], (1, 100),
        [{0: 2}, {0: 1}, {0: 1}, {2: 2}, {1: 2}, {1: 1}],
        "the first runs when the shorter ones arrive, and is not interrupted",
        {"a running request makes room for a shorter one": [{0: 2}, {2: 2}, {1: 2}, {1: 1}, {0: 1}, {0: 1}]},
    )  # fmt: skip


@pytest.mark.parametrize("scheduler", ["continuous", "static", "shortest_job_first"])
def test_what_holds_for_every_schedule(exercises, scheduler):
    draw = random.Random(0)
    for _ in range(15):
        limits = draw.randint(1, 6), draw.randint(8, 60)
        requests = [
            (draw.choice([0, 0, draw.uniform(0, 9)]), draw.randint(1, 90), draw.randint(1, 12)) for _ in range(12)
        ]
        cost = draw.choice([(1.0, 0.0), (0.5, 0.02)])
        got = schedule_of(exercises, scheduler, requests, limits, cost)
        call = told(scheduler, requests, limits, cost)
        computed = dict.fromkeys(range(len(requests)), 0)
        for number, step in enumerate(got.steps):
            tokens = sum(step.num_scheduled_tokens.values())
            assert 0 < tokens <= limits[1], f"A step of {call} holds {tokens} tokens."
            assert len(step.num_scheduled_tokens) <= limits[0], (
                f"In a step of {call} {len(step.num_scheduled_tokens)} requests run."
            )
            expect(f"The duration of step {number} of {call}", step.end_s - step.start_s, cost[0] + cost[1] * tokens)
            for place, count in step.num_scheduled_tokens.items():
                computed[place] += count
                assert requests[place][0] <= step.start_s, f"In {call} request {place} runs before it has arrived."
        for place, (_, prompt, output) in enumerate(requests):
            expect(f"The number of tokens of request {place} in {call}", len(got.token_s[place]), output)
            expect(
                f"The tokens computed for request {place} in {call}", computed[place], prompt + output - 1,
                "its prompt and its answer but for the last token, which nothing follows",
            )  # fmt: skip


@pytest.mark.parametrize("name", ENGINE["runs"])
def test_against_the_engine(exercises, name):
    """Recorded from vLLM 0.32: course-lm, driven step by step, arrivals counted in steps."""
    run = ENGINE["runs"][name]
    limits = ENGINE["max_num_seqs"], ENGINE["max_num_batched_tokens"]
    got = schedule_of(exercises, run["scheduler"], run["requests"], limits)
    tokens = [sum(step.num_scheduled_tokens.values()) for step in got.steps]
    wanted = run["tokens"]
    if abs(len(tokens) - len(wanted)) <= 0.05 * len(wanted):
        return
    paired = list(zip(tokens, wanted, strict=False))
    apart = next((number for number, (ours, theirs) in enumerate(paired) if ours != theirs), len(paired))
    where = "there yours ends" if apart >= len(tokens) else f"there yours has {shown(tokens[apart])}"
    theirs = "ends" if apart >= len(wanted) else f"has {shown(wanted[apart])} tokens"
    raise AssertionError(
        f"vLLM's engine took {len(wanted)} steps for the {len(run['requests'])} requests of “{name}”, with "
        f"max_num_seqs {limits[0]} and max_num_batched_tokens {limits[1]}; your {run['scheduler']} takes "
        f"{len(tokens)}. They part in step {apart}, counted from 0, where the engine {theirs}; {where}."
    )
