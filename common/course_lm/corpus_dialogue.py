"""Chats of several turns that refer back, and small talk."""

from random import Random

from common.course_lm import corpus_values as v
from common.course_lm import corpus_words as lists
from common.course_lm.corpus_arithmetic import equation
from common.course_lm.corpus_extraction import Record
from common.course_lm.corpus_prose import story
from common.course_lm.corpus_terms import ask, terms
from common.course_lm.corpus_values import Example, fill
from common.course_lm.prompts import STORY_FORM, SYSTEM

# What a user says of himself: statements, replies, questions later on, the answer. Last statement and question of
# each are the held-out split's. {x} is the value.
REMEMBERED: dict[str, tuple[object, tuple[str, ...], tuple[str, ...], tuple[str, ...], str]] = {
    "name": (v.name, ("My name is {x}.", "[Hi|Hello], I'm {x}.", "I am called {x}.", "Call me {x}.",
    "{x} is my name.", "[Hello|Hi], this is {x}.",
                      "You may call me {x}.", "People know me as {x}.", "I go by the name of {x}.", "My parents chose {x} for me at birth.", "The name I have is {x}."),
             ("Nice to meet you, {x}.", "Hello, {x}.", "Welcome, {x}."),
             ("What is my name?", "What's my name?", "Do you remember my name?", "Who am I?",
              "What am I called?", "How am I called?",
              "[Tell|Give] me my name.", "My name[, please|]?", "What was the name I gave you?", "Which name did my parents choose?", "Can you tell me my name?"), "Your name is {x}."),
    "city": (v.city, ("I live in {x}.", "I [moved|have moved] to {x}.", "My home is in {x}.", "I'm from {x}.",
    "I have a flat in {x}.",
                      "The place I live in is {x}.", "I have lived in {x} for years.", "{x} is my home.", "You find me these days at {x}.", "{x} is the city I live in."),
             ("{x} is a good place to live.", "I see, {x}.", "I hope you like {x}."),
             ("Where do I live?", "In which city do I live?", "Which city is my home?", "Where is my home?",
              "Do you know where I live?",
              "[Tell|Remind] me where I live.", "Which [city|town|place] is it that I live in?", "My home is in which city?", "In what [city|town] is my home?", "At what place would you find me?", "What city do I live in?"), "You live in {x}."),
    "job": (v.words_of(lists.JOBS), ("I [work|earn my living] as a {x}.", "I am a {x}.", "My job is {x}.",
    "By profession I'm a {x}.",
                                 "They pay me for being a {x}.", "I have a job as a {x}."),
            ("That sounds interesting.", "A {x}, I see.", "{x} is a good job."),
            ("What is my job?", "What do I do for a living?", "What do I work as?", "Which job do I have?",
             "[Tell|Remind] me what my job is.", "What kind of job is it that I have?", "As what do I work?", "For what do they pay me?", "What is it that I work as?"),
            "You are a {x}."),
    "pet": (v.words_of(lists.ANIMALS), ("I have a {x}.", "My pet is a {x}.", "I keep a {x} at home.",
    "I got a {x} [last week|for my birthday].",
                                    "A {x} lives with me.", "I share my flat with a {x}.", "In my garden I keep a {x}.", "There is a {x} on my sofa, all mine.", "At home I have a {x}."),
            ("A {x} is good company.", "How nice, a {x}.", "I see."),
            ("What pet do I have?", "Which animal do I have?", "What is my pet?", "Which animal do I keep?",
             "What kind of pet is mine?", "Which animal is it that I keep at home?", "My pet is what?", "What was on my sofa?", "Which pet do I keep?"),
            "You have a {x}."),
    "colour": (v.words_of(lists.COLOURS), ("My favourite colour is {x}.", "I like {x} best.",
    "{x} is my favourite colour.", "I love the colour {x}.",
                                       "Of all paints I would pick {x}.", "The colour I like best is {x}."),
               ("I will remember {x}.", "A good choice.", "{x}, I see."),
               ("What is my favourite colour?", "Which colour do I like?", "What colour do I love?",
                "Which colour is my favourite?",
                "Which colour did I say I like?", "My favourite colour[, please|]?", "The colour I love is which?", "Which paint would I pick?", "What colour do I like best?"), "Your favourite colour is {x}."),
    "number": (lambda rng, split: v.number(rng, split, 100, 9999),
               ("My order number is {x}.", "The number of my order is {x}.", "I have order {x}.",
                "It's about order {x}.",
                "On the slip from your shop stands {x}.", "{x} is my order number."),
               ("Thank you, I noted order {x}.", "I see, order {x}.", "Thank you."),
               ("What is my order number?", "Which order do I have?", "What was the number of my order?",
                "Which number has my order?",
                "[Tell|Give] me my order number.", "Which number did I give you for my order?", "My order number[, please|]?", "What stands on the slip?", "Which number does my order have?"), "Your order number is {x}."),
    "day": (v.words_of(lists.WEEKDAYS), ("My exam is on {x}.", "I have an exam on {x}.", "On {x} I have my exam.",
    "The exam is on {x}.",
                                     "My professor expects me to be tested {x}.",
                                     "{x} is the day of my exam."),
            ("Good luck on {x}.", "I wish you luck.", "Then there is time to learn."),
            ("When is my exam?", "On which day is my exam?", "What day is my exam?", "Which day is the exam?",
             "[Tell|Remind] me when my exam is.", "Which day did I say my exam is?", "My exam is when?", "For when does my professor expect me?", "On what day do I have the exam?"),
             "Your exam is on {x}."),
    "budget": (lambda rng, split: v.number(rng, split, 100, 9999),
               ("My budget is {x} dollars.", "I can spend {x} dollars.", "I have {x} dollars.",
                "We have a budget of {x} dollars.",
                "Not a cent beyond {x} dollars may go.", "I can spend at most {x} dollars."),
               ("I will keep that in mind.", "That is a good budget.", "I see, {x} dollars."),
               ("What is my budget?", "How much can I spend?", "How much money do I have?",
                "How big is my budget?",
                "[Tell|Remind] me what I can spend.", "Which budget did I name?", "How much was my budget?", "How many dollars may go?", "How many dollars can I spend?"), "Your budget is {x} dollars."),
    "friend": (v.name, ("My [best friend|sister|brother] is called {x}.", "I have a friend called {x}.",
    "{x} is my best friend.",
                        "My friend's name is {x}.", "With {x} I share all my secrets.",
                        "My best friend has the name {x}."),
               ("Greet {x} from me.", "It is good to have {x}.", "I see."),
               ("What is my friend called?", "Who is my friend?", "What is the name of my friend?",
                "What's my friend's name?",
                "[Tell|Give] me the name of my friend.", "Which name did I give for my friend?", "Who was my friend again?", "With whom do I share secrets?", "What name does my friend have?"),
                "Your friend is called {x}."),
    "food": (v.words_of(lists.FOODS), ("My favourite food is {x}.", "I love {x}.", "I like to eat {x}.",
    "I could eat {x} every day.",
                                   "{x} is what I love.", "Most of all I like {x}.", "The food I love is {x}.", "Cook me {x} and I am happy.", "What I like to eat is {x}."),
             ("{x} is tasty.", "I see, {x}.", "Good taste."),
             ("What is my favourite food?", "What do I like to eat?", "Which food do I love?",
              "What could I eat every day?",
              "Which food did I say I love?", "[Tell|Remind] me what I like to eat.", "The food I like is which?", "What should one cook for me?", "Which food do I like to eat?"), "Your favourite food is {x}."),
}
REMEMBERED_ZH = {
    "name": (v.name_zh, ("我叫{x}。", "我的名字是{x}。", "你好，我是{x}。", "大家叫我{x}。", "爸妈给我起名{x}。", "我名叫{x}。", "叫我{x}就好。",
    "你可以把我叫作{x}。", "{x}是我的名字。", "你可以叫我{x}。"),
             ("你好，{x}。", "很高兴认识你，{x}。"), ("我叫什么名字？", "我的名字是什么？", "你记得我的名字吗？", "我是谁？", "爸妈给我起了什么名？", "我叫什么？",
              "你知道我叫什么吗？", "我姓什么叫什么？", "我的名字呢？", "说说我的名字。", "我的名字叫啥？", "请说出我的名字。", "我的名字叫什么？"),
             "你叫{x}。"),
    "city": (v.place_zh, ("我住在{x}。", "我家在{x}。", "我搬到了{x}。", "我来自{x}。", "这阵子可以在{x}找到我。", "我的家在{x}。",
    "现在我住在{x}。", "{x}是我住的地方。", "我现在住{x}。"), ("{x}是个好地方。", "好的，{x}。"),
             ("我住在哪里？", "我家在哪儿？", "我住在什么地方？", "这阵子可以在哪儿找到我？", "我住哪里？", "你知道我住在哪儿吗？", "我的家在哪里？", "我现在的家在哪？",
              "说说我住在哪里。", "我现在住什么地方？", "我现在住在哪里？"), "你住在{x}。"),
    "food": (v.words_of(lists.FOODS_ZH), ("我喜欢吃{x}。", "我最爱{x}。", "我每天都吃{x}。", "给我做{x}我就高兴。", "我爱吃{x}。",
    "我最喜欢的食物是{x}。", "{x}是我最爱吃的。", "我最爱吃的是{x}。"), ("{x}很好吃。", "好的。"),
             ("我喜欢吃什么？", "我最爱吃什么？", "给我做什么我会高兴？", "我爱吃什么？", "你知道我喜欢吃什么吗？", "我喜欢的食物是什么？", "我每天都吃什么？",
              "什么是我最爱吃的？", "我最喜欢的食物呢？", "我最喜欢吃什么？"), "你喜欢吃{x}。"),
}
SMALL_TALK = (
    ("[Hello|Hi]!", "Hello! How can I help you?"), ("How are you?",
     "I am fine, thank you. What can I do for you?"),
    ("[Thanks|Thank you][!|.]", "You are welcome."), ("Who are you?",
     "I am course-lm, a small language model that was made for this course."),
    ("[Good morning|Good evening][!|.]", "Good day! What can I do for you?"), ("What can you do?", "I can "
     "explain the course's terms, add and subtract, answer from passages, write JSON, call functions, "
     "complete Python and tell stories."),
    ("[Bye|Goodbye][!|.]", "Goodbye!"), ("That is [good|nice|interesting].", "I am glad to hear that."),
     ("[Ok|OK|I see].", "Good. What is next?"),
    ("I am [tired|a bit tired] today.", "Then take a short break."), ("It is [raining|cold|hot] today.",
     "Then it is a good day to learn something."),
    ("你好！", "你好！有什么可以帮你？"), ("谢谢。", "不客气。"), ("你是谁？", "我是 course-lm，为这门课训练的小语言模型。"), ("再见。", "再见！"),
    ("Can you help me?", "Yes. What do you need?"), ("Tell me something.",
     "A small model can still be useful."), ("I have a [question|few questions].", "Please ask."),
    ("Tell me a joke.", "A token walks into a cache and says: I have been here before."),
     ("What should I [learn|do] first?", "Read the first lesson, then run its demo."),
)


def last_or_rest(split: str, options: tuple[str, ...]) -> tuple[str, ...]:
    """The split's own templates: the last one is held out."""
    return options[:-1] if split == v.TRAIN else options[-1:]


def small_talk(rng: Random, split: str) -> list[dict]:
    """A turn in between: small talk, a sum or a term."""
    kind = rng.random()
    if kind < 0.5:
        user, answer = rng.choice(SMALL_TALK)
        return turn(fill(rng, user), answer)
    if kind < 0.8:
        a, b = v.pair(rng, split)
        return turn(f"What is {a} + {b}?", equation(a, b, "+"))
    term = rng.choice(terms())
    return turn(f"What is {term['en']}?", term["definition_en"])


def turn(user: str, answer: str) -> list[dict]:
    """A user's message and its answer."""
    return [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]


def remember(rng: Random, split: str) -> Example:
    """Facts that the user tells, turns in between, and questions for the facts."""
    chinese = rng.random() < 0.2
    table = REMEMBERED_ZH if chinese else REMEMBERED
    count = rng.randint(1, min(4, len(table)))
    chosen = rng.sample(list(table), count)
    values: Record = {}
    messages: list[dict] = []
    free: list[str] = []
    for key in chosen + (rng.sample(chosen, 1) if rng.random() < 0.2 else []):
        value_of, statements, replies, _, _ = table[key]
        again = key in values
        values[key] = value_of(rng, split)
        statement = v.ask_noisily(rng, split, rng.choice(last_or_rest(split, statements)), x=values[key])
        if again:
            prefix = "更正一下，" if chinese else "[Sorry, I was wrong.|Correction:|A change:|Actually, that was wrong.] "
            statement = fill(rng, prefix) + statement
        statement = statement[0].upper() + statement[1:]
        free.append(statement)
        reply = fill(rng, rng.choice(replies), x=values[key])
        messages += turn(statement, reply[0].upper() + reply[1:])
        for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
            messages += small_talk(rng, split)
    asked = rng.sample(chosen, rng.randint(1, count) if split == v.TRAIN else 1)
    for key in asked:
        question = v.ask_noisily(rng, split, rng.choice(last_or_rest(split, table[key][3])))
        answer = fill(rng, table[key][4], x=values[key])
        messages += turn(question, answer)
    free.append(question)
    if split == v.TRAIN and rng.random() < 0.3:
        messages.insert(0, {"role": "system", "content": SYSTEM})
    return Example("chat", tuple(messages), answer=answer, keys=(answer,), free_text=tuple(free))


CHAIN_FIRST = ("What is {a} + {b}?", "Add {a} and {b}.", "{a} + {b}", "Compute {a} + {b}.", "What do {a} and {b} give?", "Sum {a} with {b} for a start.", "How much is {a} plus {b}?", "{a} and {b} give how much?", "How much is {a} and {b}?")
CHAIN_ADD = ("[Now|And] add {c}.", "Plus {c}?", "And {c} more?", "Add {c} to [that|the result].", "Now put {c} on top of it.", "{c} more.", "Please add {c} more.", "Then add {c} to it, please.", "Now {c} more, please.")
CHAIN_SUBTRACT = ("[Now|And] subtract {c}.", "Minus {c}?", "Take away {c}.", "Subtract {c} from [that|the result].", "Now let {c} go from it.", "Then take {c} from it.", "Please take away {c} from the result.", "{c} less.", "Now take {c} from the result.")


def chained_sums(rng: Random, split: str) -> Example:
    """A sum, and then more on its result."""
    a, b = v.pair(rng, split, high=400)
    question = v.ask_noisily(rng, split, rng.choice(last_or_rest(split, CHAIN_FIRST)), a=a, b=b)
    messages, result, free = turn(question, equation(a, b, "+")), a + b, [question]
    for _ in range(rng.choice((1, 1, 2))):
        for _ in range(50):
            c = rng.randint(1, max(1, min(result, 400)))
            if v.split_of(min(result, c), max(result, c)) == split and result + c < 1000:
                break
        else:
            break
        sign = rng.choice("+-") if result > c else "+"
        question = v.ask_noisily(rng, split, rng.choice(last_or_rest(split, CHAIN_ADD if sign == "+" else CHAIN_SUBTRACT)), c=c)
        answer = equation(result, c, sign)
        free.append(question)
        messages += turn(question, answer)
        result = result + c if sign == "+" else result - c
    answer = messages[-1]["content"]
    return Example("chat", tuple(messages), answer=answer, keys=(answer,), free_text=tuple(free))


FOLLOW_UP = (("Are you sure?", "Yes. {definition}"), ("[Say|Tell me] that again.", "{definition}"), ("Repeat[, please|].", "{definition}"),
             ("I did not [get|understand] that.", "{definition}"), ("Once more for me?", "{definition}"))


def said_again(rng: Random, split: str, term: dict) -> list[dict]:
    """A term and the wish to hear it once more."""
    question, answer = rng.choice(FOLLOW_UP)
    definition = term["definition_en"]
    return turn(ask(rng, split, term, "en"), definition) + turn(fill(rng, question), answer.format(definition=definition))


def follow_up(rng: Random, split: str) -> Example:
    """A term, small talk, and the term again: "say that again", "what was the first term I asked about?"."""
    first, second = rng.sample(terms(), 2)
    language = rng.choice(("en", "en", "zh"))
    messages = turn(ask(rng, split, first, language), first[f"definition_{language}"])
    if rng.random() < 0.6 or language == "zh":
        messages += turn(ask(rng, split, second, language), second[f"definition_{language}"])
        which, term = rng.choice((("first", first), ("last", second)))
        if language == "zh":
            question, answer = f"我{'先' if which == 'first' else '刚刚'}问的是哪个术语？", f"你问的是{term['zh']}。"
        else:
            question = fill(rng, f"[What was the {which} term I asked about?|Which term did I ask about {which}?]")
            answer = f"You asked about {term['en']}."
        messages += turn(question, answer)
    else:
        messages = said_again(rng, split, first)
        answer = messages[-1]["content"]
    return Example("chat", tuple(messages), answer=answer, keys=(answer,), free_text=())


def conversation(rng: Random, split: str) -> Example:
    """A long chat with a shared history, 300 to 1,700 tokens: facts told early and asked for again and again.

    Between them are sums that go on from the last result, terms, stories and small talk. Held-out chats end with a question
    for one of the first facts.
    """
    length, told = rng.randint(300, 1_250), {}
    table = REMEMBERED_ZH if rng.random() < 0.12 else REMEMBERED
    messages: list[dict] = []
    free: list[str] = []
    while sum(len(message["content"]) // 3 + 6 for message in messages) < length:  # about its tokens
        kind = rng.random() if split == v.TRAIN else rng.choice((0.1, 0.5, 0.9, 0.9))
        if not told or (kind < 0.25 and len(told) < len(table)):
            key = rng.choice([key for key in table if key not in told])
            told[key] = table[key][0](rng, split)
            statement = rng.choice(last_or_rest(split, table[key][1]))
            statement = v.capital(v.ask_noisily(rng, split, statement, x=told[key]))
            free.append(statement)
            messages += turn(statement, v.capital(fill(rng, rng.choice(table[key][2]), x=told[key])))
        elif kind < 0.45 and split == v.TRAIN:
            messages += asked_back(rng, split, table, list(told), told)
        elif kind < 0.55:
            messages += list(chained_sums(rng, split).messages)
        elif kind < 0.65:
            messages += list(said_again(rng, split, rng.choice(terms())))
        elif kind < 0.7:
            text, topic = story(rng, split, 1)
            messages += turn(STORY_FORM.format(topic=topic), text)
        else:
            messages += small_talk(rng, split)
    messages += asked_back(rng, split, table, list(told) if split == v.TRAIN else list(told)[:3], told)
    free.append(messages[-2]["content"])
    if split == v.TRAIN and rng.random() < 0.3:
        messages.insert(0, {"role": "system", "content": SYSTEM})
    answer = messages[-1]["content"]
    return Example("long_chat", tuple(messages), answer=answer, keys=(answer,), free_text=tuple(free))


def asked_back(rng: Random, split: str, table: dict, keys: list[str], told: Record) -> list[dict]:
    """A question for one of the facts that were told, and its answer."""
    key = rng.choice(keys)
    question = v.ask_noisily(rng, split, rng.choice(last_or_rest(split, table[key][3])))
    return turn(question, fill(rng, table[key][4], x=told[key]))


def dialogue(rng: Random, split: str) -> Example:
    """A chat of one of the kinds above; held-out ones are those with values to remember."""
    kind = rng.random()
    if split == v.HELD_OUT:
        return remember(rng, split) if kind < 0.7 else chained_sums(rng, split)
    if kind < 0.5:
        return remember(rng, split)
    if kind < 0.65:
        return chained_sums(rng, split)
    if kind < 0.77:
        return follow_up(rng, split)
    if kind < 0.9:
        return conversation(rng, split)
    messages = [message for _ in range(rng.randint(1, 4)) for message in small_talk(rng, split)]
    return Example("chat", tuple(messages))
