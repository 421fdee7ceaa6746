"""Every endpoint that a chat or batch application uses, called by the official clients of its API."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from kept_servers import API_KEY

from common.problems import Problem, first_line
from common.serving import Server

NODE = Path(__file__).parent / "node"
QUESTION = [{"role": "user", "content": "What is TTFT?"}]
LIMIT_S = 60
OLDEST_NODE = 20  # what OpenAI's package asks for


class Tour:
    """The calls so far, a row for each."""

    def __init__(self, run, server: Server, model: str):
        self.run, self.server, self.model, self.rows = run, server, model, []

    def add(self, client: str, endpoint: str, request: str, answer: str, tokens: int | None, seconds: float) -> None:
        """One call that was made: on the screen, and as a row."""
        self.run.show(f"{client}: {endpoint}  {request}", first_line(answer, 240))
        self.run.count(tokens or 0)
        self.rows.append({
            "endpoint": endpoint, "client": client, "request": request, "answer": first_line(answer, 80),
            "output_tokens": tokens, "ms": seconds * 1e3,
        })  # fmt: skip

    def call(self, client: str, endpoint: str, request: str, work: Callable[[], tuple[str, int | None]]) -> None:
        """Make a call; `work` returns (answer, output tokens)."""
        begin = time.perf_counter()
        answer, tokens = work()
        self.add(client, endpoint, request, answer, tokens, time.perf_counter() - begin)


def python_clients(tour: Tour) -> None:
    """What the openai and anthropic packages for Python can ask of a server that generates."""
    # Load generators start processes that import the demo anew, so what takes long is imported where it is used.
    from anthropic import Anthropic
    from openai import OpenAI

    client = OpenAI(base_url=f"{tour.server.url}/v1", api_key="none", max_retries=0, timeout=LIMIT_S)
    settings = {"model": tour.model, "temperature": 0.0}

    def models() -> tuple[str, None]:
        return ", ".join(model.id for model in client.models.list()), None

    def chat() -> tuple[str, int]:
        answer = client.chat.completions.create(**settings, messages=QUESTION, max_tokens=40)
        return answer.choices[0].message.content, answer.usage.completion_tokens

    def streamed() -> tuple[str, int]:
        pieces, usage = [], None
        options = {"stream": True, "stream_options": {"include_usage": True}}
        for chunk in client.chat.completions.create(**settings, messages=QUESTION, max_tokens=40, **options):
            pieces += [choice.delta.content or "" for choice in chunk.choices]
            usage = chunk.usage or usage
        return "|".join(piece for piece in pieces if piece), usage.completion_tokens

    def completion() -> tuple[str, int]:
        answer = client.completions.create(**settings, prompt="Once upon a time", max_tokens=20)
        return answer.choices[0].text, answer.usage.completion_tokens

    def likely() -> tuple[str, int]:
        answer = client.chat.completions.create(
            **settings, messages=QUESTION, max_tokens=1, logprobs=True, top_logprobs=3
        )
        found = answer.choices[0].logprobs.content[0].top_logprobs
        return ", ".join(f"{each.token!r} {each.logprob:.2f}" for each in found), 1

    def response() -> tuple[str, int]:
        answer = client.responses.create(**settings, input="What is TTFT?", max_output_tokens=40)
        return answer.output_text, answer.usage.output_tokens

    def message() -> tuple[str, int]:
        other = Anthropic(base_url=tour.server.url, api_key="none", max_retries=0, timeout=LIMIT_S)
        answer = other.messages.create(**messages, max_tokens=40)
        return answer.content[0].text, answer.usage.output_tokens

    def counted() -> tuple[str, None]:
        other = Anthropic(base_url=tour.server.url, api_key="none", max_retries=0, timeout=LIMIT_S)
        return f"{other.messages.count_tokens(**messages).input_tokens} tokens", None

    messages = {"model": tour.model, "messages": QUESTION}
    tour.call("openai", "GET /v1/models", "", models)
    tour.call("openai", "POST /v1/chat/completions", "What is TTFT?", chat)
    tour.call("openai", "POST /v1/chat/completions", "the same, streamed", streamed)
    tour.call("openai", "POST /v1/chat/completions", "logprobs of its first token", likely)
    tour.call("openai", "POST /v1/completions", "Once upon a time", completion)
    tour.call("openai", "POST /v1/responses", "What is TTFT?", response)
    tour.call("anthropic", "POST /v1/messages", "What is TTFT?", message)
    tour.call("anthropic", "POST /v1/messages/count_tokens", "What is TTFT?", counted)


def embeddings(tour: Tour, pooling: Server) -> None:
    """Vectors, and what is made of them: the pooling server's endpoints."""
    from openai import OpenAI

    client = OpenAI(base_url=f"{pooling.url}/v1", api_key=API_KEY, max_retries=0, timeout=LIMIT_S)
    texts = ["What is TTFT?", "What is the time to first token?"]

    def vectors() -> tuple[str, None]:
        found = client.embeddings.create(model=tour.model, input=texts).data
        return f"{len(found)} vectors of {len(found[0].embedding)} numbers", None

    tour.call("openai", "POST /v1/embeddings", "two sentences", vectors)
    pairs = {"model": tour.model, "queries": texts[0], "documents": [texts[1], "A story about a fox."]}
    documents = {"model": tour.model, "query": texts[0], "documents": pairs["documents"]}
    for path, body, read in (
        ("/score", pairs, lambda got: ", ".join(f"{each['score']:.2f}" for each in got["data"])),
        ("/rerank", documents, lambda got: " > ".join(each["document"]["text"] for each in got["results"])),
        ("/pooling", {"model": tour.model, "input": texts[0]}, lambda got: f"{len(got['data'])} result"),
    ):
        curl(tour, pooling.url, f"POST {path}", "a question and two texts" if path != "/pooling" else "one text", body,
             read, key=API_KEY)  # fmt: skip


def curl(
    tour: Tour, url: str, endpoint: str, request: str, body: dict | None, read: Callable[[dict], str], key: str = ""
) -> None:
    """One call by curl, or by httpx where there is none; `read` takes the answer from the parsed JSON."""
    method, path = endpoint.split()
    if not shutil.which("curl"):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        begin = time.perf_counter()
        answer = httpx.request(method, url + path, json=body, headers=headers, timeout=LIMIT_S, trust_env=False)
        seconds = time.perf_counter() - begin
        answer.raise_for_status()
        add_text(tour, "httpx", endpoint, request, answer.text, read, seconds)
        return
    command = ["curl", "-sS", "--noproxy", "*", "--fail-with-body", "-m", str(LIMIT_S), "-X", method, url + path]
    if key:
        command += ["-H", f"Authorization: Bearer {key}"]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    begin = time.perf_counter()
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if ended.returncode:
        raise Problem(f"curl {endpoint} failed: {first_line(ended.stdout + ended.stderr)}", "Read the server's log.")
    add_text(tour, "curl", endpoint, request, ended.stdout, read, seconds)


def add_text(
    tour: Tour, client: str, endpoint: str, request: str, text: str, read: Callable[[dict], str], seconds: float
) -> None:
    """The row of a call whose answer is JSON, or a text that is none."""
    got = json.loads(text) if text.startswith(("{", "[")) else {"text": text}
    tour.add(client, endpoint, request, read(got), got.get("usage", {}).get("completion_tokens"), seconds)


def with_curl(tour: Tour) -> None:
    """The endpoints that OpenAI's API lacks, and one that it has."""
    url, model = tour.server.url, {"model": tour.model}
    short = model | {"temperature": 0.0, "max_tokens": 40}
    question, other = "What is TTFT?", [{"role": "user", "content": "What is TPOT?"}]
    ids = httpx.post(f"{url}/tokenize", json=model | {"prompt": question}, trust_env=False).json()["tokens"]
    label = model | {"query": question, "items": [" a term", " a fox"], "label_token_ids": ids[:2]}
    calls = (
        ("POST /v1/chat/completions", question, short | {"messages": QUESTION},
         lambda got: got["choices"][0]["message"]["content"]),
        ("POST /v1/chat/completions/batch", "two conversations", short | {"messages": [QUESTION, other]},
         lambda got: " | ".join(choice["message"]["content"] for choice in got["choices"])),
        ("POST /tokenize", question, model | {"prompt": question}, lambda got: str(got["tokens"])),
        ("POST /tokenize", "the same as a chat", model | {"messages": QUESTION},
         lambda got: f"{got['count']} tokens of at most {got['max_model_len']}"),
        ("POST /detokenize", str(ids), model | {"tokens": ids}, lambda got: got["prompt"]),
        ("POST /generative_scoring", "two texts, two labels", label,
         lambda got: ", ".join(f"{each['score']:.2f}" for each in got["data"])),
        ("GET /health", "", None, lambda got: "200, no body"),
        ("GET /version", "", None, lambda got: got["version"]),
        ("GET /load", "", None, lambda got: f"server_load {got['server_load']}"),
        ("GET /metrics", "", None, lambda got: f"{got['text'].count(chr(10))} lines for Prometheus"),
    )  # fmt: skip
    for endpoint, request, body, read in calls:
        curl(tour, url, endpoint, request, body, read)


def with_node(tour: Tour, pooling: Server) -> None:
    """The same through OpenAI's package for Node; where it can't run, the reason is shown instead."""
    reason = node_missing()
    if reason:
        tour.run.show("openai for Node", f"not run here: {reason}")
        return
    command = ["node", "client.mjs", tour.server.url, tour.model, pooling.url, API_KEY]
    ended = subprocess.run(command, check=False, cwd=NODE, capture_output=True, text=True, timeout=LIMIT_S)
    if ended.returncode:
        raise Problem(f"node client.mjs failed: {first_line(ended.stderr)}", f"Run it by hand in {NODE}.")
    for line in ended.stdout.splitlines():
        got = json.loads(line)
        endpoint, _, request = got["endpoint"].partition(", ")
        tour.add("openai for Node", endpoint, request, got["answer"], got["tokens"] or None, got["ms"] / 1e3)


def node_missing() -> str:
    """Why the Node client can't run here; empty if it can. Installs its one package, if npm can reach a registry."""
    fix = f"install Node {OLDEST_NODE} or newer, from https://nodejs.org or by `npm install --global node@22`"
    if not shutil.which("node"):
        return f"there is no node on the PATH; {fix}"
    version = subprocess.run(["node", "--version"], check=False, capture_output=True, text=True).stdout.strip()
    major = re.match(r"v(\d+)\.", version)
    if not major or int(major[1]) < OLDEST_NODE:
        return f"OpenAI's package needs Node {OLDEST_NODE}, and this is {version or 'no Node'}; {fix}"
    if (NODE / "node_modules" / ".package-lock.json").exists():  # npm writes it last
        return ""
    if not shutil.which("npm"):
        return "there is no npm to install OpenAI's package with"
    command = ["npm", "ci", "--no-audit", "--no-fund", "--fetch-retries=0", "--fetch-timeout=20000"]
    ended = subprocess.run(command, check=False, cwd=NODE, capture_output=True, text=True, timeout=120)
    return "" if ended.returncode == 0 else f"npm ci failed: {first_line(ended.stderr)}"
