"""Facts of any kind on anything: what no model can know by heart, so that it learns to read and copy."""

from random import Random

from common.course_lm import corpus_values as v
from common.course_lm import corpus_words as lists
from common.course_lm.corpus_facts import Attribute, Kind

PROPERTIES = """motto colour code leader symbol size limit default value name weight height length speed price version format
author address title label key level score rate total cost period range mode state type unit limit target source owner
language currency capital anthem dish flower bird emblem secret password hobby nickname birthday uncle aunt boss rival
timeout policy backend scheduler kernel batch window queue block bandwidth memory throughput latency""".split()


def value(rng: Random, split: str) -> object:
    """A value of any sort: a number, a word, two words, and in training codes, dates, decimals and addresses too."""
    kind = rng.random()
    if split == v.TRAIN and kind < 0.45:
        return written_value(rng)
    kind = rng.random()
    if kind < 0.4:
        return v.number(rng, split, 10, 9999)
    if kind < 0.8:
        return v.invented(rng, split) if rng.random() < 0.5 else v.invented(rng, split).lower()
    return f"{v.invented(rng, split).lower()} {v.invented(rng, split).lower()}"


def written_value(rng: Random) -> object:
    """A value of training that is no plain word: what must be copied sign by sign."""
    kind = rng.randrange(9)
    if kind < 2:
        return v.number(rng, v.TRAIN, 10 ** rng.randint(1, 7), 10**8)
    if kind == 2:
        return (rng.randint(1, 9_999) * 10 + rng.randint(1, 9)) / rng.choice((10, 100))
    if kind == 3:
        return v.code(rng, v.TRAIN)
    if kind == 4:
        year, month, day = rng.randint(1990, 2035), rng.randint(1, 12), rng.randint(1, 28)
        return rng.choice(
            (
                f"{year}-{month:02}-{day:02}",
                f"{day} {lists.MONTHS[month - 1]} {year}",
                f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}",
            )
        )
    if kind == 5:
        name, host = v.name(rng, v.TRAIN).lower(), v.invented(rng, v.TRAIN, 2, 2).lower()
        return f"{name}@{host}" + rng.choice((".com", ".org", ".net"))
    if kind == 6:
        return f"{v.name(rng, v.TRAIN)} {v.invented(rng, v.TRAIN)}"
    return v.draw(rng, v.TRAIN, rng.choice((lists.OBJECTS, lists.FOODS, lists.JOBS, lists.TOPICS, lists.ANIMALS)))


def short_value(rng: Random) -> str:
    """A word or two of training, for a list."""
    return v.draw(rng, v.TRAIN, rng.choice((lists.OBJECTS, lists.FOODS, lists.NAMES, lists.CITIES, lists.ANIMALS)))


def enumeration(rng: Random, parts: list[str]) -> str:
    """Parts as one writes them in a row: "a, b and c"."""
    return ", ".join(parts[:-1]) + rng.choice((" and ", " and ", ", ")) + parts[-1] if len(parts) > 1 else parts[0]


def thing(rng: Random, split: str) -> str:
    """The name of anything."""
    word = v.invented(rng, split)
    return rng.choice(
        (
            word,
            f"the {word.lower()} {rng.choice(PROPERTIES)}",
            f"{word.lower()}-{rng.randint(1, 99)}",
            f"the {word} project",
        )
    )


def properties(count: int) -> Kind:
    """A kind whose attributes are any nouns: it teaches to match the question's words with a passage's."""
    rng = Random(f"properties {count}")
    sentences = (
        "The {p} of {e} is {x}.",
        "{e} has the {p} {x}.",
        "{x} is the {p} of {e}.",
        "For {e}, the {p} is {x}.",
        "{e} has {x} as its {p}.",
        "The {p} that {e} has is {x}.",
        "One sets the {p} of {e} to {x}.",
        "As the {p} of {e} one takes {x}.",
        "The {p} of {e} was set to {x}.",
        "In {e} the {p} is {x}.",
        "On {e}, the {p} [reads|shows|says] {x}.",
        "With {e} comes the {p} {x}.",
        "{e}: {p} {x}.",
        "[Under|Beside|Near] {e} you find {x} as the {p}.",
        "{x} is what {e} has for a {p}.",
        "{e} goes by the {p} {x}.",
        "From {e} we know the {p}, {x}.",
        "{e} keeps {x} as its {p}.",
        "By {p}, {e} is {x}.",
        "{e}, whose {p} is {x}, is [new|old|known].",
        "To {e} belongs the {p} {x}.",
        "When it comes to {e}, {x} is the {p}.",
        "At {e} the {p} is {x}.",
    )
    questions = (
        "What is the {p} of {e}?",
        "Which {p} does {e} have?",
        "Tell me the {p} of {e}.",
        "What {p} has {e}?",
        "The {p} of {e} is what?",
        "For {e}, what is the {p}?",
        "Give the {p} of {e}.",
        "Name the {p} that {e} has.",
        "What was the {p} of {e} set to?",
        "{e} has which {p}?",
        "What does {e} have as its {p}?",
        "Say which {p} belongs to {e}.",
        "Do you know the {p} of {e}?",
        "What {p} belongs to {e}?",
        "About {e}: what is its {p}?",
        "I am looking for the {p} of {e}.",
        "Which is the {p} that belongs to {e}?",
        "What is the {p} that {e} has?",
    )
    chosen = rng.sample(PROPERTIES, 4)
    return Kind(
        thing,
        {
            p: Attribute(
                value, tuple(t.replace("{p}", p) for t in sentences), tuple(t.replace("{p}", p) for t in questions)
            )
            for p in chosen
        },
    )


ANYTHING = tuple(properties(count) for count in range(24))
