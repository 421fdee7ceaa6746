"""Our solutions of the exercises of 6.openai_server. Others are as good: what counts is that the checks pass."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing

import httpx
import openai

# ---------------------------------------------------------------------- 1. a chat in the terminal
#
# A server keeps nothing: each request carries the whole conversation. So the client keeps it, and makes it fit.


def text_of(chunk) -> str:
    return (chunk.choices[0].delta.content or "") if chunk.choices else ""


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
        first = 1 if self.messages and self.messages[0]["role"] == "system" else 0
        forgotten = 0
        while self.count(self.messages) + self.max_tokens > self.context:
            if len(self.messages) - first < 3:
                raise ValueError(f"the last message and {self.max_tokens} tokens of answer do not fit {self.context}")
            del self.messages[first : first + 2]
            forgotten += 1
        return forgotten

    def ask(self, question: str) -> Iterator[str]:
        self.messages.append({"role": "user", "content": question})
        pieces: list[str] = []
        try:
            self.fit()
            with closing(
                self.client.chat.completions.create(
                    model=self.model, messages=self.messages, max_tokens=self.max_tokens, temperature=0.0, stream=True
                )
            ) as stream:
                for chunk in stream:
                    if piece := text_of(chunk):
                        pieces.append(piece)
                        yield piece
        except (openai.APIError, ValueError):
            self.messages.pop()
            raise
        except BaseException:  # GeneratorExit, KeyboardInterrupt: what was read was said
            self._answered(pieces)
            raise
        self._answered(pieces)

    def _answered(self, pieces: list[str]) -> None:
        self.messages.append({"role": "assistant", "content": "".join(pieces)})


# ---------------------------------------------------------------------- 2. an extractor that always parses
#
# A field is a name and what it may be: str, int, bool, or a list of texts of which it is one.

Fields = Mapping[str, type | Sequence[str]]


class ExtractionError(Exception):
    """No record could be had, however much room the answer got."""


def schema_of(fields: Fields) -> dict:
    types = {str: "string", int: "integer", bool: "boolean"}
    return {
        "type": "object",
        "properties": {
            name: {"type": types[kind]} if isinstance(kind, type) else {"enum": list(kind)}
            for name, kind in fields.items()
        },
        "required": list(fields),
        "additionalProperties": False,
    }


def unfounded(record: Mapping[str, object], text: str) -> list[str]:
    def stands(value: object) -> bool:
        if isinstance(value, bool):
            return True
        if isinstance(value, int):
            return re.search(rf"(?<![\d.,-]){value}(?![\d]|[.,]\d)", text) is not None
        return str(value).lower() in text.lower()

    return [name for name, value in record.items() if not stands(value)]


class Extractor:
    """Turns texts into records with the given fields. The constraint makes each answer one, unless it is cut off."""

    def __init__(
        self, client: openai.OpenAI, model: str, fields: Fields, max_tokens: int = 32, most_tokens: int = 512
    ) -> None:
        self.client, self.model, self.fields = client, model, fields
        self.max_tokens, self.most_tokens = max_tokens, most_tokens

    def extract(self, text: str) -> dict:
        schema = {"type": "json_schema", "json_schema": {"name": "record", "schema": schema_of(self.fields)}}
        tokens = self.max_tokens
        while True:
            choice = self.client.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": prompt_of(text, self.fields)}],
                temperature=0.0,
                max_tokens=tokens,
                response_format=schema,
            ).choices[0]
            if choice.finish_reason != "length":
                break
            if tokens >= self.most_tokens:
                raise ExtractionError(f"cut off after {tokens} tokens: {choice.message.content}")
            tokens = min(2 * tokens, self.most_tokens)
        try:
            record = json.loads(choice.message.content or "")
        except ValueError as error:
            raise ExtractionError(f"not JSON ({error}): {choice.message.content}") from None
        if not isinstance(record, dict) or record.keys() != self.fields.keys():
            raise ExtractionError(f"other fields than {list(self.fields)}: {record}")
        return record


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
