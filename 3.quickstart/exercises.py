"""The exercises of 3.quickstart. Write what raises NotImplementedError, then: make check CH=3

The check says in words what is still wrong; it never asks for more than the docstring says. Print what you like:
it is shown. `solutions.py` in this folder passes the same checks. Try first.

  1  A streaming client     EventParser.feed, StreamedCompletion.__iter__            40 minutes
  2  A preflight check      weight_bytes, kv_bytes_per_token, preflight              30 minutes
  3  Sampling by hand       probabilities                                            25 minutes
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# ---------------------------------------------------------------------- 1. a streaming client
#
# A server streams its answer as server-sent events over HTTP. These are the bytes of one, shortened:
#
#   data: {"choices": [{"index": 0, "text": "The KV", "finish_reason": null}], "usage": null}
#
#   data: {"choices": [{"index": 0, "text": " cache", "finish_reason": "length"}], "usage": null}
#
#   data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}}
#
#   data: [DONE]
#
# A network does not keep the boundaries of what was sent: it hands over any number of bytes at a time. When you have
# written it, ask a real server, in two terminals:
#
#   .venv/bin/vllm serve common/course_lm/model --served-model-name course-lm --host 127.0.0.1 --enforce-eager \
#     --max-model-len 2048 --kv-cache-memory-bytes 512M
#   .venv/bin/python 3.quickstart/exercises.py


class StreamError(Exception):
    """The server refused, reported an error in the stream, or stopped before the end. `str()` says which."""


class EventParser:
    """Takes the bytes of a stream as they come and gives the events that are complete."""

    def __init__(self) -> None:
        self.rest = b""  # bytes that do not make a whole line yet; keep what else you need beside it

    def feed(self, chunk: bytes) -> list[str]:
        """The payloads of the events that end within `chunk`, in order; [] if none does.

        - A line ends in LF or in CR LF. Text is UTF-8. A chunk may end anywhere: within a word, between CR and LF,
          between the bytes of one character.
        - A line `data: PAYLOAD` gives the payload; one space after the colon, if there is one, does not belong to
          it. An event with several such lines has them joined by a line feed.
        - An empty line ends the event. Empty lines without a payload before them are nothing.
        - A line that begins with a colon is a comment (a proxy's sign of life), and other fields (`event:`, `id:`,
          `retry:`) are of no use here: ignore both.
        """
        raise NotImplementedError("EventParser.feed")


class StreamedCompletion:
    """One streamed answer of `/v1/completions`: iterate over it for its text, then read the other two.

    ttft_s         seconds from just before the request is sent to the first piece of text that is not empty
    output_tokens  what the server counted, from the chunk with `usage`; None until that has come
    """

    def __init__(self, url: str, model: str, prompt: str, max_tokens: int, timeout_s: float = 60.0) -> None:
        self.url, self.model, self.prompt, self.max_tokens = url, model, prompt, max_tokens
        self.timeout_s = timeout_s
        self.ttft_s: float | None = None
        self.output_tokens: int | None = None

    def __iter__(self) -> Iterator[str]:
        """Send the request; yield each piece of text that is not empty as soon as it has arrived.

        - POST to `url` + /v1/completions a JSON body with model, prompt, max_tokens, temperature 0, `stream` true
          and `stream_options` {"include_usage": true}: without the last there is no usage, and the number of pieces
          is not the number of tokens.
        - httpx.stream and its iter_bytes() hand over bytes as they come. Give it trust_env=False, or a proxy set in
          your environment may answer for 127.0.0.1.
        - The payload [DONE] ends the answer. In the chunk with usage `choices` is empty.
        - Raise StreamError if the status is not 200, or for an event {"error": {"message": …}}: both with the server's
          message in the text (the body of a refusal looks like that event). And if the stream ends without [DONE].

        It takes some ten lines, as EventParser has done the rest. `yield` makes the method a generator.
        """
        raise NotImplementedError("StreamedCompletion.__iter__")


# ---------------------------------------------------------------------- 2. a preflight check

GIB = 1024**3
BLOCK_TOKENS = 16  # vLLM hands out KV cache in blocks; on a GPU a block holds 16 tokens by default
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Verdict:
    """Whether a model can be served; the longest context that can be; and what to say where it can't."""

    fits: bool
    longest: int  # tokens; 0 if none
    message: str  # empty where it fits


def weight_bytes(config: dict, dtype: str) -> int:
    """Bytes of the weights of the decoder that a config.json describes (Llama, Qwen2 or Qwen3, in `model_type`).

    With H = hidden_size, I = intermediate_size, V = vocab_size, A = num_attention_heads, K = num_key_value_heads,
    and D = head_dim, or H / A where the config has no head_dim, the numbers are

        embedding                  V × H
        each of the L layers       Q: H × A·D    K and V: H × K·D each    output: A·D × H
          (L = num_hidden_layers)  MLP: 3 matrices of H × I               two norms of H
                                   qwen2 only: a bias for each column of Q, K and V
                                   qwen3 only: two norms of D
        at the end                 a norm of H
        output head                V × H, unless tie_word_embeddings is true: then it is the embedding again
    """
    raise NotImplementedError("weight_bytes")


def kv_bytes_per_token(config: dict, dtype: str) -> int:
    """Bytes that each token takes in the KV cache: a key and a value of D numbers for each KV head of each layer."""
    raise NotImplementedError("kv_bytes_per_token")


def preflight(
    config: dict, available_bytes: int, max_model_len: int, dtype: str = "bfloat16", overhead_bytes: int = 2 * GIB
) -> Verdict:
    """Can this model be served with that context? Answer before anything is loaded.

    `available_bytes` is what vLLM may use of the memory. Weights and `overhead_bytes` (activations, CUDA context,
    graphs) come off it; the rest is KV cache, in whole blocks of BLOCK_TOKENS tokens. One of them vLLM keeps for
    itself. It starts if one request of max_model_len tokens fits into the others. The cache has the dtype of the
    weights.

    `longest` is the largest max_model_len for which it would start: what those blocks hold, but not more than
    max_position_embeddings, the positions that the model was trained for. 0 if they hold nothing.

    Where it does not fit, the message is a sentence of your own, for a person, that contains

    - if `longest` is 0: the GiB of the weights and the GiB available, each with one decimal;
    - else, if max_model_len is above max_position_embeddings: that number, since no memory mends it;
    - else: `longest`, the value to take instead.
    """
    raise NotImplementedError("preflight")


# ---------------------------------------------------------------------- 3. sampling by hand


def probabilities(
    logits: Sequence[float], temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> list[float]:
    """The probabilities from which vLLM draws the next token, one for each logit; they sum to 1.

    In vLLM's order, where each step works on what the one before has left, and "removed" means a logit of -inf:

    1. Below a temperature of 1e-5 the answer is greedy: 1 for the largest logit (the first of equals), 0 for the
       others. The other parameters do nothing then.
    2. Divide the logits by the temperature.
    3. min_p: remove tokens whose probability is less than min_p times that of the likeliest. 0 is off.
    4. top_k: keep the k largest logits, and any that equal the smallest of these. 0 and -1 are off, and so is a k of
       at least the number of logits.
    5. top_p: keep the smallest number of the likeliest tokens whose probabilities, among what is left after 4, sum
       to top_p or more. 1.0 is off. One token is always kept.
    6. Softmax over what is left.

    Subtract the largest logit before exp(): exp(1000) overflows. Plain Python is enough.
    """
    raise NotImplementedError("probabilities")


if __name__ == "__main__":
    answer = StreamedCompletion("http://127.0.0.1:8000", "course-lm", "Once upon a time", max_tokens=40)
    for piece in answer:
        print(piece, end="", flush=True)
    print(f"\n{answer.output_tokens} tokens, the first after {answer.ttft_s * 1e3:.0f} ms")
