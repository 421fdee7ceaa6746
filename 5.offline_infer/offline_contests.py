"""What the contestants of the speed experiments do: the runner and vLLM's benchmark, orders of a batch, samplers."""

import heapq
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from batch_job import BatchJob
from batch_runner import run as answer_job
from offline_prompts import Request, write_jsonl

from common import throughput, timing
from common.in_process import core_in_this_process
from common.problems import Problem

# ------------------------------------------------------------------------- the runner, and vLLM's own benchmark


class Watched:
    """A way to answer a batch, called for its tokens per second, that also knows how long the engine's steps took.

    `serve` answers the batch once and returns the seconds that it took, and how many of them it waited for outputs of
    the engine's process before a step: they are the step's, for another program waits in it.
    """

    def __init__(self, llm, tokens: int, serve: Callable[[], tuple[float, float]]):
        self.llm, self.tokens, self.serve = llm, tokens, serve
        self.steps, self.outside = 0, []

    def __call__(self) -> float:
        self.llm.reset_prefix_cache()
        engine, durations = self.llm.llm_engine, []
        step = engine.step

        def timed() -> list:
            start = time.perf_counter()
            outputs = step()
            durations.append(time.perf_counter() - start)
            return outputs

        engine.step = timed
        try:
            seconds, waiting_s = self.serve()
        finally:
            del engine.step  # the class's own is there again
        self.steps = len(durations)
        self.outside.append((1 - (sum(durations) + waiting_s) / seconds) * 100)
        return self.tokens / seconds

    @property
    def outside_steps_pct(self) -> float:
        """Share of the time that was not spent in a step of the engine, the median of all calls."""
        return statistics.median(self.outside)


def of_runner(llm, requests: Sequence[Request], folder: Path) -> Watched:
    """batch_runner.py's loop, from opening the file to the last line written."""
    from vllm import SamplingParams

    prompts, answers = folder / "throughput.jsonl", folder / "throughput.answers.jsonl"
    write_jsonl(prompts, requests)
    sampling = SamplingParams(temperature=1.0, ignore_eos=True)  # what the benchmark takes
    tokens = sum(request.output_tokens for request in requests)

    def serve() -> tuple[float, float]:
        for file in (answers, answers.with_suffix(".errors.jsonl"), answers.with_suffix(".job.json")):
            file.unlink(missing_ok=True)
        start = time.perf_counter()
        with BatchJob(prompts, answers, {"throughput": True}) as job:
            progress = answer_job(llm, job, sampling)
        seconds = time.perf_counter() - start
        if progress.failed or progress.output_tokens != tokens:
            raise Problem(f"{progress.failed} prompts failed, {progress.output_tokens} tokens came.", "Report it.")
        return seconds, progress.waiting_s

    return Watched(llm, tokens, serve)


def of_benchmark(llm, requests: Sequence[Request]) -> Watched:
    """The function that `vllm bench throughput` calls and times, on an engine that runs already."""
    from vllm.benchmarks.datasets import SampleRequest
    from vllm.benchmarks.throughput import _run_vllm_requests

    asked = [SampleRequest(r.prompt, r.prompt_tokens, r.output_tokens) for r in requests]

    def serve() -> tuple[float, float]:
        seconds, _ = _run_vllm_requests(
            llm, asked, n=1, disable_detokenize=False, do_profile=False, prequeue_requests=False, enable_lora=False
        )
        return seconds, 0.0

    return Watched(llm, sum(request.output_tokens for request in requests), serve)


def of_benchmark_command(run, requests: Sequence[Request], tokenizer, **engine: object) -> float:
    """`vllm bench throughput` on the same prompts, with an engine of its own, in its process like ours; tokens/s.

    Its warm-up has the same prompts, so the engine must not keep prefixes. It reads them in the form of ShareGPT, where
    the length of an answer is given by a text of as many tokens.
    """
    dataset = run.logs / "bench.dataset.json"
    filler = " the" * 4096
    ids = tokenizer.encode(filler, add_special_tokens=False)
    turns = []
    for request in requests:
        answer = tokenizer.decode(ids[: request.output_tokens])
        if len(tokenizer.encode(answer)) != request.output_tokens:
            raise Problem("This tokenizer can't write an answer of a given length.", "Use another --model.")
        turns.append({"conversations": [{"value": request.prompt}, {"value": answer}]})
    dataset.write_text(json.dumps(turns, ensure_ascii=False))
    words = ["--dataset-name", "sharegpt", "--dataset-path", str(dataset)]
    with core_in_this_process(True):
        report = throughput.vllm_bench(run.model, run.machine, len(requests), words, run.logs, **engine)
    return sum(request.output_tokens for request in requests) / report["elapsed_time"]


# ------------------------------------------------------------------------------------------------ orders of a batch


def steps_of(answers: Sequence[int], places: int) -> int:
    """Steps until all answers are made, if each takes the first free place in this order, one token a step."""
    free = [0] * places
    for tokens in answers:
        heapq.heapreplace(free, free[0] + tokens)
    return max(free)


def orders(requests: Sequence[Request]) -> dict[str, list[Request]]:
    """The same requests in four orders. Those by the answer need its length, which is rarely known."""
    return {
        "as_they_come": list(requests),
        "shortest_prompt_first": sorted(requests, key=lambda r: r.prompt_tokens),
        "shortest_answer_first": sorted(requests, key=lambda r: r.output_tokens),
        "longest_answer_first": sorted(requests, key=lambda r: -r.output_tokens),
    }


def shared_prefixes(tokenizer, row: Sequence[int], groups: int, each: int, prefix: int, own: int) -> list[Request]:
    """`groups` long texts, each with `each` questions on it: first those of one text, then those of the next."""
    draw, found = random.Random(0), []
    for group in range(groups):
        start = draw.randrange(len(row) - prefix)
        text = f"{group} " + tokenizer.decode(row[start : start + prefix])
        for number in range(each):
            prompt = f"{text}\n{number}: {tokenizer.decode(row[draw.randrange(len(row) - own) :][:own])}"
            found.append(Request(prompt, len(tokenizer.encode(prompt)), 8))
    return found


def interleaved(requests: Sequence[Request], each: int) -> list[Request]:
    """One question of each text, then the next of each: the order in which a table of questions often lies."""
    return [requests[first + number] for number in range(each) for first in range(0, len(requests), each)]


# --------------------------------------------------------------------------------------------------------- samplers

# name: SamplingParams beside max_tokens; random numbers everywhere but in the first two
SAMPLERS: dict[str, dict] = {
    "greedy": {"temperature": 0.0},
    "greedy_no_text": {"temperature": 0.0, "detokenize": False},
    "temperature": {"temperature": 1.0},
    "top_k": {"temperature": 1.0, "top_k": 50},
    "top_p": {"temperature": 1.0, "top_p": 0.9},
    "top_k_and_top_p": {"temperature": 1.0, "top_k": 50, "top_p": 0.9},
    "min_p": {"temperature": 1.0, "min_p": 0.05},
    "repetition_penalty": {"temperature": 0.0, "repetition_penalty": 1.1},
    "logprobs_5": {"temperature": 0.0, "logprobs": 5},
    "a_seed_each": {"temperature": 1.0, "seed": 1},
}
BEAMS = 4  # and the answers to each prompt of n_4


def of_sampler(llm, requests: Sequence[Request], settings: dict) -> Callable[[], float]:
    """A measurement of `generate` with these settings; tokens/s, of all answers where there are several."""
    from vllm import SamplingParams

    prompts = [request.prompt for request in requests]
    params = [SamplingParams(max_tokens=r.output_tokens, ignore_eos=True, **settings) for r in requests]
    tokens = sum(request.output_tokens for request in requests) * settings.get("n", 1)

    def measure() -> float:
        llm.reset_prefix_cache()
        return tokens / timing.seconds(lambda: llm.generate(prompts, params, use_tqdm=False))

    return measure


def of_beam_search(llm, requests: Sequence[Request], beams: int = BEAMS) -> Callable[[], float]:
    """A measurement of beam search; tokens/s of the best answers alone, which are what is asked for."""
    from vllm.sampling_params import BeamSearchParams

    prompts = [{"prompt": request.prompt} for request in requests]
    length = requests[0].output_tokens
    params = BeamSearchParams(beam_width=beams, max_tokens=length, ignore_eos=True)

    def measure() -> float:
        llm.reset_prefix_cache()
        return len(requests) * length / timing.seconds(lambda: llm.beam_search(prompts, params))

    return measure
