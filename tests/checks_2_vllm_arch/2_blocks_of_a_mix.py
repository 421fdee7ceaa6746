"""2. The blocks of a mix"""

import random

from common.check import expect


def together(
    exercises, prompts: list[list[int]], outputs: list[int], size: int, wanted: int, why: str, **mistakes
) -> None:
    named = {mistake.replace("_", " "): answer for mistake, answer in mistakes.items()}
    shown = [f"{len(prompt)} tokens from {prompt[0]}" for prompt in prompts]
    call = f"blocks_together of prompts of {', '.join(shown)}, answers of {outputs}, blocks of {size}"
    expect(call, exercises.blocks_together(prompts, outputs, size), wanted, why, named)


def test_one_request(exercises):
    for prompt, answer, size, blocks, why in (
        (100, 300, 16, 25, "399 tokens have a key and a value, and 25 blocks hold 400"),
        (8, 1, 4, 2, "the only token of the answer gets no slot"),
        (8, 2, 4, 3, "one token of the answer is fed back, and two blocks are full already"),
        (1, 1, 16, 1, "one token in one block"),
        (1, 16, 16, 1, "16 tokens are kept"),
        (1, 17, 16, 2, "17 tokens are kept"),
    ):
        total = prompt + answer
        mistakes = {
            "the last token of the answer gets a slot in yours": -(-total // size),
            "prompt and answer have blocks of their own in yours": -(-prompt // size) + -(-answer // size),
            "you round down": (total - 1) // size,
        }
        mistakes = {mistake: count for mistake, count in mistakes.items() if count != blocks}
        expect(
            f"blocks_alone({prompt}, {answer}, {size})",
            exercises.blocks_alone(prompt, answer, size),
            blocks,
            why,
            mistakes,
        )


def test_block_sizes(exercises):
    for size, blocks in ((8, 50), (16, 25), (32, 13), (64, 7), (128, 4), (256, 2)):
        expect(f"blocks_alone(100, 300, {size})", exercises.blocks_alone(100, 300, size), blocks)


def test_nothing_in_common(exercises):
    together(exercises, [[1] * 10, [2] * 10], [7, 1], 4, 7, "16 tokens in 4 blocks and 10 in 3")
    together(exercises, [[1] * 10], [7], 4, 4, "16 tokens in 4 blocks")
    together(exercises, [], [], 4, 0, "there is no request")


def test_a_common_beginning(exercises):
    prefix = list(range(10))
    prompts = [[*prefix, 91], [*prefix, 92], [*prefix, 93]]
    together(exercises, prompts, [6, 6, 6], 4, 8, "16 tokens each, and the first two blocks are the same for all three",
             nothing_is_shared=12, a_block_that_is_not_full_is_shared_too=6)  # fmt: skip
    together(exercises, prompts, [6, 6, 6], 2, 14, "five blocks of two tokens are common, three are each one's own",
             nothing_is_shared=24)  # fmt: skip
    together(exercises, prompts, [6, 6, 6], 16, 3, "the common part does not fill a block")


def test_the_block_with_the_last_prompt_token_is_always_its_own(exercises):
    prompt = list(range(8))
    together(exercises, [prompt, prompt], [1, 1], 4, 3, "the second request computes the last token of its prompt, and "
             "with it the block that it is in", all_of_an_equal_prompt_is_shared=2)  # fmt: skip
    longer = [*prompt, 90]
    together(exercises, [prompt, longer], [1, 1], 4, 3, "the longer prompt finds both blocks of the shorter",
             a_prompt_that_fills_its_blocks_leaves_the_last_one_unknown=4)  # fmt: skip
    together(exercises, [longer, prompt], [1, 1], 4, 4, "in this order the shorter one computes its last block again",
             the_order_of_the_requests_makes_no_difference_in_yours=3)  # fmt: skip


def test_equal_tokens_after_different_ones_are_another_block(exercises):
    same = list(range(50, 54))
    together(exercises, [[1, 1, 1, 1, *same, 9], [2, 2, 2, 2, *same, 9]], [1, 1], 4, 6,
             "the second blocks have the same tokens after different first blocks",
             blocks_are_compared_without_what_comes_before_them=4)  # fmt: skip
    together(exercises, [[1, 1, 1, 1, *same, 9], [*same, 9]], [1, 1], 4, 5, "there the block is the first one")


def test_a_tree_of_prompts(exercises):
    system, few_shot = [1] * 32, [2] * 24
    prompts = [[*system, 7, 7, 7], [*system, *few_shot, 8], [*system, *few_shot, 9, 9], [*system, *few_shot, 9, 9, 3]]
    together(exercises, prompts, [10, 10, 10, 10], 8, 4 + 2 + 3 + 2 + 2 + 2,
             "the first 32 tokens once, the next 24 once, and the end of each")  # fmt: skip


def test_random_mixes(exercises):
    draw = random.Random(1)
    for _ in range(40):
        size = draw.choice((2, 4, 16))
        parts = [[draw.randrange(1000)] * draw.randint(1, 3 * size) for _ in range(3)]
        prompts = [[token for part in draw.choices(parts, k=draw.randint(1, 3)) for token in part] for _ in range(5)]
        outputs = [draw.randint(1, 20) for _ in prompts]
        known, total = set(), 0
        for prompt, answer in zip(prompts, outputs, strict=True):
            keys = [str(prompt[: (block + 1) * size]) for block in range(len(prompt) // size)]
            found = 0
            while found < (len(prompt) - 1) // size and keys[found] in known:
                found += 1
            total += -(-(len(prompt) + answer - 1) // size) - found
            known.update(keys)
        together(exercises, prompts, outputs, size, total, "")
