"""Static batching with Transformers: what is padded, which slots idle, predicted from lengths and counted in a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from common import timing
from common.lengths import Lengths
from common.throughput import random_prompts

# How requests are sorted before they are cut into batches.
ORDERS: dict[str, Callable[[Lengths], int]] = {
    "arrival": lambda request: 0,
    "prompt length": lambda request: request.input_tokens,
}


@dataclass(frozen=True)
class Work:
    """Tokens that a run computed, and how many of them somebody had asked for; seconds, where it ran."""

    prompt_slots: int
    prompt_tokens: int
    decode_slots: int
    decode_tokens: int  # the first token of each answer comes from the prefill and is not among them
    seconds: float = 0.0

    @property
    def padding_pct(self) -> float:
        return (1 - self.prompt_tokens / self.prompt_slots) * 100

    @property
    def idle_pct(self) -> float:
        return (1 - self.decode_tokens / self.decode_slots) * 100 if self.decode_slots else 0.0


def batches(requests: Sequence[Lengths], size: int) -> list[Sequence[Lengths]]:
    """The requests in order of arrival, `size` at a time."""
    return [requests[start : start + size] for start in range(0, len(requests), size)]


def predicted(
    requests: Sequence[Lengths], size: int, key: Callable[[Lengths], int] | None = None, together: int = 0
) -> Work:
    """The work of static batches of `size`: each prompt as long as the longest, each slot kept to the last answer.

    With `key`, each `together` requests that arrive one after the other are sorted by it first.
    """
    if key:
        requests = [request for part in batches(requests, together) for request in sorted(part, key=key)]
    parts = batches(requests, size)
    return Work(
        prompt_slots=sum(len(part) * max(r.input_tokens for r in part) for part in parts),
        prompt_tokens=sum(r.input_tokens for r in requests),
        decode_slots=sum(len(part) * (max(r.output_tokens for r in part) - 1) for part in parts),
        decode_tokens=sum(r.output_tokens - 1 for r in requests),
    )


def expected(others: Sequence[Lengths], sizes: Sequence[int], together: int) -> dict[tuple[str, int], Work]:
    """From (order, batch) to the work of many other requests, `together` of which are there to be sorted at a time.

    One batch of all that are there is the same in any order.
    """
    return {
        (order, size): predicted(others, size, key, together)
        for order, key in ORDERS.items()
        for size in sizes
        if order == "arrival" or size < together
    }


class _Lengths(StoppingCriteria):
    """A sequence is done when it has the length that was drawn for it; `generate` ends when all are."""

    def __init__(self, ends_at: torch.Tensor):
        self.ends_at = ends_at

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        return input_ids.shape[1] >= self.ends_at


@torch.inference_mode()
def measured(network, requests: Sequence[Lengths], size: int) -> Work:
    """Run the requests through `generate` in static batches of `size`, and count what went through the model."""
    passes: list[torch.Size] = []
    seconds, prompt_slots, decode_slots = 0.0, 0, 0
    hook = network.register_forward_pre_hook(
        lambda _, __, arguments: passes.append(arguments["input_ids"].shape), with_kwargs=True
    )
    try:
        for part in batches(requests, size):
            passes.clear()
            seconds += timing.seconds(lambda part=part: _generate(network, part))
            prompt_slots += passes[0].numel()
            decode_slots += sum(shape.numel() for shape in passes[1:])
    finally:
        hook.remove()
    wanted = predicted(requests, size)
    return Work(prompt_slots, wanted.prompt_tokens, decode_slots, wanted.decode_tokens, seconds)


def _generate(network, part: Sequence[Lengths]) -> None:
    width = max(request.input_tokens for request in part)
    prompts = torch.tensor(random_prompts(len(part), width), device=network.device)
    lengths = torch.tensor([request.input_tokens for request in part], device=network.device)
    # Padding stands on the left, so that all answers begin in the same column.
    mask = (torch.arange(width, device=network.device) >= width - lengths[:, None]).long()
    answers = torch.tensor([request.output_tokens for request in part], device=network.device)
    network.generate(
        prompts,
        attention_mask=mask,
        max_new_tokens=int(answers.max()),
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([_Lengths(width + answers)]),
    )
