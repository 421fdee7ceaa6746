"""An engine without a process of its own: its scheduler can be looked at, and its limits changed between two runs.

vLLM gives the engine core a process; without a GPU the course never does.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

from common.problems import Problem


@contextmanager
def core_in_this_process(wanted: bool) -> Iterator[None]:
    """Engines that start in this block have no process of their own, if that is wanted."""
    name = "VLLM_ENABLE_V1_MULTIPROCESSING"
    before = os.environ.get(name)
    if wanted:
        os.environ[name] = "0"
    try:
        yield
    finally:
        if wanted and before is None:
            del os.environ[name]
        elif wanted:
            os.environ[name] = before


def is_in_process(llm) -> bool:
    """Whether this engine's core is in this process."""
    return hasattr(llm.llm_engine.engine_core, "engine_core")


def scheduler_of(llm):
    """vLLM's scheduler, of an engine in this process."""
    return llm.llm_engine.engine_core.engine_core.scheduler


@contextmanager
def changed(scheduler, **values: object) -> Iterator[None]:
    """vLLM's scheduler with other limits for the length of a block.

    It reads them in every step, so this does what a restart with other options would, without the restart; that it
    does is checked in the trace.
    """
    before = {name: getattr(scheduler, name) for name in values}
    for name, value in values.items():
        setattr(scheduler, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(scheduler, name, value)


@contextmanager
def small_cache(scheduler, blocks: int, tokens: int) -> Iterator[None]:
    """Leave `blocks` KV blocks of an idle engine to use, as a smaller kv_cache_memory_bytes would; the rest is held.

    Raises Problem if a request of `tokens` tokens would not fit them, and if the engine has no more than `blocks`.
    """
    pool = scheduler.kv_cache_manager.block_pool
    needed, free = math.ceil(tokens / scheduler.block_size), pool.get_num_free_blocks()
    if not needed <= blocks <= free:
        raise Problem(
            f"A KV cache of {blocks} blocks is asked for; the longest request takes {needed}, the engine has {free}.",
            "With fewer than a request takes it would wait for ever; more need a larger kv_cache_memory_bytes.",
        )
    held = pool.get_new_blocks(free - blocks)
    try:
        yield
    finally:
        pool.free_blocks(held)
