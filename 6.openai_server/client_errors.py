"""What clients do wrong, what the server says to it, and whether it goes on as if nothing had been."""

import asyncio
import re
import resource
import socket
import ssl
import time

import httpx
from kept_servers import API_KEY

from common.problems import Problem, first_line
from common.serving import Server

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
QUESTION = [{"role": "user", "content": "What is TTFT?"}]
LIMIT_S = 120
TLS = ssl.create_default_context()  # made once: httpx.get and httpx.post read all certificates anew, for 20 ms


def refusals(model: str, context: int) -> list[tuple[str, str, dict]]:
    """(what is wrong, path, arguments of httpx's post) of every common mistake."""
    good = {"model": model, "messages": QUESTION, "temperature": 0.0, "max_tokens": 8}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    json_type = {"Content-Type": "application/json"}
    wrong_chats = {
        "unknown model": {"model": "gpt-9"},
        "prompt over the context": {"messages": [{"role": "user", "content": "word " * (2 * context)}]},
        "huge max_tokens": {"max_tokens": 100_000},
        "max_tokens 0": {"max_tokens": 0},
        "messages is a text": {"messages": "What is TTFT?"},
        "no message": {"messages": []},
        "temperature is a word": {"temperature": "hot"},
        "temperature 5": {"temperature": 5},
        "n=2 without temperature": {"n": 2},
        "n=100,000": {"n": 100_000, "temperature": 1.0},
        "schema of no type": {"response_format": schema},
        "broken regex": {"structured_outputs": {"regex": "("}},
        "two constraints": {"structured_outputs": {"regex": "a", "choice": ["a", "b"]}},
        "50 logprobs": {"logprobs": True, "top_logprobs": 50},
        "tool_choice without tools": {"tool_choice": "required"},
        "an image for a text model": {"messages": [{"role": "user", "content": [image]}]},
        "a field that it does not know": {"no_such_field": 1},
        "guided_choice, an old name": {"guided_choice": ["yes", "no"]},
    }
    return [
        ("malformed JSON", CHAT, {"content": b'{"model": "x", "messages": [', "headers": json_type}),
        ("not JSON at all", CHAT, {"content": b"What is TTFT?", "headers": {"Content-Type": "text/plain"}}),
        *((what, CHAT, {"json": good | wrong}) for what, wrong in wrong_chats.items()),
        ("token out of vocabulary", COMPLETIONS, {"json": {"model": model, "prompt": [10_000_000]}}),
        ("an endpoint of another runner", "/v1/embeddings", {"json": {"model": model, "input": "x"}}),
        ("an endpoint that vLLM lacks", "/v1/batches", {"json": {"input_file_id": "x"}}),
        ("a LoRA adapter that is not there", "/v1/load_lora_adapter", {"json": {"lora_name": "x", "lora_path": "/no"}}),
    ]


def said(answer: httpx.Response) -> str:
    """The message of an answer, on one line."""
    got = answer.json() if answer.headers.get("content-type", "").startswith("application/json") else {}
    if "error" in got and isinstance(got["error"], dict):
        message = re.sub(r"\[\d\d:\d\d:\d\d\] ", "", got["error"]["message"])  # xgrammar puts the time into its errors
        return first_line(message, 110)
    if "choices" in got:
        return first_line("answered: " + got["choices"][0]["message"]["content"], 110)
    return first_line(answer.text, 110)


def state(server: Server) -> dict[str, float]:
    """What the metrics say: requests running, requests waiting, share of KV blocks in use, aborted requests."""
    text = httpx.get(f"{server.url}/metrics", timeout=LIMIT_S, trust_env=False, verify=TLS).text
    wanted = {
        "running": r"vllm:num_requests_running\{[^}]*\}",
        "waiting": r"vllm:num_requests_waiting\{[^}]*\}",
        "kv_usage": r"vllm:kv_cache_usage_perc\{[^}]*\}",
        "aborted": r'vllm:request_success_total\{[^}]*finished_reason="abort"[^}]*\}',
    }
    return {name: float(re.search(rf"^{pattern} (\S+)", text, re.M)[1]) for name, pattern in wanted.items()}


def settle(server: Server, limit_s: float = 60) -> dict[str, float]:
    """Wait until nothing runs or waits; the state then. Raises Problem if that does not happen in time."""
    begin = time.perf_counter()
    while True:
        found = state(server)
        if not found["running"] and not found["waiting"]:
            return found
        if time.perf_counter() - begin > limit_s:
            raise Problem(f"Requests are still running {limit_s:.0f} s later: {found}.", f"Read {server.log}.")
        time.sleep(0.05)


def row(server: Server, model: str, what: str, status: int | str, message: str, begin: float) -> dict:
    """A row: what was sent and said, and whether the next good request is answered and every KV block is free."""
    ms = (time.perf_counter() - begin) * 1e3
    body = {"model": model, "messages": QUESTION, "max_tokens": 4, "temperature": 0.0}
    good = httpx.post(f"{server.url}{CHAT}", json=body, timeout=LIMIT_S, trust_env=False, verify=TLS)
    return {
        "request": what, "status": str(status), "message": message, "ms": ms,
        "good_after": good.status_code == 200 and good.json()["usage"]["completion_tokens"] == 4,
        "kv_usage_pct": settle(server)["kv_usage"] * 100,
    }  # fmt: skip


def send_all(server: Server, model: str, context: int) -> list[dict]:
    """A row for each of `refusals`."""
    rows = []
    with httpx.Client(base_url=server.url, timeout=LIMIT_S, trust_env=False) as client:
        for what, path, arguments in refusals(model, context):
            begin = time.perf_counter()
            answer = client.post(path, **arguments)
            rows.append(row(server, model, what, answer.status_code, said(answer), begin))
        begin = time.perf_counter()
        answer = client.get(CHAT)
        rows.append(row(server, model, "GET where POST belongs", answer.status_code, said(answer), begin))
    return rows


def keys(server: Server, model: str) -> list[dict]:
    """What a server that was started with --api-key guards, and what it does not."""
    rows = []
    with httpx.Client(base_url=server.url, timeout=LIMIT_S, trust_env=False) as client:
        calls = [
            ("no key", "POST", "/v1/embeddings", ""),
            ("a wrong key", "POST", "/v1/embeddings", "wrong"),
            ("the right key", "POST", "/v1/embeddings", API_KEY),
            ("no key, another path", "POST", "/tokenize", ""),
            ("no key, another path", "POST", "/pooling", ""),
            ("no key, another path", "POST", "/invocations", ""),
            ("no key, another path", "GET", "/metrics", ""),
        ]
        for what, method, path, key in calls:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            body = {"model": model, "prompt": "x"} if path == "/tokenize" else {"model": model, "input": "x"}
            begin = time.perf_counter()
            answer = client.request(method, path, headers=headers, json=body if method == "POST" else None)
            message = "answered" if answer.status_code == 200 else first_line(answer.text, 110)
            rows.append({"request": f"{what}: {path}", "status": str(answer.status_code), "message": message,
                         "ms": (time.perf_counter() - begin) * 1e3})  # fmt: skip
    return rows


def hang_ups(server: Server, model: str, count: int) -> dict:
    """`count` clients that ask for a long answer and leave after its first token; the row of it."""
    before = state(server)["aborted"]
    body = {"model": model, "prompt": "Once upon a time", "max_tokens": 1500, "ignore_eos": True, "stream": True}
    with httpx.Client(base_url=server.url, timeout=LIMIT_S, trust_env=False) as client:
        streams = [client.send(client.build_request("POST", COMPLETIONS, json=body), stream=True) for _ in range(count)]
        lines = [stream.iter_lines() for stream in streams]  # kept: one that is thrown away closes its stream
        for each in lines:
            next(each)
        held = state(server)
        begin = time.perf_counter()
        for stream in streams:
            stream.close()
        settle(server)
    ms = (time.perf_counter() - begin) * 1e3
    found = row(server, model, f"{count} clients hang up in mid-stream", "200", "", begin)
    counted = state(server)["aborted"] - before  # vLLM 0.32 counts no request that its client has left
    message = f"{held['running']:.0f} ran, with {held['kv_usage'] * 100:.1f} % of the KV blocks; {counted:.0f} counted"
    return found | {"message": message, "ms": ms}


def many_at_once(server: Server, model: str, count: int) -> dict:
    """`count` connections, each with a request, all at once; the row of it."""
    _allow_files(count)
    body = {"model": model, "messages": QUESTION, "max_tokens": 4, "temperature": 0.0}

    async def ask_all() -> list[int]:
        limits = httpx.Limits(max_connections=count, max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=server.url, timeout=LIMIT_S, limits=limits, trust_env=False) as client:

            async def ask() -> int:
                try:
                    return (await client.post(CHAT, json=body)).status_code
                except httpx.TransportError:
                    return 0

            return await asyncio.gather(*(ask() for _ in range(count)))

    begin = time.perf_counter()
    statuses = asyncio.run(ask_all())
    found = ", ".join(f"{statuses.count(status)} × {status or 'broken'}" for status in sorted(set(statuses)))
    return row(server, model, f"{count:,} requests at once", found, "each on a connection of its own", begin)


def silent(server: Server, model: str, count: int) -> dict:
    """`count` connections that send nothing, and a good request beside them; the row of it."""
    _allow_files(count)
    host, port = server.url.removeprefix("http://").split(":")
    begin = time.perf_counter()
    connections = []
    try:
        for _ in range(count):
            connections.append(socket.create_connection((host, int(port)), timeout=LIMIT_S))
        return row(server, model, f"{count:,} connections that say nothing", "none", "nothing is answered", begin)
    finally:
        for connection in connections:
            connection.close()


def _allow_files(count: int) -> None:
    """Let this process open so many sockets, where the system's hard limit allows it."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + 256
    if most != resource.RLIM_INFINITY and most < needed:
        raise Problem(f"This system allows {most} open files, and {count:,} connections need more.", "ulimit -Hn 4096")
    if now != resource.RLIM_INFINITY and now < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))
