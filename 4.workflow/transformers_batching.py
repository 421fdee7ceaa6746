"""Transformers' own static and continuous batching, measured in a process of its own.

Of its own, because vLLM binds the process it runs in to a core, and because a generation thread that hangs can then be
ended. As a program:

    python 4.workflow/transformers_batching.py --model course-lm --requests FILE --batch 16 --repeats 3

FILE holds one JSON object: for each mix a list of [prompt length, answer length]. Each result is one line of JSON on
standard output as soon as it is there, so that what was measured stays when the program is ended.
"""

import argparse
import ctypes
import json
import math
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from request_mixes import random_ids

from common import hardware, memory, models, serving, timing
from common.lengths import Lengths

WARMUP = [[16, 4]] * 2


def static(network, sizes: list[list[int]], batch: int) -> list[float]:
    """`generate` on one batch after the other, each until its longest answer ends; seconds until each was answered."""
    import torch

    start, finished = time.monotonic(), []
    for first in range(0, len(sizes), batch):
        together = sizes[first : first + batch]
        longest, steps = max(prompt for prompt, _ in together), max(answer for _, answer in together)
        ids = torch.zeros((len(together), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, (prompt, _) in enumerate(together):
            ids[row, longest - prompt :] = torch.tensor(random_ids(prompt))
            mask[row, longest - prompt :] = 1
        network.generate(
            ids.to(network.device), attention_mask=mask.to(network.device), max_new_tokens=steps, min_new_tokens=steps,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip
        timing.synchronise()
        finished += [time.monotonic() - start] * len(together)
    return finished


def continuous(network, sizes: list[list[int]], batch: int) -> list[float]:
    """Its continuous batching with at most `batch` requests at once; seconds until each was answered."""
    from transformers import ContinuousBatchingConfig, GenerationConfig
    from transformers.utils import is_flash_attn_2_available

    generation = GenerationConfig(do_sample=False, eos_token_id=-1, max_new_tokens=max(answer for _, answer in sizes))
    longest = max(prompt + answer for prompt, answer in sizes)
    limits = ContinuousBatchingConfig(
        max_requests_per_batch=batch,
        num_blocks=batch * math.ceil(longest / ContinuousBatchingConfig.page_size) + 1,  # unset, it takes all memory
        auto_switch_to_flash=is_flash_attn_2_available(),  # else it would ask a model hub for kernels
    )
    with network.continuous_batching_context_manager(
        generation_config=generation, continuous_batching_config=limits, timeout=5
    ) as manager:
        start, finished = time.monotonic(), {}
        for index, (prompt, answer) in enumerate(sizes):
            manager.add_request(list(random_ids(prompt)), str(index), max_new_tokens=answer, eos_token_id=-1)
        while len(finished) < len(sizes):
            result = manager.get_result(timeout=1)
            if result is not None and result.is_finished():
                if result.error:
                    raise RuntimeError(result.error)
                finished[int(result.request_id)] = time.monotonic() - start
            elif result is None and not manager.is_running():
                raise RuntimeError(f"its thread ended after {len(finished)} of {len(sizes)} requests")
    return [finished[index] for index in range(len(sizes))]


def measure(network, batching: Callable, mixes: dict[str, list[list[int]]], batch: int, repeats: int) -> None:
    """Print a line for each mix and repeat; one with the error if it fails."""
    name = f"transformers_{batching.__name__}"
    try:
        batching(network, WARMUP, batch)
        for repeat in range(repeats):
            for mix, sizes in mixes.items():
                with memory.sample() as samples:
                    finished = batching(network, sizes, batch)
                line = {"mix": mix, "batching": name, "repeat": repeat, "finished_s": finished}
                print(json.dumps(line | {"gpu_util_pct": samples.mean_utilisation_pct}), flush=True)
    except Exception as error:  # whatever a foreign thread or kernel may raise; the table shows it
        print(json.dumps({"batching": name, "error": f"{type(error).__name__}: {error}"}), flush=True)


def apart(
    run, mixes: Mapping[str, Sequence[Lengths]], batch: int, limit_s: float
) -> dict[tuple[str, str], dict[str, object]]:
    """Measure both in a child process: for each mix and batching the medians as columns of a table, or `error`.

    What is not finished after `limit_s` is ended; that cell says so.
    """
    file, results = run.logs / "transformers-requests.json", run.logs / "transformers-results.jsonl"
    file.write_text(
        json.dumps({mix: [(s.input_tokens, s.output_tokens) for s in sizes] for mix, sizes in mixes.items()})
    )
    command = [sys.executable, __file__, "--model", run.model.name, "--requests", str(file), "--batch", str(batch)]
    with results.open("w") as output, (run.logs / "transformers.log").open("w") as log:
        child = subprocess.Popen(
            [*command, "--repeats", str(run.repeats)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=log, start_new_session=True,
        )  # fmt: skip
        ended = f"it ended with status {{status}}; see {log.name}"
        try:
            child.wait(limit_s)
        except subprocess.TimeoutExpired:
            ended = f"not finished after {limit_s:.0f} s"
        finally:
            serving.stop(child)
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    failed = {line["batching"]: line["error"] for line in lines if "error" in line}
    cells = {}
    for mix, sizes in mixes.items():
        for batching in ("transformers_static", "transformers_continuous"):
            repeats = [line for line in lines if line.get("mix") == mix and line["batching"] == batching]
            if len(repeats) == run.repeats:
                cells[mix, batching] = cell(sizes, repeats)
            else:
                cells[mix, batching] = {"error": failed.get(batching, ended.format(status=child.returncode))}
    return cells


def cell(sizes: Sequence[Lengths], repeats: Sequence[dict]) -> dict[str, object]:
    """Medians over the repeats of one mix."""
    tokens = sum(size.output_tokens for size in sizes)
    rates = timing.Repeats(tuple(tokens / max(line["finished_s"]) for line in repeats))
    used = [line["gpu_util_pct"] for line in repeats if line["gpu_util_pct"] is not None]
    return {
        "output_tok_s": rates.median,
        "spread_pct": rates.spread_pct,
        "mean_s": statistics.median(statistics.mean(line["finished_s"]) for line in repeats),
        "p99_s": statistics.median(timing.percentile(line["finished_s"], 99) for line in repeats),
        "gpu_util_pct": statistics.median(used) if used else None,
    }


def main() -> None:
    ctypes.CDLL(None).prctl(serving.PR_SET_PDEATHSIG, signal.SIGTERM)  # never outlive the demo
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=Path, required=True, metavar="FILE")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    network, _ = models.transformers_model(models.resolve(options.model), hardware.machine())
    mixes = json.loads(options.requests.read_text())
    for batching in (static, continuous):
        measure(network, batching, mixes, options.batch, options.repeats)


if __name__ == "__main__":
    main()
