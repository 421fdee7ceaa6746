"""What fills the corpus' templates: names, places, things and numbers, each in one split only.

A value belongs to the held-out split when its checksum says so, which keeps the two splits apart for every name,
number pair or word that is drawn, however many there are.
"""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from random import Random

from common.course_lm.corpus_words import (
    AFTER,
    AFTER_ZH,
    ANIMALS,
    BEFORE,
    BEFORE_ZH,
    CITIES,
    CITIES_ZH,
    COLOURS,
    COMMON,
    DROPPED,
    FILLERS,
    FOODS,
    JOBS,
    LETTER_PATTERNS,
    NAMES,
    OBJECTS,
    PRODUCTS,
    SURNAMES_ZH,
    SYLLABLES,
    TOPICS,
)

TRAIN, HELD_OUT = "train", "held_out"
# The lists whose words are held out one by one.
OPEN_LISTS = (NAMES, CITIES, ANIMALS, OBJECTS, FOODS, JOBS, PRODUCTS, TOPICS)
UNCHANGED = frozenset("deer fish sheep moose salmon bison squid trout shrimp scissors".split())
IRREGULAR = {"mouse": "mice", "goose": "geese", "ox": "oxen", "potato": "potatoes", "tomato": "tomatoes", "mango": "mangoes"}
CODE_PATTERNS = ("AA-0000", "A0000", "A-000000", "0A0-00A", "AAA0000000", "00-AA-00", "AA00000", "0000-A")
CODE_LETTERS = "ABCDEFGHKLMNPRSTUVWXYZ"


@lru_cache(maxsize=1)
def hanzi() -> list[str]:
    """The 3,755 common characters of GB 2312's first level."""
    codes = (bytes((high, low)) for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF))
    return [char for code in codes if (char := code.decode("gb2312", "ignore"))]


@dataclass(frozen=True)
class Example:
    """One document. `messages` end with the assistant's answer; raw text has a prompt and an answer instead."""

    skill: str
    messages: tuple[dict, ...] = ()
    tools: tuple[dict, ...] = ()
    prompt: str = ""
    answer: str = ""
    # Held-out examples: what must be in the answer (any of these), and the prompt's words outside the fixed forms.
    keys: tuple[str, ...] = ()
    free_text: tuple[str, ...] = field(default=())


def split_of(*values: object) -> str:
    """The split that a value, or a pair of values, belongs to: one in eight is held out."""
    return HELD_OUT if zlib.crc32(repr(values).encode()) % 8 == 0 else TRAIN


# Words of any kind, from which training splices new ones.
ENGLISH = tuple(
    word
    for word in sorted({*COMMON, *COLOURS, *(entry.lower() for entries in OPEN_LISTS for entry in entries)})
    if len(word) > 2 and word.isalpha() and split_of(word) == split_of(word.capitalize()) == TRAIN
)


@cache
def pieces() -> tuple[str, ...]:
    """Words of training, and those of the corpus's own sentences: what new words are spliced from.

    A token that only ever stands in sentences, as the "lif" of "life", would not be copied when a value begins with it.
    """
    folder = Path(__file__).parent
    sources = [folder / "terms.json", *sorted(folder.glob("corpus_*.py"))]
    written = {word for source in sources for word in re.findall(r"[a-z]{3,}", source.read_text().lower())}
    held_out = {word for entries in OPEN_LISTS for entry in entries if split_of(entry) == HELD_OUT for word in entry.lower().split()}
    return tuple(sorted({*ENGLISH, *written} - held_out))


def chat(skill: str, user: str, answer: str, system: str = "", **rest: object) -> Example:
    """A one-turn example."""
    turns = [{"role": "system", "content": system}] if system else []
    turns += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return Example(skill, tuple(turns), answer=answer, **rest)


@cache
def _parts(template: str) -> tuple:
    """Split a template into literal text, {slots} and [one|of|these] choices."""
    parts = []
    for piece in re.split(r"(\[[^\]]*\]|\{\w+\})", template):
        if piece.startswith("["):
            parts.append(("choice", tuple(_parts(option) for option in piece[1:-1].split("|"))))
        elif piece.startswith("{"):
            parts.append(("slot", piece[1:-1]))
        elif piece:
            parts.append(("text", piece))
    return tuple(parts)


# What takes "an" rather than "a": a vowel that sounds like one, and the numbers 8, 11, 18, 80 ...
VOWEL = re.compile(r"[aeio]|u(?!ni|s)|8|1[18](?!\d)", re.IGNORECASE)
ARTICLE = re.compile(r"(?:^|\W)[aA] $")


def fill(rng: Random, template: str, **slots: object) -> str:
    """Expand a template: `{slot}` takes a value, `[a|b]` one of its options (which may hold slots).

    The article before a value or an option follows its first letter: "a {job}" gives "an engineer".
    """
    return _fill(rng, _parts(template), slots)


def _fill(rng: Random, parts: tuple, slots: dict) -> str:
    out: list[str] = []
    for kind, value in parts:
        if kind == "text":
            out.append(value)
            continue
        piece = str(slots[value]) if kind == "slot" else _fill(rng, value[int(rng.random() * len(value))], slots)
        if out and out[-1][-1:] == " " and VOWEL.match(piece) and ARTICLE.search("".join(out[-2:])[-3:]):
            out[-2:] = ["".join(out[-2:])[:-1] + "n "]
        out.append(piece)
    return "".join(out)


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def noisy(rng: Random, template: str) -> str:
    """A training template as hasty people write: words dropped or put in, something before or after, other case.

    Questions in unseen wording are understood only by a model that does not cling to whole templates.
    """
    if rng.random() < 0.5:
        return template
    template = re.sub(r"\[([^\]]*)\]", lambda choice: rng.choice(choice[1].split("|")), template)
    chinese = any("\u4e00" <= char <= "\u9fff" for char in template)
    if chinese:
        letters = re.findall(r"\{\w+\}|.", template)
        letters = [letter for letter in letters if letter[0] == "{" or rng.random() > 0.05]
        template = "".join(letters)
    else:
        words = []
        for word in template.split(" "):
            if word not in DROPPED or rng.random() > 0.12:
                words.append(word)
            if rng.random() < 0.05:
                words.append(rng.choice(FILLERS))
        template = " ".join(words)
    kind = rng.random()
    if kind < 0.25:
        template = rng.choice(BEFORE_ZH if chinese else BEFORE) + template
    elif kind < 0.4:
        template = template + rng.choice(AFTER_ZH if chinese else AFTER)
    elif kind < 0.5:
        template = template.rstrip("?.。？")
    elif kind < 0.6:
        template = template[:1].lower() + template[1:]
    return template


def ask_noisily(rng: Random, split: str, template: str, **slots: object) -> str:
    """Fill a template, noisily in training."""
    return fill(rng, noisy(rng, template) if split == TRAIN else template, **slots)


def say(rng: Random, split: str, train: tuple[str, ...], held_out: tuple[str, ...], **slots: object) -> str:
    """Fill one of the split's own templates."""
    return ask_noisily(rng, split, rng.choice(train if split == TRAIN else held_out), **slots)


def draw(rng: Random, split: str, words: list[str]) -> str:
    """A word of the list that belongs to the split; short closed lists, such as weekdays, are shared.

    Half of training's words are invented or put together from two, so that the model copies what it reads and not
    what it knows.
    """
    if split == TRAIN and len(words) >= 24:
        capital, kind = words[0][0].isupper(), rng.random()
        if kind < 0.4:
            return invented(rng, split) if capital else invented(rng, split).lower()
        if kind < 0.52 and not capital:
            return compound(rng, words)
    return known(rng, split, words)


def known(rng: Random, split: str, words: list[str]) -> str:
    """A word of the list that belongs to the split, never an invented one."""
    while True:
        word = rng.choice(words)
        if len(words) < 24 or split_of(word) == split:
            return word


def compound(rng: Random, words: list[str]) -> str:
    """Two words of training as one thing: "marble kettle", "sun-lantern"."""
    while True:
        first = rng.choice(ENGLISH) if rng.random() < 0.6 else invented(rng, TRAIN, 1, 2).lower()
        second = known(rng, TRAIN, words) if rng.random() < 0.6 else invented(rng, TRAIN, 1, 2).lower()
        word = first + rng.choice("   -") + second
        if split_of(word) == TRAIN:
            return word


def plural(word: str) -> str:
    """The regular English plural of a noun, and of the irregular ones of our lists."""
    head, _, last = word.rpartition(" ")
    if last in UNCHANGED:
        many = last
    elif last in IRREGULAR:
        many = IRREGULAR[last]
    elif last.endswith(("knife", "fe")):
        many = last[:-2] + "ves"
    elif last.endswith(("elf", "arf", "olf", "alf", "eaf", "oaf")):
        many = last[:-1] + "ves"
    elif last.endswith(("s", "x", "z", "ch", "sh")):
        many = last + "es"
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        many = last[:-1] + "ies"
    else:
        many = last + "s"
    return f"{head} {many}" if head else many


def invented(rng: Random, split: str, low: int = 2, high: int = 3) -> str:
    """An invented capitalised word: of syllables, such as "Norvelin", or in training often of any letters."""
    while True:
        kind = 0.0 if split == HELD_OUT else rng.random()
        if kind < 0.35:
            word = "".join(rng.choices(SYLLABLES, k=rng.randint(low, high)))
        elif kind < 0.8:
            word = spliced(rng)
        else:
            word = "".join(rng.choice(group) for group in rng.choice(LETTER_PATTERNS))
        # Training uses the word with a small letter too: neither form may be a held-out one.
        # Two letters would be a word of every sentence: "go", "do", "to".
        if len(word) > 2 and split_of(word.capitalize()) == split and (split == HELD_OUT or split_of(word) == split):
            return word.capitalize()


def spliced(rng: Random) -> str:
    """The head of one English word and the tail of another, or a whole word: "sparket", "kitchow", "night"."""
    if rng.random() < 0.3:
        return rng.choice(ENGLISH)
    head, tail = rng.choice(pieces()), rng.choice(pieces())
    return head[: rng.randint(1, len(head) - 1)] + tail[rng.randint(1, len(tail) - 1) :]


def code(rng: Random, split: str) -> str:
    """A serial number of letters and digits: "KX-40817", "7F3-92A"."""
    while True:
        signs = (rng.choice({"A": CODE_LETTERS, "0": "0123456789"}.get(sign, sign)) for sign in rng.choice(CODE_PATTERNS))
        word = "".join(signs)
        if split_of(word) == split:
            return word


def name(rng: Random, split: str) -> str:
    """A first name, real or invented."""
    return known(rng, split, NAMES) if rng.random() < 0.4 else invented(rng, split)


def city(rng: Random, split: str) -> str:
    """A city, real or invented; in training also one of two words, such as "New Norvelin"."""
    place = known(rng, split, CITIES) if rng.random() < 0.4 else invented(rng, split)
    if split == TRAIN and rng.random() < 0.08:
        return fill(rng, rng.choice(("[New|Port|North|East|Old] {x}", "{x} [Falls|Bay|Hills|Bridge]")), x=place)
    return place


def company(rng: Random, split: str) -> str:
    """A company such as "Torvan Systems"."""
    return invented(rng, split) + rng.choice(
        ("", " Systems", " Works", " Tools", " Group", " Labs", " Motors", " Foods", " Textiles", " Energy")
    )


def name_zh(rng: Random, split: str) -> str:
    """A Chinese name of two or three characters."""
    while True:
        word = rng.choice(SURNAMES_ZH) + "".join(rng.choices(hanzi(), k=rng.choice((1, 2, 2))))
        if split_of(word) == split:
            return word


def place_zh(rng: Random, split: str) -> str:
    """A Chinese town, invented or, in training, real."""
    if split == TRAIN and rng.random() < 0.4:
        return rng.choice(CITIES_ZH)
    while True:
        word = "".join(rng.choices(hanzi(), k=2)) + rng.choice("市县镇村")
        if split_of(word) == split:
            return word


def number(rng: Random, split: str, low: int, high: int) -> int:
    """A number of the split."""
    while True:
        value = rng.randint(low, high)
        if split_of(value) == split:
            return value


def pair(rng: Random, split: str, low: int = 1, high: int = 999) -> tuple[int, int]:
    """Two numbers whose pair belongs to the split, in either order; short numbers are as frequent as long ones."""
    while True:
        a, b = (rng.randint(low, min(high, 10 ** rng.choice((2, 3)) - 1)) for _ in range(2))
        if split_of(min(a, b), max(a, b)) == split:
            return a, b


def words_of(words: list[str]) -> Callable[[Random, str], str]:
    """A function that draws from a list."""
    return lambda rng, split: draw(rng, split, words)
