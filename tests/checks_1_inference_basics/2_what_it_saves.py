"""2. What it saves"""

from common.check import expect


class FakeProgram:
    """A program whose time is known: `prompt_ms` for the prompt, `token_ms` for each token after the first.

    The first call of each length is slow, as first calls are. `noise` is added to the runs of more than one token, in
    turn; the clock stands still otherwise.
    """

    def __init__(self, prompt_ms: float = 40.0, noise: tuple[float, ...] = (0.0,)):
        self.prompt_ms, self.noise, self.now, self.calls = prompt_ms, noise, 0.0, []

    def token_ms(self, length: int) -> float:
        return 5 + length / 100

    def __call__(self, length: int, tokens: int) -> None:
        first = all(earlier != length for earlier, _ in self.calls)
        long = sum(count > 1 and earlier == length for earlier, count in self.calls)
        self.calls.append((length, tokens))
        ms = self.prompt_ms + (tokens - 1) * self.token_ms(length) + 1000 * first
        if tokens > 1:
            ms += self.noise[long % len(self.noise)]
        self.now += ms / 1e3

    def clock(self) -> float:
        return self.now


def test_the_prompt_and_the_first_call_do_not_count(exercises):
    program = FakeProgram()
    got = exercises.ms_per_token(program, [100, 400], 10, program.clock)
    expect(
        "ms_per_token of a program that takes 40 ms for a prompt, 6 ms for a token after 100 and 9 after 400, and a "
        "second more in its first call of each length,",
        got,
        {100: 6.0, 400: 9.0},
        "(time of 11 tokens less time of 1) over 10",
        {
            "these are seconds": {100: 0.006, 400: 0.009},
            "the prompt is in it": {100: 10.0, 400: 13.0},
            "you divide by the tokens of the longer run": {100: 60 / 11, 400: 90 / 11},
            "you divide by nothing: that is the time of all 10 tokens": {100: 60.0, 400: 90.0},
            "the first call counts": {100: 106.0, 400: 109.0},
        },
    )


def test_it_is_the_median(exercises):
    # Of the long runs of a length the first is the warm-up, then come the repeats.
    program = FakeProgram(noise=(0.0, 90.0, 0.0, 10.0))
    got = exercises.ms_per_token(program, [100], 10, program.clock)
    expect(
        "ms_per_token where three runs of 11 tokens take 90, 0 and 10 ms more than they should",
        got,
        {100: 7.0},
        "the middle one of 15, 6 and 7 ms",
        {"you take the mean": {100: 6 + 10 / 3}, "you take the fastest": {100: 6.0}, "you take the last": {100: 7.0}},
    )
    program = FakeProgram(noise=(0.0, 10.0, 90.0, 0.0, 20.0, 70.0))
    got = exercises.ms_per_token(program, [100], 10, program.clock, repeats=5)
    expect("ms_per_token with 5 repeats that take 10, 90, 0, 20 and 70 ms more", got, {100: 8.0}, "the middle one")


def test_only_the_calls_that_were_asked_for(exercises):
    program = FakeProgram()
    exercises.ms_per_token(program, [64], 8, program.clock, repeats=2)
    expect(
        "ms_per_token(run, [64], 8, clock, repeats=2): the calls of run, sorted",
        sorted(program.calls),
        sorted([(64, 9)] * 3 + [(64, 1)] * 2),
        "one to warm up, then a long and a short one for each repeat",
        {
            "there is no warm-up": sorted([(64, 9)] * 2 + [(64, 1)] * 2),
            "you run 8 tokens where it takes 9 to have 8 after the first": sorted([(64, 8)] * 3 + [(64, 1)] * 2),
        },
    )


def test_worth_it(exercises):
    cached = {64: 6.0, 256: 6.0, 1024: 8.0}
    for without, wanted, why in (
        ({64: 9.0, 256: 12.0, 1024: 90.0}, 256, "12 is just twice 6, and at 1,024 it is more"),
        ({64: 30.0, 256: 7.0, 1024: 90.0}, 1024, "at 256 it does not hold, so the point at 64 does not count"),
        ({64: 30.0, 256: 30.0, 1024: 90.0}, 64, "it holds everywhere"),
        ({64: 30.0, 256: 30.0, 1024: 9.0}, None, "it does not hold at the longest"),
    ):
        expect(
            f"worth_it_from({cached}, {without})",
            exercises.worth_it_from(cached, without),
            wanted,
            why,
            {
                "any length at which it holds is enough for yours": next(
                    n for n in cached if without[n] >= 2 * cached[n]
                )
            },
        )


def test_worth_it_in_any_order_and_by_any_factor(exercises):
    cached, without = {256: 6.0, 1024: 8.0, 64: 6.0}, {64: 9.0, 256: 12.0, 1024: 90.0}
    expect(
        "worth_it_from of the same lengths in another order",
        exercises.worth_it_from(cached, without),
        256,
        "the order of a dict says nothing about length",
    )
    got = exercises.worth_it_from(cached, without, factor=1.5)
    expect("worth_it_from with factor=1.5", got, 64, "9 is 1.5 times 6", {"factor is not used": 256})
    got = exercises.worth_it_from(cached, without, factor=5.0)
    expect("worth_it_from with factor=5", got, 1024, "90 is more than 5 times 8", {"factor is not used": 256})
