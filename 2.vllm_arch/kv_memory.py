"""Two ways to hand out the memory of the KV cache, and one loop that serves requests with either.

`Contiguous` keeps each request's K and V in one piece, which has to be reserved before the length of the answer is
known: what servers did before paging. `Paged` is vLLM's own KVCacheManager, the class that its scheduler asks, without
the engine around it. Memory is counted in slots: one slot holds the K and V of one token in all layers.
"""

import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common import estimator
from common.lengths import Lengths

CONTEXT = 2048  # max_model_len of the mixes here

# Wasted by the same ways in figure 2 of Kwon et al. 2023, for other requests and another model: 100 % less what holds
# tokens. Their "Orca" reserves as `contiguous` does here.
PUBLISHED_WASTED_PCT = {"maximum": 79.6, "power_of_two": 73.2, "exact_length": 61.8, "blocks_of_16": 3.7}


def tokens_kept(request: Lengths) -> int:
    """Tokens whose K and V are in the cache at the end: all but the last one sampled, which is never fed back."""
    return request.input_tokens + request.output_tokens - 1


class Contiguous:
    """For each request one piece of `reserve(request)` consecutive slots, at the first place where it fits.

    buddy: a piece starts at a multiple of its own size, as a buddy allocator places pieces of powers of two.
    """

    def __init__(self, slots: int, reserve: Callable[[Lengths], int], buddy: bool = False):
        self.slots, self.reserve, self.buddy = slots, reserve, buddy
        self.free_pieces = [(0, slots)]  # (start, end), in order
        self.pieces: dict[int, tuple[int, int]] = {}

    def admit(self, number: int, request: Lengths, tokens: int) -> bool:
        """Reserve a piece for request `number`; False if there is no place for it."""
        size = self.reserve(request)
        for place, (start, end) in enumerate(self.free_pieces):
            at = -(-start // size) * size if self.buddy else start
            if at + size <= end:
                rest = [(start, at), (at + size, end)]
                self.free_pieces[place : place + 1] = [(first, last) for first, last in rest if first < last]
                self.pieces[number] = (at, at + size)
                return True
        return False

    def grow(self, number: int) -> bool:
        """Room for one more token: always there, since the piece was reserved for the whole request."""
        return True

    def release(self, number: int) -> None:
        joined: list[tuple[int, int]] = []
        for start, end in sorted([*self.free_pieces, self.pieces.pop(number)]):
            if joined and joined[-1][1] == start:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        self.free_pieces = joined

    def reserved(self, number: int) -> int:
        """Slots that request `number` holds."""
        start, end = self.pieces[number]
        return end - start


class Paged:
    """vLLM's block manager for `slots` slots and the KV cache of a model with this config.json; no tensors."""

    def __init__(self, slots: int, block_size: int, config: dict, max_model_len: int, prefix_caching: bool = False):
        import torch
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_manager import KVCacheManager
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

        self.slots, self.block_size = slots, block_size
        heads, width = estimator.kv_heads(config), estimator.head_dim(config)
        spec = FullAttentionSpec(block_size=block_size, num_kv_heads=heads, head_size=width, dtype=torch.bfloat16)
        layers = [f"layers.{layer}" for layer in range(config["num_hidden_layers"])]
        self.manager = KVCacheManager(
            KVCacheConfig(slots // block_size, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(layers, spec)]),
            max_model_len=max_model_len,
            scheduler_block_size=block_size,
            hash_block_size=block_size,
            enable_caching=prefix_caching,
        )
        self.hasher = None
        if prefix_caching:
            init_none_hash(sha256)
            self.hasher = get_request_block_hasher(block_size, sha256)
        self.requests: dict[int, object] = {}

    def admit(self, number: int, request: Lengths, tokens: int) -> bool:
        """Blocks for the first `tokens` tokens of request `number`; False if there are not enough free ones."""
        return self.admit_prompt(number, [number] * tokens, request.output_tokens)

    def admit_prompt(self, number: int, prompt_token_ids: list[int], output_tokens: int) -> bool:
        """The same for a given prompt, whose full blocks are shared if prefix caching is on."""
        from vllm import SamplingParams
        from vllm.v1.request import Request

        sampling = SamplingParams(max_tokens=output_tokens)
        request = Request(str(number), prompt_token_ids, sampling, None, block_hasher=self.hasher)
        blocks, cached_tokens, _ = self.manager.get_computed_blocks(request)
        new_tokens = len(prompt_token_ids) - cached_tokens
        if self.manager.allocate_slots(request, new_tokens, cached_tokens, blocks) is None:
            return False
        request.num_computed_tokens = len(prompt_token_ids)
        self.requests[number] = request
        return True

    def grow(self, number: int) -> bool:
        """Room for one more token, which may take a new block; False if none is free."""
        request = self.requests[number]
        if request.num_tokens == request.num_computed_tokens:  # not when it asks a second time
            request.append_output_token_ids(number)
        if self.manager.allocate_slots(request, 1) is None:
            return False
        request.num_computed_tokens += 1
        return True

    def release(self, number: int) -> None:
        self.manager.free(self.requests.pop(number))

    def reserved(self, number: int) -> int:
        """Slots in the blocks of request `number`, shared ones included."""
        return len(self.manager.get_block_ids(str(number))[0]) * self.block_size

    @property
    def blocks_in_use(self) -> int:
        """Blocks that requests hold, each counted once."""
        pool = self.manager.block_pool
        return pool.num_gpu_blocks - 1 - pool.get_num_free_blocks()  # the null block is nobody's


@dataclass
class Occupancy:
    """How the memory was filled, as means over the steps in which requests waited for it. In slots, but `requests`."""

    requests: float  # that run at once
    used: float  # hold the K and V of a token
    later: float  # reserved, empty now, used before the request ends
    never: float  # reserved, and empty to the end
    outside: float  # reserved by nobody, and of no use to those who wait
    steps: int  # until all requests were answered
    preemptions: int

    def row(self, slots: int, token_bytes: int) -> dict[str, float]:
        """The same in GB and in percent of the whole memory."""
        share, gb = 100 / slots, token_bytes / 1e9
        return {
            "requests_at_once": self.requests,
            "kv_reserved_gb": (slots - self.outside) * gb,
            "kv_used_gb": self.used * gb,
            "kv_wasted_gb": (slots - self.used) * gb,
            "kv_wasted_pct": 100 - self.used * share,
            "kv_later_pct": self.later * share,
            "kv_never_pct": self.never * share,
            "kv_outside_pct": self.outside * share,
            "steps": self.steps,
            "preempted": self.preemptions,
        }


def serve(memory: Contiguous | Paged, requests: Sequence[Lengths]) -> Occupancy:
    """Answer all requests, first come first served, where memory is the only limit.

    In each step every running request gets a token, and those who wait join as long as they fit. Where a running one
    can't grow, the youngest is preempted: it gives up its memory and waits to be computed again, as in vLLM.
    """
    waiting = deque((number, request.input_tokens) for number, request in enumerate(requests))
    running: dict[int, int] = {}  # tokens kept, by request
    totals, full_steps, steps, preemptions = [0, 0, 0, 0], 0, 0, 0

    while waiting or running:
        steps += 1
        for number in list(running):
            while number in running and not memory.grow(number):
                youngest = list(running)[-1]
                memory.release(youngest)
                waiting.appendleft((youngest, running.pop(youngest)))
                preemptions += 1
            if number in running:
                running[number] += 1
        while waiting and memory.admit(waiting[0][0], requests[waiting[0][0]], waiting[0][1]):
            number, tokens = waiting.popleft()
            running[number] = tokens
        if not running:
            raise ValueError(f"request {waiting[0][0]} does not fit the memory even alone")
        if waiting:
            full_steps += 1
            for number, tokens in running.items():
                reserved = memory.reserved(number)
                kept = min(reserved, tokens_kept(requests[number]))
                for place, slots in enumerate((1, tokens, kept - tokens, reserved - kept)):
                    totals[place] += slots
        for number in [n for n, tokens in running.items() if tokens >= tokens_kept(requests[n])]:
            memory.release(number)
            del running[number]

    count, used, later, never = (total / max(1, full_steps) for total in totals)
    return Occupancy(count, used, later, never, memory.slots - used - later - never, steps, preemptions)


def contiguous(slots: int) -> dict[str, Contiguous]:
    """The three ways to reserve of the paper's figure 2; the last two need lengths that nobody knows in advance.

    Pieces of any length go to the first gap that holds them, which is kinder than the buddy allocator of the paper.
    """

    def whole(request: Lengths) -> int:
        return request.input_tokens + request.output_tokens

    return {
        "maximum": Contiguous(slots, lambda request: CONTEXT),
        "power_of_two": Contiguous(slots, lambda request: 1 << (whole(request) - 1).bit_length(), buddy=True),
        "exact_length": Contiguous(slots, whole),
    }


def allocations(slots: int, config: dict, block_sizes: Sequence[int]) -> dict[str, Contiguous | Paged]:
    """Every way to hand out `slots` slots, by name: in pieces, and in blocks of each size."""
    paged = {f"blocks_of_{size}": Paged(slots, size, config, CONTEXT) for size in block_sizes}
    return contiguous(slots) | paged


def steps(
    requests: Sequence[Lengths], slots: int, block_size: int, config: dict, max_model_len: int
) -> tuple[int, int]:
    """Steps until all are answered: with `max_model_len` slots reserved for each request, and with vLLM's blocks."""
    reserved = Contiguous(slots, lambda request: max_model_len)
    paged = Paged(slots + block_size, block_size, config, max_model_len)  # one block is nobody's
    return serve(reserved, requests).steps, serve(paged, requests).steps


def mean_tokens_kept(requests: Sequence[Lengths]) -> float:
    """Tokens in memory of a running request: each counts for as many steps as it has output tokens to make."""
    steps = sum(request.output_tokens for request in requests)
    return sum(r.output_tokens * (r.input_tokens + r.output_tokens / 2) for r in requests) / steps


def mean_lengths(requests: Sequence[Lengths]) -> dict[str, float]:
    """Mean tokens of prompts and answers."""
    return {
        "mean_input_tokens": statistics.mean(request.input_tokens for request in requests),
        "mean_output_tokens": statistics.mean(request.output_tokens for request in requests),
    }
