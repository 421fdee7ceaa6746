"""1. The headline with your own lengths"""

from common.check import expect


def test_ratios_at_equal_batch_and_the_talks_ratio(exercises):
    rows = [
        exercises.Row("transformers", 1, 200, 20.0),  # 10 tokens/s
        exercises.Row("transformers", 32, 200, 32.0),  # 200
        exercises.Row("vllm", 1, 200, 2.0),  # 100
        exercises.Row("vllm", 32, 200, 4.0),  # 1,600
        exercises.Row("vllm", 256, 200, 12.8),  # 4,000, the best
    ]
    answer = exercises.measured_ratios(rows)
    assert isinstance(answer, tuple) and len(answer) == 2, (
        f"measured_ratios should return a dict and a number; yours returns {answer!r}."
    )
    equal, talk = answer
    expect(
        "The dict from measured_ratios for Transformers at 10 (batch 1) and 200 tokens/s (batch 32), "
        "vLLM at 100, 1,600 and 4,000 (batch 256)",
        equal,
        {1: 10.0, 32: 8.0},
        "for the two batch sizes that both engines ran",
        {
            "Transformers' rate is divided by vLLM's": {1: 0.1, 32: 0.125},
        },
    )
    expect(
        "The second value of measured_ratios for Transformers at 10 and 200 tokens/s and vLLM at 100, 1,600 and 4,000",
        talk,
        400.0,
        "vLLM's 4,000 tokens/s over Transformers' 10",
        {
            "you count the tokens of one request of the batch": 100.0 / 6.25,
            "you take the best ratio at equal batch": 10.0,
            "you divide by Transformers' best row, which no talk would": 20.0,
        },
    )


def test_a_small_step_waits_for_the_memory(exercises):
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


def test_a_large_step_waits_for_the_arithmetic(exercises):
    model, gpu = exercises.Model(1e9, 1000), exercises.Gpu(1e12, 100e12)
    expect(
        "step_seconds of a model with 1e9 parameters, at 1 TB/s and 100 TFLOP/s, for 1,000 new tokens, an empty cache "
        "and 1 ms idle",
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


def test_a_batch_of_uneven_answers(exercises):
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
        "predicted_tok_s for answers of 2 and 10 tokens at 2 ms a step, not static",
        rates[False],
        12 / 0.012,
        "12 tokens in one prefill and 5 decode steps, as the mean length is 6",
        {
            "you take the longest answer, which is for the static batch": 12 / 0.020,
            "the prefill's token is computed again in a decode step": 12 / 0.014,
        },
    )


def test_prompts_are_computed_once_and_read_at_every_step(exercises):
    model, gpu = exercises.Model(1e6, 1e6), exercises.Gpu(1e9, 1e9)
    case = exercises.Case(100, (11, 11))
    # prefill 2 × 1e6 × 200 / 1e9 = 0.4 s; decode (2e6 + 2 × 105.5 × 1e6) / 1e9 = 0.213 s, ten times; idle 11 × 0.01 s
    expect(
        "predicted_tok_s for two requests of 100 tokens in and 11 out, 1e6 parameters, 1e6 KV bytes a token, 1e9 "
        "bytes/s, 1e9 FLOP/s and 10 ms idle",
        exercises.predicted_tok_s(model, gpu, case, 0.01, True),
        22 / 2.64,
        "22 tokens in a prefill of 0.4 s, 10 decode steps of 0.213 s that read 2 × 105.5 cached tokens, "
        "and 11 × 0.01 s idle",
        {
            "the prefill is of one prompt only": 22 / (0.202 + 10 * 0.223 + 0.01),
            "a decode step reads the cache of one request only": 22 / (0.41 + 10 * (0.1075 + 0.01)),
            "a decode step reads the prompt but none of the answer": 22 / (0.41 + 10 * (0.202 + 0.01)),
            "a decode step reads the whole answer, also what is not there yet": 22 / (0.41 + 10 * (0.224 + 0.01)),
        },
    )


def test_equal_answers_and_equal_idle_time_leave_no_difference(exercises):
    case = exercises.Case(100, (200,) * 8)
    found = exercises.closest(exercises.QWEN_7B, exercises.H100, [case], 0.002, 0.002)
    assert isinstance(found, tuple) and len(found) == 2, f"closest should return a Case and a number, not {found!r}."
    expect(
        "The ratio from closest for equal answers and the same idle time on both sides",
        found[1],
        1.0,
        "this model knows of no other difference between the engines",
    )


def test_which_case_is_closest(exercises):
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
