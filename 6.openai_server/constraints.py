"""Four tasks, each with a constraint of another kind, a test of what is valid, and one of what is right."""

import json
import re
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from random import Random

import httpx
import jsonschema

from common.course_lm import corpus_values as values
from common.course_lm.corpus_extraction import meeting
from common.course_lm.corpus_sql import TABLES
from common.course_lm.corpus_words import WEEKDAYS
from common.course_lm.prompts import SYSTEM_BRIEF, rag_prompt
from common.serving import Server

INTEGER = r"-?(0|[1-9][0-9]{0,3})"
AT_ONCE = 16


COMPACT, SPACED = (",", ":"), (", ", ": ")  # between fields, and between a field and its value


@dataclass(frozen=True)
class Task:
    """One request with a constraint. `valid` says whether an answer can be used, `right` whether it is the answer."""

    kind: str
    messages: list[dict]
    constraint: dict
    valid: Callable[[str], bool]
    right: Callable[[str], bool]
    adapter: str = ""


def tasks(kind: str, count: int) -> list[Task]:
    """`count` requests whose wording and values course-lm was not trained on."""
    return [MAKERS[kind](index) for index in range(count)]


def _held_out(skill: str, index: int) -> values.Example:
    from common.course_lm import corpus  # the processes of load generators import the demo anew, and this takes long

    while len(_examples.setdefault(skill, [])) <= index:
        _examples[skill] = corpus.held_out(skill, index + 64)
    return _examples[skill][index]


_examples: dict[str, list[values.Example]] = {}


def _json_schema(index: int, separators: tuple[str, str] | None = None) -> Task:
    """A sentence to an object with the fields that a program asks for; with `separators` a grammar rules the blanks.

    The schema says nothing of blanks. vLLM allows any number of them, or with --structured-outputs-config's
    disable_any_whitespace none.
    """
    example = _held_out("json", index)
    wanted = json.loads(example.keys[0])
    types = {str: "string", int: "integer"}
    schema = {
        "type": "object",
        "properties": {field: {"type": types[type(value)]} for field, value in wanted.items()},
        "required": list(wanted),
        "additionalProperties": False,
    }

    def valid(text: str) -> bool:
        try:
            jsonschema.validate(json.loads(text), schema)
        except (ValueError, jsonschema.ValidationError):
            return False
        return True

    constraint = {"response_format": {"type": "json_schema", "json_schema": {"name": "record", "schema": schema}}}
    if separators:
        fields = {field: schema["properties"][field]["type"] for field in wanted}
        constraint = {"structured_outputs": {"grammar": object_grammar(fields, *separators)}}
    return Task("json_schema", list(example.messages[:-1]), constraint, valid, lambda text: json.loads(text) == wanted)


def object_grammar(fields: dict[str, str], comma: str, colon: str) -> str:
    """A grammar of JSON objects with these fields ("string" or "integer"), and no other blanks than the separators'."""
    written = [f'"\\"{field}\\"{colon}" {kind}' for field, kind in fields.items()]
    return f"""root ::= "{{" {f' "{comma}" '.join(written)} "}}"
string ::= "\\"" [^"\\\\\\x00-\\x1F]* "\\""
integer ::= "0" | [1-9] [0-9]*
"""


def _choice(index: int) -> Task:
    """One of the weekdays."""
    record = meeting(draw := Random(f"choice {index}"), values.HELD_OUT)
    sentence = values.fill(draw, "The {topic} meeting of {organiser} is on {day} at {hour} in room {room}.", **record)
    question = rag_prompt("On which day is the meeting?", [sentence])
    choices = WEEKDAYS
    return Task(
        "choice", [{"role": "user", "content": question}], {"structured_outputs": {"choice": list(choices)}},
        lambda text: text in choices, lambda text: text == record["day"],
    )  # fmt: skip


def _regex(index: int, told: bool = False) -> Task:
    """A sum, of which the program wants the number alone; `told` says so to the model, too."""
    example = _held_out("arithmetic", index)
    messages = [{"role": "system", "content": SYSTEM_BRIEF}] * told + list(example.messages[:-1])
    return Task(
        "regex", messages, {"structured_outputs": {"regex": INTEGER}},
        lambda text: re.fullmatch(INTEGER, text) is not None, lambda text: text == example.keys[0],
    )  # fmt: skip


def sql_grammar(table: str, words: list[str], numbers: list[str]) -> str:
    """A grammar (EBNF as xgrammar reads it) of the queries on one table: no other table, no other column."""
    quoted = {"word": words, "number": numbers, "column": [*words, *numbers]}
    columns = "\n".join(f"{kind} ::= " + " | ".join(f'"{name}"' for name in names) for kind, names in quoted.items())
    return f"""root ::= "SELECT " what " FROM {table} WHERE " condition order ";"
what ::= "*" | column | "COUNT(*)" | ("SUM" | "AVG" | "MAX" | "MIN") "(" number ")"
condition ::= word " = '" [A-Za-z0-9 -]+ "'" | number " " [<>=] " " [0-9]+
order ::= "" | " ORDER BY " column
{columns}
"""


def _grammar(index: int) -> Task:
    """A question on a table to a query that the database can run, by the sql adapter."""
    example = _held_out("sql", index)
    table, words, numbers = next(each for each in TABLES if f"Table {each[0]} " in example.messages[0]["content"])

    def valid(text: str) -> bool:
        database = sqlite3.connect(":memory:")
        database.execute(f"CREATE TABLE {table} ({', '.join([*words, *numbers])})")
        try:
            return database.execute(text).description is not None  # a query has columns, even without a row
        except (sqlite3.Error, sqlite3.Warning):  # a warning: more than one statement
            return False
        finally:
            database.close()

    constraint = {"structured_outputs": {"grammar": sql_grammar(table, list(words), list(numbers))}}
    return Task(
        "grammar", list(example.messages[:-1]), constraint, valid, lambda text: text == example.keys[0], adapter="sql"
    )


MAKERS = {
    "json_schema": _json_schema,
    "json_compact": partial(_json_schema, separators=COMPACT),
    "json_spaced": partial(_json_schema, separators=SPACED),
    "choice": _choice,
    "regex": _regex,
    "regex_told": partial(_regex, told=True),
    "grammar": _grammar,
}


def ask_all(run, server: Server, model: str, asked: list[Task], constrained: bool) -> dict[str, float]:
    """Ask them all, some at once: shares of valid and right answers in percent, mean answer length, an example."""

    def ask(task: Task) -> tuple[bool, bool, int, str]:
        body = {"model": task.adapter or model, "messages": task.messages, "temperature": 0.0, "max_tokens": 100}
        answer = client.post("/v1/chat/completions", json=body | (task.constraint if constrained else {}))
        answer.raise_for_status()
        got = answer.json()
        text, tokens = got["choices"][0]["message"]["content"] or "", got["usage"]["completion_tokens"]
        valid = task.valid(text)
        return valid, valid and task.right(text), run.count(tokens), text

    with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        valid, right, tokens, texts = zip(*pool.map(ask, asked), strict=True)
    count = len(asked)
    return {
        "valid_pct": sum(valid) / count * 100,
        "right_pct": sum(right) / count * 100,
        "tokens_per_answer": sum(tokens) / count,
        "answer": next((text for text, good in zip(texts, valid, strict=True) if not good), texts[0])[:80],
    }


# Constraints that are never satisfied within max_tokens, so both sides of a comparison generate the same number of
# tokens, whatever a model (of random weights, too) would like to say.
ENDLESS = {
    "none": {},
    "json_schema": {"structured_outputs": {"json": {"type": "array", "items": {"type": "integer"}, "minItems": 1000}}},
    "regex": {"structured_outputs": {"regex": "([a-z]{1,9} ){500}"}},
    "grammar": {"structured_outputs": {"grammar": "root ::= [a-z0-9] root"}},
    "grammar_words": {"structured_outputs": {"grammar": 'root ::= [a-z]+ " " root'}},  # the regex without its counts
}
