"""Prompt and answer lengths: as a chat service meets them, from the deciles of a published trace, or evenly spread.

The trace is Azure's "AzureLLMInferenceTrace_conv" of November 2023 (19,366 conversation requests, CC-BY, described by
Patel et al., "Splitwise", ISCA 2024, https://github.com/Azure/AzurePublicDataset). Its requests were sorted by prompt
length and cut into quarters, because the third of them gets answers twice as long as the rest; the numbers
below are the deciles of each quarter. A draw takes a quarter, then a length of each kind between two deciles; straight
lines between them make the means about a tenth larger than the trace's.
"""

import random
from dataclasses import dataclass

# (deciles of the prompt lengths, deciles of the answer lengths), in tokens, for each quarter of the trace
QUARTERS = (
    ((2, 120, 181, 200, 207, 235, 372, 379, 387, 393, 396), (7, 50, 67, 79, 88, 97, 113, 144, 167, 202, 1000)),
    ((396, 400, 403, 407, 414, 428, 703, 922, 984, 1005, 1020), (10, 82, 89, 95, 100, 109, 126, 169, 395, 415, 921)),
    (
        (1020, 1034, 1045, 1058, 1071, 1083, 1097, 1112, 1130, 1153, 1189),
        (28, 375, 389, 396, 398, 406, 414, 423, 434, 497, 1000),
    ),
    (
        (1189, 1277, 1315, 1434, 1876, 2309, 2734, 4075, 4083, 4092, 14050),
        (15, 41, 50, 61, 74, 89, 108, 136, 169, 344, 954),
    ),
)


@dataclass(frozen=True)
class Lengths:
    """How long one request is, in tokens."""

    input_tokens: int
    output_tokens: int


def _between_deciles(deciles: tuple[int, ...], draw: random.Random) -> float:
    below, within = divmod(draw.random() * 10, 1)
    return deciles[int(below)] + within * (deciles[int(below) + 1] - deciles[int(below)])


def sample(count: int, seed: int = 0, limit: int = 2048, scale: float = 1.0) -> list[Lengths]:
    """`count` requests in order of arrival, each at most `limit` tokens in all; the same seed gives the same ones.

    `scale` shortens prompts and answers alike, for machines that are slow; at least one token of each is left. What
    does not fit is drawn again, as a service would refuse it: at a limit of 2,048 that leaves out 15 % of the trace.
    Raises ValueError where not even the shortest request fits.
    """
    shortest = max(1, round(QUARTERS[0][0][0] * scale)) + max(1, round(QUARTERS[0][1][0] * scale))
    if limit < shortest:
        raise ValueError(f"no request of this distribution fits {limit} tokens; the shortest has {shortest}")
    draw = random.Random(seed)
    found: list[Lengths] = []
    while len(found) < count:
        prompts, answers = draw.choice(QUARTERS)
        lengths = (max(1, round(_between_deciles(deciles, draw) * scale)) for deciles in (prompts, answers))
        request = Lengths(*lengths)
        if request.input_tokens + request.output_tokens <= limit:
            found.append(request)
    return found


def unequal(tokens: int, count: int) -> list[int]:
    """`count` lengths between half of `tokens` and one and a half times as many, drawn alike for every run.

    With equal answers the users of a closed loop stay in step: their prompts come all at once, and how many of them
    the engine's next step still takes along is a matter of chance that then lasts for the whole run.
    """
    return random.Random(0).choices(range(tokens // 2, tokens + tokens // 2 + 1), k=count)
