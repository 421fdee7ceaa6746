"""Our solutions to exercises.py, where the docstrings are. They pass:  python -m common.check 2 --file solutions.py"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

# ---------------------------------------------------------------------- 1. the block table


class OutOfBlocks(Exception):
    pass


class BlockManager:
    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.free_blocks: deque[int] = deque(range(num_blocks))
        self.ref_count = [0] * num_blocks
        self.block_tables: dict[str, list[int]] = {}
        self.num_tokens: dict[str, int] = {}

    def take(self, count: int) -> list[int]:
        if count > len(self.free_blocks):
            raise OutOfBlocks(f"{count} blocks are needed, {len(self.free_blocks)} are free")
        blocks = [self.free_blocks.popleft() for _ in range(count)]
        for block in blocks:
            self.ref_count[block] = 1
        return blocks

    def allocate(self, name: str, num_tokens: int) -> None:
        self.block_tables[name] = self.take(math.ceil(num_tokens / self.block_size))
        self.num_tokens[name] = num_tokens

    def append(self, name: str) -> tuple[int, int] | None:
        table, copy = self.block_tables[name], None
        if self.num_tokens[name] % self.block_size == 0:
            table += self.take(1)
        elif self.ref_count[table[-1]] > 1:
            shared, (own,) = table[-1], self.take(1)
            self.ref_count[shared] -= 1
            table[-1], copy = own, (shared, own)
        self.num_tokens[name] += 1
        return copy

    def fork(self, parent: str, child: str) -> None:
        self.block_tables[child] = list(self.block_tables[parent])
        self.num_tokens[child] = self.num_tokens[parent]
        for block in self.block_tables[child]:
            self.ref_count[block] += 1

    def free(self, name: str) -> None:
        del self.num_tokens[name]
        for block in reversed(self.block_tables.pop(name)):
            self.ref_count[block] -= 1
            if self.ref_count[block] == 0:
                self.free_blocks.append(block)

    def slot(self, name: str, position: int) -> int:
        if not 0 <= position < self.num_tokens[name]:
            raise IndexError(f"{name} has {self.num_tokens[name]} tokens and none at {position}")
        block, offset = divmod(position, self.block_size)
        return self.block_tables[name][block] * self.block_size + offset


# ---------------------------------------------------------------------- 2. the blocks of a mix


def blocks_alone(prompt_tokens: int, output_tokens: int, block_size: int) -> int:
    return math.ceil((prompt_tokens + output_tokens - 1) / block_size)


def blocks_together(prompts: Sequence[Sequence[int]], output_tokens: Sequence[int], block_size: int) -> int:
    known: set[tuple[int, ...]] = set()  # full blocks, each by all tokens up to its end
    total = 0
    for prompt, answer in zip(prompts, output_tokens, strict=True):
        total += blocks_alone(len(prompt), answer, block_size)
        for end in range(block_size, len(prompt), block_size):
            if tuple(prompt[:end]) not in known:
                break
            total -= 1
        known |= {tuple(prompt[:end]) for end in range(block_size, len(prompt) + 1, block_size)}
    return total


# ---------------------------------------------------------------------- 3. what is wasted


@dataclass(frozen=True)
class Request:
    input_tokens: int
    output_tokens: int


def kept(request: Request) -> int:
    return request.input_tokens + request.output_tokens - 1


def wasted_in_pieces(requests: Sequence[Request], max_model_len: int) -> float:
    return 1 - sum(map(kept, requests)) / (len(requests) * max_model_len)


def wasted_in_blocks(requests: Sequence[Request], block_size: int) -> float:
    blocks = sum(blocks_alone(r.input_tokens, r.output_tokens, block_size) for r in requests)
    return 1 - sum(map(kept, requests)) / (blocks * block_size)


def fitting(
    requests: Sequence[Request], kv_bytes: int, token_bytes: int, max_model_len: int, block_size: int
) -> tuple[int, int]:
    slots = kv_bytes // token_bytes
    in_pieces = min(len(requests), slots // max_model_len)
    free, in_blocks = slots // block_size - 1, 0
    for request in requests:
        free -= blocks_alone(request.input_tokens, request.output_tokens, block_size)
        if free < 0:
            break
        in_blocks += 1
    return in_pieces, in_blocks
