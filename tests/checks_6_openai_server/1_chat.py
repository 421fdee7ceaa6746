"""1. A chat in the terminal"""

import copy
from contextlib import suppress
from types import SimpleNamespace

import httpx
import openai
import pytest

from common.check import expect


def chunk(content: str | None = None, usage: bool = False) -> SimpleNamespace:
    """A chunk as the openai package gives it."""
    choices = [] if usage else [SimpleNamespace(index=0, delta=SimpleNamespace(content=content), finish_reason=None)]
    return SimpleNamespace(choices=choices, usage=SimpleNamespace(completion_tokens=3) if usage else None)


class Stream:
    """What `create(stream=True)` returns: iterable, and closed by `close`; an exception among the chunks is raised."""

    def __init__(self, chunks):
        self.chunks, self.closed, self.taken = chunks, False, 0

    def __iter__(self):
        for each in self.chunks:
            if isinstance(each, Exception):
                raise each
            self.taken += 1
            yield each

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Client:
    """Answers each request with the next of `answers`: a list of chunks, or an exception. Notes what was sent."""

    def __init__(self, *answers):
        self.answers, self.requests, self.streams = list(answers), [], []
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self.create))

    def create(self, **request):
        self.requests.append(copy.deepcopy(request))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.streams.append(Stream(answer))
        return self.streams[-1]


def said(*contents: str) -> list[dict]:
    """Messages of the user and the assistant in turn."""
    return [
        {"role": "assistant" if place % 2 else "user", "content": content} for place, content in enumerate(contents)
    ]


def letters(messages) -> int:
    """A count that can be followed by eye: a token for each letter."""
    return sum(len(message["content"]) for message in messages)


def chat(exercises, client, context=1000, max_tokens=10, system="", messages=()):
    made = exercises.Chat(client, "course-lm", letters, context, max_tokens, system)
    made.messages += list(messages)
    return made


ANSWER = [chunk(None), chunk("The "), chunk("KV"), chunk(""), chunk(" cache"), chunk(None), chunk(usage=True)]
REFUSED = openai.APIError("too busy", httpx.Request("POST", "http://server"), body=None)


@pytest.mark.parametrize(
    "given,wanted,what",
    [
        (chunk("KV"), "KV", "a chunk with text"),
        (chunk(None), "", "a chunk whose content is None"),
        (chunk(""), "", "a chunk with an empty content"),
        (chunk(usage=True), "", "the chunk with the usage, which has no choice"),
    ],
)
def test_text(exercises, given, wanted, what):
    expect(f"text_of of {what}", exercises.text_of(given), wanted)


FORGET = [
    # system, messages, context, forgotten, what is left, why
    ("", said("aaaa", "bbbb", "cccc"), 22, 0, said("aaaa", "bbbb", "cccc"), "12 letters and 10 for the answer are 22"),
    ("", said("aaaa", "bbbb", "cccc"), 21, 1, said("cccc"), "22 are one too many, and a turn goes whole"),
    ("", said("a", "b", "c", "d", "e"), 14, 1, said("c", "d", "e"), "the oldest turn alone is enough"),
    ("", said("a", "b", "c", "d", "e"), 11, 2, said("e"), "only the question is left"),
    ("ss", said("aa", "bb", "cc"), 14, 1, said("cc"), "the system message stays"),
]


@pytest.mark.parametrize("system,messages,context,forgotten,left,why", FORGET)
def test_fit(exercises, system, messages, context, forgotten, left, why):
    made = chat(exercises, Client(), context, 10, system, messages)
    got = made.fit()
    first = [{"role": "system", "content": system}] if system else []
    call = (
        f"Chat.fit of {[m['content'] for m in first + messages]}, a letter a token, context {context}, max_tokens 10,"
    )
    expect(call, got, forgotten, why, {"it counts messages, not turns": 2 * forgotten} if forgotten else {})
    expect(f"After it, messages of {call}", made.messages, first + left, why)


def test_what_can_not_fit(exercises):
    made = chat(exercises, Client(), 12, 10, "ss", said("aaa"))
    try:
        made.fit()
    except ValueError:
        return
    raise AssertionError("Chat.fit should raise ValueError where the system message and the question alone do not fit.")


def test_an_answer(exercises):
    client = Client(ANSWER)
    made = chat(exercises, client, system="Be brief.")
    expect("list(chat.ask('What?')) of a stream with four pieces, one of them empty,", list(made.ask("What?")),
           ["The ", "KV", " cache"])  # fmt: skip
    sent = client.requests[0]
    wanted = [{"role": "system", "content": "Be brief."}, *said("What?")]
    expect(
        "What ask sends as `messages`",
        sent.get("messages"),
        wanted,
        mistakes={"the system message is lost": wanted[1:]},
    )
    for name, value in {"model": "course-lm", "max_tokens": 10, "temperature": 0, "stream": True}.items():
        expect(f"What ask sends as `{name}`", sent.get(name), value)
    expect("The messages after an answer", made.messages, [*wanted, {"role": "assistant", "content": "The KV cache"}])


def test_the_next_question_carries_the_conversation(exercises):
    client = Client(ANSWER, ANSWER)
    made = chat(exercises, client)
    list(made.ask("What?"))
    list(made.ask("And why?"))
    expect("What the second ask sends as `messages`", client.requests[1]["messages"],
           said("What?", "The KV cache", "And why?"))  # fmt: skip


def test_a_long_conversation_is_made_to_fit(exercises):
    client = Client(ANSWER)
    made = chat(exercises, client, 30, 10, "", said("a" * 20, "b" * 20))
    list(made.ask("What?"))
    expect("What ask sends where the turn before does not fit", client.requests[0]["messages"], said("What?"))


def test_pieces_come_at_once(exercises):
    client = Client(ANSWER)
    pieces = iter(chat(exercises, client).ask("What?"))
    expect("The first piece of ask", next(pieces), "The ")
    taken = client.streams[0].taken
    assert taken <= 2, f"When ask gives its first piece, it has read {taken} chunks: it waits instead of streaming."


def test_stopping_early(exercises):
    client = Client(ANSWER)
    made = chat(exercises, client)
    pieces = made.ask("What?")
    next(pieces)
    pieces.close()  # what a `break` and the end of the iteration do
    assert client.streams[0].closed, (
        "After a break the stream is still open, and the server goes on for nobody: close it."
    )
    expect("The messages after a break behind the first piece", made.messages, said("What?", "The "), mistakes={
        "nothing of the answer is kept": said("What?"), "the question is taken back": [],
    })  # fmt: skip


def test_ctrl_c(exercises):
    client = Client(ANSWER)
    made = chat(exercises, client)
    pieces = made.ask("What?")
    next(pieces), next(pieces)
    with suppress(KeyboardInterrupt, StopIteration):
        pieces.throw(KeyboardInterrupt)
    assert client.streams[0].closed, "After Ctrl-C the stream is still open: close it whatever happens."
    expect("The messages after Ctrl-C behind the second piece", made.messages, said("What?", "The KV"))


@pytest.mark.parametrize(
    "answer,when", [(REFUSED, "is refused at once"), ([chunk("The "), REFUSED], "fails after a piece")]
)
def test_a_failure_takes_the_question_back(exercises, answer, when):
    before = said("What?", "The KV cache")
    made = chat(exercises, Client(answer), messages=before)
    try:
        list(made.ask("What?"))
    except openai.APIError:
        pass
    else:
        raise AssertionError(f"ask should let openai.APIError through where the request {when}.")
    expect(f"The messages after a request that {when}", made.messages, before, mistakes={
        "the question stays": [*before, *said("What?")],
        "an equal question of an earlier turn is removed": [before[1], *said("What?")],
    })  # fmt: skip


def test_a_question_that_does_not_fit_is_taken_back(exercises):
    made = chat(exercises, Client(), 20)
    try:
        list(made.ask("a" * 11))
    except ValueError:
        expect("The messages after a question that does not fit", made.messages, [])
        return
    raise AssertionError("ask should let ValueError through where the question does not fit.")
