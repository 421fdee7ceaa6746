"""An engine driven by hand: requests are added when they are due, and it is stepped until all are answered.

`LLM.generate` does the same without showing it: `add_request` hands a request to the scheduler, and each `step` gives
the tokens of one step. Here every token gets the time at which its reader would have it.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from request_mixes import Request

from common.engine_core import is_dead, wait_for_output
from common.problems import Problem, explain
from common.timing import Stream, percentile


@dataclass
class Answer:
    """What became of one request. Times are seconds of `time.monotonic()`, as in a trace."""

    request: Request
    id: str  # the engine's name for it, which the trace uses
    due_s: float
    sent_s: float  # when it was handed to the engine, which may be a step later
    token_s: list[float] = field(default_factory=list)  # when each token had come back
    metrics: object = None  # vLLM's own times: vllm.v1.metrics.stats.RequestStateStats

    @property
    def stream(self) -> Stream:
        """For TTFT, inter-token and end-to-end latency: they count from when the request was due."""
        return Stream(self.due_s, tuple(self.token_s))


@dataclass
class Served:
    """The answers to one set of requests, in the order in which they were given."""

    start_s: float
    end_s: float
    answers: list[Answer]

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s

    @property
    def output_tokens(self) -> int:
        return sum(len(answer.token_s) for answer in self.answers)

    @property
    def output_tok_s(self) -> float:
        return self.output_tokens / self.seconds

    def of(self, kind: str) -> "Served":
        """The answers of one class, over the time in which they were given."""
        answers = [answer for answer in self.answers if answer.request.kind == kind]
        return Served(min(a.due_s for a in answers), max(a.token_s[-1] for a in answers), answers)

    def latencies_s(self) -> list[float]:
        """End-to-end latency of each request."""
        return [answer.stream.end_to_end_ms / 1e3 for answer in self.answers]

    def ttft_ms(self, q: float) -> float:
        return percentile([answer.stream.ttft_ms for answer in self.answers], q)

    def itl_ms(self, q: float) -> float:
        """A percentile of all gaps between tokens that follow each other, of all requests together."""
        return percentile([gap for answer in self.answers for gap in answer.stream.itl_ms], q)


def check(requests: Sequence[Request], max_model_len: int) -> None:
    """Raise Problem for requests that can't be served, before one is sent."""
    if not requests:
        raise Problem("There are no requests to send.", "Give at least one.")
    if len({request.name for request in requests}) < len(requests):
        raise Problem("Two requests have the same name.", "Give each a name of its own: its answer is found by it.")
    for request in requests:
        known = len(request.prompt) if not isinstance(request.prompt, str) else 1
        if request.output_tokens < 1 or known < 1:
            raise Problem(f"{request.name} has no prompt or asks for no token.", "Both take at least one token.")
        if known + request.output_tokens > max_model_len:
            raise Problem(
                f"{request.name} has {known} tokens in and {request.output_tokens} out; the engine holds "
                f"{max_model_len} in all.",
                "Shorten it, or start the engine with a larger max_model_len.",
            )


def drive(llm, requests: Sequence[Request]) -> Served:
    """Send each request when it is due, and step the engine until all are answered.

    Raises Problem for no request, for one that the engine's context can't hold, and if the engine's process ends.
    """
    check(requests, llm.model_config.max_model_len)
    engine, answers = llm.llm_engine, {}
    start = time.monotonic()
    try:
        _serve(engine, deque(sorted(requests, key=lambda request: request.due_s)), answers, start)
    except Exception as error:  # whatever a broken connection makes of it
        if not is_dead(engine.engine_core):
            raise
        done = sum(len(answer.token_s) == answer.request.output_tokens for answer in answers.values())
        meaning, fix = explain("EngineDeadError")
        message = f"The engine's process ended when {done} of {len(requests)} requests had been answered."
        raise Problem(message, fix, meaning) from error
    return Served(start, time.monotonic(), [answers[request.name] for request in requests])


def _serve(engine, coming: deque[Request], answers: dict[str, Answer], start: float) -> None:
    """Drive's loop; `answers` by name of the request are filled while it goes."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    wall_clock = time.time() - (time.monotonic() - start)
    while coming or engine.has_unfinished_requests():
        while coming and start + coming[0].due_s <= (now := time.monotonic()):
            request = coming.popleft()
            sampling = SamplingParams(
                temperature=0.0,
                max_tokens=request.output_tokens,
                ignore_eos=True,
                output_kind=RequestOutputKind.DELTA,
                skip_reading_prefix_cache=not request.use_prefix_cache,
            )
            prompt = request.prompt if isinstance(request.prompt, str) else {"prompt_token_ids": list(request.prompt)}
            # It arrived when it was due, and those that are due at once in this order.
            arrival = wall_clock + request.due_s + len(answers) * 1e-6
            name = engine.add_request(request.name, prompt, sampling, arrival, priority=request.priority)
            answers[request.name] = Answer(request, name, start + request.due_s, now)
        if not engine.has_unfinished_requests():
            time.sleep(max(0.0, start + coming[0].due_s - time.monotonic()))
            continue
        wait_for_output(engine.engine_core)
        for output in engine.step():
            answer = answers[output.request_id]
            answer.token_s += [time.monotonic()] * len(output.outputs[0].token_ids)
            answer.metrics = output.metrics


def in_batches(llm, requests: Sequence[Request], size: int) -> Served:
    """Static batching: `size` requests go, and the next ones wait until all of these are answered.

    They are due at the start, whatever their `due_s` says: those of later batches wait from then on.
    """
    check(requests, llm.model_config.max_model_len)
    batches = [drive(llm, requests[first : first + size]) for first in range(0, len(requests), size)]
    start = batches[0].start_s
    answers = [answer for batch in batches for answer in batch.answers]
    for answer in answers:
        answer.due_s = start
    return Served(start, batches[-1].end_s, answers)
