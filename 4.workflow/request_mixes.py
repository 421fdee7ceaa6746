"""What is sent to an engine: prompts of random tokens with given lengths, times and classes."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import ascii_lowercase

from common import lengths
from common.lengths import Lengths
from common.problems import Problem


@dataclass(frozen=True)
class Request:
    """One request: a text or its token ids, and how many tokens it is answered with (greedy, never stopped early).

    `due_s` is when it is sent, in seconds after the first. A lower `priority` goes first. `kind` is its class.
    """

    name: str
    prompt: str | tuple[int, ...]
    output_tokens: int
    due_s: float = 0.0
    priority: int = 0
    kind: str = ""
    use_prefix_cache: bool = True


_seeds = itertools.count()


def random_ids(count: int) -> tuple[int, ...]:
    """`count` token ids, other ones at each call, so that no prefix cache answers for the engine by accident."""
    draw = random.Random(next(_seeds))
    return tuple(draw.randrange(1000, 10_000) for _ in range(count))


def of_lengths(sizes: Sequence[Lengths], kind: str, due_s: Sequence[float] | None = None) -> list[Request]:
    """A request for each length; all due at once, or at the given times."""
    times = due_s or [0.0] * len(sizes)
    return [
        Request(f"{kind}-{index}", random_ids(size.input_tokens), size.output_tokens, due, kind=kind)
        for index, (size, due) in enumerate(zip(sizes, times, strict=True))
    ]


def fresh(requests: Sequence[Request]) -> list[Request]:
    """The same requests with prompts of other tokens, as the prefix cache knows these; texts stay as they are."""
    return [
        request if isinstance(request.prompt, str) else replace(request, prompt=random_ids(len(request.prompt)))
        for request in requests
    ]


def constant(count: int, size: Lengths) -> list[Lengths]:
    return [size] * count


def exponential(count: int, size: Lengths, seed: int = 0) -> list[Lengths]:
    """Prompts of one length; answers drawn from an exponential distribution, cut at four times its mean."""
    draw = random.Random(seed)
    answers = (max(1, round(draw.expovariate(1 / size.output_tokens))) for _ in range(count))
    return [Lengths(size.input_tokens, min(answer, 4 * size.output_tokens)) for answer in answers]


def chat(count: int, scale: float, seed: int = 0) -> list[Lengths]:
    """Lengths of a chat service (see common/lengths.py), shortened by `scale`."""
    return lengths.sample(count, seed, scale=scale, limit=max(2, round(2048 * scale)))


def mean(sizes: Sequence[Lengths]) -> Lengths:
    return Lengths(
        round(sum(size.input_tokens for size in sizes) / len(sizes)),
        round(sum(size.output_tokens for size in sizes) / len(sizes)),
    )


def poisson(rate_per_s: float, seconds: float, seed: int = 0) -> list[float]:
    """Arrival times within a window: independent, `rate_per_s` a second on average."""
    if rate_per_s <= 0:
        raise Problem(f"No request ever comes at {rate_per_s} a second.", "Take a rate above 0.")
    draw, times, now = random.Random(seed), [], 0.0
    while (now := now + draw.expovariate(rate_per_s)) < seconds:
        times.append(now)
    return times


def staggered(context: int, count: int = 12) -> list[Request]:
    """`count` requests for a picture: half of them chats at once, then two long prompts, the others right behind these.

    They are named by letters, with 12 of them a to f, g and h, i to l; beyond z by two letters. Raises Problem for
    fewer than 4 or more than 200.
    """
    if not 4 <= count <= 200:
        raise Problem(f"A mix of {count} requests makes no picture.", "Ask for 4 to 200 of them.")
    first, last = count // 2, count - count // 2 - 2
    sizes = [*chat(first, 0.2, seed=3), Lengths(context * 8 // 10, 12), Lengths(context * 6 // 10, 12)]
    sizes += chat(last, 0.2, seed=4) if last else []
    due_s = [0.0] * first + [0.05, 0.055] + [0.06] * last
    names = itertools.chain(ascii_lowercase, map("".join, itertools.product(ascii_lowercase, repeat=2)))
    return [
        Request(name, random_ids(size.input_tokens), size.output_tokens, due)
        for name, size, due in zip(names, sizes, due_s, strict=False)
    ]
