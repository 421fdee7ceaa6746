"""The exercises of 0.intro. Write the functions that raise NotImplementedError, then: make check CH=0

The check says in words what is still wrong; it never asks for more than the docstring says. Print what you like:
it is shown. `solutions.py` in this folder passes the same checks. Try first.

  1  The headline with your own lengths    measured_ratios, step_seconds, predicted_tok_s, closest    40 minutes
  2  The day the naive server falls over   closed_loop, summary                                       30 minutes
  3  What a token costs                    usd_per_million_tokens, break_even_utilisation, daily_bill  20 minutes
"""

from collections.abc import Sequence
from dataclasses import dataclass

# ---------------------------------------------------------------------- 1. the headline with your own lengths
#
# When you have written it, compare with the real thing. The first has long prompts, the second long answers:
#
#   make demo CH=0 ARGS='--only headline --input-tokens 500 --output-tokens 20'
#   make demo CH=0 ARGS='--only headline --input-tokens 16 --output-tokens 400'


@dataclass(frozen=True)
class Row:
    """One measurement: a batch of equal requests, answered together."""

    engine: str  # "transformers" or "vllm"
    batch: int  # requests
    output_tokens: int  # of each request
    seconds: float  # for the whole batch


@dataclass(frozen=True)
class Model:
    """What the arithmetic of 0.3 needs to know of a model in 16 bits."""

    parameters: float
    kv_bytes_per_token: float

    @property
    def weight_bytes(self) -> float:
        return 2 * self.parameters


@dataclass(frozen=True)
class Gpu:
    """The two rates of a data sheet: bytes/s of device memory, FLOP/s of dense 16-bit arithmetic."""

    bandwidth_bytes_s: float
    flop_s: float


QWEN_7B = Model(parameters=7.6e9, kv_bytes_per_token=57_344)
H100 = Gpu(bandwidth_bytes_s=3.35e12, flop_s=989e12)


@dataclass(frozen=True)
class Case:
    """A batch to answer: prompts of equal length, and how long each answer becomes (one number a request)."""

    input_tokens: int
    output_lengths: tuple[int, ...]


def measured_ratios(rows: Sequence[Row]) -> tuple[dict[int, float], float]:
    """How many times faster is vLLM? Two answers from the same rows.

    tokens/s of a row are the output tokens of its whole batch over its seconds. Return

    - a dict from each batch size that was measured with both engines to vLLM's tokens/s over Transformers'
      tokens/s at that same batch size;
    - the number a talk would show: the highest tokens/s of any vLLM row over the lowest of any Transformers row.

    There is at most one row for an engine and a batch size, and at least one row for each engine.
    """
    raise NotImplementedError("measured_ratios")


def step_seconds(model: Model, gpu: Gpu, new_tokens: float, cached_tokens: float, idle_s: float) -> float:
    """Seconds of one forward pass, to first order.

    `new_tokens` tokens are computed in this step, over all requests of the batch: the whole prompts in a prefill,
    one token a request in a decode step. `cached_tokens` is the number of tokens, over all requests, whose keys and
    values are read from the KV cache.

    - The memory delivers all weights once, however many requests share the step, and the KV bytes of the cached
      tokens, at the GPU's bandwidth.
    - The arithmetic is 2 FLOP per parameter and new token, at the GPU's FLOP/s.
    - Both go on at the same time, so the slower one counts.
    - Then come `idle_s` seconds in which the GPU waits for the program around it: launching kernels from Python,
      choosing the token, deciding whether to stop. They are the same at every step.
    """
    raise NotImplementedError("step_seconds")


def predicted_tok_s(model: Model, gpu: Gpu, case: Case, idle_s: float, static: bool) -> float:
    """Output tokens per second for a batch, from `step_seconds`.

    The batch has B = len(case.output_lengths) requests. It takes one prefill, which computes all prompts at once,
    reads nothing from the cache and gives each request its first token; then the decode steps for the others.

    - `static` (Transformers' `generate`): the batch stays as it is until the longest answer is done. So there are
      max(output_lengths) - 1 decode steps, each for B requests, finished or not.
    - not `static` (vLLM under load): a slot that becomes free is taken by the next request at once. Over time a
      slot spends the mean length on each request, so count mean(output_lengths) - 1 decode steps, also for B
      requests.

    The cache grows during decode. Take its mean: in each decode step each of the B requests reads
    input_tokens + L / 2 cached tokens, where L is the longest or the mean length from above.

    Return sum(output_lengths) over the seconds: what nobody asked for does not count.
    """
    raise NotImplementedError("predicted_tok_s")


def closest(
    model: Model, gpu: Gpu, cases: Sequence[Case], transformers_idle_s: float, vllm_idle_s: float
) -> tuple[Case, float]:
    """The case in which Transformers comes closest to vLLM, and vLLM's tokens/s over Transformers' in that case.

    Both run the same batch. Transformers is static and idles `transformers_idle_s` a step, vLLM is not and idles
    `vllm_idle_s`. Before you run it, guess: which of long prompt, long answer, large batch, uneven answers brings
    the two together, and which drives them apart?
    """
    raise NotImplementedError("closest")


# ---------------------------------------------------------------------- 2. the day the naive server falls over
#
# The table of naive_server in results.md has these columns. With the seconds of one answer from its first row you
# can predict the others, and then compare:  make demo CH=0 ARGS='--only naive_server'


@dataclass(frozen=True)
class Request:
    """One request as its user saw it, in seconds."""

    sent_s: float  # when it was sent, from the start of the load
    latency_s: float  # until its answer came, or until the user gave up
    in_time: bool  # whether the answer came before the user gave up


@dataclass(frozen=True)
class Summary:
    """A row of the naive_server table."""

    completed: int
    failed: int
    p50_s: float
    p99_s: float


def closed_loop(
    users: int, answer_s: float, deadline_s: float, window_s: float, notices: bool = False
) -> list[Request]:
    """All requests that `users` users send to a server that answers one at a time.

    - All users send their first request at time 0.
    - The server takes requests in the order in which they were sent and works `answer_s` seconds on each.
    - A user waits until the answer comes, but not longer than `deadline_s`. An answer that comes exactly at the
      deadline is in time.
    - As soon as the answer has come or the user has given up, the same user sends the next request, if that moment
      is before `window_s`. Nobody sends anything at `window_s` or later, but what was sent is waited for.
    - The server does not know that a user has gone: it works on that request all the same, when its turn comes.
      With `notices` it knows: when it would take a request whose user has gone, or goes at that very moment, it
      drops it and takes the next at once. (One that it has begun, it finishes.)

    Return the requests in the order in which they were sent; those sent at the same moment in any order. No
    randomness and no real time: this is a simulation, and a loop of about ten lines is enough. `heapq` helps.
    """
    raise NotImplementedError("closed_loop")


def summary(requests: Sequence[Request]) -> Summary:
    """Completed and failed requests, and the 50th and 99th percentile of latency over all of them.

    A failed request counts with the time that it cost its user. Percentiles are linear between neighbours:
    `common.timing.percentile(values, q)` has q from 0 to 100. There is at least one request.
    """
    raise NotImplementedError("summary")


# ---------------------------------------------------------------------- 3. what a token costs
#
# Prices are in dollars. tok_s is what one GPU makes when it is full, in output tokens per second: take it from the
# cost table of results.md, or from your own run.  make demo CH=0 ARGS='--only headline'


@dataclass(frozen=True)
class Bill:
    """One day, served in three ways. Dollars."""

    gpus: int  # that the busiest hour needs
    utilisation: float  # of those GPUs over the whole day, 0 to 1
    always_on_usd: float
    by_the_hour_usd: float
    api_usd: float


def usd_per_million_tokens(price_per_hour: float, tok_s: float, utilisation: float = 1.0) -> float:
    """Dollars for a million output tokens of a GPU that costs `price_per_hour` and is busy a share of its time.

    `utilisation` is that share, above 0 and at most 1: the tokens that it makes over those it could make.
    """
    raise NotImplementedError("usd_per_million_tokens")


def break_even_utilisation(price_per_hour: float, tok_s: float, api_usd_per_million: float) -> float | None:
    """The utilisation above which your own GPU is cheaper than an API that asks `api_usd_per_million`.

    None if even a GPU that is full all day costs more than the API.
    """
    raise NotImplementedError("break_even_utilisation")


def daily_bill(
    tokens_by_hour: Sequence[float], price_per_hour: float, tok_s: float, api_usd_per_million: float
) -> Bill:
    """What a day costs, given the output tokens asked for in each hour (24 numbers, not all of them 0).

    - always on: as many GPUs as the busiest hour needs, paid all 24 hours, busy or not;
    - by the hour: in each hour as many GPUs as that hour needs, none in an hour without tokens;
    - API: paid by the token.

    GPUs are whole. An hour that needs 1.01 of them needs two. Starting takes no time here; chapter 3 says better.
    """
    raise NotImplementedError("daily_bill")
