"""Questions on one table to SQL: the task of the `sql` adapter. The base model never sees it."""

from random import Random

from common.course_lm import corpus_values as v
from common.course_lm.corpus_values import Example, chat, fill
from common.course_lm.prompts import sql_prompt

# Table, its columns of words (with a source of values), its columns of numbers.
TABLES = {
    "orders": ({"customer": v.NAMES, "product": v.OBJECTS, "city": v.CITIES}, ("price", "quantity")),
    "staff": ({"name": v.NAMES, "job": v.JOBS, "city": v.CITIES}, ("age", "salary")),
    "requests": ({"owner": v.NAMES, "model": v.ANIMALS, "region": v.CITIES}, ("tokens", "latency")),
    "books": ({"author": v.NAMES, "colour": v.COLOURS, "topic": v.TOPICS}, ("pages", "year")),
    "trips": ({"traveller": v.NAMES, "origin": v.CITIES, "destination": v.CITIES}, ("days", "cost")),
    "shops": ({"owner": v.NAMES, "product": v.FOODS, "city": v.CITIES}, ("rent", "visitors")),
}
AGGREGATES = {"SUM": ("total", "sum of the"), "AVG": ("average", "mean"), "MAX": ("largest", "highest"), "MIN": ("smallest", "lowest")}
# Conditions in words: equality, more, less. The last of each is held out.
EQUAL = ("where {column} is {value}", "with {column} {value}", "for {column} {value}", "whose {column} is {value}", "having {value} as {column}", "where {value} is the {column}")
MORE = ("with {column} above {value}", "where {column} is more than {value}", "with more than {value} {column}", "whose {column} is above {value}", "where {column} is above {value}")
LESS = ("with {column} below {value}", "where {column} is less than {value}", "with less than {value} {column}", "whose {column} is below {value}", "where {column} is below {value}")
SHOW = ("Show the {column} of {table} {condition}.", "List the {column} of {table} {condition}.", "Which {column} have {table} {condition}?",
        "Give the {column} of all {table} {condition}.", "Find the {column} of the {table} {condition}.",
        "What {column} do {table} have {condition}?")
COUNT = ("How many {table} are there {condition}?", "Count the {table} {condition}.", "What is the number of {table} {condition}?", "Give the number of all {table} {condition}.")
TOTAL = ("What is the {word} {column} of {table} {condition}?", "Show the {word} {column} of {table} {condition}.", "Find the {word} {column} for {table} {condition}.", "Give the {word} {column} of all {table} {condition}.")
SORT = ("Show all {table} {condition} sorted by {column}.", "List the {table} {condition} by {column}.", "Sort the {table} {condition} by {column}.", "Give all {table} {condition} in the order of {column}.", "Show the {table} {condition}, sorted by {column}.")


def own(split: str, templates: tuple[str, ...]) -> tuple[str, ...]:
    """The split's own templates: the last is held out."""
    return templates[:-1] if split == v.TRAIN else templates[-1:]


def sql(rng: Random, split: str) -> Example:
    """A question on a table and its query."""
    table, (texts, numbers) = rng.choice(list(TABLES.items()))
    columns = [*texts, *numbers]
    rng.shuffle(columns)
    kind = rng.random()
    if kind < 0.5:
        column = rng.choice(list(texts))
        value = v.draw(rng, split, texts[column]) if rng.random() < 0.5 else v.invented(rng, split)
        condition, where = fill(rng, rng.choice(own(split, EQUAL)), column=column, value=value), f"{column} = '{value}'"
    else:
        column, value, more = rng.choice(numbers), v.number(rng, split, 10, 9999), rng.random() < 0.5
        condition = fill(rng, rng.choice(own(split, MORE if more else LESS)), column=column, value=value)
        where = f"{column} {'>' if more else '<'} {value}"
    slots = {"table": table, "condition": condition}
    kind = rng.random()
    if kind < 0.35:
        slots["column"] = rng.choice(columns)
        templates, query = SHOW, f"SELECT {slots['column']} FROM {table} WHERE {where};"
    elif kind < 0.55:
        templates, query = COUNT, f"SELECT COUNT(*) FROM {table} WHERE {where};"
    elif kind < 0.8:
        function = rng.choice(list(AGGREGATES))
        slots |= {"column": rng.choice(numbers), "word": rng.choice(AGGREGATES[function])}
        templates, query = TOTAL, f"SELECT {function}({slots['column']}) FROM {table} WHERE {where};"
    else:
        slots["column"] = rng.choice(columns)
        templates, query = SORT, f"SELECT * FROM {table} WHERE {where} ORDER BY {slots['column']};"
    question = fill(rng, rng.choice(own(split, templates)), **slots)
    return chat("sql", sql_prompt(table, columns, question), query, keys=(query,), free_text=(question,))
