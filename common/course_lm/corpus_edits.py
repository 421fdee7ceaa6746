"""Changes to a short Python function, answered as one edit in JSON: which text to replace by which.

An editor can apply such an edit as it is, and a JSON schema can force its form.
"""

import json
from random import Random

from common.course_lm import corpus_values as v
from common.course_lm.corpus_code import AGGREGATES, ARGUMENT_NAMES, CONDITIONS, LIST_CALLS, OTHERS, TRANSFORMS
from common.course_lm.corpus_values import Example, chat, fill
from common.course_lm.prompts import SYSTEM_CODE, edit_prompt, function_head
from common.course_lm.scoring import values

# What is wanted, in words; the last of each is held out.
RENAME = (
    "[Rename|Call] [it|the function] {new}.",
    "Its name should be {new}.",
    "The new name is {new}.",
    "Give it the name {new}.",
    "[I want|We need] the name {new} for it.",
    "Let it be called {new}.",
    "Change the name to {new}.",
    "{old} becomes {new}.",
    "Please rename {old} to {new}.",
)
NUMBER = (
    "Use {new} instead of {old}.",
    "[Change|Turn] {old} [to|into] {new}.",
    "Replace [the number |]{old} [by|with] {new}.",
    "It should be {new}, not {old}.",
    "[Take|Put] {new} where {old} is.",
    "[Make|Let] the {old} [be |]a {new}.",
    "Not {old} but {new}, please.",
    "The number is {new} now.",
    "Please put {new} in the place of {old}.",
)
CONDITION = (
    "[Use|Take] {what} instead.",
    "Do it for {what}.",
    "It should [use|take] {what}.",
    "[Only|Just] {what}, please.",
    "[Change|Turn] it to {what}.",
    "I want it for {what}.",
    "[Make|Let] it work on {what}.",
    "Not these numbers but {what}.",
    "Please let it take {what}.",
)
AGGREGATE = (
    "Return {what} instead.",
    "It should return {what}.",
    "[Give|Hand] back {what}.",
    "[Change|Turn] the result to {what}.",
    "I want {what} of them.",
    "Compute {what} [instead|now].",
    "Not that but {what}, please.",
    "[Make|Let] it compute {what}.",
    "Please let it return {what}.",
)
RESULTS = {"sum": "the sum", "list": "the list", "max": "the largest", "min": "the smallest", "count": "the number"}


def expression(aggregate: tuple, condition: tuple, transform: tuple, argument: str) -> str:
    """The line of a list function."""
    each = f"{transform[2]} for n in {argument}" + (f" if {condition[2]}" if condition[2] else "")
    return "return " + aggregate[2].format(each=each)


def own(rng: Random, split: str, templates: tuple[str, ...]) -> str:
    """One of the split's own templates: the last is held out."""
    return rng.choice(templates[:-1]) if split == v.TRAIN else templates[-1]


def list_change(rng: Random, split: str) -> tuple[str, str, str, str, str, tuple[str, ...]]:
    """Name, argument, old line, new line, the change in words, and test calls, of a function on a list."""
    aggregate, condition, transform = rng.choice(AGGREGATES), rng.choice(CONDITIONS), TRANSFORMS[0]
    argument, k = rng.choice(ARGUMENT_NAMES), rng.randint(2, 9)
    other = (aggregate, condition, transform)
    while other == (aggregate, condition, transform):
        if rng.random() < 0.5:
            other = (aggregate, rng.choice(CONDITIONS[1:]), transform)
            wording = other[1][1][-1] if split == v.HELD_OUT else rng.choice(other[1][1][:-1])
            change = fill(rng, own(rng, split, CONDITION), what=wording.format(k=k))
        else:
            other = (rng.choice(AGGREGATES), condition, transform)
            change = fill(rng, own(rng, split, AGGREGATE), what=RESULTS[other[0][0]])
    name = "_".join(part for part in ("get", aggregate[0], condition[0]) if part)
    old, new = (expression(*parts, argument).format(k=k) for parts in ((aggregate, condition, transform), other))
    return name, argument, old, new, change, LIST_CALLS


def edit(rng: Random, split: str) -> Example:
    """A function to change; `keys` are the test calls, then the changed source."""
    kind = rng.random()
    if kind < 0.5:
        name, arguments, old, new, change, calls = list_change(rng, split)
        docstring, body = "Work on the list.", old
    else:
        with_number = [function for function in OTHERS if len(function.constants) > 1]
        function = rng.choice(with_number if kind < 0.75 else OTHERS)
        k, other = rng.sample(function.constants, 2) if len(function.constants) > 1 else (0, 0)
        name, arguments, calls = rng.choice(function.names).format(k=k), ", ".join(function.arguments), function.calls
        docstring, body = function.docstrings[0].format(k=k), function.body.format(k=k)
        if kind < 0.75:
            lines = zip(body.split("\n"), function.body.format(k=other).split("\n"), strict=True)
            old, new = next((a.strip(), b.strip()) for a, b in lines if a != b)
            change = fill(rng, own(rng, split, NUMBER), old=k, new=other)
        else:
            fresh = v.invented(rng, split, 1, 2).lower() + rng.choice(
                ("_numbers", "_items", "_text", "_value", "_list")
            )
            old, new = f"def {name}(", f"def {fresh}("
            change = fill(rng, own(rng, split, RENAME), old=name, new=fresh)
    source = function_head(name, arguments.split(", "), docstring) + "\n    " + body
    changed = source.replace(old, new)
    called = changed[len("def ") : changed.index("(")]
    keys = (*(f"{called}({call})" for call in calls), changed)
    if split == v.HELD_OUT and values(source, keys[:-1]) == values(changed, keys[:-1]):
        return edit(rng, split)  # the test calls cannot tell the change from none
    answer = json.dumps({"old": old, "new": new})
    system = fill(rng, f"[||{SYSTEM_CODE}]") if split == v.TRAIN else ""
    return chat("edit", edit_prompt(source, change), answer, system, keys=keys, free_text=(change,))
