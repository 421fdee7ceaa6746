"""3. What a token costs"""

import math

from common.check import expect


def test_dollars_per_million(exercises):
    expect(
        "usd_per_million_tokens(3.6, 1000)",
        exercises.usd_per_million_tokens(3.6, 1000),
        1.0,
        "3.60 dollars buy 3,600,000 tokens",
        {
            "the hour's 3,600 seconds are missing": 3600.0,
            "that is the price of a single token": 1e-6,
            "that is millions of tokens per dollar, not of tokens": 3.6e-6,
        },
    )


def test_a_gpu_that_is_idle_half_the_time_costs_twice_as_much(exercises):
    expect(
        "usd_per_million_tokens(3.6, 1000, utilisation=0.5)",
        exercises.usd_per_million_tokens(3.6, 1000, utilisation=0.5),
        2.0,
        "half the tokens cost the same hour",
        {"you multiply by the utilisation instead of dividing": 0.5, "utilisation is not used": 1.0},
    )


def test_break_even(exercises):
    expect(
        "break_even_utilisation(3.6, 1000, api_usd_per_million=4)",
        exercises.break_even_utilisation(3.6, 1000, 4.0),
        0.25,
        "a full GPU makes a million for 1 dollar, a quarter of the API's price",
        {"the fraction is upside down": 4.0},
    )
    never = exercises.break_even_utilisation(3.6, 1000, 0.5)
    assert never is None, (
        "break_even_utilisation(3.6, 1000, api_usd_per_million=0.5) should be None: even the full GPU costs 1 dollar a "
        f"million. Yours returns {never}."
    )
    expect(
        "break_even_utilisation(3.6, 1000, api_usd_per_million=1)",
        exercises.break_even_utilisation(3.6, 1000, 1.0),
        1.0,
    )


def test_the_break_even_is_where_both_cost_the_same(exercises):
    share = exercises.break_even_utilisation(2.99, 7911, 0.4)
    expect(
        "usd_per_million_tokens of a GPU at 2.99 dollars and 7,911 tokens/s, at its break-even with an API at 0.40,",
        exercises.usd_per_million_tokens(2.99, 7911, share),
        0.4,
        "the API's price",
    )


def test_a_day(exercises):
    # One GPU makes 3.6 million tokens an hour. Eight hours need 9 million (3 GPUs), eight 3.6 (1), eight none.
    day = [9e6] * 8 + [3.6e6] * 8 + [0.0] * 8
    bill = exercises.daily_bill(day, price_per_hour=2.0, tok_s=1000, api_usd_per_million=1.5)
    assert isinstance(bill, exercises.Bill), f"daily_bill should return a Bill; yours returns {bill!r}."
    call = "daily_bill for 8 hours of 9 million tokens, 8 of 3.6 million and 8 of none, at 3.6 million a GPU-hour: "
    expect(
        call + "gpus",
        bill.gpus,
        3,
        "2.5 rounded up",
        {"you round down": 2, "GPUs are not whole": 2.5, "you take the mean": 2},
    )
    expect(
        call + "utilisation",
        bill.utilisation,
        100.8 / 259.2,
        "100.8 of the 259.2 million tokens that 3 GPUs could make in 24 hours",
        {"you divide by what one GPU could make": 100.8 / 86.4, "idle hours are left out": 100.8 / 172.8},
    )
    expect(
        call + "always_on_usd",
        bill.always_on_usd,
        144.0,
        "3 GPUs × 24 hours × 2 dollars",
        {"idle hours are free": 96.0},
    )
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
