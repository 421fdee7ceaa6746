"""Short connected stories in plain English, and a few in Chinese, from scenes that fit together."""

from random import Random

from common.course_lm import corpus_values as v
from common.course_lm.corpus_values import Example, chat, fill
from common.course_lm.prompts import LONG_STORY_FORM, STORY_FORM, SYSTEM_STORY

PLACES = """the old harbour|the edge of the forest|a small village|the foot of the mountain|a quiet street|the river
|the end of the valley|a town by the sea|the old mill|the castle gate|a bridge in the south|the great lake|the baker's shop|the market square|an island in the north|the station|a farm on the hill""".replace("\n", "").split("|")
WEATHER = """the sun was shining|it was raining softly|a cold wind blew from the sea|snow was falling|the fog lay over the fields|the sky was clear and blue
|dark clouds came over the hills|the wind sang in the trees|the moon stood over the roofs|the rain had just stopped|it was warm and still|the first leaves were falling|the air smelled of salt|a storm was on its way""".replace("\n", "").split("|")
MOODS = "curious careful cheerful patient quiet brave friendly stubborn clever shy gentle lonely".split()

# Each scene's sentences; the last two of each belong to the held-out split. {n} the hero, {f} the friend, {o} the
# thing, {p} the place, {a} the friend's animal, {w} the weather; {he} {his} {him} the hero's pronouns.
OPENINGS = (
    "[Once upon a time|Many years ago|A long time ago], a {m} {kind} called {n} lived [near|not far from] "
    "{p}.", "There was once a {m} {kind} called {n} who lived [near|close to] {p}.",
    "{n} was a {m} {kind}, and {his} home was [near|close to] {p}.",
    "Everybody [near|around] {p} knew {n}, a {m} {kind}.",
    "In a house near {p} lived {n}, a {m} {kind}.",
    "{n} the {kind} was {m}, and {he} had always lived near {p}.",
    "[Nobody|No one] near {p} was as {m} as {n} the {kind}.",
    "Not far from {p} stood a small house, and in it lived a {m} {kind} called {n}.")
OWNERSHIP = (
    "{n} had [an old|a small|a beautiful|a strange] {o} that {he} loved more than anything else.",
    "The best thing {n} had was [an old|a small|a beautiful] {o}.",
    "{his_cap} grandmother had left {him} [an old|a small|a strange] {o}.",
    "Every morning {n} looked at the {o} on {his} table and was happy.",
    "On a shelf in {his} room stood [an old|a small] {o}, a gift from {his} grandfather.",
    "{n} never went out without {his} {o}.",
    "What {n} loved most was [an old|a small] {o} from {his} father.",
    "Above everything {n} loved the {o} that {his} grandmother had left.")
DAYS = (
    "One [morning|day|evening], {w}, and {n} went for a walk.",
    "One [morning|day], when {w}, {n} woke up early.",
    "Then came a day that {n} would never forget. {w_cap}.",
    "On a [Monday|Friday|Sunday] in {month}, {w}.", "It was [early|late] in {month}, and {w}.",
    "One evening {n} sat at the window while {w}.",
    "It happened in {month}, when {w}.", "One day in {month}, while {w}, {n} went out early.")
PROBLEMS = (
    "Suddenly {he} saw that the {o} was gone.", "When {he} came home, the {o} was not in its place.",
    "Then {n} noticed that {his} {o} was broken.",
    "But the {o} had disappeared in the night.", "{he_cap} reached for the {o}, but it was not there.",
    "Someone had taken the {o} and left the door open.",
    "As {he} crossed the bridge, the {o} fell into the water.", "That day the {o} was nowhere to be found.",
    "{n} looked at the table, and the {o} was not there.", "In the night someone had taken {his} {o}.")
FEELINGS = (
    "{n} was sad and did not know what to do.",
    "At first {n} wanted to cry, but then {he} took a deep breath.",
    "\"This cannot be,\" said {n}, and {he} sat down.",
    "{n} looked under the bed, behind the door and in the garden, but found nothing.",
    "{he_cap} could not eat, and {he} could not sleep.", "\"Who would do such a thing?\" {n} asked.",
    "{n} sat down behind the door and was very sad.", "\"What shall I do now?\" asked {n}.")
MEETINGS = (
    "On the way {he} met {f}, who had a {a}.",
    "{f}, a neighbour with a {a}, heard about it and came to help.",
    "At {p2} {he} met {f} and told {him_f} everything.",
    "Then {f} knocked at the door. \"My {a} and I will help you,\" {he_f} said.",
    "{f} was just feeding the {a} when {n} came by.",
    "{he_cap} asked {f}, who knew everybody and everything.",
    "At the door stood {f} with a {a}, who wanted to help.", "Near {p2} stood {f}, and {n} told everything.")
SPEECHES = (
    "\"Do not worry,\" said {f}. \"We will find it together.\"",
    "\"I have seen something near {p2},\" said {f}.",
    "\"My {a} has a very good nose,\" {f} said. \"Let us try.\"",
    "\"Have you looked near {p2}?\" asked {f}.",
    "\"Tell me what happened,\" said {f}, \"from the beginning.\"",
    "\"Two can see more than one,\" said {f}.",
    "\"Let us look near {p2} together,\" said {f}.", "\"Tell my {a} what happened,\" said {f}.")
SEARCHES = (
    "So they walked to {p2}, and the {a} ran ahead of them.",
    "They looked all day, first near {p}, then near {p2}.",
    "The way was long, and {w2}, but they did not give up.",
    "They asked everybody they met, but nobody had seen the {o}.",
    "For hours they followed the small marks on the ground.",
    "Together they climbed over stones and walked through high grass.",
    "The {a} stopped, looked back and waited for them.", "All day they followed the {a} over the stones.",
    "First they walked to {p2}, then they asked everybody.")
FINDS = (
    "At last the {a} stopped in front of a tree. Under it lay the {o}.",
    "And there, between two stones, lay the {o}.", "In the window of a little shop they saw the {o}.",
    "A child was sitting on the ground and playing with the {o}. \"I found it,\" said the child.",
    "Then {f} laughed and pointed up: a bird had carried the {o} into its nest.",
    "Behind an old door they found the {o}, covered with dust.",
    "There it was, the {o}, as if nothing had happened.", "Behind a tree, covered with grass, lay the {o}.",
    "The {a} stopped at an old door, and there was the {o}.")
ENDINGS = (
    "{n} thanked {f}, and from that day on they were friends.",
    "They went home together, drank tea and talked until late at night.",
    "\"Thank you,\" said {n}. \"Without you I would never have found it.\"",
    "{n} put the {o} back in its place and slept well that night.",
    "Since then {n} has often visited {f} and the {a}.",
    "And when {n} looks at the {o} today, {he} thinks of {f}.",
    "{he_cap} gave the {a} a big piece of {food}, for it had earned it.",
    "That night {n} and {f} were friends and drank tea.",
    "Since that day {n} often thinks of {f} and the {a}.")
MORALS = (
    "A friend is worth more than any {o}.", "So {n} learned that it is good to ask for help.",
    "Sometimes you must lose a thing to find a friend.", "And they all lived happily near {p}.",
    "That is the end of the story.", "{n} never told anyone how afraid {he} had been.",
    "So {n} found a friend worth more than a {o}.", "It is good to have a friend who will help.")
LINKS = (
    "But that was not the end.", "A few [days|weeks|months] later something new happened.",
    "The next [morning|day|spring] everything was different.", "[Soon|Before long] there was more to tell.",
    "[Winter|Spring|Summer|Autumn] came and went.", "After that, life near {p} was quiet for a while.",
    "The story did not stop there.", "[Some days|Weeks] later there was something new near {p}.")
INTERLUDES = (
    "They sat down and ate {food}.", "Far away a dog was barking.", "The {a} slept in the grass.",
    "{n} sang a song that {his} mother had taught {him}.", "Nobody said a word for a long time.",
    "The light was getting weak, and the shadows grew long.",
    "{f} told a story about {his_f} childhood near {p2}.",
    "A cart with {food} rolled by, and the driver waved.",
    "\"Are you tired?\" asked {f}. \"Not at all,\" said {n}.",
    "Over {p2} the moon came up.", "It smelled of {food} and of wet grass.",
    "{f} said nothing and looked at the {a}.", "They ate {food} near {p2} and sang a song.")
STORY_WORDS = (
    "[Tell|Write] [me |]a [short |]story about {topic}.", "I want [to hear |]a story about {topic}.",
    "A story about {topic}[.|, please.]", "Write a few [lines|sentences] about {topic}.",
    "[Can|Could] you tell [me |]a story about {topic}?", "Make up a [short |]story about {topic}.",
    "Tell my child a story about {topic}.")
LONG_WORDS = (
    "[Tell|Write] [me |]a [long|very long] story about {topic}.",
    "Write a long tale about {topic}. Do not stop early.", "I want a [long|very long] story about {topic}.",
    "Write several [pages|paragraphs] about {topic}.", "Write a story of [500|800|1000] words about {topic}.",
    "Tell a story about {topic} that never ends.")

PLACES_ZH = "海边的小镇|山脚下的村子|河边的老街|森林旁边|城里的小巷|北方的小岛".split("|")
STORY_ZH = (
    ("从前，在{p}住着一位{j}，名叫{n}。", "很久以前，{p}有一位叫{n}的{j}。", "{n}是一位{j}，家在{p}。"),
    ("{n}有一件心爱的东西：一把{c}的伞。", "{n}最喜欢的是一把{c}的伞，那是奶奶留下的。", "每天早上，{n}都带着一把{c}的伞出门。"),
    ("有一天，伞不见了。", "一天晚上下着雨，{n}发现伞不见了。", "可是有一天，{n}把伞忘在了车站。"),
    ("{n}很着急，到处去找。", "{n}找遍了屋里屋外，什么也没找到。", "{n}心里很难过，不知道该怎么办。"),
    ("邻居{f}听说了，就来帮忙。", "路上{n}遇到了{f}，{f}说：“我们一起找吧。”", "{f}说：“别急，我陪你去找。”"),
    ("他们走了很远的路，问了很多人。", "两个人从早上找到晚上。", "他们先去了市场，又去了河边。"),
    ("最后，他们在一棵大树下找到了伞。", "原来，伞就在一家小店的窗边。", "一个孩子笑着把伞还给了他们。"),
    ("从那以后，{n}和{f}成了好朋友。", "{n}请{f}回家吃{food}，两个人聊到很晚。", "{n}明白了，朋友比什么都珍贵。"))
ASK_STORY_ZH = ("讲一个关于{n}的故事。", "写一个关于{j}的短故事。", "请讲个故事。", "写一个故事，主角是{n}。")


def scene(rng: Random, split: str, sentences: tuple[str, ...], slots: dict) -> str:
    """One sentence of a scene."""
    return fill(rng, rng.choice(sentences[:-2] if split == v.TRAIN else sentences[-2:]), **slots)


def phrases(split: str, options: list[str]) -> list[str]:
    """The split's own phrases: the last three are held out."""
    return options[:-3] if split == v.TRAIN else options[-3:]


def characters(rng: Random, split: str) -> dict:
    """The slots of a story: hero, friend, thing and places."""
    she, she_f = rng.random() < 0.5, rng.random() < 0.5
    place, other = rng.sample(phrases(split, PLACES), 2)
    pronouns = ("she", "her", "her") if she else ("he", "his", "him")
    friend_pronouns = ("she", "her", "her") if she_f else ("he", "his", "him")
    weather, more_weather = rng.sample(phrases(split, WEATHER), 2)
    return {
        "n": v.name(rng, split), "f": v.name(rng, split), "o": v.known(rng, split, v.OBJECTS), "a":
        v.known(rng, split, v.ANIMALS),
        "kind": v.known(rng, split, v.JOBS), "m": rng.choice(MOODS), "p": place, "p2": other, "w": weather,
        "w2": more_weather,
        "w_cap": weather[0].upper() + weather[1:], "month": rng.choice(v.MONTHS), "food": v.known(rng, split,
        v.FOODS),
        "he": pronouns[0], "his": pronouns[1], "him": pronouns[2], "he_cap": pronouns[0].capitalize(),
        "his_cap": pronouns[1].capitalize(), "he_f": friend_pronouns[0], "his_f": friend_pronouns[1], "him_f":
        friend_pronouns[2]}


def stories_with_unseen_values(count: int) -> list[str]:
    """Stories of the training scenes with held-out names and things: a second text to measure perplexity on."""
    rng = Random("stories with unseen values")
    return ["\n\n".join(episode(rng, v.TRAIN, characters(rng, v.HELD_OUT), first=True)) for _ in range(count)]


def episode(rng: Random, split: str, slots: dict, first: bool) -> list[str]:
    """One loss, search and find, in paragraphs."""
    def pick(sentences: tuple[str, ...]) -> str:
        return scene(rng, split, sentences, slots)

    opening = [pick(OPENINGS)] if first else [pick(LINKS)]
    paragraphs = [" ".join([*opening, pick(OWNERSHIP) if first else pick(DAYS), pick(DAYS) if first else pick(INTERLUDES), pick(PROBLEMS), pick(FEELINGS)]),
                  " " .join([pick(MEETINGS), pick(SPEECHES), pick(SEARCHES)] + [pick(INTERLUDES)] *
                  (rng.random() < 0.5)),
                  " ".join([pick(FINDS), pick(ENDINGS)])]
    return [text[0].upper() + text[1:] for text in paragraphs]


def story(rng: Random, split: str, episodes: int) -> tuple[str, str]:
    """A story of some episodes, and what it is about. The thing lost and the friend change with each."""
    slots = characters(rng, split)
    topic = fill(rng, "[a {m} {kind}|{n} and {f}|a lost {o}|a {kind} and a {a}|{n} the {kind}]", **slots)
    paragraphs: list[str] = []
    for index in range(episodes):
        if index:
            fresh = characters(rng, split)
            slots |= {key: fresh[key] for key in ("o", "f", "a", "p2", "w", "w2", "w_cap", "month", "food", "he_f", "his_f", "him_f")}
            while slots["p2"] == slots["p"]:
                slots["p2"] = rng.choice(phrases(split, PLACES))
        paragraphs += episode(rng, split, slots, first=index == 0)
    paragraphs[-1] += " " + scene(rng, split, MORALS, slots)
    return "\n\n".join(paragraphs), topic


def strewn(rng: Random, text: str) -> str:
    """A text with every tenth word replaced by any other, so that the model learns to go on after a surprise."""
    return " ".join(rng.choice(v.ENGLISH) if rng.random() < 0.1 else word for word in text.split(" "))


def story_zh(rng: Random, split: str) -> Example:
    """A short Chinese story."""
    slots = {"n": v.name_zh(rng, split), "f": v.name_zh(rng, split), "p": rng.choice(PLACES_ZH), "j": rng.choice(v.JOBS_ZH),
             "c": rng.choice(v.COLOURS_ZH), "food": rng.choice(v.FOODS_ZH)}
    text = "".join(fill(rng, rng.choice(sentences), **slots) for sentences in STORY_ZH)
    return chat("prose", fill(rng, rng.choice(ASK_STORY_ZH), **slots), text)


def prose(rng: Random, split: str) -> Example:
    """A story: raw text, or asked for, short or long."""
    if split == v.TRAIN and rng.random() < 0.1:
        return story_zh(rng, split)
    episodes = rng.choice((1, 1, 1, 1, 2, 3, 5, 7, 9)) if split == v.TRAIN else 1
    text, topic = story(rng, split, episodes)
    kind = rng.random()
    if split == v.HELD_OUT:
        return Example("prose", prompt="", answer=text + "<|endoftext|>", keys=(text,), free_text=(text,))
    if kind < 0.3:
        if rng.random() < 0.5:
            text = strewn(rng, text)
        return Example("prose", prompt="", answer=text + "<|endoftext|>")
    forms, form = (STORY_WORDS, STORY_FORM) if episodes < 3 else (LONG_WORDS, LONG_STORY_FORM)
    if kind < 0.5:
        question = form.format(topic=topic)
    else:
        question = fill(rng, rng.choice(forms), topic=topic)
    return chat("prose", question, text, fill(rng, f"[||{SYSTEM_STORY}]"))
