"""The checks of 3.quickstart/exercises.py, for `make check CH=3`. Hand-worked values first, then properties."""

import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from common import estimator
from common.check import close, expect
from common.models import resolve
from common.shapes import SHAPES

# ------------------------------------------------------------------------------------------ 1. a streaming client

EVENTS = (
    (b"data: one\n\n", ["one"], "an event"),
    (b"data:one\n\n", ["one"], "an event without a space after the colon"),
    (b"data:  one\n\n", [" one"], "an event with two spaces after the colon, of which the second is its own"),
    (b"data: one\r\n\r\n", ["one"], "lines that end in CR LF"),
    (b"data: one\ndata: two\n\n", ["one\ntwo"], "an event of two data lines"),
    (b": ping\n\ndata: one\n\n", ["one"], "a comment before an event"),
    (b"data: one\n: ping\n\n", ["one"], "a comment within an event"),
    (b"event: x\nid: 7\ndata: one\nretry: 3\n\n", ["one"], "fields that are of no use here"),
    (b"\n\n\ndata: one\n\n\n", ["one"], "empty lines without an event"),
    (b"data: one\n\ndata: two\n\n", ["one", "two"], "two events in one chunk"),
    (b"data: one\n", [], "an event whose empty line has not come"),
    (b"data: one", [], "half a line"),
    (b"data: data: one\n\n", ["data: one"], "a payload that begins like a field"),
    ("data: 缓存 é\n\n".encode(), ["缓存 é"], "text beyond ASCII"),
)


def chunk(text: str = "", usage: int | None = None) -> bytes:
    """One event as `vllm serve` writes it."""
    choices = [] if usage else [{"index": 0, "text": text, "logprobs": None, "finish_reason": None}]
    tokens = {"prompt_tokens": 5, "completion_tokens": usage} if usage else None
    return f"data: {json.dumps({'choices': choices, 'usage': tokens}, ensure_ascii=False)}\n\n".encode()


DONE = b"data: [DONE]\n\n"


@contextmanager
def server(answer: Callable[[dict], Iterator[bytes]], status: int = 200) -> Iterator[str]:
    """A server on loopback that sends what `answer` yields for a request's JSON, each piece as an HTTP chunk."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            right = self.path == "/v1/completions"
            self.send_response(status if right else 404)
            self.send_header("Content-Type", "text/event-stream" if status == 200 else "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in answer(body) if right else [b'{"error": {"message": "Not Found"}}']:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that hangs up in the middle is the client's affair

    with Quiet(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_address[1]}"
        listener.shutdown()


def ask(exercises, url: str):
    return exercises.StreamedCompletion(url, "course-lm", "What is TTFT?", max_tokens=7, timeout_s=5)


class TestStreaming:
    """1. A streaming client"""

    @pytest.mark.parametrize("stream,events,what", EVENTS, ids=[what for _, _, what in EVENTS])
    def test_one_chunk(self, exercises, stream, events, what):
        expect(f"EventParser.feed({stream!r}), which is {what},", exercises.EventParser().feed(stream), events)

    def test_chunks_cut_anywhere(self, exercises):
        stream = ": ping\r\n\r\ndata: 缓存\r\n\r\ndata: a\ndata: b\n\ndata: é €\n\n".encode()
        for size in range(1, len(stream)):
            parser, events, pieces = exercises.EventParser(), [], []
            for start in range(0, len(stream), size):
                pieces.append(stream[start : start + size])
                try:
                    events += parser.feed(pieces[-1])
                except UnicodeDecodeError as error:
                    raise AssertionError(
                        f"Cut into pieces of {size} bytes, feed({pieces[-1]!r}) raises UnicodeDecodeError: {error}. A chunk may "
                        "end between the bytes of one character, so decode only what is whole, a line for example."
                    ) from None
            expect(
                f"The same stream cut into pieces of {size} bytes, {pieces[:3]!r} …,",
                events,
                ["缓存", "a\nb", "é €"],
                "however it is cut",
            )

    def test_an_event_comes_as_soon_as_it_is_complete(self, exercises):
        parser = exercises.EventParser()
        expect("feed(b'data: one\\n')", parser.feed(b"data: one\n"), [])
        expect("and then feed(b'\\nda')", parser.feed(b"\nda"), ["one"], "the empty line ends the event")
        expect("and then feed(b'ta: two\\n\\n')", parser.feed(b"ta: two\n\n"), ["two"])

    def test_text_tokens_and_request(self, exercises):
        seen = {}

        def answer(body: dict) -> Iterator[bytes]:
            seen.update(body)
            stream = chunk("The ") + b": ping\n\n" + chunk("缓存") + chunk("") + chunk(" grows.") + chunk(usage=9) + DONE
            for start in range(0, len(stream), 7):
                yield stream[start : start + 7]

        with server(answer) as url:
            completion = ask(exercises, url)
            pieces = list(completion)
        options = seen.get("stream_options") or {}
        assert seen.get("stream") is True, f'The request should hold "stream": true. Yours holds {seen}.'
        assert options.get("include_usage") is True, f"The request should ask for usage. Yours holds {seen}."
        wanted = {"model": "course-lm", "prompt": "What is TTFT?", "max_tokens": 7, "temperature": 0.0}
        expect("The rest of the request", {key: seen.get(key) for key in wanted}, wanted)
        expect(
            "list(StreamedCompletion(…))",
            pieces,
            ["The ", "缓存", " grows."],
            "the pieces of text that are not empty",
            {"the empty piece is yielded too": ["The ", "缓存", "", " grows."]},
        )
        expect(
            "output_tokens after an answer in three pieces whose usage says 9 tokens",
            completion.output_tokens,
            9,
            "",
            {"you count pieces; a piece may be of several tokens": 3},
        )

    def test_pieces_come_when_they_are_sent(self, exercises):
        received = threading.Event()
        waited = []

        def answer(_: dict) -> Iterator[bytes]:
            time.sleep(0.1)
            yield chunk("")  # no text yet: not the first token for the one who reads
            time.sleep(0.2)
            yield chunk("first")
            waited.append(received.wait(2))
            time.sleep(0.3)
            yield chunk(" second") + chunk(usage=2) + DONE

        with server(answer) as url:
            completion, start = ask(exercises, url), time.perf_counter()
            for piece in completion:
                if piece:
                    received.set()
            seconds = time.perf_counter() - start
        assert waited == [True], (
            "The server sends the second piece when you have yielded the first. Yours had yielded nothing after 2 s: it waits "
            "for the whole answer."
        )
        ttft_s = completion.ttft_s
        assert ttft_s is not None, "ttft_s is still None at the end of an answer."
        assert ttft_s >= 0.29, (
            f"The first text comes 0.3 s after the request, and ttft_s says {ttft_s:.3f} s. The headers, or a chunk whose text "
            "is empty, are no token, and the clock starts before the request."
        )
        assert ttft_s <= seconds - 0.25, (
            f"ttft_s says {ttft_s:.3f} s of {seconds:.3f}, but the first text came 0.3 s before the end: is it set again by "
            "later pieces?"
        )

    def test_an_error_in_the_stream(self, exercises):
        error = b'data: {"error": {"message": "the engine has died", "code": 500}}\n\n'
        with server(lambda _: iter([chunk("The"), error, DONE])) as url:
            self.fails(exercises, url, "an error event", "the engine has died", pieces=["The"])

    def test_a_refused_request(self, exercises):
        body = b'{"error": {"message": "max_tokens is too large: 7", "code": 400}}'
        with server(lambda _: iter([body]), status=400) as url:
            self.fails(exercises, url, "a status of 400", "max_tokens is too large", pieces=[])

    def test_a_stream_that_breaks_off(self, exercises):
        with server(lambda _: iter([chunk("The"), chunk(" cache")])) as url:
            self.fails(exercises, url, "a stream that ends without [DONE]", "", pieces=["The", " cache"])

    def fails(self, exercises, url: str, what: str, message: str, pieces: list[str]) -> None:
        """Check that an answer raises StreamError with that message after these pieces."""
        got = []
        try:
            for piece in ask(exercises, url):
                got.append(piece)
        except exercises.StreamError as error:
            assert message in str(error), f'For {what} StreamError should say "{message}". Yours says "{error}".'
            expect(f"Before {what} your client", got, pieces)
        except (KeyError, IndexError, ValueError) as error:
            raise AssertionError(
                f"For {what} your client should raise StreamError. It raises {type(error).__name__}: {error}."
            ) from None
        else:
            raise AssertionError(f"For {what} your client should raise StreamError. It ends as if all were well.")


# ------------------------------------------------------------------------------------------ 2. a preflight check

GIB = 1024**3


def small(**changes: object) -> dict:
    """A config small enough for a person to add up: 24,992 weights as llama, and 64 numbers of KV cache a token."""
    config = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "vocab_size": 100,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1000,
        "tie_word_embeddings": False,
    }
    return config | changes


class TestPreflight:
    """2. A preflight check"""

    def test_weights_of_a_small_model(self, exercises):
        embedding, attention, mlp, norms = 3200, 32 * 32 * 2 + 32 * 16 * 2, 3 * 32 * 64, 2 * 32
        total = 2 * embedding + 2 * (attention + mlp + norms) + 32
        config = small()
        expect(
            f"weight_bytes in bfloat16 of {config}",
            exercises.weight_bytes(config, "bfloat16"),
            2 * total,
            f"2 bytes × (2 × {embedding} embedding and head + 2 layers × ({attention} attention + {mlp} MLP + {norms} norms) + "
            "32 last norm)",
            {
                "the output head is missing": 2 * (total - embedding),
                "these are weights, not bytes": total,
                "the last norm is missing": 2 * (total - 32),
                "the norms of the layers are missing": 2 * (total - 2 * norms),
                "the MLP has two matrices": 2 * (total - 2 * 32 * 64),
                "K and V are as wide as Q; they have fewer heads": 2 * (total + 2 * 2 * 32 * 16),
                "the output of attention is missing": 2 * (total - 2 * 32 * 32),
                "there is one layer": 2 * (total - attention - mlp - norms),
            },
        )
        for change, difference, what in (
            ({"tie_word_embeddings": True}, -3200, "with tied embeddings, 3,200 weights fewer"),
            ({"model_type": "qwen2"}, 2 * 64, "as qwen2, with 32 + 16 + 16 biases a layer more"),
            ({"model_type": "qwen3"}, 2 * 16, "as qwen3, with two norms of 8 a layer more"),
            ({"head_dim": 16}, 2 * (attention), "with head_dim 16 instead of 32 / 4, attention twice as large"),
        ):
            got = exercises.weight_bytes(small(**change), "bfloat16")
            expect(f"weight_bytes of the same {what},", got, 2 * (total + difference))
        expect("weight_bytes of the same in float32", exercises.weight_bytes(config, "float32"), 4 * total)

    def test_weights_of_two_published_models(self, exercises):
        for shape, weights in (("qwen2.5-7b", 7_615_616_512), ("llama-3-8b", 8_030_261_248)):
            got = exercises.weight_bytes(SHAPES[shape], "bfloat16")
            expect(f"weight_bytes of {shape} in bfloat16", got, 2 * weights, f"2 bytes × {weights:,} weights")

    def test_kv_cache_of_two_published_models(self, exercises):
        for shape, kv_bytes, sharing in (("qwen2.5-7b", 57_344, 7), ("llama-3-8b", 131_072, 4)):
            expect(
                f"kv_bytes_per_token of {shape} in bfloat16",
                exercises.kv_bytes_per_token(SHAPES[shape], "bfloat16"),
                kv_bytes,
                "2 × layers × KV heads × head_dim × 2 bytes",
                {
                    "only the keys, or only the values, are counted": kv_bytes / 2,
                    "these are numbers, not bytes": kv_bytes / 2,
                    "every attention head has keys and values of its own": kv_bytes * sharing,
                },
            )

    def test_every_shape_of_the_course(self, exercises):
        configs = SHAPES | {"course-lm": resolve("course-lm").config}
        for name, config in configs.items():
            for dtype in ("bfloat16", "float32"):
                expect(
                    f"weight_bytes of {name} in {dtype}",
                    exercises.weight_bytes(config, dtype),
                    estimator.weight_bytes(config, dtype),
                    "as common/estimator.py says",
                )
                expect(
                    f"kv_bytes_per_token of {name} in {dtype}",
                    exercises.kv_bytes_per_token(config, dtype),
                    estimator.kv_bytes_per_token(config, dtype),
                    "as common/estimator.py says",
                )

    def verdict(self, exercises, *arguments, **options):
        verdict = exercises.preflight(*arguments, **options)
        assert isinstance(verdict, exercises.Verdict), f"preflight should return a Verdict; yours returns {verdict!r}."
        return verdict

    def test_one_block_more_or_less(self, exercises):
        config = small()
        weights, block = estimator.weight_bytes(config), 16 * estimator.kv_bytes_per_token(config)
        for spare, asked, fits, longest, why in (
            (10 * block, 160, True, 160, "ten blocks of 16 tokens are left"),
            (10 * block, 161, False, 160, "ten blocks of 16 tokens are left, one token short"),
            (10 * block - 1, 160, False, 144, "one byte is missing for the tenth block, and half a block holds nothing"),
            (10 * block, 16, True, 160, "ten blocks are left, whatever is asked for"),
            (block - 1, 1, False, 0, "not even one block is left"),
            (-5 * block, 1, False, 0, "the weights alone do not fit"),
            (1000 * block, 1000, True, 1000, "the memory is there and the model was trained for 1,000 positions"),
            (1000 * block, 1001, False, 1000, "the model was trained for 1,000 positions"),
        ):
            available = weights + 5000 + spare
            verdict = self.verdict(exercises, config, available, asked, overhead_bytes=5000)
            call = (
                f"preflight of a model with {weights} bytes of weights and {block} bytes a block, {available} bytes available, "
                f"5,000 of overhead, max_model_len {asked}: "
            )
            mistakes = {
                "overhead_bytes is not taken off": min((available - weights) // block * 16, 1000),
                "blocks are not whole": min(spare // (block // 16), 1000),
                "max_position_embeddings is no limit in yours": spare // block * 16,
            }
            expect(call + "longest", verdict.longest, longest, why, mistakes)
            expect(call + "fits", verdict.fits, fits, why)

    def test_what_it_says(self, exercises):
        config = SHAPES["qwen2.5-14b"]
        verdict = self.verdict(exercises, config, 22 * GIB, 4096)
        for number in ("27.5", "22.0"):
            assert number in verdict.message, (
                f"A 14B model in bfloat16 has 27.5 GiB of weights. With 22.0 GiB available the message should give both figures. "
                f'Yours is "{verdict.message}".'
            )
        config = SHAPES["llama-3-8b"]
        verdict = self.verdict(exercises, config, 80 * GIB, 10_000)
        assert "8192" in verdict.message, (
            f"Llama 3 was trained for 8192 positions, and that is what stands against max_model_len 10000. The message should "
            f'say 8192. Yours is "{verdict.message}".'
        )
        verdict = self.verdict(exercises, config, int(17.5 * GIB), 8192)
        expect("longest for llama-3-8b with 17.5 GiB available", verdict.longest, 4432)
        assert "4432" in verdict.message, (
            f"The message should name the max_model_len that would fit, 4432. Yours is \"{verdict.message}\"."
        )
        verdict = self.verdict(exercises, config, 24 * GIB, 8192)
        expect("The message where it fits", verdict.message, "")

    def test_the_dtype_counts_for_weights_and_cache(self, exercises):
        config = SHAPES["qwen2.5-1.5b"]
        wanted = {"float16": 32768, "float32": 4656}
        for dtype, longest in wanted.items():
            got = self.verdict(exercises, config, 8 * GIB, 2048, dtype=dtype).longest
            expect(f"longest for qwen2.5-1.5b with 8 GiB available in {dtype}", got, longest)


# ------------------------------------------------------------------------------------------ 3. sampling by hand

LOGITS = [math.log(share) for share in (0.5, 0.2, 0.15, 0.1, 0.05)]


def softmax(logits: list[float]) -> list[float]:
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def filtered(logits: list[float], order: str = "tmkp", strict: bool = False, **p: float) -> list[float]:
    """The reference. `order` is that of temperature, min_p, top_k, top_p; others, and `strict`, are known mistakes."""
    p = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | p
    for step in order:
        shares = softmax(logits)
        if step == "t":
            logits = [logit / p["temperature"] for logit in logits]
            continue
        if step == "m":
            kept = [share >= p["min_p"] * max(shares) for share in shares]
        elif step == "k":
            k = p["top_k"] if 0 < p["top_k"] < len(logits) else len(logits)
            kept = [sum(other > logit for other in logits) < k for logit in logits]
        else:
            above = [sum(other for other in shares if other > share) for share in shares]
            limit = p["top_p"]
            kept = [
                more + (share if strict else 0) < limit or limit >= 1 or more == 0
                for more, share in zip(above, shares, strict=True)
            ]
        logits = [logit if keep else -math.inf for logit, keep in zip(logits, kept, strict=True)]
    return softmax(logits)


MISTAKES = {
    "top_p is applied before top_k": {"order": "tmpk"},
    "the temperature comes after the filters": {"order": "mkpt"},
    "the temperature is not applied": {"order": "mkp"},
    "min_p comes before the temperature": {"order": "mtkp"},
    "min_p comes after the others": {"order": "tkpm"},
    "the token that carries the sum over top_p is left out; it is kept": {"strict": True},
}


def check(exercises, logits: list[float], why: str = "", **parameters: float) -> None:
    got = exercises.probabilities(logits, **parameters)
    given = ", ".join(f"{name}={value}" for name, value in parameters.items())
    wanted = filtered(logits, **parameters)
    mistakes = {
        mistake: answer
        for mistake, change in MISTAKES.items()
        if not close(answer := filtered(logits, **(parameters | change)), wanted)
    }
    if isinstance(got, list) and all(isinstance(x, float) for x in got) and not math.isclose(sum(got), 1.0, rel_tol=1e-6):
        why += f" (yours sum to {sum(got):.4g}, and probabilities sum to 1)"
    shares = "[" + ", ".join(f"{share:.3g}" for share in softmax(logits)) + "]"
    expect(f"probabilities of logits whose softmax is {shares}, with {given or 'no parameters'},", got, wanted, why, mistakes)


class TestSampling:
    """3. Sampling by hand"""

    def test_without_parameters_it_is_a_softmax(self, exercises):
        check(exercises, LOGITS)
        check(exercises, [2.0, -1.0, 2.0])

    def test_large_logits_do_not_overflow(self, exercises):
        try:
            got = exercises.probabilities([1000.0, 1000.0, -1000.0])
        except OverflowError:
            got = None
        assert close(got, [0.5, 0.5, 0.0]), (
            f"probabilities([1000, 1000, -1000]) should return [0.5, 0.5, 0]. Yours "
            f"{'overflows' if got is None else f'returns {got}'}: subtract the largest logit before exp()."
        )

    def test_temperature(self, exercises):
        check(exercises, LOGITS, "a low temperature sharpens", temperature=0.5)
        check(exercises, LOGITS, "a high one flattens", temperature=2.0)

    def test_greedy(self, exercises):
        for parameters in ({"temperature": 0.0}, {"temperature": 1e-6, "top_k": 2, "top_p": 0.1}):
            got = exercises.probabilities([1.0, 3.0, 3.0, 0.0], **parameters)
            call = f"probabilities([1, 3, 3, 0], {', '.join(f'{key}={value}' for key, value in parameters.items())})"
            expect(call, got, [0.0, 1.0, 0.0, 0.0], "all for the first of the largest", {"equals share": [0, 0.5, 0.5, 0]})

    def test_top_k(self, exercises):
        check(exercises, LOGITS, top_k=2)
        check(exercises, LOGITS, top_k=1)
        for off in (0, -1, 5, 50):
            check(exercises, LOGITS, "as nothing is cut off", top_k=off)
        check(exercises, [1.0, 3.0, 2.0, 2.0], "as both that equal the second are kept", top_k=2)

    def test_top_p(self, exercises):
        check(exercises, LOGITS, "0.5 + 0.2 + 0.15 is the first sum that reaches 0.8", top_p=0.8)
        check(exercises, LOGITS, "the likeliest is always kept", top_p=0.01)
        check(exercises, LOGITS, "as nothing is cut off", top_p=1.0)

    def test_min_p(self, exercises):
        check(exercises, LOGITS, "0.35 × 0.5 is 0.175", min_p=0.35)

    def test_the_order_of_the_filters(self, exercises):
        check(exercises, LOGITS, "after top_k 0.5 and 0.2 are 0.714 and 0.286, so 0.5 alone reaches 0.7", top_k=2, top_p=0.7)
        check(exercises, LOGITS, "the filters see what the temperature has flattened", temperature=3.0, top_p=0.6)
        check(exercises, LOGITS, "min_p sees what the temperature has sharpened", temperature=0.5, min_p=0.2)
        check(exercises, LOGITS, "top_p sees what min_p has left", min_p=0.25, top_p=0.75)

    def test_the_tokens_may_stand_in_any_order(self, exercises):
        draw = random.Random(0)
        for _ in range(50):
            logits = [draw.gauss(0, 3) for _ in range(20)]
            check(
                exercises,
                logits,
                temperature=draw.choice([0.3, 0.8, 1.0, 1.7]),
                top_k=draw.choice([0, 1, 3, 8]),
                top_p=draw.choice([0.3, 0.75, 0.95, 1.0]),
                min_p=draw.choice([0.0, 0.05, 0.3]),
            )
