"""3. What is wasted"""

import statistics

from common import estimator, lengths
from common.check import expect
from common.shapes import SHAPES


def mix(exercises, *pairs: tuple[int, int]) -> list:
    return [exercises.Request(*pair) for pair in pairs]


def trace(exercises, count: int) -> list:
    sampled = lengths.sample(count)
    return [exercises.Request(request.input_tokens, request.output_tokens) for request in sampled]


def test_pieces(exercises):
    for pairs, limit, wasted, why in (
        ([(100, 101)], 400, 0.5, "200 of 400 slots are full"),
        ([(100, 101), (300, 101)], 400, 0.25, "200 and 400 of 800 slots are full"),
        ([(399, 2)], 400, 0.0, "the last token of the answer needs no slot, so 400 are full"),
        ([(1, 1)], 2048, 2047 / 2048, "one slot of 2,048 is full"),
    ):
        used = sum(a + b for a, b in pairs)
        mistakes = {
            "the last token of each answer has a slot in yours": 1 - used / (len(pairs) * limit),
            "that is the share that is full": 1 - wasted,
            "yours is a percentage": 100 * wasted,
        }
        mistakes = {mistake: share for mistake, share in mistakes.items() if abs(share - wasted) > 1e-9}
        call = f"wasted_in_pieces of requests of {pairs} tokens, max_model_len {limit}"
        expect(call, exercises.wasted_in_pieces(mix(exercises, *pairs), limit), wasted, why, mistakes)


def test_blocks(exercises):
    for pairs, size, wasted, why in (
        ([(200, 101)], 16, 4 / 304, "300 tokens in 19 blocks of 16 leave 4 slots empty"),
        ([(100, 301)], 16, 0.0, "400 tokens are 25 blocks"),
        ([(1, 1), (1, 1)], 16, 30 / 32, "two blocks with one token each"),
        ([(10, 1), (5, 2)], 8, 8 / 24, "10 tokens in two blocks and 6 in one"),
    ):
        used, slots = sum(a + b - 1 for a, b in pairs), -(-sum(a + b - 1 for a, b in pairs) // size) * size
        mistakes = {
            "all requests share their last block in yours": 1 - used / slots,
            "yours is a percentage": 100 * wasted,
        }
        mistakes = {mistake: share for mistake, share in mistakes.items() if abs(share - wasted) > 1e-9}
        call = f"wasted_in_blocks of requests of {pairs} tokens, blocks of {size}"
        expect(call, exercises.wasted_in_blocks(mix(exercises, *pairs), size), wasted, why, mistakes)


def test_half_a_block_on_average(exercises):
    requests = trace(exercises, 2000)
    kept = statistics.mean(request.input_tokens + request.output_tokens - 1 for request in requests)
    for size in (16, 128):
        wasted = exercises.wasted_in_blocks(requests, size)
        expected = (size - 1) / 2 / (kept + (size - 1) / 2)
        assert abs(wasted - expected) < expected / 10, (
            f"Of 2,000 requests of a chat trace blocks of {size} should waste (size - 1) / 2 slots each, or about "
            f"{expected:.4f} of all slots. Yours says {wasted:.4f}."
        )


def test_fitting(exercises):
    requests = mix(exercises, *[(100, 101)] * 20)
    for kv_bytes, limit, size, wanted, why in (
        (
            10 * 16_000,
            400,
            10,
            (4, 7),
            "1,600 slots: 4 pieces of 400; 159 blocks beside vLLM's own, 20 for each request",
        ),
        (10 * 16_000, 1601, 10, (0, 7), "no piece of 1,601 fits 1,600 slots"),
        (10 * 16_100, 400, 10, (4, 8), "161 blocks are 160 beside vLLM's own, just what 8 requests need"),
        (10 * 16_099, 400, 10, (4, 7), "a block that is not whole is none"),
        (10 * 160_000, 400, 10, (20, 20), "there are only 20 requests"),
    ):
        got = exercises.fitting(requests, kv_bytes, 100, limit, size)
        pieces, blocks = wanted
        mistakes = {
            "vLLM's own block is given away too": (pieces, min(20, kv_bytes // 100 // size // 20)),
            "blocks come before pieces in yours": (blocks, pieces),
        }
        mistakes = {mistake: answer for mistake, answer in mistakes.items() if answer != wanted}
        call = (
            f"fitting of 20 requests of 100 + 101 tokens in {kv_bytes:,} bytes at 100 a token, max_model_len {limit}, "
        )
        expect(call + f"blocks of {size}", got, wanted, why, mistakes)


def test_requests_are_taken_in_order(exercises):
    requests = mix(exercises, (10, 1), (1000, 1), (10, 1))
    got = exercises.fitting(requests, 64 * 100, 100, 1001, 8)
    expect("fitting of requests of 10, 1,000 and 10 tokens in 64 slots, max_model_len 1,001, blocks of 8", got, (0, 1),
           "in blocks the second does not fit, and with it the counting ends",
           {"a request that does not fit is skipped in yours": (0, 2)})  # fmt: skip


def test_two_published_models(exercises):
    requests = trace(exercises, 400)
    for shape, wanted in (("llama-2-7b", (14, 29)), ("qwen2.5-7b", (136, 286))):
        token_bytes = estimator.kv_bytes_per_token(SHAPES[shape])
        got = exercises.fitting(requests, 16 * 10**9, token_bytes, 2048, 16)
        expect(f"fitting of 400 requests of a chat trace in 16 GB with {shape}", got, wanted,
               f"{token_bytes:,} bytes a token")  # fmt: skip
