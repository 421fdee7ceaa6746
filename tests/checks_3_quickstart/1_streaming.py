"""1. A streaming client"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from common.check import expect

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


@pytest.mark.parametrize("stream,events,what", EVENTS, ids=[what for _, _, what in EVENTS])
def test_one_chunk(exercises, stream, events, what):
    expect(f"EventParser.feed({stream!r}), which is {what},", exercises.EventParser().feed(stream), events)


def test_chunks_cut_anywhere(exercises):
    stream = ": ping\r\n\r\ndata: 缓存\r\n\r\ndata: a\ndata: b\n\ndata: é €\n\n".encode()
    for size in range(1, len(stream)):
        parser, events, pieces = exercises.EventParser(), [], []
        for start in range(0, len(stream), size):
            pieces.append(stream[start : start + size])
            try:
                events += parser.feed(pieces[-1])
            except UnicodeDecodeError as error:
                raise AssertionError(
                    f"Cut into pieces of {size} bytes, feed({pieces[-1]!r}) raises UnicodeDecodeError: {error}. A "
                    "chunk may end between the bytes of one character, so decode only what is whole, as a line is."
                ) from None
        expect(
            f"The events of a stream that is cut into pieces of {size} bytes, {pieces[:3]!r} …,",
            events,
            ["缓存", "a\nb", "é €"],
            "however it is cut",
        )


def test_an_event_comes_as_soon_as_it_is_complete(exercises):
    parser = exercises.EventParser()
    expect("feed(b'data: one\\n')", parser.feed(b"data: one\n"), [])
    expect("and then feed(b'\\nda')", parser.feed(b"\nda"), ["one"], "the empty line ends the event")
    expect("and then feed(b'ta: two\\n\\n')", parser.feed(b"ta: two\n\n"), ["two"])


def test_text_tokens_and_request(exercises):
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


def test_pieces_come_when_they_are_sent(exercises):
    received = threading.Event()
    waited = []

    def answer(_: dict) -> Iterator[bytes]:
        time.sleep(0.05)
        yield chunk("")  # no text yet: not the first token for the one who reads
        time.sleep(0.1)
        yield chunk("first")
        waited.append(received.wait(2))
        time.sleep(0.15)
        yield chunk(" second") + chunk(usage=2) + DONE

    with server(answer) as url:
        completion, start = ask(exercises, url), time.perf_counter()
        for piece in completion:
            if piece:
                received.set()
        seconds = time.perf_counter() - start
    assert waited == [True], (
        "The server sends the second piece when you have yielded the first. Yours had yielded nothing after 2 s: it "
        "waits for the whole answer."
    )
    ttft_s = completion.ttft_s
    assert ttft_s is not None, "ttft_s is still None at the end of an answer."
    assert ttft_s >= 0.149, (
        f"The first text comes 0.15 s after the request, and ttft_s says {ttft_s:.3f} s. The headers, or a chunk whose "
        "text is empty, are no token, and the clock starts before the request."
    )
    assert ttft_s <= seconds - 0.1, (
        f"ttft_s says {ttft_s:.3f} s of {seconds:.3f}, but the first text came 0.15 s before the end: is it set again "
        "by later pieces?"
    )


def test_an_error_in_the_stream(exercises):
    error = b'data: {"error": {"message": "the engine has died", "code": 500}}\n\n'
    with server(lambda _: iter([chunk("The"), error, DONE])) as url:
        fails(exercises, url, "an error event", "the engine has died", pieces=["The"])


def test_a_refused_request(exercises):
    body = b'{"error": {"message": "max_tokens is too large: 7", "code": 400}}'
    with server(lambda _: iter([body]), status=400) as url:
        fails(exercises, url, "a status of 400", "max_tokens is too large", pieces=[])


def test_a_stream_that_breaks_off(exercises):
    with server(lambda _: iter([chunk("The"), chunk(" cache")])) as url:
        fails(exercises, url, "a stream that ends without [DONE]", "", pieces=["The", " cache"])


def fails(exercises, url: str, what: str, message: str, pieces: list[str]) -> None:
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
