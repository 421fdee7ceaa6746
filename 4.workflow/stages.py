"""What a trace says about requests: the time of each stage, idle slots, and what was computed twice."""

import heapq
from collections.abc import Mapping, Sequence

from drive import Answer

from common.trace import Trace


def stages(trace: Trace, answer: Answer) -> list[dict]:
    """One request from its arrival to its last token: a row for each stage, then their sum and the end-to-end time.

    The clock of each stage starts where the last one ended, in the engine's own records; the end-to-end time is the
    sender's. `vllm_ms` is what vLLM itself reports of the stage. `blocks` are the KV blocks held when it ends.
    """
    request, metrics = trace.requests[answer.id], answer.metrics
    steps = [step for step in trace.steps if answer.id in step.num_scheduled_tokens]
    first = next(index for index, step in enumerate(steps) if step.num_output_tokens.get(answer.id))
    blocks = [len(step.new_block_ids.get(answer.id, ())) for step in steps]
    computed = [step.num_scheduled_tokens[answer.id] for step in steps]
    moments = (
        ("tokenise", answer.sent_s, request.queued_s, None, [], 0),
        ("queue", request.queued_s, steps[0].start_s, metrics.scheduled_ts - metrics.queued_ts, [], 0),
        (
            "prefill",
            steps[0].start_s,
            steps[first].end_s,
            metrics.first_token_ts - metrics.scheduled_ts,
            computed[: first + 1],
            sum(blocks[: first + 1]),
        ),
        (
            "decode",
            steps[first].end_s,
            steps[-1].end_s,
            metrics.last_token_ts - metrics.first_token_ts,
            computed[first + 1 :],
            sum(blocks),
        ),
        ("detokenise_and_hand_over", steps[-1].end_s, answer.token_s[-1], None, [], 0),
    )
    rows = [
        {
            "stage": name,
            "ms": (end_s - start_s) * 1e3,
            "vllm_ms": None if reported_s is None else reported_s * 1e3,
            "steps": len(tokens),
            "tokens": sum(tokens),
            "blocks": held,
        }
        for name, start_s, end_s, reported_s, tokens, held in moments
    ]
    total = {"stage": "sum", "vllm_ms": None, "blocks": 0} | {
        column: sum(row[column] for row in rows) for column in ("ms", "steps", "tokens")
    }
    whole = total | {"stage": "end_to_end", "ms": (answer.token_s[-1] - answer.sent_s) * 1e3}
    return [row | {"share_pct": row["ms"] / whole["ms"] * 100} for row in (*rows, total, whole)]


def idle_slots_pct(trace: Trace, slots: int) -> float:
    """Share of the places in all steps that no request took."""
    taken = sum(len(step.num_scheduled_tokens) for step in trace.steps)
    return (1 - taken / (slots * len(trace.steps))) * 100


def preemptions(trace: Trace) -> int:
    return sum(len(step.preempted) for step in trace.steps)


def recomputed_tokens(trace: Trace) -> int:
    """Tokens that were computed again after preemptions: all that was known, less what the prefix cache still had."""
    computed: dict[str, int] = {}
    again = 0
    for step in trace.steps:
        for name in step.resumed:
            again += computed[name] - step.num_cached_tokens[name]
        for name, before in step.num_computed_tokens.items():
            computed[name] = before + step.num_scheduled_tokens[name]
    return again


def hit_rate_pct(trace: Trace) -> float:
    """Share of the prompts' tokens that came from the prefix cache."""
    hits = sum(sum(step.num_cached_tokens.values()) for step in trace.steps)
    return hits / sum(request.num_prompt_tokens for request in trace.requests.values()) * 100


# --------------------------------------------------------------------------------------------- predictions


def end_steps(output_tokens: Sequence[int], slots: int) -> list[int]:
    """The step in which each request ends, if they take free slots in this order and each makes a token a step."""
    free = [0] * slots  # when each slot is free; a heap
    ended = []
    for tokens in output_tokens:
        ended.append(heapq.heappop(free) + tokens)
        heapq.heappush(free, ended[-1])
    return ended


def batch_steps(output_tokens: Sequence[int], slots: int) -> int:
    """Steps of static batches: each lasts as long as its longest answer."""
    return sum(max(output_tokens[first : first + slots]) for first in range(0, len(output_tokens), slots))


def look_back_ms(alone_ms: Mapping[int, float]) -> float:
    """What it costs a token of a prompt to look back over one token before it.

    `alone_ms` are the times of three prompts by their length. Without attention they would lie on a line; the square
    in them is the tokens looking back: n of them over n / 2 others each.
    """
    (short, a), (middle, b), (long, c) = sorted(alone_ms.items())
    square = ((c - b) / (long - middle) - (b - a) / (middle - short)) / (long - short)
    return max(0.0, 2 * square)


def longest_gap_ms(budget: int, streams: int, long: int, alone_ms: Mapping[int, float]) -> float:
    """The longest step while a prompt of `long` tokens is computed in chunks beside `streams` that decode.

    It is that of the last whole chunk, which looks back furthest: as long as a prompt of the step's tokens takes alone,
    and the looking back. `alone_ms` has the budget, or if that is smaller the long prompt, among its lengths.
    """
    chunk = min(budget - streams, long)
    earlier = (long // chunk - 1) * chunk
    return alone_ms[min(budget, long)] + chunk * earlier * look_back_ms(alone_ms)
