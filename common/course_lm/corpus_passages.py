"""Questions on passages in the prompt: the span, the span with its citation, "not in the passages", summaries."""

from random import Random

from common.course_lm import corpus_facts as facts
from common.course_lm import corpus_values as v
from common.course_lm.corpus_anything import ANYTHING, PROPERTIES
from common.course_lm.corpus_terms import ASK_ZH, terms
from common.course_lm.corpus_values import Example, chat, fill
from common.course_lm.prompts import NOT_IN_PASSAGES, NOT_IN_PASSAGES_ZH, SUMMARY_FORM, SYSTEM, rag_prompt

# Other ways in which people put passages and a question together; training sees them beside the fixed forms.
FREE_FORMS = (
    "Passages:\n{passages}\n\n{question}", "{question}\n\n{passages}",
    "Context:\n{passages}\n\nQuestion: {question}\nAnswer:",
    "Use the [context|passages|documents] below to answer.\n\n{passages}\n\n{question}",
    "{passages}\n\nBased on the [text|passages] above: {question}",
    "Read this.\n{passages}\n\nNow answer: {question}",
    "Context: {passages}\n\nQ: {question}\nA:",
    "Answer [only |]from the context.\n\nContext:\n{passages}\n\nQuestion: {question}",
)
FREE_FORMS_ZH = ("资料：\n{passages}\n\n{question}", "{passages}\n\n请根据上文回答：{question}", "请阅读资料后回答。\n{passages}\n{question}")
CONCEPT_NOUNS = "cache queue buffer table index filter pool ring log router switch counter guard window ledger".split()
CONCEPT_VERBS = "stores drops sorts copies merges checks splits counts delays forwards locks compares groups hides".split()
CONCEPT_OBJECTS = "requests blocks tokens messages pages records weights packets keys answers prompts errors".split()
CONCEPT_TAILS = ("before they arrive", "when memory is short", "once a second", "in the order of their size", "for each user",
                 "until the batch is full", "after every step", "so that nobody waits", "without a lock",
                 "at start-up")
LINK_WORDS = """the a of for with from when while as soon after before in on by and or so that which is are whenever
until without its every each one two to it they not more less than""".split()
# In training also these, with any words in them.
CONCEPT_TAILS_MADE = ("while the {a} {b}", "whenever a {a} {b}", "as soon as {a} {b}", "until the {a} {b}", "because {a} {b}", "if a {a} {b}",
                      "before the {a} {b}", "when {a} {b}", "since the {a} {b}", "so that {a} {b}", "where the {a} {b} {c}")
CONCEPT_TAILS_HELD_OUT = ("while the disk sleeps", "as soon as night falls", "whenever a timer fires")
ASK_CONCEPT = ("What is {e}?", "What does {e} do?", "Explain {e}.", "What is meant by {e}?", "How is {e} defined?",
               "Describe {e}.", "Tell me about {e}.", "What purpose has {e}?", "Say what {e} is for.",
               "What do you know about {e}?", "Define {e}.", "I want to understand {e}.")
# How a sentence on a notion can be built; training has them all, held-out examples the plain one alone.
CONCEPT_SENTENCE = "A {e} {verb} {object} {tail}."
CONCEPT_SENTENCES = (
    CONCEPT_SENTENCE, "[The|Each|Every|Any] {e} {verb} {object} {tail}.", "[A|The] {e} is [a|the] {noun} that {verb} {object} {tail}.",
    "In {place}, [a|the] {e} {verb} {object} {tail}.", "By [a|the] {e} one means [a|the] {noun} that {verb} {object}, {tail}.",
    "What {verb} {object} {tail} is called [a|the] {e}.", "[Where|When] {object} arrive {tail}, the {e} {verb} them.",
    "[Without|With] [a|the] {e}, nothing {verb} {object} {tail}.", "The {noun} {verb} {object} {tail}, and so does the {e}.",
    "It is the {e} that {verb} {object} {tail}.", "**{e}** {verb} {object} {tail}.", "`{e}`: a {noun} that {verb} {object} {tail}.",
    "- {e}: {verb} {object} {tail}", "{object} {tail}: that is what the {e} {verb}.")
WITH_SIBLINGS = (facts.EVENT, facts.MACHINE)
ASK_CONCEPT_HELD_OUT = ("Do you know what {e} is?", "Explain what {e} does.")


def passage_question(rng: Random, split: str) -> Example:
    """A question on numbered passages, one of which holds the answer (or none does)."""
    chinese, cite = rng.random() < 0.25, rng.random() < 0.45
    if split == v.TRAIN and rng.random() < 0.05:
        return passage_chat(rng, cite, chinese)
    if rng.random() < 0.15:
        return concept_question(rng, split, cite)
    kinds = facts.KINDS_ZH if chinese else facts.KINDS_EN
    kind = rng.choice(kinds if chinese or rng.random() < 0.75 else ANYTHING)
    long = split == v.TRAIN and rng.random() < 0.06
    count = rng.randint(10, 30) if long else rng.choice((1, 2, 3, 3, 4, 4, 5, 6))
    asked = rng.choice(list(kind.attributes))
    attribute = kind.attributes[asked]
    target, target_value = kind.entity(rng, split), attribute.value(rng, split)
    missing = rng.random() < (0.12 if split == v.HELD_OUT else 0.08)
    place = rng.randrange(count)
    passages, used = [], {target}
    for index in range(count):
        other_kind = kind if rng.random() < 0.7 else rng.choice(kinds)
        entity = target if index == place else other_kind.entity(rng, split)
        if index != place and split == v.TRAIN and other_kind is kind and kind in WITH_SIBLINGS and rng.random() < 0.4:
            entity = facts.sibling(rng, target)  # only the whole name tells them apart
        if entity in used and index != place:
            entity = other_kind.entity(rng, split)
            if entity in used:
                continue
        used.add(entity)
        current = kind if index == place else other_kind
        keys = rng.sample(list(current.attributes), min(len(current.attributes), rng.choice((1, 1, 2, 3))))
        if index == place:
            keys = [key for key in keys if key != asked] + ([] if missing else [asked])
            if not keys:
                keys = [key for key in current.attributes if key != asked][:1]
            rng.shuffle(keys)
        sentences = []
        for key in keys:
            value = target_value if (index == place and key == asked) else current.attributes[key].value(rng, split)
            sentences.append(facts.state(rng, split, current.attributes[key], entity, value))
        text = ("" if chinese else " ").join(sentences)
        if split == v.TRAIN and rng.random() < 0.12:
            text = paragraph(rng, text, rng.randint(1, 3), chinese)
        passages.append(text)
        if index == place:
            place_number = len(passages)
    question = facts.ask(rng, split, attribute, target)
    answer = (NOT_IN_PASSAGES_ZH if chinese else NOT_IN_PASSAGES) if missing else str(target_value)
    if cite and not missing:
        answer = f"{answer} [{place_number}]"
    return ask_passages(rng, split, question, passages, answer, cite, chinese)


def passage_chat(rng: Random, cite: bool, chinese: bool) -> Example:
    """Several questions in turn on the same passages, which stand in the first message; only training has these."""
    kinds = facts.KINDS_ZH if chinese else (*facts.KINDS_EN, *ANYTHING)
    passages, known = [], []
    for number in range(1, rng.randint(2, 7)):
        kind = rng.choice(kinds)
        entity = kind.entity(rng, v.TRAIN)
        told = rng.sample(list(kind.attributes), rng.randint(max(1, len(kind.attributes) - 2), len(kind.attributes)))
        sentences = []
        for key, attribute in kind.attributes.items():
            value = attribute.value(rng, v.TRAIN) if key in told else None
            known.append((attribute, entity, value, number))
            if value is not None:
                sentences.append(facts.state(rng, v.TRAIN, attribute, entity, value))
        rng.shuffle(sentences)
        passages.append(("" if chinese else " ").join(sentences))
    messages: list[dict] = []
    for attribute, entity, value, number in rng.sample(known, min(len(known), rng.randint(2, 5))):
        question = facts.ask(rng, v.TRAIN, attribute, entity)
        missing = NOT_IN_PASSAGES_ZH if chinese else NOT_IN_PASSAGES
        answer = missing if value is None else f"{value} [{number}]" if cite else str(value)
        content = question if messages else rag_prompt(question, passages, cite, chinese)
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return Example("citation" if cite else "passages", tuple(messages))


def tail(rng: Random, split: str) -> str:
    """How a sentence on an invented notion ends: in training often any words at all."""
    if split == v.HELD_OUT:
        return rng.choice(CONCEPT_TAILS_HELD_OUT)
    kind = rng.random()
    if kind < 0.25:
        return rng.choice(CONCEPT_TAILS)
    if kind < 0.6:
        a, b, c = (v.invented(rng, split).lower() if rng.random() < 0.3 else rng.choice(v.ENGLISH) for _ in range(3))
        return fill(rng, rng.choice(CONCEPT_TAILS_MADE), a=a, b=b if rng.random() < 0.3 else v.plural(b), c=c)
    words = [rng.choice((v.invented(rng, split).lower(), rng.choice(v.ENGLISH), rng.choice(v.ENGLISH), rng.choice(PROPERTIES), rng.choice(LINK_WORDS),
                         rng.choice(LINK_WORDS))) for _ in range(rng.randint(2, 9))]
    return " ".join(words)


def concept(rng: Random, split: str) -> str:
    """The name of an invented notion."""
    first = v.invented(rng, split, 1, 2).lower()
    if split == v.TRAIN and rng.random() < 0.3:
        word = rng.choice(v.ENGLISH)
        first = rng.choice((f"{first}-{word}", word, f"{word} {first}"))
    nouns = CONCEPT_NOUNS if split == v.HELD_OUT or rng.random() < 0.7 else PROPERTIES
    return f"{first} {rng.choice(nouns)}"


def concept_sentence(rng: Random, split: str, entity: str) -> str:
    """What an invented notion does."""
    form = CONCEPT_SENTENCE if split == v.HELD_OUT or rng.random() < 0.3 else rng.choice(CONCEPT_SENTENCES)
    verb, thing, noun = (rng.choice(words) for words in (CONCEPT_VERBS, CONCEPT_OBJECTS, CONCEPT_NOUNS))
    text = fill(rng, form, e=entity, verb=verb, object=thing, noun=noun, tail=tail(rng, split), place=v.city(rng, split))
    return v.capital(text)


def concept_question(rng: Random, split: str, cite: bool) -> Example:
    """What an invented notion, or a term of the course, is: the answer is the passage's sentence."""
    count, real = rng.choice((1, 2, 3, 4, 5)), split == v.TRAIN and rng.random() < 0.4
    chinese = real and rng.random() < 0.4
    if real:
        language, chosen = "zh" if chinese else "en", rng.sample(terms(), count)
        names, sentences = [term[language] for term in chosen], [term[f"definition_{language}"] for term in chosen]
    else:
        names = list(dict.fromkeys(concept(rng, split) for _ in range(count)))
        if split == v.TRAIN and rng.random() < 0.25:  # one first word for all
            names = [f"{names[0].rpartition(' ')[0]} {noun}" for noun in rng.sample(CONCEPT_NOUNS, count)]
        sentences = [concept_sentence(rng, split, name) for name in names]
    index, passages = rng.randrange(len(names)), sentences
    if split == v.TRAIN and rng.random() < 0.5:
        most = rng.choice((1, 2, 3, 6))
        if real:
            form = "[{s}|{n}: {s}|**{n}**: {s}|- {n}: {s}]"
            passages = [fill(rng, form, n=n, s=s) for n, s in zip(names, sentences, strict=True)]
        passages = [paragraph(rng, text, rng.randint(0, most), chinese) for text in passages]
    if chinese:
        question = v.fill(rng, v.noisy(rng, rng.choice(ASK_ZH)), term=names[index])
    else:
        entity = names[index] if real else fill(rng, "[a|the] {n}", n=names[index])
        question = v.say(rng, split, ASK_CONCEPT, ASK_CONCEPT_HELD_OUT, e=entity)
    answer = f"{sentences[index]} [{index + 1}]" if cite else sentences[index]
    return ask_passages(rng, split, question, passages, answer, cite, chinese)


def paragraph(rng: Random, sentence: str, others: int, chinese: bool) -> str:
    """A passage of training with a sentence among others on something else, perhaps under a heading."""
    if chinese:
        kinds = rng.choices(facts.KINDS_ZH, k=others)
        around = [facts.state(rng, v.TRAIN, attribute, kind.entity(rng, v.TRAIN), attribute.value(rng, v.TRAIN))
                  for kind in kinds for attribute in [rng.choice(list(kind.attributes.values()))]]
    else:
        around = [filler(rng, v.TRAIN) if rng.random() < 0.5 else concept_sentence(rng, v.TRAIN, concept(rng, v.TRAIN))
                  for _ in range(others)]
    around.insert(rng.randint(0, others), sentence)
    text = ("" if chinese else rng.choice((" ", " ", " ", "\n"))).join(around)
    return f"## {v.capital(concept(rng, v.TRAIN))}\n\n{text}" if not chinese and rng.random() < 0.15 else text


def filler(rng: Random, split: str) -> str:
    """A sentence on something else."""
    kind = rng.choice(facts.KINDS_EN)
    attribute = rng.choice(list(kind.attributes.values()))
    return facts.state(rng, split, attribute, kind.entity(rng, split), attribute.value(rng, split))


def ask_passages(rng: Random, split: str, question: str, passages: list[str], answer: str, cite: bool,
                 chinese: bool) -> Example:
    """Put passages and question in a form: the fixed one, or in training sometimes a free one."""
    skill = "citation" if cite else "passages"
    prompt = rag_prompt(question, passages, cite, chinese)
    if split == v.TRAIN and not cite and rng.random() < 0.3:
        numbered = rng.random() < 0.4
        text = "\n".join(f"[{i}] {p}" if numbered else p for i, p in enumerate(passages, 1))
        prompt = fill(rng, rng.choice(FREE_FORMS_ZH if chinese else FREE_FORMS), passages=text, question=question)
    system = fill(rng, f"[|||{SYSTEM}]") if split == v.TRAIN else ""
    return chat(skill, prompt, answer, system, keys=(answer,), free_text=(*passages, question))


SUMMARIES = {
    "company": (facts.COMPANY, ("city", "product", "founder"),
    "{e} from {city} makes {product} and was founded by {founder}."),
    "person": (facts.PERSON, ("job", "city", "animal"), "{e} is a {job} from {city} with a {animal}."),
    "town": (facts.TOWN, ("river", "mayor", "population"),
    "{e} on the {river} has {population} inhabitants and is led by {mayor}."),
    "machine": (facts.MACHINE, ("city", "port", "owner"), "{e} in {city} uses port {port} and belongs to {owner}."),
    "event": (facts.EVENT, ("day", "room", "speaker"), "{e} with {speaker} is on {day} in room {room}."),
}
ASK_SUMMARY = (
    "[Summarise|Summarize|Sum up] [this|the text|the following]: {text}",
    "{text}\n\n[Summarise|Sum up] this in one sentence.",
    "Give a one-sentence summary.\n\n{text}", "Text: {text}\nSummary:", "What is this text about? {text}",
    "TL;DR: {text}")


def summary(rng: Random, split: str) -> Example:
    """Three facts, with other sentences between them, to one sentence."""
    kind, keys, form = rng.choice(list(SUMMARIES.values()))
    entity = kind.entity(rng, split)
    values = {key: kind.attributes[key].value(rng, split) for key in keys}
    order = list(keys) + [key for key in kind.attributes if key not in keys and rng.random() < 0.4]
    rng.shuffle(order)
    sentences = [facts.state(rng, split, kind.attributes[key], entity,
                             values.get(key) or kind.attributes[key].value(rng, split)) for key in order]
    text = " ".join(sentences)
    answer = v.capital(fill(rng, form, e=entity, **values))
    prompt = SUMMARY_FORM.format(text=text)
    if split == v.TRAIN and rng.random() < 0.5:
        prompt = v.ask_noisily(rng, split, rng.choice(ASK_SUMMARY), text=text)
    return chat("summary", prompt, answer, keys=(answer,), free_text=tuple(sentences))
