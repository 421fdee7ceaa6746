"""Short connected stories in plain English, and a few in Chinese, from scenes that fit together.

What a story is asked to be about is its hero, its thing, its people or its moral: the words of the topic stand in the text.
"""

from random import Random

from common.course_lm import corpus_scenes as scenes
from common.course_lm import corpus_values as v
from common.course_lm import corpus_words as lists
from common.course_lm.corpus_values import Example, chat, fill
from common.course_lm.prompts import LONG_STORY_FORM, STORY_FORM, SYSTEM_STORY

# What a story can be about: topics, and whether its first plot must be the loss of a thing.
TOPICS = (
    "a {kind}",
    "a {m} {kind}",
    "{n} and {f}",
    "{n} the {kind}",
    "a {kind} and a {a}",
    "a {a}",
    "a {kind} called {n}",
    "a {kind} and a {o}",
    "a {o}",
    "[an old|a small] {o}",
    "a {o} and a {a}",
    "a {kind} and [{his}|a] friend {f}",
    "a {kind} near {p}",
    "{n}",
    "a {m} {kind} and a {o}",
    "a {kind} with a {o}",
    "the {kind} and the {a}",
    "the {kind} and the {o}",
)
LOSS_TOPICS = (
    "a lost {o}",
    "a {kind} who lost a {o}",
    "[a missing|a stolen|the lost] {o}",
    "a {kind} who looks for a {o}",
)
THEME_TOPICS = ("{theme}", "{theme} and a {o}", "a {kind} and {theme}", "the {theme} of a {kind}")
STORY_WORDS = (
    "[Tell|Write] [me |]a [short |]story about {topic}.",
    "I want [to hear |]a story about {topic}.",
    "A story about {topic}[.|, please.]",
    "Write a few [lines|sentences] about {topic}.",
    "[Can|Could] you tell [me |]a story about {topic}?",
    "Make up a [short |]story about {topic}.",
    "Tell my child a story about {topic}.",
    "[Tell|Write] [me |]a [little|nice|good] [story|tale] about {topic}[.|, please.]",
    "Please [tell|write] [me |]a story. It is about {topic}.",
    "A [short |]tale of {topic}[.|, please.]",
    "story about {topic}",
)
STORY_WORDS_HELD_OUT = ("Please tell us a story about {topic}.", "I would like to read a story about {topic}.")
LONG_WORDS = (
    "[Tell|Write] [me |]a [long|very long] story about {topic}.",
    "Write a long tale about {topic}. Do not stop early.",
    "I want a [long|very long] story about {topic}.",
    "Write several [pages|paragraphs] about {topic}.",
    "Write a story of [500|800|1000] words about {topic}.",
    "Tell a story about {topic} that never ends.",
)

PLACES_ZH = "海边的小镇|山脚下的村子|河边的老街|森林旁边|城里的小巷|北方的小岛".split("|")
# Things with their measure words.
THINGS_ZH = (
    ("把", "伞"),
    ("盏", "灯"),
    ("座", "钟"),
    ("本", "书"),
    ("顶", "帽子"),
    ("辆", "自行车"),
    ("把", "吉他"),
    ("只", "箱子"),
)
STORY_ZH = (
    ("从前，在{p}住着一位{j}，名叫{n}。", "很久以前，{p}有一位叫{n}的{j}。", "{n}是一位{j}，家在{p}。"),
    (
        "{n}有一件心爱的东西：一{q}{c}的{o}。",
        "{n}最喜欢的是一{q}{c}的{o}，那是奶奶留下的。",
        "每天早上，{n}都带着一{q}{c}的{o}出门。",
    ),
    ("有一天，{o}不见了。", "一天晚上下着雨，{n}发现{o}不见了。", "可是有一天，{n}把{o}忘在了车站。"),
    ("{n}很着急，到处去找。", "{n}找遍了屋里屋外，什么也没找到。", "{n}心里很难过，不知道该怎么办。"),
    ("邻居{f}听说了，就来帮忙。", "路上{n}遇到了{f}，{f}说：“我们一起找吧。”", "{f}说：“别急，我陪你去找。”"),
    ("他们走了很远的路，问了很多人。", "两个人从早上找到晚上。", "他们先去了市场，又去了河边。"),
    ("最后，他们在一棵大树下找到了{o}。", "原来，{o}就在一家小店的窗边。", "一个孩子笑着把{o}还给了他们。"),
    ("从那以后，{n}和{f}成了好朋友。", "{n}请{f}回家吃{food}，两个人聊到很晚。", "{n}明白了，朋友比什么都珍贵。"),
)
ASK_STORY_ZH = (
    "讲一个关于{n}的故事。",
    "写一个关于{j}的短故事。",
    "请讲个故事。",
    "写一个故事，主角是{n}。",
    "讲一个关于{o}的故事。",
    "写一个关于{j}和{o}的短故事。",
    "请讲一个{j}丢了{o}的故事。",
)


def scene(rng: Random, split: str, sentences: tuple[str, ...], slots: dict) -> str:
    """One sentence of a scene."""
    return fill(rng, rng.choice(sentences[:-2] if split == v.TRAIN else sentences[-2:]), **slots)


def phrases(split: str, options: list[str]) -> list[str]:
    """The split's own phrases: the last three are held out."""
    return options[:-3] if split == v.TRAIN else options[-3:]


def person(rng: Random, split: str, suffix: str = "") -> dict:
    """A real name and its pronouns."""
    woman = rng.random() < 0.5
    he, his, him = ("she", "her", "her") if woman else ("he", "his", "him")
    return {
        f"he{suffix}": he,
        f"his{suffix}": his,
        f"him{suffix}": him,
        f"he{suffix}_cap": he.capitalize(),
        f"his{suffix}_cap": his.capitalize(),
        "f" if suffix else "n": v.known(rng, split, lists.WOMEN if woman else lists.MEN),
    }


def noun(rng: Random, split: str, words: list[str]) -> str:
    """A thing or an animal; in training one in four is made up, so that a story can be about what the model never met."""
    return v.draw(rng, split, words) if rng.random() < 0.5 else v.known(rng, split, words)


def characters(rng: Random, split: str) -> dict:
    """The slots of a story: hero, friend, thing and places. Four heroes in ten are animals."""
    place, other = rng.sample(phrases(split, scenes.PLACES), 2)
    weather, more_weather = rng.sample(phrases(split, scenes.WEATHER), 2)
    kind = noun(rng, split, lists.ANIMALS if rng.random() < 0.4 else lists.JOBS)
    slots = (
        {
            "o": noun(rng, split, lists.OBJECTS),
            "a": v.known(rng, split, lists.ANIMALS),
            "kind": kind,
            "m": rng.choice(scenes.MOODS),
            "p": place,
            "p2": other,
            "w": weather,
            "w2": more_weather,
            "w_cap": v.capital(weather),
            "month": rng.choice(lists.MONTHS),
            "food": v.known(rng, split, lists.FOODS),
            "theme": rng.choice(scenes.THEMES),
        }
        | person(rng, split)
        | person(rng, split, "_f")
    )
    return slots if slots["n"] != slots["f"] and slots["kind"] != slots["a"] else characters(rng, split)


def stories_with_unseen_values(count: int) -> list[str]:
    """Stories of the training scenes with held-out names and things: a second text to measure perplexity on."""
    rng = Random("stories with unseen values")
    return [
        "\n\n".join(episode(rng, v.TRAIN, characters(rng, v.HELD_OUT), scenes.PLOTS[0], first=True))
        for _ in range(count)
    ]


def episode(rng: Random, split: str, slots: dict, plot: tuple, first: bool) -> list[str]:
    """One plot in paragraphs."""
    head = [scenes.OPENINGS] if first else [scenes.LINKS, scenes.GIFTS]
    skipped = () if first else (scenes.OWNERSHIP, scenes.WISHES)
    paragraphs = []
    for number, paragraph in enumerate(plot):
        chosen = [*(head if number == 0 else ()), *(sentences for sentences in paragraph if sentences not in skipped)]
        if number == 1 and rng.random() < 0.5:
            chosen.append(scenes.INTERLUDES)
        paragraphs.append(" ".join(v.capital(scene(rng, split, sentences, slots)) for sentences in chosen))
    return paragraphs


def story(rng: Random, split: str, episodes: int) -> tuple[str, str]:
    """A story of some episodes, and what it is about. The thing, the friend and the plot change with each."""
    kind = rng.random()
    topics = LOSS_TOPICS if kind < 0.25 else THEME_TOPICS if kind < 0.35 else TOPICS
    slots = characters(rng, split)
    topic = fill(rng, rng.choice(topics), **slots)
    plot, paragraphs = scenes.PLOTS[0] if topics is LOSS_TOPICS else rng.choice(scenes.PLOTS), []
    for index in range(episodes):
        if index:
            fresh = characters(rng, split)
            slots |= {
                key: fresh[key]
                for key in fresh
                if key not in ("n", "kind", "m", "p", "theme", "he", "his", "him", "he_cap", "his_cap")
            }
            while slots["p2"] == slots["p"] or slots["f"] == slots["n"]:
                slots |= {"p2": rng.choice(phrases(split, scenes.PLACES))} | person(rng, split, "_f")
            plot = rng.choice((scenes.PLOTS[0], scenes.PLOTS[2]))
        paragraphs += episode(rng, split, slots, plot, first=index == 0)
    paragraphs[-1] += " " + scene(rng, split, scenes.THEME_MORALS if topics is THEME_TOPICS else scenes.MORALS, slots)
    return "\n\n".join(paragraphs), topic


def strewn(rng: Random, text: str) -> str:
    """A text with every tenth word replaced by any other: a prompt, so that the model learns to go on after a surprise."""
    return " ".join(rng.choice(v.ENGLISH) if rng.random() < 0.1 else word for word in text.split(" "))


def story_zh(rng: Random) -> Example:
    """A short Chinese story; only training has these."""
    measure, thing = rng.choice(THINGS_ZH)
    slots = {
        "n": v.name_zh(rng, v.TRAIN),
        "f": v.name_zh(rng, v.TRAIN),
        "p": rng.choice(PLACES_ZH),
        "j": rng.choice(lists.JOBS_ZH),
        "q": measure,
        "o": thing,
        "c": rng.choice(lists.COLOURS_ZH),
        "food": rng.choice(lists.FOODS_ZH),
    }
    text = "".join(fill(rng, rng.choice(sentences), **slots) for sentences in STORY_ZH)
    return chat("prose", fill(rng, rng.choice(ASK_STORY_ZH), **slots), text)


def prose(rng: Random, split: str) -> Example:
    """A story: raw text, or asked for, short or long."""
    if split == v.TRAIN and rng.random() < 0.1:
        return story_zh(rng)
    episodes = rng.choice((1, 1, 1, 1, 1, 1, 2, 3, 5, 7)) if split == v.TRAIN else 1
    text, topic = story(rng, split, episodes)
    kind = rng.random()
    if split == v.HELD_OUT:
        return Example("prose", prompt="", answer=text + "<|endoftext|>", keys=(text,), free_text=(text,))
    if kind < 0.1:
        return Example("prose", prompt=strewn(rng, text), answer="<|endoftext|>")
    if kind < 0.2:
        return Example("prose", prompt="", answer=text + "<|endoftext|>")
    forms, form = (STORY_WORDS, STORY_FORM) if episodes < 3 else (LONG_WORDS, LONG_STORY_FORM)
    question = form.format(topic=topic) if kind < 0.4 else fill(rng, rng.choice(forms), topic=topic)
    return chat("prose", question, text, fill(rng, f"[||{SYSTEM_STORY}]"))


def story_request(rng: Random, split: str) -> Example:
    """A story that is asked for; `keys` are the words of its topic, which must be in it."""
    slots, template = characters(rng, split), rng.choice((*TOPICS, *LOSS_TOPICS))
    topic, form = fill(rng, template, **slots), rng.choice((STORY_FORM, *STORY_WORDS_HELD_OUT))
    question = form.format(topic=topic)
    text = "\n\n".join(episode(rng, split, slots, scenes.PLOTS[0], first=True))
    keys = tuple(slots[key] for key in ("kind", "o", "a", "n", "f") if "{" + key + "}" in template)
    return chat("story", question, text, keys=keys, free_text=(topic if form is STORY_FORM else question,))
