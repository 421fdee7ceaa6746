"""Tool calls through the OpenAI client: a loop of two turns with a function that really runs, and many single calls."""

import ast
import copy
import json
import operator
from concurrent.futures import ThreadPoolExecutor

from common.course_lm.corpus_values import Example
from common.course_lm.prompts import TOOL_CALCULATOR, TOOL_WEATHER
from common.serving import Server

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def calculator(expression: str) -> str:
    """The value of a sum of numbers. A model's text is never handed to eval.

    Raises ValueError for anything else, and ArithmeticError for a sum without a value, such as 1/0.
    """

    def value(node: ast.expr) -> float:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return node.value
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        raise ValueError(f"not a sum: {expression!r}")

    try:
        return str(value(ast.parse(expression, mode="eval").body))
    except SyntaxError:
        raise ValueError(f"not a sum: {expression!r}") from None


FUNCTIONS = {"calculator": calculator}


def openai_client(server: Server):
    """The official client, without retries: what fails shall be seen."""
    from openai import OpenAI  # the processes of load generators import the demo anew, and this takes long

    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)


def strict(tools: list[dict]) -> list[dict]:
    """The same definitions with "strict": then vLLM constrains the arguments to the function's schema."""
    tools = copy.deepcopy(tools)
    for tool in tools:
        tool["function"]["strict"] = True
    return tools


def converse(server: Server, model: str, question: str, most_turns: int = 4):
    """Ask, run what the model calls, tell it the result, until it answers in words. Yields (who, text, tokens)."""
    client = openai_client(server)
    messages: list = [{"role": "user", "content": question}]
    for _ in range(most_turns):
        answer = client.chat.completions.create(
            model=model,
            messages=messages,
            tools=strict([TOOL_CALCULATOR, TOOL_WEATHER]),
            temperature=0.0,
            max_tokens=80,
        )
        message, tokens = answer.choices[0].message, answer.usage.completion_tokens
        if not message.tool_calls:
            yield "model", message.content, tokens
            return
        messages.append(message.model_dump(include={"role", "content", "tool_calls"}))
        for call in message.tool_calls:
            yield "model calls", f"{call.function.name}({call.function.arguments})", tokens
            try:
                result = FUNCTIONS[call.function.name](**json.loads(call.function.arguments))
            except (ArithmeticError, KeyError, TypeError, ValueError) as error:  # the model may be told, and try again
                result = f"error: {type(error).__name__}: {error}"
            yield "function returns", result, 0
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


def streamed_call(server: Server, model: str, question: str) -> tuple[str, int]:
    """(the pieces in which the arguments of a call arrive, tokens)."""
    pieces, usage = [], None
    for chunk in openai_client(server).chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], tools=strict([TOOL_CALCULATOR]),
        temperature=0.0, max_tokens=80, stream=True, stream_options={"include_usage": True},
    ):  # fmt: skip
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                pieces.append((call.function.name or "") + (call.function.arguments or ""))
        usage = chunk.usage or usage
    return "|".join(pieces), usage.completion_tokens


def share_right(run, server: Server, model: str, count: int, is_strict: bool) -> dict[str, object]:
    """Held-out requests that each need one call: how many calls parse, and how many are the right ones, in percent."""
    from common.course_lm import corpus

    client = openai_client(server)

    def ask(example: Example) -> tuple[bool, bool]:
        tools = list(example.tools)
        answer = client.chat.completions.create(
            model=model, messages=list(example.messages[:-1]), tools=strict(tools) if is_strict else tools,
            temperature=0.0, max_tokens=100,
        )  # fmt: skip
        run.count(answer.usage.completion_tokens)
        calls = answer.choices[0].message.tool_calls or []
        wanted = example.messages[-1]["tool_calls"][0]["function"]
        try:
            found = [(call.function.name, json.loads(call.function.arguments)) for call in calls]
        except ValueError:
            return False, False
        arguments = wanted["arguments"]
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        return bool(found), found == [(wanted["name"], arguments)]

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(ask, corpus.held_out("tool_call", count)))
    parsed, right = (sum(flags) / count * 100 for flags in zip(*outcomes, strict=True))
    return {"requests": count, "valid_pct": parsed, "right_pct": right}
