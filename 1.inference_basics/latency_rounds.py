"""latency: what users feel at one rate of arrivals, over several rounds, and how long a queue should make them wait."""

import statistics
from collections.abc import Mapping, Sequence

from common.load import Load, poisson_arrivals
from common.problems import Problem
from common.timing import Repeats, percentile


def felt(result: Load, ttft_ms: float, tpot_ms: float) -> dict[str, float]:
    """The columns of one round; a good answer has its first token within `ttft_ms` and then one every `tpot_ms`.

    Raises Problem if no answer came.
    """
    if not result.completed:
        raise Problem(f"No request was answered: {result.outcomes[0].error}", "Read the server's log.")
    good, ms = result.good(ttft_ms, tpot_ms), result.latencies_ms()
    row = {name: ms[name] for name in ms if not name.startswith("itl")}
    row |= {"good_pct": good / len(result.outcomes) * 100, "goodput_req_s": good / result.seconds}
    row |= {"output_tok_s": result.output_tok_s, "p99_s": result.latency_s(99), "failed": result.failed}
    return row | ms | {"late_ms": result.late_ms}


def middle(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each column over the rounds, and the spread of the P99 of TTFT."""
    spread = Repeats(tuple(each["ttft_p99_ms"] for each in rounds)).spread_pct
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]} | {"ttft_spread_pct": spread}


def capacity(busy: Load, seconds: float) -> float:
    """Requests/s that left a closed loop of `seconds` in which all users asked, the first fifth of it left out.

    Raises Problem if none did.
    """
    begin, counted_s = min(outcome.start_s for outcome in busy.outcomes), seconds * 4 / 5
    answered = sum(seconds - counted_s < outcome.end_s - begin <= seconds for outcome in busy.completed)
    if not answered:
        errors = {outcome.error for outcome in busy.outcomes if outcome.error}
        raise Problem(
            f"No request was answered in the last {counted_s:g} s: {', '.join(sorted(errors)) or 'each takes longer'}.",
            "Read the server's log, or give it longer with --seconds.",
        )
    return answered / counted_s


def queued_ms(count: int, requests_per_s: float, capacity: float, rounds: int) -> float:
    """P99 of the wait, in ms, of `count` requests that arrive as drawn and leave at the capacity; median of the rounds.

    In each round other arrivals are drawn, as `Clients.open_loop` draws them from the number of the round.
    """
    waits = []
    for seed in range(rounds):
        due = poisson_arrivals(count, requests_per_s, seed)
        waits.append(percentile([max(0.0, before / capacity - at) for before, at in enumerate(due)], 99))
    return statistics.median(waits) * 1e3
