"""Prompts for the experiments: lessons cut to the lengths of a chat service, and the files that tools want them in."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lesson_search import pieces

from common import lengths
from common.course_lm import corpus


@dataclass(frozen=True)
class Request:
    """A text, and how many tokens it is to be answered with."""

    prompt: str
    prompt_tokens: int
    output_tokens: int


_rows: dict[str, list[int]] = {}  # by the tokenizer's name: each engine has an object of its own


def lesson_tokens(tokenizer) -> list[int]:
    """All lessons as one row of tokens."""
    name = tokenizer.name_or_path
    if name not in _rows:
        _rows[name] = tokenizer.encode("\n\n".join(piece.text for piece in pieces()), add_special_tokens=False)
    return _rows[name]


def of_lengths(tokenizer, sizes: Sequence[lengths.Lengths], seed: int = 0) -> list[Request]:
    """A request for each of these lengths, whose prompt begins at a random place in the lessons.

    Cutting a row of tokens and tokenizing it again may move a token at the edges, so the length is counted again.
    """
    draw, row = random.Random(seed), lesson_tokens(tokenizer)
    found = []
    for number, size in enumerate(sizes):
        start = draw.randrange(len(row) - size.input_tokens)
        # The number keeps prompts apart, so that no prefix cache answers for the engine.
        text = f"{number} " + tokenizer.decode(row[start : start + max(1, size.input_tokens - 2)])
        found.append(Request(text, len(tokenizer.encode(text)), size.output_tokens))
    return found


def chat(tokenizer, count: int, limit: int, scale: float, seed: int = 0) -> list[Request]:
    """`count` requests as long as a chat service's, shortened by `scale`, each with some room below `limit` tokens."""
    return of_lengths(tokenizer, lengths.sample(count, seed=seed, limit=limit - 16, scale=scale), seed)


def write_jsonl(file: Path, requests: Sequence[Request]) -> None:
    """The input of batch_runner.py."""
    lines = (json.dumps({"prompt": r.prompt, "max_tokens": r.output_tokens}, ensure_ascii=False) for r in requests)
    file.write_text("\n".join(lines) + "\n")


def questions(count: int, seed: int = 0) -> list[list[dict[str, str]]]:
    """`count` chats of the kinds that course-lm was trained for, up to the answer; some may be asked twice."""
    skills = ("terms_en", "terms_zh", "arithmetic", "passages", "chat")
    examples = [example for skill in skills for example in corpus.held_out(skill, min(count, 80))]
    draw = random.Random(seed)
    return [list(draw.choice(examples).messages[:-1]) for _ in range(count)]


def write_questions(file: Path, asked: Sequence[list[dict[str, str]]]) -> None:
    """The input of batch_runner.py: a line for each chat, with an id."""
    with file.open("w") as output:
        for number, messages in enumerate(asked):
            output.write(json.dumps({"id": f"q{number}", "messages": messages}, ensure_ascii=False) + "\n")


def write_openai(file: Path, asked: Sequence[list[dict[str, str]]], model: str, max_tokens: int) -> None:
    """The input of `vllm run-batch`: OpenAI's batch format, a request to an endpoint in each line."""
    with file.open("w") as output:
        for number, messages in enumerate(asked):
            body = {"model": model, "messages": messages, "temperature": 0.0, "max_tokens": max_tokens}
            line = {"custom_id": f"q{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            output.write(json.dumps(line, ensure_ascii=False) + "\n")
