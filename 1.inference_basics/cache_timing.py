"""The decoder of kv_cache.py beside Transformers: whether they agree, and what a token costs in each."""

from collections.abc import Callable
from functools import partial

import torch
from kv_cache import Decoder

from common import estimator, models, timing
from common.ceilings import Ceilings
from common.course_lm import corpus
from common.hardware import Machine
from common.throughput import random_prompts

Generate = Callable[[list[int], int, bool], list[int]]  # (prompt, tokens, with a cache) -> answer
SKILLS = ("terms_en", "terms_zh", "arithmetic", "passages", "citation", "summary", "json", "tool_call", "chat", "code")


def programs(network, config: dict) -> dict[str, Generate]:
    """Greedy generation by Transformers and by our decoder on the same tensors. Neither stops at an end token."""
    network.generation_config.eos_token_id = None
    decoder = Decoder(config, dict(network.named_parameters()))

    @torch.inference_mode()
    def of_transformers(prompt: list[int], tokens: int, cached: bool) -> list[int]:
        ids = torch.tensor([prompt], device=network.device)
        options = {"max_new_tokens": tokens, "use_cache": cached, "do_sample": False, "pad_token_id": 0}
        return network.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, len(prompt) :].tolist()

    return {"transformers": of_transformers, "ours": decoder.generate}


def course_prompts(tokenizer, count: int) -> list[list[int]]:
    """`count` held-out questions to course-lm as token ids, its skills in turn."""
    examples = [corpus.held_out(skill, -(-count // len(SKILLS))) for skill in SKILLS]
    texts = [corpus.prompt_of(example) for turn in zip(*examples, strict=True) for example in turn]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts[:count]]


def disagreements(machine: Machine, count: int, tokens: int) -> list[list[int]]:
    """The prompts to course-lm, of `count`, whose answers are not the same in float32 in all four ways."""
    model = models.resolve("course-lm")
    network, tokenizer = models.transformers_model(model, machine)
    both = programs(network.float(), model.config)
    return [
        prompt
        for prompt in course_prompts(tokenizer, count)
        if len({tuple(generate(prompt, tokens, cached)) for generate in both.values() for cached in (True, False)}) > 1
    ]


def ms_per_token(generate: Generate, context_tokens: int, tokens: int, cached: bool) -> float:
    """Milliseconds for each of `tokens` tokens after the first one, which also pays for the prompt."""
    prompt = random_prompts(1, context_tokens)[0]
    first = timing.seconds(lambda: generate(prompt, 1, cached))
    return (timing.seconds(lambda: generate(prompt, tokens + 1, cached)) - first) / tokens * 1e3


def ceiling_ms(best: Ceilings, config: dict, dtype: str, context_tokens: int, cached: bool) -> float:
    """The least time for one token after that many: with a cache one token is computed, without one all of them."""
    new, attended = (1, context_tokens) if cached else (context_tokens, context_tokens**2 / 2)
    step_bytes = estimator.step_bytes(config, context_tokens if cached else 0, dtype)
    return best.seconds(step_bytes, estimator.step_flop(config, new, attended, sampled_tokens=1)) * 1e3


def contestants(
    network, config: dict, contexts: list[int], tokens: int
) -> dict[tuple[str, bool, int], Callable[[], float]]:
    """From (program, with a cache, context) to a measurement of its `ms_per_token`."""
    return {
        (program, cached, context): partial(ms_per_token, generate, context, tokens, cached)
        for program, generate in programs(network, config).items()
        for cached in (False, True)
        for context in contexts
    }
