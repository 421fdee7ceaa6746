"""4. What holds this run up"""

from common.check import expect

# 10 GB of weights, 100 kB a token, 1 TB/s and 100 TFLOP/s: a step of one token reads for 10 ms and computes for 0.1.
MACHINE = {
    "parameters": 5e9,
    "weight_bytes": 10e9,
    "kv_bytes_per_token": 1e5,
    "bandwidth_bytes_s": 1e12,
    "flop_s": 1e14,
}


def sample(exercises, seconds=1.0, steps=0, new_tokens=0, cached_tokens=0, waiting=0, kv_use=0.3, util=98.0):
    return exercises.Sample(seconds, steps, new_tokens, cached_tokens, waiting, kv_use, util)


def machine(exercises):
    return exercises.Machine(**MACHINE)


def test_shares_of_decode(exercises):
    got = exercises.shares([sample(exercises, steps=60, new_tokens=600, cached_tokens=1_000_000)], machine(exercises))
    expect(
        "shares of a second with 60 steps, 600 new tokens and a million cached tokens read, on a machine that reads "
        "its 10 GB of weights in 10 ms, a cached token in 0.1 µs, and computes a token in 0.1 ms,",
        got,
        (0.7, 0.06),
        "60 × 10 ms + 1,000,000 × 0.1 µs of reading; 600 × 0.1 ms of arithmetic",
        {
            "the weights are read for each token instead of each step": (6.1, 0.06),
            "the cached tokens are not read": (0.6, 0.06),
            "a token costs one operation for each parameter": (0.7, 0.03),
            "the two shares are the other way round": (0.06, 0.7),
            "these are percentages, not shares": (70.0, 6.0),
        },
    )


def test_shares_of_prefill(exercises):
    got = exercises.shares([sample(exercises, seconds=2.0, steps=4, new_tokens=16_000)], machine(exercises))
    expect(
        "shares of 2 seconds with 4 steps and 16,000 new tokens",
        got,
        (0.02, 0.8),
        "4 × 10 ms and 16,000 × 0.1 ms, over 2 s",
        {"the seconds are not used": (0.04, 1.6)},
    )


def test_shares_of_samples_that_are_not_equally_long(exercises):
    samples = [sample(exercises, seconds=1.0, steps=80, new_tokens=80), sample(exercises, seconds=3.0)]
    expect(
        "shares of a busy second and three idle ones",
        exercises.shares(samples, machine(exercises)),
        (0.2, 0.002),
        "0.8 s of reading in 4 s",
        {"you take the mean of the samples, but one of them is three times as long": (0.4, 0.004)},
    )


def named(exercises, samples, wanted: str, what: str, why: str) -> None:
    got = exercises.bottleneck(samples, machine(exercises))
    mistakes = (
        {"the utilisation decides in yours: it is 98 % in all of these": "compute"} if wanted == "overhead" else {}
    )
    expect(f"bottleneck of {what}", got, wanted, why, mistakes)


def test_the_three_kinds(exercises):
    named(
        exercises,
        [sample(exercises, steps=60, new_tokens=600)],
        "memory",
        "60 decode steps a second with 10 requests each",
        "reading takes 0.6 of the time, arithmetic 0.06",
    )
    named(
        exercises,
        [sample(exercises, steps=2, new_tokens=7000)],
        "compute",
        "2 prefills a second of 3,500 tokens each",
        "arithmetic takes 0.7 of the time, reading 0.02",
    )
    named(
        exercises,
        [sample(exercises, steps=20, new_tokens=20, util=99.0)],
        "overhead",
        "20 decode steps a second for one request",
        "reading takes 0.2 of the time and arithmetic less: the rest goes elsewhere, whatever the utilisation says",
    )


def test_at_the_limits_of_the_rule(exercises):
    named(exercises, [sample(exercises, steps=50)], "memory", "reading for exactly half of the time", "0.5 is enough")
    named(exercises, [sample(exercises, steps=49)], "overhead", "reading for 0.49 of the time", "0.5 is not reached")
    named(
        exercises,
        [sample(exercises, steps=60, new_tokens=6000)],
        "memory",
        "reading and arithmetic that both take 0.6 of the time",
        "if they are equal, memory",
    )


def test_capacity_goes_before_the_others(exercises):
    full = {"steps": 60, "new_tokens": 600, "waiting": 5, "kv_use": 0.99}
    free = full | {"kv_use": 0.6}
    for samples, wanted, what, why in (
        ([full, full, free], "capacity", "two full samples of three", "more than half are full, and requests wait"),
        ([full, free], "memory", "one full sample of two", "half is not more than half"),
        ([full | {"waiting": 0}] * 3, "memory", "a full KV cache that nobody waits for", "nobody waits"),
        ([free] * 3, "memory", "requests that wait while the KV cache has room", "the cache is not what they wait for"),
        ([full | {"kv_use": 0.95}] * 3, "capacity", "a KV cache that is 0.95 full", "0.95 is enough"),
        ([full | {"steps": 5, "new_tokens": 5}] * 3, "capacity", "a full cache and few steps", "capacity comes first"),
    ):
        named(exercises, [sample(exercises, **each) for each in samples], wanted, what, why)
