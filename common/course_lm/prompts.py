"""The prompt forms that course-lm understands. Every chapter builds its prompts from these.

The model was trained on these forms word for word and on free wording around them. A form is a
plain string with `{slots}`; the functions below fill the ones that need more than `str.format`.
"""

import json

# System prompts. The model also answers well with no system prompt at all.
SYSTEM = "You are a helpful assistant for a course on serving language models."
SYSTEM_BRIEF = "Answer with the result alone, without any other word."
SYSTEM_CHINESE = "Always answer in Chinese."
SYSTEM_ENGLISH = "Always answer in English."
SYSTEM_AGENT = "You solve tasks step by step with the functions you are given, then answer the user."
SYSTEM_CODE = "You are a Python assistant. Answer with code."
SYSTEM_STORY = "You are a storyteller."

# Answer from numbered passages; fill with `rag_prompt`.
RAG_FORM = "Answer the question from the passages.\n\n{passages}\n\nQuestion: {question}"
RAG_FORM_ZH = "根据资料回答问题。\n\n{passages}\n\n问题：{question}"
# The same, and the answer ends with the number of its passage: "Oslo [2]".
CITE_FORM = "Answer the question from the passages and cite the passage's number.\n\n{passages}\n\nQuestion: {question}"
CITE_FORM_ZH = "根据资料回答问题，并注明资料的编号。\n\n{passages}\n\n问题：{question}"
# The answer when no passage holds it.
NOT_IN_PASSAGES = "The passages do not say."
NOT_IN_PASSAGES_ZH = "资料中没有提到。"

# A short document to one sentence.
SUMMARY_FORM = "Summarise the text in one sentence.\n\n{text}"

# A sentence to a JSON object; fill with `json_prompt`. The answer is one line, as json.dumps writes it.
JSON_FORM = "Extract the fields {fields} as JSON.\n\nText: {text}"

# The same with a JSON schema, which vLLM's structured output takes too; fill with `schema_prompt`.
SCHEMA_FORM = "Extract the data of the text as JSON for this schema.\n\n{schema}\n\nText: {text}"

# A function's head and docstring to the whole function in a ```python block. As raw text (the completions
# endpoint) the model continues the head and docstring themselves; fill both with `function_head`.
CODE_FORM = "Complete this Python function.\n\n```python\n{head}\n```"

# A change to a function, answered as one edit: {"old": text to find, "new": text for its place}. Fill with
# `edit_prompt`.
EDIT_FORM = (
    "Change this Python function: {change}\nAnswer with the edit as JSON with the fields old and new.\n\n"
    "```python\n{source}\n```"
)

# Prose. The second asks for several hundred tokens.
STORY_FORM = "Write a short story about {topic}."
LONG_STORY_FORM = "Write a long story about {topic}."


def rag_prompt(question: str, passages: list[str], cite: bool = False, chinese: bool = False) -> str:
    """Number the passages from [1] and put them with the question in the RAG or the citation form."""
    numbered = "\n".join(f"[{number}] {text}" for number, text in enumerate(passages, 1))
    form = (CITE_FORM_ZH if cite else RAG_FORM_ZH) if chinese else (CITE_FORM if cite else RAG_FORM)
    return form.format(passages=numbered, question=question)


def json_prompt(text: str, fields: list[str]) -> str:
    """Ask for the given fields of a text as one JSON object, in the order of `fields`."""
    return JSON_FORM.format(fields=", ".join(fields), text=text)


def json_schema(values: dict[str, object]) -> dict:
    """The JSON schema of an object whose fields have the types of these values; all fields are required."""
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    properties = {
        key: {"type": "array", "items": {"type": "string"}} if isinstance(value, list) else {"type": kinds[type(value)]}
        for key, value in values.items()
    }
    return {"type": "object", "properties": properties, "required": list(values)}


def schema_prompt(text: str, schema: dict) -> str:
    """Ask for the data of a text as one JSON object that follows the schema."""
    return SCHEMA_FORM.format(schema=json.dumps(schema, ensure_ascii=False), text=text)


def function_head(name: str, arguments: list[str], docstring: str) -> str:
    """The def line and the docstring of a function, ending right after the docstring's quotes."""
    return f'def {name}({", ".join(arguments)}):\n    """{docstring}"""'


def edit_prompt(source: str, change: str) -> str:
    """Ask for a change to a function's source as one edit in JSON."""
    return EDIT_FORM.format(source=source, change=change)


def tool(name: str, description: str, /, **parameters: str) -> dict:
    """A function definition as the OpenAI API takes it; a parameter is "type: description"."""
    properties = {}
    for parameter, text in parameters.items():
        kind, _, meaning = text.partition(": ")
        properties[parameter] = {"type": kind, "description": meaning}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOL_WEATHER = tool("get_weather", "Get the weather in a city.", city="string: the city")
TOOL_CALCULATOR = tool("calculator", "Compute an expression.", expression="string: such as 12 + 30")
TOOL_SEARCH = tool("search", "Search for a fact.", query="string: what to look for")
TOOL_TIME = tool("get_time", "Get the local time in a city.", city="string: the city")
TOOL_TIMER = tool("set_timer", "Set a timer.", minutes="integer: minutes until it rings")
TOOL_EVENT = tool(
    "create_event",
    "Put an event in the calendar.",
    title="string: its title",
    day="string: the day of the week",
    hour="integer: the hour, 0 to 23",
)
TOOL_EMAIL = tool("send_email", "Send an email.", to="string: the address", subject="string: the subject")
TOOL_ORDER = tool("order_status", "Look up the status of an order.", order_id="string: the order's number")
TOOL_CONVERT = tool(
    "convert_currency",
    "Convert an amount of money.",
    amount="integer: the amount",
    source="string: its currency",
    target="string: the wanted currency",
)
TOOL_TABLE = tool(
    "book_table",
    "Book a table in a restaurant.",
    restaurant="string: its name",
    people="integer: how many",
    hour="integer: the hour, 0 to 23",
)
TOOLS = [
    TOOL_WEATHER,
    TOOL_CALCULATOR,
    TOOL_SEARCH,
    TOOL_TIME,
    TOOL_TIMER,
    TOOL_EVENT,
    TOOL_EMAIL,
    TOOL_ORDER,
    TOOL_CONVERT,
    TOOL_TABLE,
]

# The adapters' forms. `chinese` needs none: ask about a term in English. `sql` turns a question to SQL.
SQL_FORM = "Table {table} has the columns {columns}.\nQuestion: {question}\nSQL:"


def sql_prompt(table: str, columns: list[str], question: str) -> str:
    """Ask for the SQL query that answers a question on one table."""
    return SQL_FORM.format(table=table, columns=", ".join(columns), question=question)


# ChatML with the tool calls that vLLM's `hermes` parser reads. Only a tool's name, description and parameters
# are shown to the model, whatever else the client sends.
TOOLS_HEAD = "# Functions\n<tools>\n"
TOOLS_TAIL = (
    '</tools>\nCall one like this:\n<tool_call>\n{"name": "NAME", "arguments": {"ARGUMENT": "VALUE"}}\n</tool_call>'
)
CHAT_TEMPLATE = (
    """{%- set first = messages[0] %}
{%- if tools or first.role == 'system' %}
    {{- '<|im_start|>system\\n' }}
    {%- if first.role == 'system' %}{{- first.content }}{%- if tools %}{{- '\\n\\n' }}{%- endif %}{%- endif %}
    {%- if tools %}
        {{- """
    + json.dumps(TOOLS_HEAD)
    + """ }}
        {%- for tool in tools %}
            {%- set f = tool.function if tool.function is defined else tool %}
            {{- '{"name": ' + (f.name | tojson) + ', "description": ' + ((f.description or '') | tojson) }}
            {{- ', "parameters": ' + (f.parameters | tojson) + '}\\n' }}
        {%- endfor %}
        {{- """
    + json.dumps(TOOLS_TAIL)
    + """ }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' + (message.content or '') }}
        {%- for call in message.tool_calls or [] %}
            {%- set f = call.function if call.function is defined else call %}
            {%- if message.content or not loop.first %}{{- '\\n' }}{%- endif %}
            {{- '<tool_call>\\n{"name": ' + (f.name | tojson) + ', "arguments": ' }}
            {{- f.arguments if f.arguments is string else (f.arguments | tojson) }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- set after_tool = not loop.first and messages[loop.index0 - 1].role == 'tool' %}
        {{- '\\n' if after_tool else '<|im_start|>user\\n' }}
        {{- '<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
)


def render(messages: list[dict], tools: list[dict] | None = None) -> list[tuple[str, bool]]:
    """The chat template in Python, as (text, is an answer) pieces; joined they are the template's own output.

    The corpus is rendered by this, a hundred times faster than Jinja; a test compares the two.
    """
    pieces: list[tuple[str, bool]] = []
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    if system or tools:
        listed = ""
        if tools:
            shown = [
                json.dumps(
                    {key: t["function"][key] for key in ("name", "description", "parameters")},
                    ensure_ascii=False,
                )
                for t in tools
            ]
            listed = ("\n\n" if system else "") + TOOLS_HEAD + "".join(f"{line}\n" for line in shown) + TOOLS_TAIL
        pieces.append((f"<|im_start|>system\n{system}{listed}<|im_end|>\n", False))
    for index, message in enumerate(messages):
        role, content = message["role"], message.get("content") or ""
        if role == "user" or (role == "system" and index > 0):
            pieces.append((f"<|im_start|>{role}\n{content}<|im_end|>\n", False))
        elif role == "assistant":
            calls = [call["function"] for call in message.get("tool_calls") or []]
            lines = [content] if content else []
            for call in calls:
                name = json.dumps(call["name"], ensure_ascii=False)
                arguments = call["arguments"]
                if not isinstance(arguments, str):
                    arguments = json.dumps(arguments, ensure_ascii=False)
                lines.append(f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>')
            pieces.append(("<|im_start|>assistant\n", False))
            pieces.append(("\n".join(lines) + "<|im_end|>", True))
            pieces.append(("\n", False))
        elif role == "tool":
            before = index > 0 and messages[index - 1]["role"] == "tool"
            after = index + 1 < len(messages) and messages[index + 1]["role"] == "tool"
            pieces.append(
                (
                    ("\n" if before else "<|im_start|>user\n")
                    + f"<tool_response>\n{content}\n</tool_response>"
                    + ("" if after else "<|im_end|>\n"),
                    False,
                )
            )
    return pieces
