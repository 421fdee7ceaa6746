r"""The exercises of 6.openai_server. Write what raises NotImplementedError, then: make check CH=6

The check says in words what is still wrong; it never asks for more than the docstring says. Print what you like:
it is shown. `solutions.py` in this folder passes the same checks. Try first.

  1  A chat in the terminal              text_of, Chat.fit, Chat.ask                         45 minutes
  2  An extractor that always parses     schema_of, unfounded, Extractor.extract             40 minutes

When you have written them, use them: start a server in one terminal and this file in another.

  .venv/bin/vllm serve common/course_lm/model --served-model-name course-lm --host 127.0.0.1 --enforce-eager \
    --max-model-len 2048 --kv-cache-memory-bytes 512M
  .venv/bin/python 6.openai_server/exercises.py
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import httpx
import openai

# ---------------------------------------------------------------------- 1. a chat in the terminal
#
# A server keeps nothing: each request carries the whole conversation. So the client keeps it, and makes it fit.


def text_of(chunk) -> str:
    """The text that a chunk of a streamed chat brings, "" if it brings none.

    `chunk.choices` is empty in the chunk that carries the usage. Otherwise the text is the `content` of the first
    choice's `delta`, and that is None in a chunk with a role, a tool call or a reason to stop.
    """
    raise NotImplementedError("text_of")


class Chat:
    """A conversation with a model, whose answers stream.

    messages     what was said, as the API takes it: {"role": "system", "user" or "assistant", "content": text}
    count        a function from messages to the number of tokens of their prompt (the server's /tokenize knows)
    context      tokens that prompt and answer may have together
    """

    def __init__(
        self,
        client: openai.OpenAI,
        model: str,
        count: Callable[[Sequence[dict]], int],
        context: int,
        max_tokens: int = 200,
        system: str = "",
    ) -> None:
        self.client, self.model, self.count, self.context, self.max_tokens = client, model, count, context, max_tokens
        self.messages: list[dict] = [{"role": "system", "content": system}] if system else []

    def fit(self) -> int:
        """Forget the oldest turns until prompt and answer fit the context; returns how many were forgotten.

        - They fit when `count(messages)` plus `max_tokens` is at most `context`.
        - A turn is a message of the user and the answer after it. It is forgotten whole: an answer without its question
          would confuse the model.
        - The system message, if there is one, and the last message (the question that is to be answered) stay. If
          those alone do not fit, raise ValueError.
        """
        raise NotImplementedError("Chat.fit")

    def ask(self, question: str) -> Iterator[str]:
        """Ask, and yield the pieces of the answer as they come, those without text left out.

        - Append the question to the messages, make them fit, and send them: `client.chat.completions.create` with
          `model`, `messages`, `max_tokens`, temperature 0 and `stream` True.
        - When the answer is complete, append it to the messages.
        - When it is not because whoever iterates stops early (a `break` raises GeneratorExit at the `yield`, Ctrl-C
          KeyboardInterrupt wherever this is), append what has come, and close the stream: `.close()`. Then the server
          stops too.
        - If the request fails (openai.APIError, at once or in mid-stream) or does not fit (ValueError), take the
          question out of the messages again and let the error through. Otherwise the next request fails as well. What
          `fit` has forgotten stays forgotten.
        """
        raise NotImplementedError("Chat.ask")


# ---------------------------------------------------------------------- 2. an extractor that always parses
#
# A field is a name and what it may be: str, int, bool, or a list of texts of which it is one.

Fields = Mapping[str, type | Sequence[str]]


class ExtractionError(Exception):
    """No record could be had, however much room the answer got."""


def schema_of(fields: Fields) -> dict:
    """The JSON schema of an object that has just these fields.

    {"type": "object", "properties": {…}, "required": […], "additionalProperties": false}. `properties` has for each
    field, in their order, {"type": "string"}, {"type": "integer"} or {"type": "boolean"}, and for a list of texts
    {"enum": […]}. `required` names all of them, in the same order.
    """
    raise NotImplementedError("schema_of")


def unfounded(record: Mapping[str, object], text: str) -> list[str]:
    """The fields, in the record's order, whose value does not stand in the text: those a model may have made up.

    Texts are looked for as they are, upper or lower case alike. A number counts if it stands there as a number of its
    own: 12 is not in "room 124" nor in "0.12", but in "at 12, room 3" and in "12%". A bool is never unfounded.
    """
    raise NotImplementedError("unfounded")


class Extractor:
    """Turns texts into records with the given fields. The constraint makes each answer one, unless it is cut off."""

    def __init__(
        self, client: openai.OpenAI, model: str, fields: Fields, max_tokens: int = 32, most_tokens: int = 512
    ) -> None:
        self.client, self.model, self.fields = client, model, fields
        self.max_tokens, self.most_tokens = max_tokens, most_tokens

    def extract(self, text: str) -> dict:
        """The record of a text.

        - Ask with `client.chat.completions.create`: `model`, one user message with `prompt_of(text, fields)`,
          temperature 0, `max_tokens`, and `response_format` {"type": "json_schema", "json_schema": {"name": "record",
          "schema": the fields' schema}}.
        - An answer whose `finish_reason` is "length" was cut off, and half an object does not parse. Ask again with
          twice the tokens, and so on up to `most_tokens`; if the answer with that many was cut off too, raise
          ExtractionError.
        - Return the parsed object. If it does not parse all the same, or has other fields (a server may not know the
          constraint and ignore it), raise ExtractionError. Types need no check here.
        """
        raise NotImplementedError("Extractor.extract")


def prompt_of(text: str, fields: Fields) -> str:
    """The form in which course-lm was taught to extract."""
    return f"Extract the fields {', '.join(fields)} as JSON.\n\nText: {text}"


def counter(url: str, model: str) -> Callable[[Sequence[dict]], int]:
    """Counts the tokens of a conversation by asking the server."""

    def count(messages: Sequence[dict]) -> int:
        body = {"model": model, "messages": list(messages)}
        return httpx.post(f"{url}/tokenize", json=body, trust_env=False).json()["count"]

    return count


if __name__ == "__main__":
    import terminal_chat

    terminal_chat.main(Chat, Extractor, counter)
