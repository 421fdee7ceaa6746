"""`vllm bench serve` in a process that stays: its own code and options, imported once instead of once for each run."""

import json
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from common.load import Target


def _imported() -> bool:
    """Import it, and have each run tell its CPU time."""
    from vllm.benchmarks import serve  # what takes the time

    benchmark = serve.benchmark  # from its first request to its figures; reading the prompts comes before it

    async def with_cpu_time(*arguments: object, **options: object) -> dict:
        begin_s = time.process_time()
        found = await benchmark(*arguments, **options)
        return found | {"client_cpu_s": time.process_time() - begin_s}

    serve.benchmark = with_cpu_time
    return True


def _bench(words: Sequence[str]) -> dict:
    from vllm.benchmarks import serve
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)
    return serve.main(parser.parse_args(list(words)))


class BenchClient:
    """A context manager; the import goes on in the background from the moment that it is made."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self._imported: Future = self._pool.submit(_imported)

    def __enter__(self) -> "BenchClient":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def ready(self) -> None:
        """Wait for the import. Raises what it raised."""
        self._imported.result()

    def run(self, words: Sequence[str]) -> dict:
        """The JSON that `vllm bench serve` writes with these words on its command line, with `client_cpu_s` added."""
        return self._pool.submit(_bench, words).result()


def closed_list(bench: BenchClient, target: Target, tokenizer: str, folder: Path, users: int, requests: int) -> dict:
    """The JSON of `vllm bench serve`, for the prompts and lengths of the first `requests` requests of `target`."""
    prompts = folder / "bench-prompts.jsonl"
    bodies = (target.body(index) for index in range(requests))
    lines = ({"prompt": body["prompt"], "output_tokens": body["max_tokens"]} for body in bodies)
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["--base-url", target.url, "--backend", "openai", "--endpoint", "/v1/completions"]
    words += ["--model", target.model, "--served-model-name", target.model, "--tokenizer", tokenizer]
    words += ["--dataset-name", "custom", "--dataset-path", str(prompts), "--skip-chat-template", "--disable-shuffle"]
    words += ["--custom-output-len", "-1", "--ignore-eos", "--temperature", "0"]
    words += ["--num-prompts", str(requests), "--max-concurrency", str(users), "--disable-tqdm"]
    words += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,99"]
    return bench.run(words)
