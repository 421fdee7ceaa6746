"""The checks of 0.intro/exercises.py, for `make check CH=0`. Hand-worked values first, then properties."""

import math
import random

from common.check import close, expect


class TestHeadline:
    """1. The headline with your own lengths"""

    def test_ratios_at_equal_batch_and_the_talks_ratio(self, exercises):
        rows = [
            exercises.Row("transformers", 1, 200, 20.0),  # 10 tokens/s
            exercises.Row("transformers", 32, 200, 16.0),  # 400
            exercises.Row("vllm", 1, 200, 2.0),  # 100
            exercises.Row("vllm", 32, 200, 4.0),  # 1,600
            exercises.Row("vllm", 256, 200, 12.8),  # 4,000
        ]
        answer = exercises.measured_ratios(rows)
        assert isinstance(answer, tuple) and len(answer) == 2, (
            f"measured_ratios should return a dict and a number; yours returns {answer!r}."
        )
        equal, talk = answer
        expect(
            "The dict from measured_ratios for Transformers at 10 (batch 1) and 400 tokens/s (batch 32), "
            "vLLM at 100, 1,600 and 4,000 (batch 256)",
            equal,
            {1: 10.0, 32: 4.0},
            "for the two batch sizes that both engines ran",
            {
                "Transformers' rate is divided by vLLM's": {1: 0.1, 32: 0.25},
                "you count the tokens of one request, not of the batch, on one side": {1: 10.0, 32: 4.0 / 32},
            },
        )
        expect(
            "The second value of measured_ratios for the same rows",
            talk,
            400.0,
            "vLLM's 4,000 tokens/s over Transformers' 10",
            {
                "you count output_tokens without the batch": 10.0,
                "you divide by Transformers' best row, which a talk would not": 10.0,
                "you take the best ratio at equal batch": 10.0,
            },
        )

    def test_a_small_step_waits_for_the_memory(self, exercises):
        model, gpu = exercises.Model(1e9, 1000), exercises.Gpu(1e12, 100e12)
        expect(
            "step_seconds of a model with 1e9 parameters and 1,000 KV bytes a token, at 1 TB/s and 100 TFLOP/s, for 8 new "
            "and 1e6 cached tokens and 5 ms idle",
            exercises.step_seconds(model, gpu, 8, 1e6, 0.005),
            0.008,
            "2 ms for 2e9 bytes of weights and 1 ms for 1e9 bytes of KV cache, more than the 0.16 ms of arithmetic, and "
            "5 ms idle",
            {
                "the KV bytes are missing": 0.007,
                "the idle time is missing": 0.003,
                "memory and arithmetic are added; they go on at the same time": 0.00816,
                "the weights are read once for each new token; the whole step shares them": 0.022,
                "idle time is taken to pass while the GPU works": 0.005,
            },
        )

    def test_a_large_step_waits_for_the_arithmetic(self, exercises):
        model, gpu = exercises.Model(1e9, 1000), exercises.Gpu(1e12, 100e12)
        expect(
            "step_seconds of the same model for 1,000 new tokens, an empty cache and 1 ms idle",
            exercises.step_seconds(model, gpu, 1000, 0, 0.001),
            0.021,
            "20 ms for 1,000 × 2e9 FLOP, more than the 2 ms of memory, and 1 ms idle",
            {
                "memory and arithmetic are added; they go on at the same time": 0.023,
                "you count 1 FLOP per parameter and token": 0.011,
                "only the memory counts": 0.003,
                "the smaller of the two counts": 0.003,
            },
        )

    def test_a_batch_of_uneven_answers(self, exercises):
        model, gpu = exercises.Model(1e9, 0), exercises.Gpu(1e12, 1e18)  # every step: 2 ms of memory, nothing else
        case = exercises.Case(100, (2, 10))
        rates = {static: exercises.predicted_tok_s(model, gpu, case, 0.0, static) for static in (True, False)}
        expect(
            "predicted_tok_s for answers of 2 and 10 tokens at 2 ms a step, static",
            rates[True],
            12 / 0.020,
            "12 tokens in one prefill and 9 decode steps",
            {
                "the prefill is missing": 12 / 0.018,
                "the prefill's token is computed again in a decode step": 12 / 0.022,
                "you count the tokens of the finished request as well": 20 / 0.020,
                "you count the tokens of one request": 10 / 0.020,
                "you take the mean length, which is for the batch that is not static": 12 / 0.012,
            },
        )
        expect(
            "predicted_tok_s for the same, not static",
            rates[False],
            12 / 0.012,
            "12 tokens in one prefill and 5 decode steps, as the mean length is 6",
            {
                "you take the longest answer, which is for the static batch": 12 / 0.020,
                "the prefill's token is computed again in a decode step": 12 / 0.014,
            },
        )

    def test_prompts_are_computed_once_and_read_at_every_step(self, exercises):
        model, gpu = exercises.Model(1e6, 1e6), exercises.Gpu(1e9, 1e9)
        case = exercises.Case(100, (11, 11))
        # prefill 2 × 1e6 × 200 / 1e9 = 0.4 s; decode (2e6 + 2 × 105.5 × 1e6) / 1e9 = 0.213 s, ten times; idle 11 × 0.01 s
        expect(
            "predicted_tok_s for two requests of 100 tokens in and 11 out, 1e6 parameters, 1e6 KV bytes a token, 1e9 "
            "bytes/s, 1e9 FLOP/s and 10 ms idle",
            exercises.predicted_tok_s(model, gpu, case, 0.01, True),
            22 / 2.64,
            "22 tokens in a prefill of 0.4 s, 10 decode steps of 0.213 s that read 2 × 105.5 cached tokens, and 11 × 0.01 s "
            "idle",
            {
                "the prefill is of one prompt only": 22 / (0.202 + 10 * 0.223 + 0.01),
                "a decode step reads the cache of one request only": 22 / (0.41 + 10 * (0.1075 + 0.01)),
                "a decode step reads the prompt but none of the answer": 22 / (0.41 + 10 * (0.202 + 0.01)),
                "a decode step reads the whole answer, also what is not there yet": 22 / (0.41 + 10 * (0.224 + 0.01)),
            },
        )

    def test_equal_answers_and_equal_idle_time_leave_no_difference(self, exercises):
        case = exercises.Case(100, (200,) * 8)
        found = exercises.closest(exercises.QWEN_7B, exercises.H100, [case], 0.002, 0.002)
        assert isinstance(found, tuple) and len(found) == 2, f"closest should return a Case and a number, not {found!r}."
        expect(
            "The ratio from closest for equal answers and the same idle time on both sides",
            found[1],
            1.0,
            "since this model knows of no other difference between the engines",
        )

    def test_which_case_is_closest(self, exercises):
        ends = {
            "the long prompt with the short answer": (
                exercises.Case(1500, (16,) * 8),
                exercises.Case(16, (400,) * 8),
                "in a prefill the GPU is busy for long and the idle time of a step weighs little",
            ),
            "the larger batch": (
                exercises.Case(100, (200,) * 256),
                exercises.Case(100, (200,)),
                "its steps take the GPU longer, and the idle time is the same",
            ),
            "the even answers": (
                exercises.Case(100, (200,) * 4),
                exercises.Case(100, (50, 50, 50, 650)),
                "an uneven static batch runs on for one request",
            ),
        }
        for name, (near, far, why) in ends.items():
            for cases in ([near, far], [far, near]):
                case, ratio = exercises.closest(exercises.QWEN_7B, exercises.H100, cases, 0.08, 0.004)
                assert case == near, f"closest should choose {name}: {why}. Yours chooses {case}."
            alone = exercises.closest(exercises.QWEN_7B, exercises.H100, [near], 0.08, 0.004)[1]
            expect("The ratio from closest", ratio, alone, "the one of the case it chose")
            assert ratio > 1, f"closest gives a ratio of {ratio:.3g}, but vLLM idles less: is Transformers above the line?"
            other = exercises.closest(exercises.QWEN_7B, exercises.H100, [far], 0.08, 0.004)[1]
            assert other > ratio * 1.05, f"{name} should have a clearly smaller ratio than its counterpart: {why}."


def as_rows(requests) -> list[tuple[float, float, bool]]:
    return sorted((float(r.sent_s), round(float(r.latency_s), 9), bool(r.in_time)) for r in requests)


def loop(exercises, *arguments, **options):
    """The requests of closed_loop. Says so if it gives something else."""
    requests = exercises.closed_loop(*arguments, **options)
    assert isinstance(requests, list) and all(isinstance(r, exercises.Request) for r in requests), (
        f"closed_loop should return a list of Request; yours returns {str(requests)[:80]}."
    )
    return requests


class TestQueue:
    """2. The day the naive server falls over"""

    def test_one_user_never_waits(self, exercises):
        expect(
            "closed_loop(users=1, answer_s=2, deadline_s=10, window_s=5), as (sent, latency, in time),",
            as_rows(loop(exercises, 1, 2, 10, 5)),
            [(0, 2, True), (2, 2, True), (4, 2, True)],
            "one request after the other, and the one sent at 4 s is waited for",
            {"the last request is dropped at the end of the window": [(0, 2, True), (2, 2, True)]},
        )

    def test_nobody_sends_when_the_window_is_over(self, exercises):
        expect(
            "closed_loop(users=1, answer_s=2, deadline_s=10, window_s=4)",
            as_rows(loop(exercises, 1, 2, 10, 4)),
            [(0, 2, True), (2, 2, True)],
            "as 4 s is not before the end of the window",
            {"a request is sent at the very end of the window": [(0, 2, True), (2, 2, True), (4, 2, True)]},
        )

    def test_users_wait_for_each_other(self, exercises):
        # A is served 0 to 2, B 2 to 4, C 4 to 6; A's second request, sent at 2, is served 6 to 8, and so on.
        expect(
            "closed_loop(users=3, answer_s=2, deadline_s=10, window_s=4)",
            as_rows(loop(exercises, 3, 2, 10, 4)),
            [(0, 2, True), (0, 4, True), (0, 6, True), (2, 6, True)],
            "since the server answers at 2, 4, 6 and 8 s",
            {"requests are answered side by side": [(0, 2, True)] * 3 + [(2, 2, True)] * 3},
        )

    def test_a_latency_of_exactly_the_deadline_is_in_time(self, exercises):
        requests = loop(exercises, 5, 2, 10, 40)
        late = [r for r in requests if not r.in_time]
        assert not late, (
            f"5 users of a server that needs 2 s wait 10 s each, and with a deadline of 10 s all are in time. With yours "
            f"{len(late)} of {len(requests)} requests fail."
        )

    def test_the_server_works_for_users_who_have_gone(self, exercises):
        # A 0 to 2, B 2 to 4, C 4 to 6 (has gone at 5), A again 6 to 8 (gone at 7), B again 8 to 10 (gone at 9),
        # C again, sent at 5, 10 to 12 (gone at 10), A for the third time, sent at 7, 12 to 14 (gone at 12).
        first = [(0, 2, True), (0, 4, True), (0, 5, False), (2, 5, False), (4, 5, False), (5, 5, False)]
        wanted, dropped = [*first, (7, 5, False)], [*first, (7, 5, True)]
        expect(
            "closed_loop(users=3, answer_s=2, deadline_s=5, window_s=9)",
            as_rows(loop(exercises, 3, 2, 5, 9)),
            wanted,
            "as the server also works for 2 s on the request of a user who is about to go or has gone",
            {"the server drops requests of users who have gone; that is for notices=True": dropped},
        )
        expect(
            "closed_loop(users=3, answer_s=2, deadline_s=5, window_s=9, notices=True)",
            as_rows(loop(exercises, 3, 2, 5, 9, notices=True)),
            dropped,
            "as at 10 s the server drops the request sent at 5, whose user goes at that moment, and takes the one sent at 7",
            {"the request whose user goes at the moment of its turn is not dropped": wanted},
        )

    def test_with_twenty_users_it_collapses(self, exercises):
        completed = sum(r.in_time for r in loop(exercises, 20, 2, 10, 100))
        assert completed == 5, (
            "20 users, 2 s an answer, 10 s of patience, 100 s: only the first 5 answers are in time, and then none ever "
            f"again, as the queue is full of requests whose users have gone. With yours {completed} are in time."
        )

    def test_a_server_that_notices_keeps_answering(self, exercises):
        requests = loop(exercises, 20, 2, 10, 100, notices=True)
        completed = sum(r.in_time and r.sent_s + r.latency_s <= 100 for r in requests)
        assert completed == 50, (
            "The same with notices=True: the server never works in vain, so all of the 50 answers that it can make in the "
            f"100 s are in time. With yours {completed} are."
        )

    def test_littles_law(self, exercises):
        """Requests under way = rate × time in the system; in a closed loop that is the number of users, always."""
        draw = random.Random(0)
        for _ in range(20):
            users, answer_s, deadline_s = draw.randint(1, 12), draw.choice([0.5, 1, 3]), draw.choice([2, 5, 20])
            notices = draw.random() < 0.5
            call = f"closed_loop({users}, {answer_s}, {deadline_s}, 30, notices={notices})"
            requests = loop(exercises, users, answer_s, deadline_s, 30, notices=notices)
            for moment in (0.1, 7.7, 15.3, 29.9):
                open_now = sum(r.sent_s <= moment < r.sent_s + r.latency_s for r in requests)
                assert open_now == users, (
                    f"In {call} there should be {users} requests under way at {moment} s, one for each user, as each sends the "
                    f"next when it is done with the last. In yours there are {open_now}."
                )
            for r in requests:
                assert r.latency_s <= deadline_s + 1e-9, f"In {call} a user waits {r.latency_s} s, longer than the deadline."
                assert r.in_time or close(r.latency_s, deadline_s), f"In {call} a user gives up before the deadline."
            sent = [r.sent_s for r in requests]
            assert sent == sorted(sent), f"{call} should return the requests in the order in which they were sent."

    def test_summary(self, exercises):
        requests = [exercises.Request(0.0, float(latency), True) for latency in (1, 2, 3)]
        requests += [exercises.Request(0.0, 10.0, False)]
        got = exercises.summary(requests)
        assert isinstance(got, exercises.Summary), f"summary should return a Summary; yours returns {got!r}."
        call = "summary of three answers after 1, 2 and 3 s and one that failed at 10 s: "
        expect(call + "completed", got.completed, 3)
        expect(call + "failed", got.failed, 1)
        expect(call + "p50_s", got.p50_s, 2.5, "", {"your percentile leaves the failed request out": 2.0})
        expect(
            call + "p99_s",
            got.p99_s,
            9.79,
            "",
            {
                "your percentile leaves the failed request out": 2.98,
                "you take the largest": 10.0,
                "you pass 0.99 where percentile takes 99": 1.0297,
            },
        )


class TestCost:
    """3. What a token costs"""

    def test_dollars_per_million(self, exercises):
        expect(
            "usd_per_million_tokens(3.6, 1000)",
            exercises.usd_per_million_tokens(3.6, 1000),
            1.0,
            "as 3.60 dollars buy 3,600,000 tokens",
            {
                "the hour's 3,600 seconds are missing": 3600.0,
                "that is the price of a single token": 1e-6,
                "that is millions of tokens per dollar, not of tokens": 3.6e-6,
            },
        )

    def test_a_gpu_that_is_idle_half_the_time_costs_twice_as_much(self, exercises):
        expect(
            "usd_per_million_tokens(3.6, 1000, utilisation=0.5)",
            exercises.usd_per_million_tokens(3.6, 1000, utilisation=0.5),
            2.0,
            "as half the tokens cost the same hour",
            {"you multiply by the utilisation instead of dividing": 0.5, "utilisation is not used": 1.0},
        )

    def test_break_even(self, exercises):
        expect(
            "break_even_utilisation(3.6, 1000, api_usd_per_million=4)",
            exercises.break_even_utilisation(3.6, 1000, 4.0),
            0.25,
            "as a full GPU makes a million for 1 dollar, a quarter of the API's price",
            {"the fraction is upside down": 4.0},
        )
        never = exercises.break_even_utilisation(3.6, 1000, 0.5)
        assert never is None, (
            "break_even_utilisation(3.6, 1000, api_usd_per_million=0.5) should be None: even the full GPU costs 1 dollar a "
            f"million. Yours returns {never}."
        )
        expect(
            "break_even_utilisation(3.6, 1000, api_usd_per_million=1)", exercises.break_even_utilisation(3.6, 1000, 1.0), 1.0
        )

    def test_the_break_even_is_where_both_cost_the_same(self, exercises):
        share = exercises.break_even_utilisation(2.99, 7911, 0.4)
        expect(
            "At the break-even of a 2.99 dollar GPU with 7,911 tokens/s, a million tokens",
            exercises.usd_per_million_tokens(2.99, 7911, share),
            0.4,
            "the API's price",
        )

    def test_a_day(self, exercises):
        # One GPU makes 3.6 million tokens an hour. Eight hours need 9 million (3 GPUs), eight 3.6 (1), eight none.
        day = [9e6] * 8 + [3.6e6] * 8 + [0.0] * 8
        bill = exercises.daily_bill(day, price_per_hour=2.0, tok_s=1000, api_usd_per_million=1.5)
        assert isinstance(bill, exercises.Bill), f"daily_bill should return a Bill; yours returns {bill!r}."
        call = "daily_bill for 8 hours of 9 million tokens, 8 of 3.6 million and 8 of none, at 3.6 million a GPU-hour: "
        expect(
            call + "gpus", bill.gpus, 3, "2.5 rounded up", {"you round down": 2, "GPUs are not whole": 2.5, "you take the mean": 2}
        )
        expect(
            call + "utilisation",
            bill.utilisation,
            100.8 / 259.2,
            "100.8 of the 259.2 million tokens that 3 GPUs could make in 24 hours",
            {"you divide by what one GPU could make": 100.8 / 86.4, "idle hours are left out": 100.8 / 172.8},
        )
        expect(call + "always_on_usd", bill.always_on_usd, 144.0, "3 GPUs × 24 hours × 2 dollars", {"idle hours are free": 96.0})
        expect(
            call + "by_the_hour_usd",
            bill.by_the_hour_usd,
            64.0,
            "(8 × 3 + 8 × 1) GPU-hours × 2 dollars",
            {"parts of a GPU are rented": 56.0, "an hour without tokens still has a GPU": 80.0},
        )
        expect(call + "api_usd", bill.api_usd, 151.2, "100.8 million × 1.50 dollars")
        exact = exercises.daily_bill([3.6e6] * 24, 2.0, 1000, 1.5)
        expect("gpus for hours that fill one GPU exactly", exact.gpus, 1, "", {"a full GPU gets a second one": 2})
        assert math.isclose(exact.utilisation, 1.0), "A GPU that makes all it can all day has a utilisation of 1."
