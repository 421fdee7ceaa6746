"""2. Tune for an SLO"""

import random

from common.check import expect


def seen(exercises, requests, steps, token_s):
    """The learner's latencies of a schedule that is given."""
    schedule = exercises.Schedule([exercises.Step(*step) for step in steps], token_s)
    got = exercises.latencies([exercises.Request(*request) for request in requests], schedule)
    assert isinstance(got, exercises.Latencies), f"latencies should return a Latencies; yours returns {got!r}."
    return got


def test_one_answer(exercises):
    got = seen(exercises, [(2.0, 5, 3)], [(3, 4, {0: 5}), (4, 5, {0: 1}), (5, 8, {0: 1})], {0: [4.0, 5.0, 8.0]})
    call = "latencies of a request that arrives at 2 s and gets tokens at 4, 5 and 8 s: "
    expect(call + "ttft_p99_s", got.ttft_p99_s, 2.0, "4 s less the arrival at 2 s", {
        "the time counts from 0, not from the arrival": 4.0,
        "the time counts from the start of the step": 1.0,
    })  # fmt: skip
    expect(call + "itl_p99_s", got.itl_p99_s, 2.98, "the 99th percentile of 1 and 3 s", {
        "the largest is taken": 3.0,
        "the mean gap is taken": 2.0,
        "the wait for the first token is among the gaps": 2.96,
        "percentile gets 0.99 where it takes 99": 1.0198,
    })  # fmt: skip


def test_several_answers_are_one_list(exercises):
    token_s = {0: [1.0, 2.0, 3.0], 1: [1.0, 5.0], 2: [6.0]}
    got = seen(exercises, [(0, 1, 3), (0, 1, 2), (5, 1, 1)], [(0, 1, {0: 1, 1: 1})], token_s)
    call = "latencies of answers with tokens at [1, 2, 3], [1, 5] and [6] s to requests of 0, 0 and 5 s: "
    expect(call + "itl_p99_s", got.itl_p99_s, 3.94, "of the gaps 1, 1 and 4 s of all answers together", {
        "there is a gap from one answer to the next": 4.0,
        "the mean gap of each answer is taken": 3.97,
    })  # fmt: skip
    expect(call + "ttft_p99_s", got.ttft_p99_s, 1.0)


def test_no_gap(exercises):
    got = seen(exercises, [(0, 4, 1)], [(0, 1, {0: 4})], {0: [1.0]})
    expect("itl_p99_s of an answer of one token", got.itl_p99_s, 0, "there is no gap")


def tuned(exercises, requests, slo, choices, cost=(0.005, 0.0001)):
    got = exercises.tune(
        [exercises.Request(*request) for request in requests],
        exercises.Cost(*cost),
        exercises.Latencies(*slo),
        [exercises.Limits(*choice) for choice in choices],
    )
    assert got is None or isinstance(got, exercises.Limits), f"tune should return a Limits or None; yours: {got!r}."
    return "None" if got is None else (got.max_num_seqs, got.max_num_batched_tokens)


# Eight streams, and a prompt of 2,000 tokens that comes among them; a step costs 5 ms and 0.1 ms a token.
STREAMS = [(0, 20, 60)] * 8 + [(0.1, 2000, 60)]
CHOICES = [(16, 128), (16, 512), (16, 2048)]


def test_the_budget_decides(exercises):
    call = (
        "tune for eight streams (prompt 20, output 60) and one more at 0.1 s (prompt 2,000, output 60), steps of 5 ms "
        "and 0.1 ms a token, choices (max_num_seqs, max_num_batched_tokens) (16, 128), (16, 512) and (16, 2048), "
    )
    free = (10.0, 10.0)
    expect(
        call + "with an SLO that all meet", tuned(exercises, STREAMS, free, CHOICES), (16, 2048),
        "the largest budget needs the fewest steps and ends soonest",
        {"the first that meets the SLO is taken": (16, 128)},
    )  # fmt: skip
    expect(
        call + "with gaps of at most 60 ms", tuned(exercises, STREAMS, (10.0, 0.060), CHOICES), (16, 512),
        "a step of 512 tokens lasts 56 ms, one of 2,008 tokens 206 ms",
        {"the gaps are not looked at": (16, 2048), "the smallest budget is taken": (16, 128)},
    )  # fmt: skip
    expect(
        call + "with gaps of at most 20 ms", tuned(exercises, STREAMS, (10.0, 0.020), CHOICES), (16, 128),
        "only steps of 128 tokens, which last 18 ms, are short enough",
    )  # fmt: skip
    expect(
        call + "with gaps of at most 20 ms and a first token within 0.2 s",
        tuned(exercises, STREAMS, (0.2, 0.020), CHOICES), "None",
        "small steps keep the gaps short, but the long prompt then takes 17 of them",
        {"the time to first token is not looked at": (16, 128)},
    )  # fmt: skip


def test_slots_decide(exercises):
    requests = [(0, 30, 40)] * 32
    choices = [(32, 2048), (8, 2048), (16, 2048)]
    call = (
        "tune for 32 requests (prompt 30, output 40) at once, steps of 5 ms and 1 ms a token, choices 32, 8, 16 slots, "
    )
    cost = (0.005, 0.001)
    expect(call + "with gaps of at most 40 ms", tuned(exercises, requests, (10, 0.040), choices, cost), (32, 2048))
    expect(
        call + "with gaps of at most 30 ms", tuned(exercises, requests, (10, 0.030), choices, cost), (16, 2048),
        "32 decode for 37 ms, 16 for 21 ms, and 8 for 13 ms, but in four turns",
    )  # fmt: skip
    expect(call + "with gaps of at most 12 ms", tuned(exercises, requests, (10, 0.012), choices, cost), "None")


def test_a_limit_that_is_met_exactly(exercises):
    requests, choices = [(0, 4, 2)], [(1, 8)]
    call = "tune for one request (prompt 4, output 2), steps of 1 s, one choice, "
    expect(
        call + "with an SLO of 1 s for both", tuned(exercises, requests, (1, 1), choices, (1, 0)), (1, 8),
        "neither is above its limit", {"a latency equal to its limit is too long": "None"},
    )  # fmt: skip
    expect(call + "with 0.99 s for the gaps", tuned(exercises, requests, (1, 0.99), choices, (1, 0)), "None")


def test_of_equals_the_first(exercises):
    requests = [(0, 4, 3)] * 2
    choices = [(4, 64), (2, 64), (8, 128)]
    expect(
        "tune for two small requests and three choices that all give the same schedule",
        tuned(exercises, requests, (99, 99), choices, (1, 0)), (4, 64), "of equals the first is taken",
        {"the last of them is taken": (8, 128)},
    )  # fmt: skip


def test_against_trying_all(exercises):
    """What `tune` gives is what the learner's own `continuous` and `latencies` say is best."""
    draw = random.Random(1)
    for _ in range(6):
        requests = [(draw.uniform(0, 1), draw.choice([20, 60, 400]), draw.randint(2, 30)) for _ in range(10)]
        choices = [(seqs, budget) for seqs in (2, 4, 8) for budget in (32, 128, 512)]
        slo = draw.choice([0.5, 1.0, 2.0]), draw.choice([0.012, 0.03, 0.09])
        asked, cost = [exercises.Request(*request) for request in requests], exercises.Cost(0.005, 0.0002)
        got = tuned(exercises, requests, slo, choices, (0.005, 0.0002))
        ends = {}
        for choice in choices:
            schedule = exercises.continuous(asked, exercises.Limits(*choice), cost)
            users = exercises.latencies(asked, schedule)
            if users.ttft_p99_s <= slo[0] and users.itl_p99_s <= slo[1]:
                ends[choice] = schedule.steps[-1].end_s
        best = min(ends, key=ends.get) if ends else "None"
        call = f"tune for ten requests, an SLO of {slo[0]:g} s and {slo[1] * 1e3:g} ms, and {len(choices)} choices,"
        expect(call, got, best, "by your own continuous and latencies")
