"""Output tokens per second of a batch of equal requests: Transformers, vLLM, and vLLM's own benchmark."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from common import models, serving, timing
from common.hardware import Machine
from common.problems import Problem


def random_prompts(count: int, tokens: int, seed: int = 0) -> list[list[int]]:
    """`count` prompts of `tokens` random ids. All differ, so that no cache answers for the engine."""
    draw = random.Random(seed)
    return [[draw.randrange(1000, 10_000) for _ in range(tokens)] for _ in range(count)]


def of_transformers(network, batch: int, input_tokens: int, output_tokens: int) -> Callable[..., float]:
    """A measurement of `generate` with KV cache, greedy. It returns tokens/s; `steps` replaces `output_tokens`."""
    import torch

    prompts = torch.tensor(random_prompts(batch, input_tokens), device=network.device)
    mask = torch.ones_like(prompts)

    @torch.inference_mode()
    def measure(steps: int = output_tokens) -> float:
        options = {"max_new_tokens": steps, "min_new_tokens": steps, "do_sample": False, "pad_token_id": 0}
        return batch * steps / timing.seconds(lambda: network.generate(prompts, attention_mask=mask, **options))

    return measure


def of_vllm(llm, batch: int, input_tokens: int, output_tokens: int, temperature: float = 0.0) -> Callable[..., float]:
    """A measurement of `llm.generate` for `batch` requests at once, text included. It returns tokens/s."""
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": ids} for ids in random_prompts(batch, input_tokens)]

    def measure(steps: int = output_tokens) -> float:
        sampling = SamplingParams(temperature=temperature, max_tokens=steps, ignore_eos=True)
        return batch * steps / timing.seconds(lambda: llm.generate(prompts, sampling, use_tqdm=False))

    return measure


def of_vllm_bench(
    model: models.Model, machine: Machine, batch: int, input_tokens: int, output_tokens: int, logs: Path, **options
) -> float:
    """What `vllm bench throughput` measures for the same engine options, lengths and number of requests; tokens/s."""
    dataset = ["--dataset-name", "random", "--random-input-len", str(input_tokens)]
    dataset += ["--random-output-len", str(output_tokens)]
    return batch * output_tokens / vllm_bench(model, machine, batch, dataset, logs, **options)["elapsed_time"]


def vllm_bench(
    model: models.Model, machine: Machine, requests: int, dataset: list[str], logs: Path, **options: object
) -> dict:
    """The report of `vllm bench throughput` on a dataset, named in the words of its command line.

    It runs in a process of its own, warms up with as many requests, and samples with temperature 1. Raises Problem if
    it fails, or if it took another number of requests than asked.
    """
    report, log = logs / "bench.json", logs / "bench.log"
    engine = models.engine_options(model, machine, **options)
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "bench", "throughput", *serving.flags(engine)]
    command += [*dataset, "--num-prompts", str(requests), "--num-warmups", str(requests)]
    with log.open("wb") as output:
        ended = subprocess.run(
            [*command, "--output-json", str(report)], check=False, stdout=output, stderr=subprocess.STDOUT
        )
    if ended.returncode:
        raise Problem(f"vllm bench throughput failed: {serving.first_error(log)}", f"Read {log}.")
    found = json.loads(report.read_text())
    if found["num_requests"] != requests:
        raise Problem(f"The benchmark took {found['num_requests']} of {requests} prompts.", f"Read {log}.")
    return found
