"""Our solutions to exercises.py, where the docstrings are. They pass:  python -m common.check 0 --file solutions.py"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from common.timing import percentile

# ---------------------------------------------------------------------- 1. the headline with your own lengths


@dataclass(frozen=True)
class Row:
    engine: str
    batch: int
    output_tokens: int
    seconds: float


@dataclass(frozen=True)
class Model:
    parameters: float
    kv_bytes_per_token: float

    @property
    def weight_bytes(self) -> float:
        return 2 * self.parameters


@dataclass(frozen=True)
class Gpu:
    bandwidth_bytes_s: float
    flop_s: float


QWEN_7B = Model(parameters=7.6e9, kv_bytes_per_token=57_344)
H100 = Gpu(bandwidth_bytes_s=3.35e12, flop_s=989e12)


@dataclass(frozen=True)
class Case:
    input_tokens: int
    output_lengths: tuple[int, ...]


def measured_ratios(rows: Sequence[Row]) -> tuple[dict[int, float], float]:
    tok_s = {(row.engine, row.batch): row.batch * row.output_tokens / row.seconds for row in rows}
    of_vllm = {batch: rate for (engine, batch), rate in tok_s.items() if engine == "vllm"}
    of_transformers = {batch: rate for (engine, batch), rate in tok_s.items() if engine == "transformers"}
    equal = {batch: of_vllm[batch] / of_transformers[batch] for batch in of_vllm.keys() & of_transformers.keys()}
    return equal, max(of_vllm.values()) / min(of_transformers.values())


def step_seconds(model: Model, gpu: Gpu, new_tokens: float, cached_tokens: float, idle_s: float) -> float:
    memory_s = (model.weight_bytes + cached_tokens * model.kv_bytes_per_token) / gpu.bandwidth_bytes_s
    compute_s = 2 * model.parameters * new_tokens / gpu.flop_s
    return max(memory_s, compute_s) + idle_s


def predicted_tok_s(model: Model, gpu: Gpu, case: Case, idle_s: float, static: bool) -> float:
    batch = len(case.output_lengths)
    length = max(case.output_lengths) if static else mean(case.output_lengths)
    prefill_s = step_seconds(model, gpu, batch * case.input_tokens, 0, idle_s)
    decode_s = step_seconds(model, gpu, batch, batch * (case.input_tokens + length / 2), idle_s)
    return sum(case.output_lengths) / (prefill_s + (length - 1) * decode_s)


def closest(
    model: Model, gpu: Gpu, cases: Sequence[Case], transformers_idle_s: float, vllm_idle_s: float
) -> tuple[Case, float]:
    def advantage(case: Case) -> float:
        transformers = predicted_tok_s(model, gpu, case, transformers_idle_s, static=True)
        return predicted_tok_s(model, gpu, case, vllm_idle_s, static=False) / transformers

    best = min(cases, key=advantage)
    return best, advantage(best)


# ---------------------------------------------------------------------- 2. the day the naive server falls over


@dataclass(frozen=True)
class Request:
    sent_s: float
    latency_s: float
    in_time: bool


@dataclass(frozen=True)
class Summary:
    completed: int
    failed: int
    p50_s: float
    p99_s: float


def closed_loop(
    users: int, answer_s: float, deadline_s: float, window_s: float, notices: bool = False
) -> list[Request]:
    sends = [0.0] * users  # a heap: when each user sends next
    free_s = 0.0  # when the server has finished what it was given so far
    requests = []
    while sends:
        # Served in the order sent, so one pass is enough: nobody who sends later can change this request's turn.
        sent_s = heapq.heappop(sends)
        start_s, gives_up_s = max(free_s, sent_s), sent_s + deadline_s
        if notices and start_s >= gives_up_s:
            end_s, in_time = gives_up_s, False
        else:
            free_s = start_s + answer_s
            end_s, in_time = min(free_s, gives_up_s), free_s <= gives_up_s
        requests.append(Request(sent_s, end_s - sent_s, in_time))
        if end_s < window_s:
            heapq.heappush(sends, end_s)
    return requests


def summary(requests: Sequence[Request]) -> Summary:
    completed = sum(request.in_time for request in requests)
    latencies = [request.latency_s for request in requests]
    return Summary(completed, len(requests) - completed, percentile(latencies, 50), percentile(latencies, 99))


# ---------------------------------------------------------------------- 3. what a token costs


@dataclass(frozen=True)
class Bill:
    gpus: int
    utilisation: float
    always_on_usd: float
    by_the_hour_usd: float
    api_usd: float


def usd_per_million_tokens(price_per_hour: float, tok_s: float, utilisation: float = 1.0) -> float:
    return price_per_hour / (tok_s * utilisation * 3600) * 1e6


def break_even_utilisation(price_per_hour: float, tok_s: float, api_usd_per_million: float) -> float | None:
    share = usd_per_million_tokens(price_per_hour, tok_s) / api_usd_per_million
    return share if share <= 1 else None


def daily_bill(
    tokens_by_hour: Sequence[float], price_per_hour: float, tok_s: float, api_usd_per_million: float
) -> Bill:
    per_gpu_hour = tok_s * 3600
    needed = [math.ceil(tokens / per_gpu_hour) for tokens in tokens_by_hour]
    total, gpus = sum(tokens_by_hour), max(needed)
    return Bill(
        gpus=gpus,
        utilisation=total / (gpus * len(needed) * per_gpu_hour),
        always_on_usd=gpus * len(needed) * price_per_hour,
        by_the_hour_usd=sum(needed) * price_per_hour,
        api_usd=total / 1e6 * api_usd_per_million,
    )
