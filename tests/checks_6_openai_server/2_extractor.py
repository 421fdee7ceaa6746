"""2. An extractor that always parses"""

import json
from types import SimpleNamespace

import pytest

from common.check import expect

FIELDS = {"name": str, "age": int, "member": bool, "level": ["low", "high"]}
RECORD = {"name": "Ada", "age": 36, "member": True, "level": "high"}
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "member": {"type": "boolean"},
        "level": {"enum": ["low", "high"]},
    },
    "required": ["name", "age", "member", "level"],
    "additionalProperties": False,
}


class Client:
    """A server that writes `text`, a token for each letter, and stops where the request's max_tokens are used up."""

    def __init__(self, text: str | None):
        self.text, self.requests = text, []
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self.create))

    def create(self, **request):
        self.requests.append(request)
        cut = self.text is not None and len(self.text) > request["max_tokens"]
        content = self.text[: request["max_tokens"]] if cut else self.text
        message = SimpleNamespace(content=content)
        return SimpleNamespace(choices=[SimpleNamespace(message=message, finish_reason="length" if cut else "stop")])


def extractor(exercises, client, max_tokens=200, most_tokens=512, fields=FIELDS):
    return exercises.Extractor(client, "course-lm", fields, max_tokens, most_tokens)


def fails(exercises, made, why: str) -> None:
    """Fail unless extract raises ExtractionError."""
    try:
        got = made.extract("Ada is 36.")
    except exercises.ExtractionError:
        return
    raise AssertionError(f"extract should raise ExtractionError: {why}.\nYours returns {got!r}.")


def test_schema(exercises):
    got = exercises.schema_of(FIELDS)
    expect(f"schema_of({FIELDS!r})", got, SCHEMA, mistakes={
        "the type of an integer is written as number": json.loads(json.dumps(SCHEMA).replace("integer", "number")),
        "fields that nobody asked for are allowed": {k: v for k, v in SCHEMA.items() if k != "additionalProperties"},
        "no field is required": {k: v for k, v in SCHEMA.items() if k != "required"},
    })  # fmt: skip
    expect(
        "list(schema_of(…)['properties']), whose order is that of the answer,", list(got["properties"]), list(FIELDS)
    )


def test_a_schema_of_one_field(exercises):
    expect("schema_of({'done': bool})", exercises.schema_of({"done": bool}), {
        "type": "object", "properties": {"done": {"type": "boolean"}}, "required": ["done"],
        "additionalProperties": False,
    }, "bool is a kind of int in Python, and a type of its own in JSON")  # fmt: skip


@pytest.mark.parametrize(
    "record,text,wanted,why",
    [
        ({"name": "Ada", "age": 36}, "ADA is 36.", [], "upper and lower case are alike"),
        ({"name": "Eve", "age": 36}, "Ada is 36.", ["name"], "there is no Eve"),
        ({"hour": 12}, "in room 124", ["hour"], "124 is another number"),
        ({"hour": 12}, "it costs 0.12", ["hour"], "0.12 is another number"),
        ({"hour": 12}, "at 12, room 3", [], "12 stands there"),
        ({"hour": 12}, "at 12.", [], "12 stands there, at the end of a sentence"),
        ({"share": 12}, "12%", [], "12 stands there"),
        ({"hour": 12}, "it costs 12.50", ["hour"], "12.50 is another number"),
        ({"member": True}, "Ada pays.", [], "a bool is never unfounded"),
        ({"b": "x", "a": "y"}, "nothing", ["b", "a"], "in the order of the record"),
    ],
)
def test_unfounded(exercises, record, text, wanted, why):
    expect(f"unfounded({record!r}, {text!r})", exercises.unfounded(record, text), wanted, why)


def test_a_record(exercises):
    client = Client(json.dumps(RECORD))
    expect("extract where the server answers " + json.dumps(RECORD), extractor(exercises, client).extract("Ada is 36."),
           RECORD)  # fmt: skip
    assert len(client.requests) == 1, f"One answer was enough, and extract asked {len(client.requests)} times."
    sent = client.requests[0]
    form = {"type": "json_schema", "json_schema": {"name": "record", "schema": SCHEMA}}
    prompt = [{"role": "user", "content": exercises.prompt_of("Ada is 36.", FIELDS)}]
    for name, value in {
        "response_format": form, "messages": prompt, "model": "course-lm", "temperature": 0, "max_tokens": 200,
    }.items():  # fmt: skip
        expect(f"What extract sends as `{name}`", sent.get(name), value)


def test_more_room_where_it_was_cut(exercises):
    text = json.dumps(RECORD)  # 61 letters
    client = Client(text)
    expect(
        "extract of an answer of 61 tokens with max_tokens 16", extractor(exercises, client, 16).extract("x"), RECORD
    )
    expect("The max_tokens of its requests", [sent["max_tokens"] for sent in client.requests], [16, 32, 64],
           "twice as many as long as it is cut off")  # fmt: skip


def test_never_more_than_the_most(exercises):
    client = Client(json.dumps(RECORD))
    fails(exercises, extractor(exercises, client, 16, 50), "the answer has 61 tokens, and most_tokens is 50")
    asked = [sent["max_tokens"] for sent in client.requests]
    expect("The max_tokens of its requests, with most_tokens 50,", asked, [16, 32, 50],
           "the last one takes what is allowed", {"it goes beyond most_tokens": [16, 32, 64]})  # fmt: skip


def test_a_cut_answer_is_not_parsed(exercises):
    # Cut at 2 of 3 digits a number parses, and is wrong: finish_reason tells.
    client = Client('{"age": 360} ')
    got = extractor(exercises, client, 12, 512, {"age": int}).extract("x")
    assert len(client.requests) == 2, "An answer that was cut off is asked for again, even where it parses."
    expect("extract", got, {"age": 360})


@pytest.mark.parametrize(
    "text,why",
    [
        ("The person is Ada.", "the answer is no JSON"),
        ("", "the answer is empty"),
        (None, "the answer's content is None"),
        ("[1, 2]", "the answer is a list"),
        (json.dumps({"name": "Ada"}), "fields are missing"),
        (json.dumps(RECORD | {"mood": "good"}), "there is a field too many"),
    ],
)
def test_a_server_that_ignores_the_constraint(exercises, text, why):
    fails(exercises, extractor(exercises, Client(text)), why)
