"""Our solutions to exercises.py, where the docstrings are. They pass:  python -m common.check 3 --file solutions.py"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx

# ---------------------------------------------------------------------- 1. a streaming client


class StreamError(Exception):
    pass


class EventParser:
    def __init__(self) -> None:
        self.rest = b""
        self.payload: list[str] = []  # the data lines of the event that has begun

    def feed(self, chunk: bytes) -> list[str]:
        # Only whole lines are decoded: LF is never part of another character in UTF-8.
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        events = []
        for line in lines:
            text = line.removesuffix(b"\r").decode()
            if text.startswith("data:"):
                self.payload.append(text.removeprefix("data:").removeprefix(" "))
            elif not text and self.payload:
                events.append("\n".join(self.payload))
                self.payload = []
        return events


class StreamedCompletion:
    def __init__(self, url: str, model: str, prompt: str, max_tokens: int, timeout_s: float = 60.0) -> None:
        self.url, self.model, self.prompt, self.max_tokens = url, model, prompt, max_tokens
        self.timeout_s = timeout_s
        self.ttft_s: float | None = None
        self.output_tokens: int | None = None

    def __iter__(self) -> Iterator[str]:
        body = {"model": self.model, "prompt": self.prompt, "max_tokens": self.max_tokens, "temperature": 0.0}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        start, parser = time.perf_counter(), EventParser()
        address = f"{self.url}/v1/completions"
        with httpx.stream("POST", address, json=body, timeout=self.timeout_s, trust_env=False) as response:
            if response.status_code != 200:
                response.read()
                raise StreamError(f"{response.status_code}: {response.text}")
            for chunk in response.iter_bytes():
                for payload in parser.feed(chunk):
                    if payload == "[DONE]":
                        return
                    event = json.loads(payload)
                    if "error" in event:
                        raise StreamError(event["error"]["message"])
                    if event.get("usage"):
                        self.output_tokens = event["usage"]["completion_tokens"]
                    text = "".join(choice["text"] for choice in event["choices"])
                    if text:
                        self.ttft_s = self.ttft_s or time.perf_counter() - start
                        yield text
        raise StreamError("the stream ended before [DONE]")


# ---------------------------------------------------------------------- 2. a preflight check

GIB = 1024**3
BLOCK_TOKENS = 16
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Verdict:
    fits: bool
    longest: int
    message: str


def head_dim(config: dict) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def weight_bytes(config: dict, dtype: str) -> int:
    hidden, width = config["hidden_size"], head_dim(config)
    query, key_value = config["num_attention_heads"] * width, config["num_key_value_heads"] * width
    layer = 2 * hidden * query + 2 * hidden * key_value + 3 * hidden * config["intermediate_size"] + 2 * hidden
    layer += {"qwen2": query + 2 * key_value, "qwen3": 2 * width}.get(config["model_type"], 0)
    embedding = config["vocab_size"] * hidden
    head = 0 if config.get("tie_word_embeddings") else embedding
    return (embedding + config["num_hidden_layers"] * layer + hidden + head) * DTYPE_BYTES[dtype]


def kv_bytes_per_token(config: dict, dtype: str) -> int:
    return 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head_dim(config) * DTYPE_BYTES[dtype]


def preflight(
    config: dict, available_bytes: int, max_model_len: int, dtype: str = "bfloat16", overhead_bytes: int = 2 * GIB
) -> Verdict:
    weights = weight_bytes(config, dtype)
    block_bytes = BLOCK_TOKENS * kv_bytes_per_token(config, dtype)
    blocks = max(0, (available_bytes - weights - overhead_bytes) // block_bytes - 1)
    trained = config["max_position_embeddings"]
    longest = min(blocks * BLOCK_TOKENS, trained)
    if max_model_len <= longest:
        return Verdict(True, longest, "")
    if longest == 0:
        return Verdict(
            False,
            longest,
            f"The weights take {weights / GIB:.1f} GiB of the {available_bytes / GIB:.1f} GiB available and leave no "
            "KV cache: take a smaller model, a smaller dtype or more memory.",
        )
    if max_model_len > trained:
        return Verdict(False, longest, f"The model was trained for {trained} positions: ask for no more.")
    return Verdict(False, longest, f"The KV cache holds no request of {max_model_len} tokens: take {longest}.")


# ---------------------------------------------------------------------- 3. sampling by hand


def softmax(logits: Sequence[float]) -> list[float]:
    largest = max(logits)
    weights = [math.exp(logit - largest) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def probabilities(
    logits: Sequence[float], temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> list[float]:
    if temperature < 1e-5:
        likeliest = logits.index(max(logits))
        return [float(token == likeliest) for token in range(len(logits))]
    logits = [logit / temperature for logit in logits]
    if min_p > 0:
        shares = softmax(logits)
        logits = [x if share >= min_p * max(shares) else -math.inf for x, share in zip(logits, shares, strict=True)]
    if 0 < top_k < len(logits):
        smallest = sorted(logits)[-top_k]
        logits = [x if x >= smallest else -math.inf for x in logits]
    if top_p < 1:
        shares, kept, total = softmax(logits), set(), 0.0
        for token in sorted(range(len(logits)), key=shares.__getitem__, reverse=True):
            if kept and total >= top_p:
                break
            kept.add(token)
            total += shares[token]
        logits = [x if token in kept else -math.inf for token, x in enumerate(logits)]
    return softmax(logits)


if __name__ == "__main__":
    answer = StreamedCompletion("http://127.0.0.1:8000", "course-lm", "Once upon a time", max_tokens=40)
    for piece in answer:
        print(piece, end="", flush=True)
    print(f"\n{answer.output_tokens} tokens, the first after {answer.ttft_s * 1e3:.0f} ms")
