"""What the contestants of an experiment do, each a run of requests that gives figures, and how they take turns."""

import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

import pandas as pd
import stages
from drive import Served, drive
from request_mixes import Request, fresh, of_lengths, random_ids
from traced_engines import TracedEngine, slots

from common import memory, timing
from common.in_process import changed, small_cache
from common.lengths import Lengths

Figures = dict[str, float | None]

# policies: what each makes of a request; the lowest goes first, and of equals the one that came first
ORDERS: dict[str, Callable[[Request], int]] = {
    "first_come": lambda request: 0,
    "interactive_first": lambda request: int(request.kind == "batch"),
    "shortest_prompt_first": lambda request: len(request.prompt),
    "shortest_answer_first": lambda request: request.output_tokens,
}


def in_turn(run, contestants: Mapping[Hashable, Callable[[], Figures]]) -> dict[Hashable, Figures]:
    """Each contestant in turn, several rounds: the median of each figure, and the spread of the first one.

    The spread of any other is there as "spread_pct FIGURE".
    """
    rounds: dict[Hashable, list[Figures]] = {name: [] for name in contestants}
    for place in range(run.repeats):
        for name, contestant in contestants.items():
            title = name if isinstance(name, str) else ", ".join(map(str, name))
            run.step(f"round {place + 1} of {run.repeats}: {title}")
            rounds[name].append(contestant())
    found = {}
    for name, rows in rounds.items():
        columns = {column: [row[column] for row in rows if row[column] is not None] for column in rows[0]}
        found[name] = {column: statistics.median(values) if values else None for column, values in columns.items()}
        spreads = {column: timing.Repeats(tuple(values)).spread_pct for column, values in columns.items() if values}
        first, *others = spreads
        found[name] |= {"spread_pct": spreads[first]} | {f"spread_pct {column}": spreads[column] for column in others}
    return found


def life(run, started: TracedEngine, requests: Sequence[Request]) -> list[dict]:
    """lifecycle: the stages of the last of these requests, in the repeat whose end-to-end time is the median.

    Of one repeat, and not the median of each stage, so that they add up.
    """
    repeats = []
    for place in range(run.repeats):
        run.step(f"{len(requests)} requests: {place + 1} of {run.repeats}")
        served = drive(started.llm, fresh(requests))
        run.count(served.output_tokens)
        repeats.append(stages.stages(started.steps_of(served), served.answers[-1]))
    return sorted(repeats, key=lambda rows: rows[-1]["ms"])[len(repeats) // 2]


def batches(
    run, started: TracedEngine, batching: Callable[[object, list[Request]], Served], sizes: Sequence[Lengths]
) -> Figures:
    """static_against_continuous: requests of these lengths, all due at once."""
    with memory.sample() as samples:
        served = batching(started.llm, of_lengths(sizes, "mix"))
    run.count(served.output_tokens)
    return {
        "output_tok_s": served.output_tok_s,
        "mean_s": statistics.mean(served.latencies_s()),
        "p99_s": timing.percentile(served.latencies_s(), 99),
        "idle_slots_pct": stages.idle_slots_pct(started.steps_of(served), slots(run)),
        "gpu_util_pct": samples.mean_utilisation_pct,
    }


def batching_table(cells: Mapping[tuple[str, str], Mapping[str, object]], mixes: Iterable[str]) -> pd.DataFrame:
    """A row for each mix and batching; `x_static` is over static batching by the same program."""
    rows = []
    for mix in mixes:
        for batching in (name for other, name in cells if other == mix):
            cell = cells[mix, batching]
            columns = ("output_tok_s", "spread_pct", "mean_s", "p99_s", "idle_slots_pct")
            row = {"mix": mix, "batching": batching} | {column: cell.get(column) for column in columns}
            for column, base in (("x_static", batching.split("_")[0] + "_static"), ("x_theirs", "transformers_static")):
                slow, fast = cells.get((mix, base), {}).get("output_tok_s"), cell.get("output_tok_s")
                row[column] = fast / slow if fast and slow else None
            rows.append(row | {"gpu_util_pct": cell.get("gpu_util_pct"), "error": cell.get("error", "")})
    return pd.DataFrame(rows)


def alone_ms(started: TracedEngine, tokens: int) -> float:
    """Time to the first token of a prompt that comes alone: the median of three."""
    return statistics.median(
        drive(started.llm, of_lengths([Lengths(tokens, 1)], "alone")).ttft_ms(50) for _ in range(3)
    )


def budgets(run, started: TracedEngine, requests: Sequence[Request], budget: int, chunked: bool) -> Figures:
    """chunked_prefill: long requests among streams ("short"), under a budget of tokens."""
    scheduler = started.scheduler
    with (
        changed(scheduler, max_num_scheduled_tokens=budget),
        changed(scheduler.scheduler_config, enable_chunked_prefill=chunked),
    ):
        served = drive(started.llm, fresh(requests))
    run.count(served.output_tokens)
    steps = started.steps_of(served).steps
    return {
        "ttft_ms": served.of("long").ttft_ms(50),
        "itl_p50_ms": served.of("short").itl_ms(50),
        "itl_p99_ms": served.of("short").itl_ms(99),
        "itl_max_ms": served.of("short").itl_ms(100),
        "most_tokens": max(sum(step.num_scheduled_tokens.values()) for step in steps),
        "steps": len(steps),
    }


def orders(run, started: TracedEngine, requests: Sequence[Request], priority: Callable[[Request], int]) -> Figures:
    """policies: the same requests with other priorities; figures of all and of each class, as "mean_s CLASS"."""
    served = drive(started.llm, [replace(request, priority=priority(request)) for request in fresh(requests)])
    run.count(served.output_tokens)
    found = {"seconds": served.seconds, "preempted": stages.preemptions(started.steps_of(served))}
    for kind in ("all", *sorted({request.kind for request in requests})):
        latencies = (served if kind == "all" else served.of(kind)).latencies_s()
        found |= {f"mean_s {kind}": statistics.mean(latencies), f"p99_s {kind}": timing.percentile(latencies, 99)}
    return found


def policy_table(found: Mapping[str, Figures], first: str) -> pd.DataFrame:
    """A row for each policy and class; `x_first` is the mean latency over that under the policy `first`."""
    kinds = [column.split()[1] for column in found[first] if column.startswith("mean_s")]
    return pd.DataFrame(
        {
            "policy": name,
            "kind": kind,
            "mean_s": figures[f"mean_s {kind}"],
            "x_first": figures[f"mean_s {kind}"] / found[first][f"mean_s {kind}"],
            "p99_s": figures[f"p99_s {kind}"],
            "seconds": figures["seconds"],
            "spread_pct": figures["spread_pct"],
            "preempted": figures["preempted"],
        }
        for name, figures in found.items()
        for kind in kinds
    )


def caches(run, started: TracedEngine, requests: Sequence[Request], blocks: int, places: int) -> Figures:
    """preemption: the same requests with so many KV blocks, and so many slots."""
    longest = max(len(request.prompt) + request.output_tokens - 1 for request in requests)  # the last is not computed
    with small_cache(started.scheduler, blocks, longest), changed(started.scheduler, max_num_active_reqs=places):
        served = drive(started.llm, fresh(requests))
    run.count(served.output_tokens)
    trace = started.steps_of(served)
    return {
        "seconds": served.seconds,
        "p99_s": timing.percentile(served.latencies_s(), 99),
        "most_running": max(step.num_running for step in trace.steps),
        "preempted": stages.preemptions(trace),
        "recomputed_tokens": stages.recomputed_tokens(trace),
    }


def prefixes(run, started: TracedEngine, system_tokens: int, user: Lengths, count: int, cached: bool) -> Figures:
    """prefix_cache: requests one after the other, each a new system prompt's with something of its own behind it."""
    system = random_ids(system_tokens)
    prompts = [system + random_ids(user.input_tokens) for _ in range(count)]
    one_by_one = [
        drive(started.llm, [Request("user", prompt, user.output_tokens, use_prefix_cache=cached)]) for prompt in prompts
    ]
    run.count(count * user.output_tokens)
    streams = [served.answers[0].stream for served in one_by_one]
    trace = started.recorded().between(one_by_one[0].start_s, one_by_one[-1].end_s)
    return {
        "ttft_ms": statistics.median(stream.ttft_ms for stream in streams),
        "tpot_ms": statistics.median(stream.tpot_ms for stream in streams),
        "hit_rate_pct": stages.hit_rate_pct(trace),
    }


def prefix_table(found: Mapping[tuple[int, bool], Figures], user_tokens: int) -> pd.DataFrame:
    """A row for each length of the system prompt, with and without reading the cache."""
    return pd.DataFrame(
        {
            "system_tokens": length,
            "prompt_tokens": length + user_tokens,
            "hit_rate_pct": cached["hit_rate_pct"],
            "ttft_ms": cached["ttft_ms"],
            "spread_pct": cached["spread_pct"],
            "uncached_ttft_ms": found[length, False]["ttft_ms"],
            "x_ttft": cached["ttft_ms"] / found[length, False]["ttft_ms"],
            "tpot_ms": cached["tpot_ms"],
            "uncached_tpot_ms": found[length, False]["tpot_ms"],
        }
        for (length, is_cached), cached in found.items()
        if is_cached
    )


def classes(
    run,
    started: TracedEngine,
    loads: Mapping[str, Sequence[Request]],
    ranks: Mapping[str, int] | None = None,
    budget: int | None = None,
) -> Figures:
    """mixed_load: classes of requests at once; figures as "COLUMN CLASS".

    `ranks` gives classes a priority, `budget` the steps another limit of tokens.
    """
    ranks, budget = ranks or {}, budget or started.scheduler.max_num_scheduled_tokens
    requests = [replace(r, priority=ranks.get(kind, 0)) for kind, load in loads.items() for r in fresh(load)]
    with changed(started.scheduler, max_num_scheduled_tokens=budget):
        served = drive(started.llm, requests)
    run.count(served.output_tokens)
    steps = started.steps_of(served).steps
    found = {"seconds": served.seconds, "most_waiting": max(step.num_waiting for step in steps)}
    for kind in loads:
        part = served.of(kind)
        found |= {
            f"output_tok_s {kind}": part.output_tok_s,
            f"ttft_p50_ms {kind}": part.ttft_ms(50),
            f"ttft_p99_ms {kind}": part.ttft_ms(99),
            f"itl_p99_ms {kind}": part.itl_ms(99),
            f"itl_max_ms {kind}": part.itl_ms(100),
        }
    return found


def class_table(found: Mapping[str, Figures], loads: Mapping[str, Sequence[Request]]) -> pd.DataFrame:
    """mixed_load: a row for each load and each class in it, with the spreads of what is compared between loads."""
    return pd.DataFrame(
        {
            "load": "alone" if name.endswith("_alone") else name,
            "kind": kind,
            "output_tok_s": figures[f"output_tok_s {kind}"],
            "spread_pct": figures[f"spread_pct output_tok_s {kind}"],
            "ttft_p99_ms": figures[f"ttft_p99_ms {kind}"],
            "ttft_spread_pct": figures[f"spread_pct ttft_p99_ms {kind}"],
            "itl_max_ms": figures[f"itl_max_ms {kind}"],
            "most_waiting": figures["most_waiting"],
            "requests": len(loads[kind]),
            "ttft_p50_ms": figures[f"ttft_p50_ms {kind}"],
            "itl_p99_ms": figures[f"itl_p99_ms {kind}"],
            "itl_spread_pct": figures[f"spread_pct itl_max_ms {kind}"],
        }
        for name, figures in found.items()
        for kind in loads
        if f"output_tok_s {kind}" in figures
    )
