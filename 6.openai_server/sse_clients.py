"""One streamed answer as several clients see it, and the bytes that carry it."""

import re
import time
from collections.abc import Callable, Sequence
from functools import partial

import httpx
import requests

from common import timing
from common.serving import Server
from common.timing import Stream

LIMIT_S = 120


def body_of(model: str, prompt: str, tokens: int) -> dict:
    """The JSON of a streamed completion of exactly `tokens` tokens."""
    return {
        "model": model, "prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "temperature": 0.0, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip


def raw_events(server: Server, body: dict) -> list[tuple[float, bytes]]:
    """(milliseconds after sending, bytes) of each piece as it came over the connection, headers first."""
    pieces, begin = [], time.perf_counter()
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=LIMIT_S, trust_env=False) as response:
        head = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
        pieces.append(((time.perf_counter() - begin) * 1e3, head.encode()))
        for piece in response.iter_raw():
            pieces.append(((time.perf_counter() - begin) * 1e3, piece))
    return pieces


def prompt_tokens(pieces: Sequence[tuple[float, bytes]]) -> int:
    """The length of the prompt, from the usage at the end of a stream of `raw_events`."""
    return int(re.search(rb'"prompt_tokens":(\d+)', b"".join(piece for _, piece in pieces))[1])


def of_lines(lines, begin: float) -> tuple[Stream, int]:
    """(arrivals of the pieces that carry text, bytes) of a stream of lines of bytes or text."""
    arrivals, size = [], 0
    for line in lines:
        raw = line.encode() if isinstance(line, str) else line
        size += len(raw) + 1
        # The chunk with the usage has no choice; [DONE] is no JSON. Both come after the last token.
        if raw.startswith(b"data: {") and b'"choices":[]' not in raw:
            arrivals.append(time.perf_counter())
    return Stream(begin, tuple(arrivals)), size


def clients(server: Server, body: dict) -> dict[str, Callable[[], tuple[Stream, int]]]:
    """One streamed request through each client; it returns (arrivals, bytes), 0 bytes where it does not tell."""
    from openai import OpenAI  # the processes of load generators import the demo anew, and this takes long

    url = f"{server.url}/v1/completions"
    plain = httpx.Client(timeout=LIMIT_S, trust_env=False)
    session = requests.Session()
    session.trust_env = False
    official = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=LIMIT_S)

    def with_httpx() -> tuple[Stream, int]:
        begin = time.perf_counter()
        with plain.stream("POST", url, json=body) as response:
            return of_lines(response.iter_lines(), begin)

    def with_requests() -> tuple[Stream, int]:
        begin = time.perf_counter()
        with session.post(url, json=body, stream=True, timeout=LIMIT_S) as response:
            return of_lines(response.iter_lines(chunk_size=None), begin)

    def with_openai() -> tuple[Stream, int]:
        begin, arrivals = time.perf_counter(), []
        known = {name: value for name, value in body.items() if name != "ignore_eos"}
        for chunk in official.completions.create(**known, extra_body={"ignore_eos": True}):
            if chunk.choices:
                arrivals.append(time.perf_counter())
        return Stream(begin, tuple(arrivals)), 0

    return {"httpx": with_httpx, "requests": with_requests, "openai": with_openai}


def server_side(server: Server) -> dict[str, tuple[float, float]]:
    """(sum in seconds, count) of vLLM's own TTFT and inter-token latency, from the start of the server."""
    text = httpx.get(f"{server.url}/metrics", timeout=LIMIT_S, trust_env=False).text
    found = {}
    for name in ("time_to_first_token_seconds", "inter_token_latency_seconds"):
        total, count = (float(re.search(rf"^vllm:{name}_{kind}\{{[^}}]*\}} (\S+)", text, re.M)[1])
                        for kind in ("sum", "count"))  # fmt: skip
        found[name] = total, count
    return found


def compare(run, server: Server, body: dict, rounds: int) -> list[dict]:
    """A row for each client, in turns, and one of the server's own metrics, warm-ups included."""
    seen: dict[str, list[tuple[Stream, int]]] = {}

    def measured(name: str, ask: Callable[[], tuple[Stream, int]]) -> float:
        seen.setdefault(name, []).append(ask())
        return seen[name][-1][0].ttft_ms

    asks = {name: partial(measured, name, ask) for name, ask in clients(server, body).items()}
    before = server_side(server)
    ttft = timing.alternate(asks, rounds)
    after = server_side(server)
    tokens = body["max_tokens"]
    run.count(tokens * len(asks) * (rounds + 1))
    rows = []
    for name, found in seen.items():
        streams = [stream for stream, _ in found[1:]]
        gaps = [gap for stream in streams for gap in stream.itl_ms]
        rows.append({
            "client": name, "ttft_ms": ttft[name].median, "itl_p50_ms": timing.percentile(gaps, 50),
            "itl_p99_ms": timing.percentile(gaps, 99), "events": len(streams[-1].token_s), "output_tokens": tokens,
            "bytes_per_token": found[-1][1] / tokens or None, "spread_pct": ttft[name].spread_pct,
        })  # fmt: skip
    means = [(after[name][0] - before[name][0]) / (after[name][1] - before[name][1]) * 1e3 for name in before]
    return [*rows, {"client": "the server's own metrics, means", "ttft_ms": means[0], "itl_p50_ms": means[1]}]
