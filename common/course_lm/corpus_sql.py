"""Questions on one table to SQL: the task of the `sql` adapter. The base model never sees it.

Held-out questions are on the six tables below. Training has these and as many others as there are words, so that table,
column and value are read from the prompt and none is known by heart; and it has the order "value, then column" in many
wordings, which a held-out condition needs.
"""

from random import Random

from common.course_lm import corpus_values as v
from common.course_lm import corpus_words as lists
from common.course_lm.corpus_anything import PROPERTIES
from common.course_lm.corpus_values import Example, chat, fill
from common.course_lm.prompts import sql_prompt

# Table, its columns of words (with a source of values), its columns of numbers.
Table = tuple[str, dict[str, list[str]], tuple[str, ...]]
TABLES: tuple[Table, ...] = (
    ("orders", {"customer": lists.NAMES, "product": lists.OBJECTS, "city": lists.CITIES}, ("price", "quantity")),
    ("staff", {"name": lists.NAMES, "job": lists.JOBS, "city": lists.CITIES}, ("age", "salary")),
    ("requests", {"owner": lists.NAMES, "model": lists.ANIMALS, "region": lists.CITIES}, ("tokens", "latency")),
    ("books", {"author": lists.NAMES, "colour": lists.COLOURS, "topic": lists.TOPICS}, ("pages", "year")),
    ("trips", {"traveller": lists.NAMES, "origin": lists.CITIES, "destination": lists.CITIES}, ("days", "cost")),
    ("shops", {"owner": lists.NAMES, "product": lists.FOODS, "city": lists.CITIES}, ("rent", "visitors")),
)
AGGREGATES = {"SUM": ("total", "sum of the"), "AVG": ("average", "mean"), "MAX": ("largest", "highest"), "MIN": ("smallest", "lowest")}
# Conditions in words: equality, more, less. The last of each is held out.
EQUAL = (
    "where {column} is {value}", "with {column} {value}", "for {column} {value}", "whose {column} is {value}", "having {value} as {column}",
    "with {value} as [the |their |]{column}", "where {value} [was|stands as|counts as] the {column}", "that have {value} for {column}",
    "if {value} is [their|its] {column}", "when {value} is what the {column} says", "whose {column} [equals|was|reads] {value}",
    "where the {column} is {value}", "that have the {column} {value}", "in which {value} is given as {column}", "with {value} in [the |]{column}",
    "where {column} = {value}", "([{column}: {value}|{column} {value}])", "whenever the {column} is {value}", "[only |]for the {column} {value}",
    "where we find {value} as {column}", "under {column} {value}", "where the {column} [says|equals] {value}", "of {column} {value}",
    "where {value} is their {column}", "where {value} [is|was] [a|one] {column}",
    "where {value} is the {column}")
MORE = (
    "with {column} above {value}", "where {column} is more than {value}", "with more than {value} {column}", "whose {column} is above {value}",
    "where {column} [exceeds|tops|passes] {value}", "whose {column} is [larger|higher|greater|bigger] than {value}", "with {column} over {value}",
    "where the {column} is over {value}", "with [a |]{column} of more than {value}", "where {column} > {value}", "that have over {value} {column}",
    "with {column} greater than {value}", "if the {column} is above {value}", "where {value} is less than the {column}",
    "where the {column} [is|was] [higher|more] than {value}", "where {column} [was|lies|stays] above {value}",
    "where {column} is above {value}")
LESS = (
    "with {column} below {value}", "where {column} is less than {value}", "with less than {value} {column}", "whose {column} is below {value}",
    "where {column} [stays under|falls short of] {value}", "whose {column} is [smaller|lower|less] than {value}", "with {column} under {value}",
    "where the {column} is under {value}", "with [a |]{column} of less than {value}", "where {column} < {value}", "that have under {value} {column}",
    "with {column} smaller than {value}", "if the {column} is below {value}", "where {value} is more than the {column}",
    "where the {column} [is|was] [lower|less] than {value}", "where {column} [was|lies|stays] below {value}",
    "where {column} is below {value}")
SHOW = (
    "Show the {column} of {table} {condition}.", "List the {column} of {table} {condition}.", "Which {column} have {table} {condition}?",
    "Give the {column} of all {table} {condition}.", "Find the {column} of the {table} {condition}.", "What is the {column} of {table} {condition}?",
    "[Print|Select|Fetch] [the |]{column} from {table} {condition}.", "I need the {column} of [the |all |]{table} {condition}.",
    "[Tell|Give] me the {column} for {table} {condition}.", "Which {column} do [the |all ]{table} {condition} have?", "{column} of {table} {condition}?",
    "For {table} {condition}, [show|give|list] the {column}.", "What {column} [is in|belongs to] the {table} {condition}?",
    "Of the {table} {condition}, what is the {column}?", "Look up the {column} of every [one of the |]{table} {condition}.",
    "What {column} has each of the {table} {condition}?",
    "What {column} do {table} have {condition}?")
COUNT = (
    "How many {table} are there {condition}?", "Count the {table} {condition}.", "What is the number of {table} {condition}?",
    "How many {table} {condition}?", "[Show|Find|Print] the number of {table} {condition}.", "[Tell|Give] me how many {table} there are {condition}.",
    "[Count|Number] all {table} {condition}.", "I need the count of {table} {condition}.", "For {table} {condition}, how many are there?",
    "How large is the number of {table} {condition}?", "Of all {table}, how many are there {condition}?", "Give the count of [the |all |]{table} {condition}.",
    "Number of [all |the |]{table} {condition}?", "Give me the number of {table} {condition}.",
    "Give the number of all {table} {condition}.")
TOTAL = (
    "What is the {word} {column} of {table} {condition}?", "Show the {word} {column} of {table} {condition}.",
    "Find the {word} {column} for {table} {condition}.", "[Compute|Print|Tell me] the {word} {column} of [the |all |]{table} {condition}.",
    "I need the {word} {column} [of|over|among] [the |all |]{table} {condition}.", "For {table} {condition}, [give|show|what is] the {word} {column}[.|?]",
    "{word} {column} of {table} {condition}?", "Of all {table} {condition}, what is the {word} {column}?", "Which is the {word} {column} of {table} {condition}?",
    "How much is the {word} {column} of {table} {condition}?", "Give me the {word} {column} of {table} {condition}.",
    "Among the {table} {condition}, find the {word} {column}.",
    "Give the {word} {column} of all {table} {condition}.")
SORT = (
    "Show all {table} {condition} sorted by {column}.", "List the {table} {condition} by {column}.", "Sort the {table} {condition} by {column}.",
    "Give all {table} {condition} in the order of {column}.", "[List|Print|Fetch] all {table} {condition}, ordered by {column}.",
    "Show [me |]the {table} {condition} in [the |]order of [their |]{column}.", "Order [the |all |]{table} {condition} by [their |]{column}.",
    "I need all {table} {condition}, by {column}.", "Sorted by {column}, [show|list] the {table} {condition}.", "By {column}, list all {table} {condition}.",
    "All {table} {condition}, sorted by {column}?", "Find all {table} {condition} and sort them by {column}.",
    "Give the {table} {condition}; sort by {column}.",
    "Show the {table} {condition}, sorted by {column}.")


def own(split: str, templates: tuple[str, ...]) -> tuple[str, ...]:
    """The split's own templates: the last is held out."""
    return templates[:-1] if split == v.TRAIN else templates[-1:]


def any_table(rng: Random) -> Table:
    """A table of training, its names being any nouns."""
    sources = (lists.NAMES, lists.CITIES, lists.OBJECTS, lists.FOODS, lists.JOBS, lists.ANIMALS, lists.TOPICS)
    names: list[str] = []
    while len(names) < 7:
        word = rng.choice((rng.choice(PROPERTIES), rng.choice(v.ENGLISH), v.invented(rng, v.TRAIN, 1, 2).lower()))
        word = f"{word}_{rng.choice(PROPERTIES)}" if rng.random() < 0.15 else word
        if word not in names:
            names.append(word)
    texts = {column: rng.choice(sources) for column in names[1 : rng.randint(3, 4)]}
    return v.plural(names[0]), texts, tuple(names[4 : rng.randint(5, 7)])


def condition(rng: Random, split: str, texts: dict[str, list[str]], numbers: tuple[str, ...]) -> tuple[str, str]:
    """A condition in words and in SQL."""
    if rng.random() < 0.5:
        column = rng.choice(list(texts))
        value = v.draw(rng, split, texts[column]) if rng.random() < 0.5 else v.invented(rng, split)
        return fill(rng, rng.choice(own(split, EQUAL)), column=column, value=value), f"{column} = '{value}'"
    column, value, more = rng.choice(numbers), v.number(rng, split, 10, 9999), rng.random() < 0.5
    words = fill(rng, rng.choice(own(split, MORE if more else LESS)), column=column, value=value)
    return words, f"{column} {'>' if more else '<'} {value}"


def sql(rng: Random, split: str) -> Example:
    """A question on a table and its query."""
    table, texts, numbers = any_table(rng) if split == v.TRAIN and rng.random() < 0.6 else rng.choice(TABLES)
    columns = [*texts, *numbers]
    rng.shuffle(columns)
    words, where = condition(rng, split, texts, numbers)
    slots, kind = {"table": table, "condition": words}, rng.random()
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
    question = v.capital(v.ask_noisily(rng, split, rng.choice(own(split, templates)), **slots))
    return chat("sql", sql_prompt(table, columns, question), query, keys=(query,), free_text=(question,))
