"""One start of `vllm serve`, taken apart: what its log says about the seconds to the first token."""

import re
import subprocess
import sys
import time
from pathlib import Path

import httpx

from common import models, serving
from common.hardware import Machine

# What the log says, by part. Where a line is repeated, the last one counts.
LOG_TIMES = {
    "load_s": r"(?:Model loading took .* and|Loading weights took) ([\d.]+) seconds",
    "compile_s": r"init engine .* took [\d.]+ s \(compilation: ([\d.]+) s",
    "graphs_s": r"Graph capturing finished in ([\d.]+) secs",
    "engine_s": r"init engine .* took ([\d.]+) s",
}


def import_seconds() -> float:
    """Seconds until a fresh Python has imported the server."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import vllm.entrypoints.openai.api_server"], check=True)
    return time.perf_counter() - start


def parts(log: str) -> dict[str, float | None]:
    """Seconds by part from the text of a server's log; None for a part that it does not mention.

    load_s builds the model and loads weights; compile_s is torch.compile; graphs_s captures CUDA graphs (vLLM
    logs whole seconds); profile_s is the rest of what vLLM calls "init engine".
    """
    found = {name: re.findall(pattern, log) for name, pattern in LOG_TIMES.items()}
    times = {name: float(values[-1]) if values else None for name, values in found.items()}
    engine = times.pop("engine_s")
    if engine is not None:
        engine = max(0.0, engine - (times["compile_s"] or 0.0) - (times["graphs_s"] or 0.0))
    return times | {"profile_s": engine}


def first_token_seconds(
    model: models.Model, machine: Machine, log: Path, cache: Path, **options
) -> dict[str, float | None]:
    """Start `vllm serve` with its compile caches in the folder `cache`, ask for one token, stop it.

    Returns `parts` and total_s, from the command to the first token.
    """
    start = time.perf_counter()
    with serving.serve(model, machine, log, environment={"VLLM_CACHE_ROOT": str(cache)}, **options) as server:
        body = {"model": model.name, "prompt": [1, 2, 3], "max_tokens": 1}
        httpx.post(f"{server.url}/v1/completions", json=body, timeout=120, trust_env=False).raise_for_status()
        total = time.perf_counter() - start
    return parts(log.read_text(errors="replace")) | {"total_s": total}
